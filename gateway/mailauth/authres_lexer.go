package mailauth

import (
	"strconv"
	"strings"
)

// lexer walks through a value that is unfolded. Its readers report false where
// nothing sensible stands; then the walk is over. Every byte is read a fixed
// number of times at most; work counts them.
type lexer struct {
	s        string
	i        int
	comments []string // met since they were last taken
	work     int
}

// newLexer unfolds a value (RFC 5322 §2.2.3). A line end that is no fold, and
// any control character but a tab, is refused: some readers end a field there.
func newLexer(value string) (l *lexer, ok bool) {
	l = &lexer{s: value, work: len(value)}
	if strings.IndexFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) < 0 {
		return l, true
	}
	b := make([]byte, 0, len(value))
	for i := 0; i < len(value); i++ {
		c := value[i]
		if c == '\r' && i+1 < len(value) && value[i+1] == '\n' {
			i++
			c = '\n'
		}
		if c == '\n' && i+1 < len(value) && (value[i+1] == ' ' || value[i+1] == '\t') {
			continue
		}
		if c < ' ' && c != '\t' || c == 0x7f {
			return nil, false
		}
		b = append(b, c)
	}
	l.s = string(b)
	return l, true
}

// peek returns the next byte, 0 at the end.
func (l *lexer) peek() byte {
	if l.i < len(l.s) {
		return l.s[l.i]
	}
	return 0
}

func (l *lexer) accept(c byte) bool {
	if l.peek() != c {
		return false
	}
	l.i++
	l.work++
	return true
}

// atEnd reports the end of a result.
func (l *lexer) atEnd() bool { return l.i == len(l.s) || l.s[l.i] == ';' }

// run reads the bytes that is allows.
func (l *lexer) run(is func(c byte) bool) string {
	start := l.i
	for l.i < len(l.s) && is(l.s[l.i]) {
		l.i++
	}
	l.work += l.i - start + 1
	return l.s[start:l.i]
}

// cfws skips white space and comments (RFC 5322 §3.2.2), which are kept; false
// for a comment that is never closed, and for too many of them.
func (l *lexer) cfws() bool {
	for {
		l.run(isBlank)
		if l.peek() != '(' {
			return true
		}
		text, ok := l.comment()
		if !ok || len(l.comments) == maxResults {
			return false
		}
		l.comments = append(l.comments, text)
	}
}

func (l *lexer) comment() (text string, ok bool) {
	start, depth := l.i, 0
	for i := start; i < len(l.s); i++ {
		switch l.s[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				l.i = i + 1
				l.work += l.i - start
				return unescape(l.s[start+1 : i]), true
			}
		}
	}
	l.work += len(l.s) - start
	return "", false
}

func (l *lexer) quoted() (text string, ok bool) {
	start := l.i
	for i := start + 1; i < len(l.s); i++ {
		switch l.s[i] {
		case '\\':
			i++
		case '"':
			l.i = i + 1
			l.work += l.i - start
			return unescape(l.s[start+1 : i]), true
		}
	}
	l.work += len(l.s) - start
	return "", false
}

// servID reads an authserv-id: a token (RFC 2045 §5.1, with UTF-8) or a quoted
// string. It is false only for a quote that is never closed.
func (l *lexer) servID() (id string, quoted, ok bool) {
	if l.peek() == '"' {
		id, ok = l.quoted()
		return id, true, ok
	}
	return l.run(isTokenByte), false, true
}

// keyword reads a Keyword (RFC 5321 §4.1.2), with the underscore of some, in
// lower case.
func (l *lexer) keyword() string { return strings.ToLower(l.run(isKeywordByte)) }

// number reads a version.
func (l *lexer) number() (n int, ok bool) {
	n, err := strconv.Atoi(l.run(func(c byte) bool { return '0' <= c && c <= '9' }))
	return n, err == nil && n < 1000
}

// value reads a pvalue or the text of a reason (RFC 8601 §2.2): a quoted
// string, also as the local part of an address, or a run of other bytes.
func (l *lexer) value() (text string, ok bool) {
	if l.peek() == '"' {
		if text, ok = l.quoted(); !ok || l.peek() != '@' {
			return text, ok
		}
	}
	return text + l.run(isValueByte), true
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

func isTokenByte(c byte) bool {
	return c > ' ' && c != 0x7f && strings.IndexByte(`()<>@,;:\"/[]?=`, c) < 0
}

func isKeywordByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

func isValueByte(c byte) bool {
	return c > ' ' && c != 0x7f && strings.IndexByte(`;()"\`, c) < 0
}

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
