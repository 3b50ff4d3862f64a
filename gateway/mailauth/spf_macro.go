package mailauth

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// macro is a piece of a macro-string (RFC 7208 §7.1): text, or a letter with
// its transformers.
type macro struct {
	text    string
	percent bool // the text was written with a percent sign
	letter  byte // in lower case; 0: text
	escape  bool // the letter was a capital
	keep    int  // right-hand parts; 0: all
	reverse bool
	delims  string
}

// parseMacros reads a macro-string. It is never nil if it can be read.
func parseMacros(s string) (parts []macro, ok bool) {
	parts = []macro{}
	for s != "" {
		i := strings.IndexByte(s, '%')
		if i < 0 {
			i = len(s)
		}
		if i > 0 {
			parts, s = append(parts, macro{text: s[:i]}), s[i:]
			continue
		}
		if len(s) < 2 {
			return nil, false
		}
		switch s[1] {
		case '%', '_', '-':
			parts = append(parts, macro{text: map[byte]string{'%': "%", '_': " ", '-': "%20"}[s[1]], percent: true})
			s = s[2:]
		case '{':
			body, rest, closed := strings.Cut(s[2:], "}")
			m, ok := parseMacro(body)
			if !closed || !ok {
				return nil, false
			}
			parts, s = append(parts, m), rest
		default:
			return nil, false
		}
	}
	return parts, true
}

// parseMacro reads what stands in the braces.
func parseMacro(s string) (m macro, ok bool) {
	if s == "" || !isLetter(s[0]) {
		return m, false
	}
	m.letter = s[0] | 0x20
	m.escape = m.letter != s[0]
	if !strings.ContainsRune("slodiphcrtv", rune(m.letter)) {
		return m, false
	}
	s = s[1:]
	digits := s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
	if digits != "" {
		n, err := strconv.Atoi(digits)
		if err != nil || n == 0 {
			return m, false
		}
		m.keep, s = n, s[len(digits):]
	}
	if s != "" && s[0]|0x20 == 'r' {
		m.reverse, s = true, s[1:]
	}
	m.delims = s
	return m, strings.Trim(s, ".-+,/_=") == ""
}

// isDomainSpec reports whether a macro-string is a domain-spec (RFC 7208
// §7.1): it ends in a macro or a dot and a top label, and has no macro that is
// for explanations only.
func isDomainSpec(s string, parts []macro) bool {
	for _, m := range parts {
		if m.letter != 0 && strings.IndexByte("crt", m.letter) >= 0 {
			return false
		}
	}
	if n := len(parts); n > 0 && (parts[n-1].letter != 0 || parts[n-1].percent) {
		return true
	}
	s = strings.TrimSuffix(s, ".")
	dot := strings.LastIndexByte(s, '.')
	top := s[dot+1:]
	if dot < 0 || top == "" || isDigits(top) || top[0] == '-' || top[len(top)-1] == '-' {
		return false
	}
	for i := range len(top) {
		if !isAlnum(top[i]) && top[i] != '-' {
			return false
		}
	}
	return true
}

// expand writes a domain-spec out (RFC 7208 §7.3). What gets longer than a
// name may be loses labels on its left.
func (s *spf) expand(parts []macro, domain string) string {
	var b strings.Builder
	for _, m := range parts {
		if m.letter == 0 {
			b.WriteString(m.text)
		} else {
			b.WriteString(m.transform(s.value(m.letter, domain)))
		}
	}
	name := strings.TrimSuffix(b.String(), ".")
	for len(name) > 253 {
		_, rest, ok := strings.Cut(name, ".")
		if !ok {
			return ""
		}
		name = rest
	}
	return name
}

// value is what a macro letter stands for (RFC 7208 §7.2).
func (s *spf) value(letter byte, domain string) string {
	switch letter {
	case 's':
		return s.local + "@" + s.domain
	case 'l':
		return s.local
	case 'o':
		return s.domain
	case 'd':
		return domain
	case 'h':
		return s.helo
	case 'p':
		return s.clientName(domain)
	case 'v':
		if s.client.Is4() {
			return "in-addr"
		}
		return "ip6"
	}
	if s.client.Is4() {
		return s.client.String()
	}
	var nibbles []string
	for _, b := range s.client.As16() {
		nibbles = append(nibbles, fmt.Sprintf("%x.%x", b>>4, b&15))
	}
	return strings.Join(nibbles, ".")
}

// clientName is the validated name of the client: best the domain itself, then
// one below it (RFC 7208 §7.3).
func (s *spf) clientName(domain string) string {
	s.nameClient()
	domain = strings.ToLower(domain)
	if slices.Contains(s.names, domain) {
		return domain
	}
	for _, name := range s.names {
		if isBelow(name, domain) {
			return name
		}
	}
	if len(s.names) > 0 {
		return s.names[0]
	}
	return "unknown"
}

// transform splits, reverses, cuts and escapes a value (RFC 7208 §7.3).
func (m macro) transform(value string) string {
	delims := m.delims
	if delims == "" {
		delims = "."
	}
	if m.reverse || m.keep > 0 || delims != "." {
		var parts []string
		for rest := value; ; {
			i := strings.IndexAny(rest, delims)
			if i < 0 {
				parts = append(parts, rest)
				break
			}
			parts, rest = append(parts, rest[:i]), rest[i+1:]
		}
		if m.reverse {
			slices.Reverse(parts)
		}
		if m.keep > 0 && m.keep < len(parts) {
			parts = parts[len(parts)-m.keep:]
		}
		value = strings.Join(parts, ".")
	}
	if !m.escape {
		return value
	}
	var b strings.Builder
	for i := range len(value) {
		if c := value[i]; isAlnum(c) || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
