package message

import (
	"encoding/base64"
	"strings"
	"unicode"
)

// Decode turns the encoded words of a text (RFC 2047) into UTF-8 for people to
// read. It never fails: what can't be decoded is replaced or left as it is.
// The result holds no control characters, no line breaks and no marks that
// reorder or hide text. It must never be read as an address.
func Decode(s string) string {
	if isPlain(s) {
		return s
	}
	return strings.Map(showRune, decodeWords(Unfold(s)))
}

// isPlain reports that s is printable ASCII without encoded words.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '=' && i+1 < len(s) && s[i+1] == '?' {
			return false
		}
	}
	return true
}

// showRune keeps what can be seen. Joiners stay: Persian and Hindi need them.
func showRune(r rune) rune {
	const nonJoiner, joiner = '\u200c', '\u200d'
	switch {
	case unicode.IsSpace(r):
		return ' '
	case unicode.IsControl(r):
		return -1
	case r == nonJoiner || r == joiner || unicode.Is(unicode.Prepended_Concatenation_Mark, r):
		return r
	case unicode.Is(unicode.Cf, r):
		return -1
	}
	return r
}

// word is one encoded word: `=?charset?encoding?text?=` (RFC 2047 §2).
type word struct {
	charset  string
	encoding byte
	text     string
	size     int // of the whole word as written
}

// decodeWords decodes all words of a text. White space between two words is
// not shown (RFC 2047 §6.2). Neighbours of one charset are decoded together,
// because many mailers cut words in the middle of a character.
func decodeWords(s string) string {
	var out strings.Builder
	var run wordRun
	for {
		at, w, ok := nextWord(s)
		if !ok {
			run.end(&out)
			out.WriteString(s)
			return out.String()
		}
		if gap := s[:at]; !run.open || strings.Trim(gap, " \t") != "" {
			run.end(&out)
			out.WriteString(gap)
		}
		run.add(&out, w)
		s = s[at+w.size:]
	}
}

// wordRun collects the bytes of neighbouring words of one charset.
type wordRun struct {
	open    bool // the text before us ended with a word
	charset string
	bytes   []byte
}

func (r *wordRun) add(out *strings.Builder, w word) {
	if r.open && !strings.EqualFold(r.charset, w.charset) {
		r.end(out)
	}
	r.open, r.charset = true, w.charset
	r.bytes = w.decode(r.bytes)
}

func (r *wordRun) end(out *strings.Builder) {
	if r.open {
		out.WriteString(toUTF8(r.charset, r.bytes))
	}
	r.open, r.bytes = false, r.bytes[:0]
}

// nextWord finds the first encoded word in s.
func nextWord(s string) (at int, w word, ok bool) {
	for {
		i := strings.Index(s[at:], "=?")
		if i < 0 {
			return 0, word{}, false
		}
		at += i
		if w, ok = readWord(s[at:]); ok {
			return at, w, true
		}
		at += len("=?")
	}
}

// readWord reads the encoded word that s starts with. The text may hold more
// than the grammar allows, as real mail does, but no question mark: so all
// attempts on one string together take linear time.
func readWord(s string) (w word, ok bool) {
	const maxCharset = 64
	rest := s[len("=?"):]
	q := strings.IndexByte(rest[:min(len(rest), maxCharset)], '?')
	if q <= 0 || len(rest) < q+len("?q??=") || rest[q+2] != '?' {
		return w, false
	}
	w.charset, w.encoding = rest[:q], rest[q+1]|0x20
	rest = rest[q+3:]
	end := strings.IndexByte(rest, '?')
	if end < 0 || !strings.HasPrefix(rest[end:], "?=") || w.encoding != 'q' && w.encoding != 'b' {
		return w, false
	}
	w.text = rest[:end]
	w.size = len(s) - len(rest) + end + len("?=")
	return w, !strings.ContainsAny(w.charset, " \t\r\n\"<>@,;:()") && !strings.ContainsAny(w.text, "\r\n")
}

// decode appends the bytes that the word stands for.
func (w word) decode(dst []byte) []byte {
	if w.encoding == 'b' {
		return decodeB(dst, w.text)
	}
	return decodeQ(dst, w.text)
}

// decodeB reads base64 and passes over what doesn't belong there.
func decodeB(dst []byte, text string) []byte {
	digits := strings.Map(base64Digit, text)
	if len(digits)%4 == 1 {
		digits = digits[:len(digits)-1]
	}
	dst, _ = base64.RawStdEncoding.AppendDecode(dst, []byte(digits))
	return dst
}

func base64Digit(r rune) rune {
	switch {
	case 'A' <= r && r <= 'Z', 'a' <= r && r <= 'z', '0' <= r && r <= '9', r == '+', r == '/':
		return r
	}
	return -1
}

// decodeQ reads the Q encoding (RFC 2047 §4.2); a wrong escape stays as it is.
func decodeQ(dst []byte, text string) []byte {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '_':
			dst = append(dst, ' ')
		case '=':
			if v, ok := hexByte(text[i+1:]); ok {
				dst = append(dst, v)
				i += 2
				continue
			}
			dst = append(dst, c)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

func hexByte(s string) (byte, bool) {
	if len(s) < 2 {
		return 0, false
	}
	hi, ok1 := hexDigit(s[0])
	lo, ok2 := hexDigit(s[1])
	return hi<<4 | lo, ok1 && ok2
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}
