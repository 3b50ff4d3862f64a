package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/casegate/casegate/gateway/mailauth"
)

// senders says how each inbound listener finds out who sent a message, and asks
// the DNS if one needs it.
func (c *checker) senders(ctx context.Context) {
	asks := false
	for _, l := range c.cfg.Listeners {
		switch {
		case l.Role != "inbound":
		case l.TrustedForm:
			c.ok(foundSenders, "listener %s: the form says who sent a message", l.Name)
		case l.Authentication == "upstream":
			c.ok(foundSenders, "listener %s: senders are authenticated as %s says", l.Name, l.AuthServID)
		case l.Authentication == "check":
			asks = true
			c.spf(l)
		default:
			c.ok(foundSenders, "listener %s: senders are not authenticated", l.Name)
		}
	}
	if asks {
		c.dns(ctx)
	}
}

// spf says whose address SPF is about on a listener that checks.
func (c *checker) spf(l Listener) {
	const checked = "listener %s: senders are checked by SPF, DKIM and DMARC; "
	switch {
	case l.ProxyProtocol:
		c.ok(foundSenders, checked+"the client is whom PROXY names", l.Name)
	case slices.Contains(l.Trust, "xforward"), slices.Contains(l.Trust, "xclient"):
		c.ok(foundSenders, checked+"the client is whom the peer names", l.Name)
	case l.open():
		c.ok(foundSenders, checked+"the client is the peer itself", l.Name)
	default:
		c.add(foundSenders, "warning", "add trust: [xforward] and have the peers send it (Postfix: smtp_send_xforward_command, lmtp_send_xforward_command)",
			"listener %s: senders are checked by DKIM and DMARC alone: its peers are relays that do not tell whom they have the mail from, and SPF needs that", l.Name)
	}
}

// dns asks each server about the domain of our own mail.
func (c *checker) dns(ctx context.Context) {
	name := c.cfg.Hostname
	if len(c.cfg.Mailboxes) > 0 {
		_, name, _ = strings.Cut(c.cfg.Mailboxes[0].Address, "@")
	}
	servers := c.cfg.DNS.Servers
	if len(servers) == 0 {
		c.ask(ctx, "the system's DNS", mailauth.NewResolver(), name)
	}
	for _, s := range servers {
		c.ask(ctx, "the DNS server "+string(s), mailauth.NewResolver(string(s)), name)
	}
}

func (c *checker) ask(ctx context.Context, who string, r mailauth.Resolver, name string) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.cfg.DNS.Timeout))
	defer cancel()
	if !mailauth.Answers(ctx, r, name) {
		c.add(foundDNS, "warning", "see dns.servers; mail is taken all the same, and its senders stay unverified", "%s does not answer about %s", who, name)
		return
	}
	c.ok(foundDNS, "%s answers; a message may cost %d queries and %s", who, c.cfg.DNS.Queries, c.cfg.DNS.Timeout)
}
