package message

import (
	"bytes"
	"strings"
)

// prose is what the text of a bounce says to a machine: qmail's, Exim's,
// sendmail's and others' have no part of their own for it.
type prose struct {
	fields   []ReportedRecipient // from Final-Recipient and its neighbours
	lines    []ReportedRecipient // from lines that begin with "<a@b>:"
	returned []byte              // the header block of the returned message
}

// read looks through a text for blocks of field lines. One that can only be
// the header of a message is what was returned, under whatever words; nothing
// is read behind it.
func (s *prose) read(text []byte) {
	for len(text) > 0 && s.returned == nil {
		n := fieldLines(text)
		if n == 0 {
			n = lineLen(text)
			s.line(string(text[:n]))
			text = text[n:]
			continue
		}
		h := Parse(text[:n:n])
		if isReturned(h) {
			s.returned = untilEmptyLine(text)
			return
		}
		if h.Get("Final-Recipient") != "" {
			s.fields = addRecipients(s.fields, h)
		}
		text = text[n:]
	}
}

// line reads `<a@b>:`, with which qmail begins what it says of a recipient.
func (s *prose) line(line string) {
	if !strings.HasPrefix(line, "<") || len(s.lines) == maxReported {
		return
	}
	addr, rest, ok := strings.Cut(line[1:min(len(line), maxAddress)], ">:")
	if !ok || !ValidAddress(addr) {
		return
	}
	s.lines = append(s.lines, ReportedRecipient{
		FinalRecipient: strings.Clone(addr), DiagnosticCode: fieldText(rest),
	})
}

// fieldLines returns how many bytes at the start are header fields.
func fieldLines(text []byte) (n int) {
	for n < len(text) {
		size := lineLen(text[n:])
		if !isBlank(text[n]) || n == 0 {
			if !startsPlainField(text[n : n+size]) {
				return n
			}
		} else if len(bytes.TrimSpace(text[n:n+size])) == 0 {
			return n
		}
		n += size
	}
	return n
}

// startsPlainField is narrower than RFC 5322 §3.6.8: all that mail has, but
// neither "<a@b>:" nor a URL.
func startsPlainField(line []byte) bool {
	n := bytes.IndexFunc(line, func(c rune) bool {
		return c != '-' && c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z')
	})
	return n > 0 && line[n] == ':' && !bytes.HasPrefix(line[n:], []byte("://"))
}

// untilEmptyLine is a header block whose lines needn't all be fields.
func untilEmptyLine(text []byte) []byte {
	var f Finder
	n, _ := f.Feed(text)
	return text[:n]
}

func lineLen(text []byte) int {
	if i := bytes.IndexByte(text, '\n'); i >= 0 {
		return i + 1
	}
	return len(text)
}

// isReturned reports that fields are the header of a message: one of those that
// only mailers write, and another one. "To: …, Subject: …" may be anything.
func isReturned(h Header) bool {
	mailer, known := false, 0
	for _, f := range h.Fields() {
		switch strings.ToLower(f.Name) {
		case "message-id", "received", "return-path", "x-case-ref", "in-reply-to", "references", "dkim-signature":
			mailer = true
			known++
		case "from", "to", "cc", "subject", "date", "reply-to", "sender", "mime-version", "content-type":
			known++
		}
	}
	return mailer && known > 1
}
