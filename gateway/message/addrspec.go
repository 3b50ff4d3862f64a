package message

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// maxAddress is the longest addr-spec that is read: a whole line.
const maxAddress = 998

// readAddress reads an addr-spec (RFC 5322 §3.4.1 with the obsolete white
// space of §4.4 and any dots) as it stands in a list, and returns it without
// folds. loose: it holds white space outside of quotes, or folds.
func readAddress(raw string) (addr string, loose, ok bool) {
	if len(raw) > maxAddress {
		return "", false, false
	}
	addr, ok = squeeze(raw)
	if _, _, word := nextWord(addr); !ok || word {
		return "", false, false
	}
	local, domain, ok := SplitAddress(addr)
	ok = ok && isLocal(local) && isDomain(domain)
	return addr, len(addr) != len(raw), ok
}

// squeeze takes out folds, and white space around the dots and the @ (RFC 5322
// §4.4). White space elsewhere outside of quotes fails.
func squeeze(raw string) (addr string, ok bool) {
	if !strings.ContainsAny(raw, " \t\r\n") {
		return raw, true
	}
	b := make([]byte, 0, len(raw))
	quoted, gap := false, false
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		n := lineEnd(raw[i:])
		switch {
		case n > 0 && i+n < len(raw) && isBlank(raw[i+n]):
			i += n - 1
			continue
		case isBlank(c) && !quoted:
			gap = true
			continue
		case gap && !mayGap(b, c):
			return "", false
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted && i+1 < len(raw):
			b = append(b, c)
			i++
			c = raw[i]
		}
		gap = false
		b = append(b, c)
	}
	return string(b), true
}

// mayGap reports that white space may stand between what we have and c.
func mayGap(b []byte, c byte) bool {
	if len(b) == 0 || c == '.' || c == '@' {
		return true
	}
	last := b[len(b)-1]
	return last == '.' || last == '@'
}

// isLocal reads a local part: atoms and quoted strings with dots between them
// (RFC 5322 §4.4), and dots anywhere between atoms, as phones send them.
func isLocal(s string) bool {
	dot := true
	for s != "" {
		n := 0
		if s[0] == '"' {
			if n = quotedLen(s); n == 0 || !dot || n < len(s) && s[n] != '.' {
				return false
			}
		} else if n = atomLen(s); n == 0 {
			return false
		}
		dot = s[n-1] == '.'
		s = s[n:]
	}
	return true
}

// quotedLen returns the length of the quoted string (RFC 5322 §3.2.4) that s
// starts with, or 0. White space in it is allowed, hidden characters are not.
func quotedLen(s string) int {
	for i := 1; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '"':
			return i + 1
		case r == '\\':
			i++
			if i == len(s) || s[i] >= utf8.RuneSelf {
				return 0 // RFC 6532 would have it; others don't
			}
			r = rune(s[i])
		}
		if !isVisible(r) && r != ' ' && r != '\t' {
			return 0
		}
		i += n
	}
	return 0
}

// atomLen returns the length of the atoms and dots that s starts with.
func atomLen(s string) int {
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r != '.' && !isAtext(r) {
			return i
		}
		i += n
	}
	return len(s)
}

// isAtext is RFC 5322 §3.2.3 with the UTF-8 of RFC 6532 §3.2.
func isAtext(r rune) bool {
	if r < utf8.RuneSelf {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' ||
			strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", r)
	}
	return isVisible(r)
}

// isVisible refuses what can hide in an address: controls, foreign white
// space, zero-width and reordering marks, fillers, invalid UTF-8.
func isVisible(r rune) bool {
	if r < utf8.RuneSelf {
		return ' ' < r && r < 0x7f
	}
	const brailleBlank = '\u2800'
	return r != utf8.RuneError && unicode.IsPrint(r) && r != brailleBlank &&
		!unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// isDomain reads a domain or a domain literal. A dot at the end is tolerated.
func isDomain(s string) bool {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		return isLiteral(inner)
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || strings.IndexFunc(label, notInLabel) >= 0 {
			return false
		}
	}
	return true
}

// isLiteral reads a domain literal behind its opening bracket.
func isLiteral(s string) bool {
	inner, ok := strings.CutSuffix(s, "]")
	for i := range len(inner) {
		ok = ok && isLiteralByte(inner[i])
	}
	return ok && inner != ""
}

// isLiteralByte is narrower than dtext: IP addresses and tags need no more.
func isLiteralByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '.' || c == ':' || c == '-'
}

func notInLabel(r rune) bool {
	if r < utf8.RuneSelf {
		return r != '_' && r != '-' && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}
	return !isVisible(r)
}

// ValidAddress reports that an address is one by the strict grammar of SMTP
// (RFC 5321 §4.1.2, with UTF-8 by RFC 6531 §3.3): a dot-string or one quoted
// string, at a domain name. Address literals, trailing dots and names that DNS
// or IDNA can't hold are refused.
func ValidAddress(addr string) bool {
	local, domain, ok := SplitAddress(addr)
	return ok && validLocal(local) && validDomain(domain)
}

func validLocal(s string) bool {
	const maxLocal = 64 // RFC 5321 §4.5.3.1.1
	switch {
	case len(s) > maxLocal:
		return false
	case s[0] == '"':
		return quotedLen(s) == len(s) && len(s) > len(`""`)
	}
	return atomLen(s) == len(s) && s[0] != '.' && s[len(s)-1] != '.' && !strings.Contains(s, "..")
}

func validDomain(s string) bool {
	const maxDomain, maxLabel = 253, 63 // RFC 1035 §2.3.4, without the root
	if len(s) > maxDomain || !isDomain(s) || s[0] == '[' {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return validIDN(s)
}

// validIDN checks a domain with A-labels or U-labels by IDNA (RFC 5891 §5).
func validIDN(domain string) bool {
	if isPlain(domain) && !strings.Contains(strings.ToLower(domain), "xn--") {
		return true
	}
	_, err := idna.Lookup.ToASCII(domain)
	return err == nil
}
