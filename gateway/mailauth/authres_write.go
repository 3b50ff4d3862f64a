package mailauth

import (
	"strconv"
	"strings"
)

// String writes the value (RFC 8601 §2.2) on one line; ParseAuthRes reads the
// same from it. Everything that isn't plain is quoted, a control character
// becomes a space. Methods, results and names of properties must be keywords.
func (a AuthRes) String() string {
	var b strings.Builder
	if a.ServID != "" {
		writeText(&b, a.ServID, isTokenByte)
		if a.Version != 1 {
			b.WriteString(" " + strconv.Itoa(a.Version))
		}
		b.WriteString("; ")
	}
	if len(a.Results) == 0 {
		b.WriteString("none")
	}
	for i, r := range a.Results {
		if i > 0 {
			b.WriteString("; ")
		}
		r.write(&b)
	}
	return b.String()
}

func (r ResInfo) write(b *strings.Builder) {
	b.WriteString(r.Method)
	if r.Version != 1 {
		b.WriteString("/" + strconv.Itoa(r.Version))
	}
	b.WriteString("=" + r.Result)
	for _, c := range r.Comments {
		b.WriteString(" (")
		writeEscaped(b, c, `()\`)
		b.WriteString(")")
	}
	if r.Reason != "" {
		b.WriteString(" reason=")
		writeText(b, r.Reason, isTokenByte)
	}
	for _, p := range r.Properties {
		b.WriteString(" ")
		if p.Type != "" {
			b.WriteString(p.Type + ".")
		}
		b.WriteString(p.Name + "=")
		writeText(b, p.Value, func(c byte) bool { return isTokenByte(c) || c == '@' })
	}
}

// writeText writes what is all plain ASCII as it is, and all else as a quoted
// string.
func writeText(b *strings.Builder, s string, plain func(c byte) bool) {
	odd := func(r rune) bool { return r >= 0x80 || !plain(byte(r)) }
	if s != "" && !strings.ContainsFunc(s, odd) {
		b.WriteString(s)
		return
	}
	b.WriteString(`"`)
	writeEscaped(b, s, `"\`)
	b.WriteString(`"`)
}

func writeEscaped(b *strings.Builder, s, special string) {
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' && c != '\t', c == 0x7f:
			b.WriteByte(' ')
		case strings.IndexByte(special, c) >= 0:
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
}
