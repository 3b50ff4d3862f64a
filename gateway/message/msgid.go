package message

import "strings"

const (
	maxMessageID  = 998    // the longest id that is read: it must fit a line
	maxMessageIDs = 10_000 // of a value; what follows is not read
)

// MessageIDs returns the ids of a Message-ID, In-Reply-To or References value
// (RFC 5322 §3.6.4), folded or not, in order, without angle brackets. Whatever
// else stands there is passed over. White space inside an id, which broken
// folding leaves behind, is taken out if that is certain: one gap, one @. A
// value without any bracket counts if it is a single token with an @.
func MessageIDs(value string) []string {
	if !strings.ContainsAny(value, "<>") {
		return bareID(value)
	}
	var ids []string
	for len(ids) < maxMessageIDs {
		open := strings.IndexByte(value, '<')
		if open < 0 {
			return ids
		}
		value = value[open+1:]
		end := strings.IndexAny(value, "<>")
		if end < 0 {
			return ids
		}
		if value[end] == '<' {
			value = value[end:]
			continue
		}
		if id, ok := messageID(value[:end]); ok {
			ids = append(ids, id)
		}
		value = value[end+1:]
	}
	return ids
}

func bareID(value string) []string {
	id := strings.Trim(value, " \t\r\n")
	if !isMessageID(id) || strings.IndexByte(id, '@') < 0 {
		return nil
	}
	return []string{id}
}

// messageID reads what stands between two brackets.
func messageID(s string) (id string, ok bool) {
	s = strings.Trim(s, " \t\r\n")
	if i := strings.IndexAny(s, " \t\r\n"); i >= 0 {
		if len(s) > 2*maxMessageID || strings.Count(s, "@") != 1 {
			return "", false
		}
		s = s[:i] + strings.TrimLeft(s[i:], " \t\r\n")
	}
	return s, isMessageID(s)
}

// isMessageID: something without white space and controls, not too long.
func isMessageID(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == 0x7f {
			return false
		}
	}
	return s != "" && len(s) <= maxMessageID
}
