package mailauth

import (
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

// maxName is the longest name, in bytes, that is worth turning into A-labels.
const maxName = 1024

// servKey is an authserv-id as it is compared: lower case, A-label, without
// the dot at its end.
func servKey(id string) string {
	id = strings.TrimRight(strings.ToLower(id), ".")
	if !isASCII(id) && len(id) <= maxName {
		if a, err := idna.Lookup.ToASCII(id); err == nil {
			return strings.TrimRight(strings.ToLower(a), ".")
		}
	}
	return id
}

// domainKey returns a domain in lower case as A-label, or "" if it is none. A
// U-label counts only in its one normal form (RFC 5891 §5.3): nothing is taken
// for a domain because it looks like one.
func domainKey(domain string) string {
	if domain = strings.TrimSuffix(domain, "."); len(domain) > maxName {
		return ""
	}
	if !isASCII(domain) {
		a, err := idna.Lookup.ToASCII(domain)
		if err != nil {
			return ""
		}
		if u, err := idna.Lookup.ToUnicode(a); err != nil || u != lowerASCII(domain) {
			return ""
		}
		domain = a
	}
	if domain = strings.ToLower(domain); len(domain) > 253 {
		return ""
	}
	for label := range strings.SplitSeq(domain, ".") {
		if !isLabel(label) {
			return ""
		}
	}
	return domain
}

func isLabel(label string) bool {
	for i := range len(label) {
		if !isKeywordByte(label[i]) {
			return false
		}
	}
	return label != "" && len(label) <= 63
}

// addressDomain returns the key of the domain of an address, or of a domain
// alone.
func addressDomain(value string) string {
	return domainKey(value[strings.LastIndexByte(value, '@')+1:])
}

// OrgDomain returns the organisational domain of a domain (RFC 7489 §3.2) by
// the public suffix list: what an owner registered. A public suffix is its own.
// The domain is in lower case, as A-label.
func OrgDomain(domain string) string {
	if org, err := publicsuffix.EffectiveTLDPlusOne(domain); err == nil {
		return org
	}
	return domain
}

// Aligned reports relaxed alignment (RFC 7489 §3.1): two domains of one
// organisation. Nothing is aligned with what is no domain.
func Aligned(a, b string) bool {
	a, b = domainKey(a), domainKey(b)
	return a != "" && b != "" && (a == b || OrgDomain(a) == OrgDomain(b))
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
