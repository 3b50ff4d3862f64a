package message

import "strings"

// element is what an address list is made of at its top level.
type element uint8

const (
	elemEnd     element = iota
	elemBlank           // white space and line ends
	elemQuoted          // "…"
	elemComment         // (…), nested
	elemWord            // an encoded word (RFC 2047)
	elemLiteral         // […] behind an @
	elemText            // a run of other bytes
	elemSpecial         // one of , ; : < @
)

// lexer walks through the elements of a structured value (RFC 5322 §3.2). A
// quote or parenthesis that is never closed is text. What is known about them
// is kept, so that the walk is linear.
type lexer struct {
	v string
	i int

	stray    bool     // such a one was met; the reader may reset it
	unquoted bool     // no quote is closed from here on
	open     []uint64 // a bit for each byte from counted on: a parenthesis that is never closed
	counted  int      // where open begins; it holds all from there on
	lost     bool     // the count was wrong: no comments from here on
}

// next returns the next element and where it starts; it ends at l.i.
func (l *lexer) next() (e element, start int) {
	start = l.i
	if start == len(l.v) {
		return elemEnd, start
	}
	e, l.i = l.element()
	return e, start
}

func (l *lexer) element() (e element, end int) {
	switch c := l.v[l.i]; c {
	case ' ', '\t', '\r', '\n':
		return elemBlank, l.i + 1
	case ',', ';', ':', '<', '@':
		return elemSpecial, l.i + 1
	case '"':
		if end := l.quoteEnd(l.i); end > 0 {
			return elemQuoted, end
		}
	case '(':
		if end := l.commentEnd(); end > 0 {
			return elemComment, end
		}
	case '[':
		if end := l.literalEnd(); end > 0 {
			return elemLiteral, end
		}
	case '\\':
		if l.i+1 < len(l.v) && strings.IndexByte(`"()\`, l.v[l.i+1]) >= 0 {
			return elemText, l.i + 2
		}
	case '=':
		if strings.HasPrefix(l.v[l.i:], "=?") {
			if w, ok := readWord(l.v[l.i:]); ok {
				return elemWord, l.i + w.size
			}
		}
	}
	return elemText, l.textEnd()
}

// textEnd ends a run of text where something else may begin.
func (l *lexer) textEnd() int {
	i := l.i + 1
	for i < len(l.v) && isPlainText(l.v[i]) {
		i++
	}
	return i
}

func isPlainText(c byte) bool {
	switch c {
	case ' ', '\t', '\r', '\n', ',', ';', ':', '<', '@', '"', '(', '[', '=', '\\':
		return false
	}
	return true
}

// quoteEnd returns the end of the quoted string at i, or 0 if it has none.
func (l *lexer) quoteEnd(i int) int {
	for i++; i < len(l.v) && !l.unquoted; i++ {
		switch l.v[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	l.stray, l.unquoted = true, true
	return 0
}

// commentEnd returns the end of the comment at l.i, or 0 if it has none.
func (l *lexer) commentEnd() int {
	if !l.knownOpen() && !l.lost {
		if end := l.closing(); end > 0 {
			return end
		}
		l.countOpen()
	}
	l.stray = true
	return 0
}

// closing finds the parenthesis that closes the one at l.i, or returns 0.
func (l *lexer) closing() (end int) {
	depth := 0
	for i := l.i; i < len(l.v); i++ {
		switch l.v[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return 0
}

// countOpen finds all parentheses from l.i on that are never closed, so that
// none of them is tried again: from behind, those that find none left to close
// them. Once is enough; should it not be, no further comment is looked for.
func (l *lexer) countOpen() {
	if l.open != nil {
		l.lost = true
		return
	}
	l.counted, l.open = l.i, make([]uint64, (len(l.v)-l.i+63)/64)
	closed := 0
	for i := len(l.v) - 1; i >= l.i; i-- {
		switch c := l.v[i]; {
		case c != '(' && c != ')', l.escaped(i):
		case c == ')':
			closed++
		case closed > 0:
			closed--
		default:
			at := i - l.counted
			l.open[at/64] |= 1 << (at % 64)
		}
	}
}

// escaped reports an odd number of backslashes before i.
func (l *lexer) escaped(i int) bool {
	n := i
	for n > l.i && l.v[n-1] == '\\' {
		n--
	}
	return (i-n)%2 == 1
}

// knownOpen reports that the parenthesis at l.i is known to be never closed.
func (l *lexer) knownOpen() bool {
	at := l.i - l.counted
	return l.open != nil && l.open[at/64]&(1<<(at%64)) != 0
}

// literalEnd returns the end of the domain literal at l.i, or 0.
func (l *lexer) literalEnd() int {
	if l.i == 0 || l.v[l.i-1] != '@' {
		return 0
	}
	for i := l.i + 1; i < len(l.v); i++ {
		switch {
		case l.v[i] == ']':
			return i + 1
		case !isLiteralByte(l.v[i]):
			return 0
		}
	}
	return 0
}

// angleEnd returns the end of what stands in the angle brackets whose opening
// one is behind l.i, and whether they are closed. Brackets left open end where
// an address must have ended: at a separator, or at the next bracket. Only a
// source route (RFC 5322 §4.4, starting with @) has commas inside.
func (l *lexer) angleEnd() (end int, closed bool) {
	i, route, begun := l.i, false, false
	for i < len(l.v) {
		switch c := l.v[i]; {
		case c == '>':
			return i, true
		case c == '<', !route && (c == ',' || c == ';'):
			return i, false
		case c == '"':
			if end := l.quoteEnd(i); end > 0 {
				i = end - 1
			}
		case c == '@' && !begun:
			route = true
		}
		begun = begun || !isBlank(l.v[i])
		i++
	}
	return i, false
}

// displayName makes the text of a phrase or comment from its raw form: quotes
// undone, comments left out, encoded words decoded, white space collapsed. What
// is longer than anybody reads is cut off.
func displayName(raw string) string {
	const maxName = 64 << 10
	raw = raw[:min(len(raw), maxName)]
	if isSimpleName(raw) {
		return raw
	}
	if n := len(raw); n > 1 && raw[0] == '"' && raw[n-1] == '"' && isSimpleName(raw[1:n-1]) {
		return raw[1 : n-1]
	}
	var b strings.Builder
	l := lexer{v: raw}
	for e, start := l.next(); e != elemEnd; e, start = l.next() {
		switch part := raw[start:l.i]; e {
		case elemQuoted:
			b.WriteString(unescape(part[1 : len(part)-1]))
		case elemComment:
			b.WriteByte(' ')
		default:
			b.WriteString(part)
		}
	}
	return collapse(Decode(b.String()))
}

// isSimpleName reports that displayName has nothing to do.
func isSimpleName(raw string) bool {
	blank := true // white space at the start, or two in a row
	for i := range len(raw) {
		switch c := raw[i]; {
		case c == ' ' && blank, c < ' ', c > '~', c == '"', c == '(', c == '=', c == '\\':
			return false
		default:
			blank = c == ' '
		}
	}
	return !blank || raw == ""
}

func collapse(s string) string { return strings.Join(strings.Fields(s), " ") }

// unescape undoes quoted pairs (RFC 5322 §3.2.1).
func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}
