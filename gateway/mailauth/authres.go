// Package mailauth reads and, later, gives verdicts about who sent a message:
// SPF, DKIM, DMARC on the way in, a DKIM signature on the way out. It knows no
// cases.
package mailauth

import "strings"

// ServID returns the authserv-id of an Authentication-Results value in lower
// case (RFC 8601 §2.2), comments, quoting and version aside; empty when there
// is none.
func ServID(value string) string {
	value = skipCFWS(value)
	var id strings.Builder
	if strings.HasPrefix(value, `"`) {
		for i := 1; i < len(value) && value[i] != '"'; i++ {
			if value[i] == '\\' && i+1 < len(value) {
				i++
			}
			id.WriteByte(value[i])
		}
		return strings.ToLower(id.String())
	}
	end := strings.IndexAny(value, " \t\r\n;(/")
	if end < 0 {
		end = len(value)
	}
	return strings.ToLower(value[:end])
}

// skipCFWS skips folding white space and nested comments (RFC 5322 §3.2.2).
func skipCFWS(s string) string {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && depth > 0:
			i++
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case depth > 0 || strings.IndexByte(" \t\r\n", c) >= 0:
		default:
			return s[i:]
		}
	}
	return ""
}
