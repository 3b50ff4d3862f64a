package relay

import (
	"cmp"
	"context"
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
	from, err := t.letter.origin(t.ctx)
	if err != nil {
		return fmt.Errorf("looking up who handed the message to us: %w", err)
	}
	line := t.letter.forwarding(from, t.c.ext.xforward)
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

// origin is the client that handed us a message.
func (l *letter) origin(ctx context.Context) (from store.Client, err error) {
	err = l.st.View(ctx, func(rd store.Reader) error {
		m, err := rd.Message(l.id)
		from = store.Client{Address: m.Envelope.Peer, Helo: m.Envelope.Helo}
		if c := m.Envelope.Client; c != nil { // our peer had it from another, and said so
			from = *c
		}
		return err
	})
	return from, err
}

// forwarding is the command for a message; empty if there is nothing to tell.
func (l *letter) forwarding(from store.Client, takes []string) string {
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
