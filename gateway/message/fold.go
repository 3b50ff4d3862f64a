package message

import (
	"strings"
	"unicode/utf8"
)

// Line lengths without CRLF (RFC 5322 §2.1.1).
const (
	softLine = 78
	hardLine = 998
)

// headerWriter writes header lines. What it is given as a value can't leave
// its field.
type headerWriter struct {
	b      []byte
	column int // length of the line being written
}

// text writes bytes as they are.
func (w *headerWriter) text(s string) {
	w.b = append(w.b, s...)
	if i := strings.LastIndexByte(s, '\n'); i >= 0 {
		w.column = len(s) - i - 1
	} else {
		w.column += len(s)
	}
}

// endLine ends a line left open. A CR at its end is taken for half a line end,
// but for a line of one CR: that would become the empty line.
func (w *headerWriter) endLine() {
	switch n := len(w.b); {
	case n == 0 || w.b[n-1] == '\n':
	case w.b[n-1] == '\r' && w.column > 1:
		w.text("\n")
	default:
		w.text("\r\n")
	}
}

func (w *headerWriter) fields(fields []newField) {
	for _, f := range fields {
		w.endLine()
		w.text(fieldName(f.name))
		w.text(":")
		w.value(f.value)
		w.text("\r\n")
	}
}

// value writes a whole value behind a colon, folded.
func (w *headerWriter) value(value string) {
	if value = strings.Trim(harmless(value), " "); value != "" {
		w.fold(" "+breakLong(value), softLine)
	}
}

// splice writes a piece of a value. It is folded only where a line would grow
// beyond what SMTP carries.
func (w *headerWriter) splice(repl string) { w.fold(harmless(repl), hardLine) }

// fold writes s with line ends before white space (RFC 5322 §2.2.3) where a
// line would exceed the limit; right behind the colon only if it must be.
func (w *headerWriter) fold(s string, limit int) {
	for first := true; s != ""; first = false {
		gap, token := nextToken(s)
		s = s[len(gap)+len(token):]
		length := w.column + len(gap) + len(token)
		if gap != "" && token != "" && (length > hardLine || length > limit && !first) {
			w.text("\r\n")
			if len(gap)+len(token) > hardLine {
				gap = " "
			}
		}
		w.text(gap)
		w.text(token)
	}
}

// nextToken splits off the white space that s starts with and the text after
// it.
func nextToken(s string) (gap, token string) {
	n := len(s) - len(strings.TrimLeft(s, " "))
	end := strings.IndexByte(s[n:], ' ')
	if end < 0 {
		return s[:n], s[n:]
	}
	return s[:n], s[n : n+end]
}

// breakLong puts a space into what is too long for any line.
func breakLong(s string) string {
	if len(s) < hardLine {
		return s
	}
	var b strings.Builder
	for i, run := 0, 0; i < len(s); {
		_, n := utf8.DecodeRuneInString(s[i:])
		if run += n; s[i] == ' ' {
			run = 0
		} else if run > hardLine-len(" ") {
			b.WriteByte(' ')
			run = n
		}
		b.WriteString(s[i : i+n])
		i += n
	}
	return b.String()
}

// harmless makes every control character a space, C1 in UTF-8 included.
func harmless(s string) string {
	if strings.IndexFunc(s, isControl) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if isControl(r) {
			b.WriteByte(' ')
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

func isControl(r rune) bool { return r < ' ' || 0x7f <= r && r < 0xa0 }

// fieldName makes anything that may not stand in a field name a hyphen.
func fieldName(name string) string {
	b := []byte(name)
	for i, c := range b {
		if !isNameByte(c) {
			b[i] = '-'
		}
	}
	if len(b) == 0 {
		return "-"
	}
	return string(b)
}
