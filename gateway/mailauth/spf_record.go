package mailauth

import (
	"net/netip"
	"strconv"
	"strings"
)

// spfRecord is a policy (RFC 7208 §4.6.1).
type spfRecord struct {
	directives []directive
	redirect   []macro // nil: none
}

// directive is a mechanism with what a match means (RFC 7208 §4.6.2).
type directive struct {
	result       Result
	mechanism    string
	domain       []macro // nil: the domain of the record
	network      netip.Prefix
	bits4, bits6 int
}

// isSPF tells the records that are meant (RFC 7208 §4.5).
func isSPF(text string) bool {
	const version = "v=spf1"
	return len(text) >= len(version) && strings.EqualFold(text[:len(version)], version) &&
		(len(text) == len(version) || text[len(version)] == ' ')
}

// parseSPF reads a record to its end, so that a mistake counts wherever it is
// (RFC 7208 §4.6, §12).
func parseSPF(text string) (r spfRecord, ok bool) {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return r, false
		}
	}
	explained := false
	for term := range strings.FieldsSeq(text[len("v=spf1"):]) {
		name, value, isModifier := cutModifier(term)
		if !isModifier {
			d, ok := parseDirective(term)
			if !ok {
				return r, false
			}
			r.directives = append(r.directives, d)
			continue
		}
		parts, ok := parseMacros(value)
		switch {
		case !ok:
			return r, false
		case name == "redirect":
			if r.redirect != nil || !isDomainSpec(value, parts) {
				return r, false
			}
			r.redirect = parts
		case name == "exp":
			if explained || !isDomainSpec(value, parts) {
				return r, false
			}
			explained = true
		}
	}
	return r, true
}

// cutModifier reads name "=" macro-string (RFC 7208 §6).
func cutModifier(term string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(term, "=")
	if !ok || name == "" || !isLetter(name[0]) {
		return "", "", false
	}
	for i := range len(name) {
		if c := name[i]; !isAlnum(c) && c != '-' && c != '_' && c != '.' {
			return "", "", false
		}
	}
	return strings.ToLower(name), value, true
}

// parseDirective reads [ qualifier ] mechanism (RFC 7208 §5).
func parseDirective(term string) (d directive, ok bool) {
	d.result, d.bits4, d.bits6 = Pass, 32, 128
	if found, ok := map[byte]Result{'+': Pass, '-': Fail, '~': SoftFail, '?': Neutral}[term[0]]; ok {
		d.result, term = found, term[1:]
	}
	end := strings.IndexAny(term, ":/")
	if end < 0 {
		end = len(term)
	}
	d.mechanism = strings.ToLower(term[:end])
	rest := term[end:]
	switch d.mechanism {
	case "all":
		return d, rest == ""
	case "ip4", "ip6":
		d.network, ok = parseNetwork(d.mechanism, rest)
		return d, ok
	case "a", "mx":
		if rest, d.bits4, d.bits6, ok = cutLengths(rest); !ok {
			return d, false
		}
		fallthrough
	case "ptr":
		if rest == "" {
			return d, true
		}
		fallthrough
	case "include", "exists":
		spec, given := strings.CutPrefix(rest, ":")
		if !given {
			return d, false
		}
		d.domain, ok = parseMacros(spec)
		return d, ok && isDomainSpec(spec, d.domain)
	}
	return d, false
}

// parseNetwork reads ":" ip-network [ ip-cidr-length ] (RFC 7208 §5.6).
func parseNetwork(mechanism, rest string) (n netip.Prefix, ok bool) {
	rest, ok = strings.CutPrefix(rest, ":")
	text, length, sized := strings.Cut(rest, "/")
	addr, err := netip.ParseAddr(text)
	if !ok || err != nil || addr.Zone() != "" || addr.Is4() != (mechanism == "ip4") {
		return n, false
	}
	bits := addr.BitLen()
	if sized {
		if bits, ok = cidrLength(length, bits); !ok {
			return n, false
		}
	}
	return netip.PrefixFrom(addr, bits), true
}

// cutLengths cuts a dual-cidr-length off (RFC 7208 §5.3).
func cutLengths(s string) (rest string, bits4, bits6 int, ok bool) {
	bits4, bits6 = 32, 128
	if i := strings.LastIndex(s, "//"); i >= 0 && isDigits(s[i+2:]) {
		if bits6, ok = cidrLength(s[i+2:], 128); !ok {
			return s, 0, 0, false
		}
		s = s[:i]
	}
	if i := strings.LastIndexByte(s, '/'); i >= 0 && isDigits(s[i+1:]) {
		if bits4, ok = cidrLength(s[i+1:], 32); !ok {
			return s, 0, 0, false
		}
		s = s[:i]
	}
	return s, bits4, bits6, true
}

func cidrLength(s string, most int) (bits int, ok bool) {
	bits, err := strconv.Atoi(s)
	return bits, err == nil && isDigits(s) && bits <= most && (s == "0" || s[0] != '0')
}

func isDigits(s string) bool {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return false
		}
	}
	return s != ""
}

func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func isAlnum(c byte) bool  { return isDigit(c) || isLetter(c) }
