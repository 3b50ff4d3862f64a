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
		if _, domain, _ := strings.Cut(address, "@"); !c.signed(signers, "mail from "+address+" is", domain) {
			c.add(foundSigns, "warning", fmt.Sprintf("add a key of %s to dkim, or subdomains: true to that of a domain above it", domain),
				"mail from %s is not signed", address)
		}
	}
	reports := "delivery reports, from mailer-daemon@" + c.cfg.Hostname + ", are"
	if !c.signed(signers, reports, c.cfg.Hostname) { // they go to the desk
		c.ok(foundSigns, "%s not signed", reports)
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
	return list
}

// signed says who signs mail from a domain, if somebody does.
func (c *checker) signed(signers *mailauth.Signers, what, domain string) bool {
	s := signers.For(domain)
	if s == nil {
		return false
	}
	c.ok(foundSigns, "%s signed by %s", what, s)
	return true
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
