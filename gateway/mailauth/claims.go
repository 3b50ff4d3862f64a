package mailauth

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"

	"github.com/casegate/casegate/gateway/message"
)

// Claims reports whether any reader, however lenient, could take an
// Authentication-Results value (or an ARC-Authentication-Results value) for
// one of this authserv-id: the fields to remove from what comes from outside
// (RFC 8601 §5). It sees the id through encoded words, look-alike widths,
// invisible characters, quotes, comments and white space anywhere in it. Of a
// value that can be read the authserv-id counts, and what stands before it;
// of any other every place but behind an @ or an equal sign.
func Claims(value, servID string) bool {
	id := servKey(servID)
	if id == "" {
		return false
	}
	if ServID(value) == id {
		return true
	}
	if l, ok := newLexer(value); ok {
		if a, ok := l.authRes(); ok && a.ServID != "" {
			head := lexer{s: l.s}
			head.cfws()
			head.servID()
			value = l.s[:head.i]
		}
	}
	names := []string{id}
	if u, err := idna.Lookup.ToUnicode(id); err == nil && u != id {
		names = append(names, plainText(u))
	}
	for _, text := range readings(value) {
		for _, name := range names {
			if hasName(text, name) {
				return true
			}
		}
	}
	return false
}

// readings are the texts that lenient readers make of a value: with and
// without comments, with and without white space.
func readings(value string) []string {
	text := plainText(strings.NewReplacer(`"`, "", `\`, "", "'", "").Replace(message.Decode(value)))
	bare := withoutComments(text)
	return []string{text, withoutBlanks(text), bare, withoutBlanks(bare)}
}

// plainText is a text in lower case, in the widths of ASCII, without what
// can't be seen.
func plainText(s string) string {
	s = strings.NewReplacer("\u3002", ".", "\uff61", ".").Replace(s)
	return strings.ToLower(strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r):
			return -1
		}
		return r
	}, norm.NFKC.String(s)))
}

func withoutBlanks(s string) string { return strings.ReplaceAll(s, " ", "") }

// withoutComments leaves out what stands in parentheses, nested or not closed.
func withoutComments(s string) string {
	depth := 0
	return strings.Map(func(r rune) rune {
		switch {
		case r == '(':
			depth++
			return -1
		case r == ')' && depth > 0:
			depth--
			return -1
		case depth > 0:
			return -1
		}
		return r
	}, s)
}

// hasName finds a host name that stands alone: no part of a longer one, of an
// address or of a value.
func hasName(s, name string) bool {
	for from := 0; ; {
		i := strings.Index(s[from:], name)
		if i < 0 {
			return false
		}
		start, end := from+i, from+i+len(name)
		before, _ := utf8.DecodeLastRuneInString(s[:start])
		after, n := utf8.DecodeRuneInString(s[end:])
		if after == '.' { // the root's dot, or a longer name
			after, _ = utf8.DecodeRuneInString(s[end+n:])
		}
		if !isNameRune(before) && !strings.ContainsRune(".=@", before) && !isNameRune(after) {
			return true
		}
		from = end
	}
}

func isNameRune(r rune) bool {
	return r == '-' || r == '_' || r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r))
}
