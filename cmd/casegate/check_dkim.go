package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/casegate/casegate/gateway/mailauth"
	"github.com/casegate/casegate/store"
)

// signing says which signature mail will bear, and whether what the DNS says of
// it fits.
func (c *checker) signing(ctx context.Context) {
	keys, bad := c.cfg.signingKeys()
	for _, p := range bad {
		c.add(foundKeyFile, "error", p.hint, "%s", p.Error())
	}
	if len(c.cfg.DKIM) == 0 {
		c.ok(foundSigns, "outgoing mail is not signed here: there is no dkim")
		return
	}
	signers, err := mailauth.NewSigners(keys...)
	if err != nil {
		c.add(foundKeyFile, "error", "see dkim", "%v", err)
		return
	}
	for _, address := range c.cfg.fromAddresses() {
		c.signed(signers, address)
	}
	for _, k := range keys {
		c.published(ctx, k)
	}
}

// fromAddresses are those that outgoing mail may be from, as far as the
// configuration knows them: not those of agents.
func (c *Config) fromAddresses() []string {
	var list []string
	add := func(address string) {
		if !slices.ContainsFunc(list, func(a string) bool { return store.Key(a) == store.Key(address) }) {
			list = append(list, address)
		}
	}
	for _, m := range c.Mailboxes {
		add(m.Address)
	}
	for _, l := range c.Listeners {
		for _, address := range l.SendAs {
			add(address)
		}
	}
	add("mailer-daemon@" + c.Hostname) // delivery reports
	return list
}

func (c *checker) signed(signers *mailauth.Signers, address string) {
	_, domain, _ := strings.Cut(address, "@")
	s := signers.For(domain)
	if s == nil {
		c.add(foundSigns, "warning", fmt.Sprintf("add a key of %s to dkim, or subdomains: true to that of a domain above it", domain),
			"mail from %s is not signed", address)
		return
	}
	var names []string
	for _, k := range s.Keys() {
		names = append(names, k.String())
	}
	c.ok(foundSigns, "mail from %s is signed by %s: %s", address, s.Domain(), strings.Join(names, " and "))
}

func (c *checker) published(ctx context.Context, k mailauth.SigningKey) {
	switch found, why := k.Published(ctx, c.cfg.DNS.resolver()); found {
	case mailauth.Pass:
		c.ok(foundRecord, "the record %s fits its key", k.RecordName())
	case mailauth.TempError:
		c.add(foundRecord, "warning", "look again when the DNS answers", "the record %s cannot be read: the DNS does not answer", k.RecordName())
	case mailauth.Neutral:
		c.add(foundRecord, "warning", "take t=y out of it once you trust it", "the record %s: %s", k.RecordName(), why)
	default:
		c.add(foundRecord, "error", "publish: "+k.ZoneLine(), "the record %s: %s; signatures made with it are broken to those who verify", k.RecordName(), why)
	}
}
