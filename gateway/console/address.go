package console

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// CheckAddress says what is wrong with an e-mail address that an operator
// typed: local@domain, unquoted, without display name.
func CheckAddress(address string) error {
	at := strings.LastIndexByte(address, '@')
	switch {
	case at < 0:
		return fmt.Errorf("%q is not an e-mail address: it has no @", address)
	case !isLocal(address[:at]):
		return fmt.Errorf("%q is not an e-mail address: %q cannot stand before the @", address, address[:at])
	case !IsDomain(address[at+1:]):
		return fmt.Errorf("%q is not an e-mail address: %q is not a domain", address, address[at+1:])
	}
	return nil
}

// isLocal reports whether s is a dot-atom (RFC 5322, RFC 6531) of at most 64
// octets.
func isLocal(s string) bool {
	if s == "" || len(s) > 64 || !utf8.ValidString(s) || strings.HasPrefix(s, ".") || strings.HasSuffix(s, ".") || strings.Contains(s, "..") {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r == 0x7f || strings.ContainsRune(`()<>[]:;@\,"`, r) || r > 0x7f && !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r)
	})
}

// IsDomain reports whether s is a host or mail domain: labels of letters,
// digits and hyphens, or what IDNA makes into such.
func IsDomain(s string) bool {
	ascii, err := idna.Lookup.ToASCII(s)
	if err != nil || ascii == "" || len(ascii) > 253 {
		return false
	}
	for label := range strings.SplitSeq(ascii, ".") {
		if label == "" || len(label) > 63 || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return false
		}
		if strings.ContainsFunc(label, func(r rune) bool {
			return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
		}) {
			return false
		}
	}
	return true
}
