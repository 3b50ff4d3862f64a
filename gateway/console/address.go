package console

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/casegate/casegate/gateway/message"
)

// CheckAddress says what is wrong with an e-mail address that an operator
// typed: local@domain by the grammar of SMTP, unquoted, without display name.
func CheckAddress(address string) error {
	local, domain, ok := message.SplitAddress(address)
	switch {
	case !strings.Contains(address, "@"):
		return fmt.Errorf("%q is not an e-mail address: it has no @", address)
	case ok && !IsDomain(domain):
		return fmt.Errorf("%q is not an e-mail address: %q is not a domain", address, domain)
	case !ok || !message.ValidAddress(address) || strings.ContainsFunc(local, unfit):
		return fmt.Errorf("%q is not an e-mail address: %q cannot stand before the @", address, local)
	}
	return nil
}

// unfit is a character that a mailbox name of ours or of a contact must not
// have, though the grammar knows it: quotes, and what cannot be seen.
func unfit(r rune) bool { return r == '"' || !unicode.IsPrint(r) }

// IsDomain reports whether s is a host or mail domain.
func IsDomain(s string) bool { return message.ValidAddress("a@" + s) }
