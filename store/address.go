package store

import (
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// Key returns the canonical form of an e-mail address, by which contacts are
// found: domain lower-cased as A-label, local part NFC and lower-cased (rules
// §5). No plus or dot folding. Text without an @ is lower-cased only.
func Key(address string) string {
	if plain(address) {
		return address
	}
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return strings.ToLower(norm.NFC.String(address))
	}
	return strings.ToLower(norm.NFC.String(address[:at])) + "@" + domainKey(address[at+1:])
}

// plain reports whether an address is its own key: lower-case ASCII without
// an A-label that might need normalising.
func plain(address string) bool {
	for i := range len(address) {
		if c := address[i]; c >= 0x80 || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return !strings.HasSuffix(address, ".")
}

func domainKey(domain string) string {
	domain = strings.TrimSuffix(domain, ".")
	if a, err := idna.Lookup.ToASCII(domain); err == nil {
		return strings.ToLower(a)
	}
	return strings.ToLower(domain)
}
