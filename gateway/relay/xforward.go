package relay

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/casegate/casegate/store"
)

// maxXForward keeps the command within a line (RFC 5321 §4.5.3.1.4).
const maxXForward = 510

// forward tells a next hop that takes it who handed the mail to us
// (Postfix's XFORWARD), or its log and filters would know nobody but us. Only
// what the next hop asks for is told; a refusal is no reason to keep the mail.
func (t *transaction) forward() error {
	if !t.c.xforward || len(t.c.ext.xforward) == 0 {
		return nil
	}
	line := t.letter.forwarding(t.c.ext.xforward)
	if line == "" {
		return nil
	}
	t.c.out = append(t.c.out[:0], line+"\r\n"...)
	if err := t.c.flush(t.c.timeouts.Mail); err != nil {
		return err
	}
	rep, err := t.c.reply(t.c.timeouts.Mail)
	if err == nil && rep.code == 421 {
		err = fmt.Errorf("%w: %s", errClosing, rep)
	}
	return err
}

// forwarding is the command for a message; empty if there is nothing to tell.
func (l *letter) forwarding(takes []string) string {
	from := store.Client{Address: l.envelope.Peer, Helo: l.envelope.Helo}
	if c := l.envelope.Client; c != nil { // our peer had it from another, and said so
		from = *c
	}
	peer, err := netip.ParseAddr(from.Address)
	if err != nil {
		return ""
	}
	address := peer.String()
	if peer.Is6() && !peer.Is4In6() {
		address = "IPV6:" + address
	}
	line := "XFORWARD"
	for _, a := range [][2]string{
		{"NAME", cmp.Or(from.Name, "[UNAVAILABLE]")}, {"ADDR", address}, {"HELO", from.Helo},
		{"IDENT", strings.ReplaceAll(l.id.String(), "-", "")}, {"SOURCE", "REMOTE"},
	} {
		part := string(appendXtext([]byte(" "+a[0]+"="), a[1]))
		if a[1] != "" && slices.Contains(takes, a[0]) && len(line)+len(part) <= maxXForward {
			line += part
		}
	}
	return line
}
