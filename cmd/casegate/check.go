package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/casegate/casegate/gateway/relay"
	"github.com/casegate/casegate/store"
)

// finding is one thing that check looked at. Its id is stable: docs and
// monitoring may refer to it.
type finding struct {
	ID    string `json:"id"`
	Level string `json:"level"` // ok, warning, error
	What  string `json:"what"`
	Hint  string `json:"hint,omitempty"`
}

// The ids of findings.
const (
	foundConfig   = "CG0001" // the configuration is valid
	foundDataDir  = "CG0101" // data_dir keeps its content over a reboot
	foundStore    = "CG0102" // the store opens, or a daemon has it
	foundKeys     = "CG0201" // there is a key to sign tokens with
	foundListener = "CG0301" // a listener's address is free, or answered by the daemon
	foundSenders  = "CG0302" // how a listener finds out who sent a message
	foundCert     = "CG0303" // a listener's certificate can be used
	foundHop      = "CG0401" // a next hop answers
	foundRoute    = "CG0402" // where mail for an example address goes
	foundTLS      = "CG0403" // how a next hop is secured
	foundSignIn   = "CG0404" // a next hop lets us sign in
	foundTakes    = "CG0405" // a next hop takes mail from us for an example address
	foundLacks    = "CG0406" // a next hop lacks an extension
	foundDNS      = "CG0501" // a DNS server answers
	foundSigns    = "CG0601" // which DKIM signature mail from an address bears
	foundRecord   = "CG0602" // the DNS has the record of a key that signs
	foundKeyFile  = "CG0603" // a key that signs cannot be used
)

// checker collects findings.
type checker struct {
	p     *program
	cfg   *Config
	alive bool // a daemon runs
	found []finding
}

// runCheck probes what a valid configuration names and prints its findings.
func (p *program) runCheck(ctx context.Context, cfg *Config, asJSON bool) error {
	c := &checker{p: p, cfg: cfg}
	c.ok(foundConfig, "the configuration is valid%s", fromFile(cfg))
	c.dataDir()
	c.store(ctx)
	c.listeners()
	c.certificates()
	c.senders(ctx)
	c.hops(ctx)
	c.routes()
	c.signing(ctx)
	if err := c.print(asJSON); err != nil {
		return err
	}
	for _, f := range c.found {
		if f.Level == "error" {
			return errSaid
		}
	}
	return nil
}

func fromFile(cfg *Config) string {
	if cfg.file == "" {
		return " (built in; there is no " + defaultFile + " here)"
	}
	return ": " + cfg.file
}

func (c *checker) add(id, level, hint, format string, args ...any) {
	c.found = append(c.found, finding{id, level, fmt.Sprintf(format, args...), hint})
}

func (c *checker) ok(id, format string, args ...any) { c.add(id, "ok", "", format, args...) }

func (c *checker) dataDir() {
	var list problems
	switch err := refuseVolatile(c.cfg.DataDir, c.p.environ); {
	case errors.As(err, &list):
		c.add(foundDataDir, "error", list[0].hint, "%s", list[0].Error())
	case err != nil:
		c.add(foundDataDir, "error", "make data_dir a folder that this user may write to", "%v", err)
	default:
		c.ok(foundDataDir, "data_dir %s is on stable storage", c.cfg.DataDir)
	}
}

func (c *checker) store(ctx context.Context) {
	if conn, err := dialSocket(c.cfg.socket()); err == nil {
		conn.Close()
		c.alive = true
		c.ok(foundStore, "a daemon runs and has the store open")
		return
	}
	st, err := c.p.openStore(c.cfg, c.p.logger(c.cfg))
	if err != nil {
		c.add(foundStore, "error", "see data_dir", "the store does not open: %v", err)
		return
	}
	defer st.Close()
	c.ok(foundStore, "the store opens: %s", c.cfg.store())
	var in store.Installation
	err = st.View(ctx, func(r store.Reader) (err error) { in, err = r.Installation(); return err })
	if err != nil || len(in.Keys) == 0 {
		c.add(foundKeys, "error", "restore a backup: tokens already sent cannot be read any more", "the store has no signing key (%v)", err)
		return
	}
	c.ok(foundKeys, "tokens are signed with key %d of %d", in.Keys[len(in.Keys)-1].ID, len(in.Keys))
}

// listeners binds each address for a moment, to see whether it is free.
func (c *checker) listeners() {
	for _, l := range c.cfg.Listeners {
		var err error
		if l.Address.Network != "unix" {
			var ln net.Listener
			if ln, err = net.Listen("tcp", l.Address.Address); err == nil {
				ln.Close()
			}
		}
		switch {
		case err == nil && c.alive && l.Address.Network != "unix":
			c.add(foundListener, "warning", "restart casegate: a reload opens no other addresses", "listener %s: nobody listens on %s", l.Name, l.Address)
		case c.alive:
			c.ok(foundListener, "listener %s: %s belongs to the running daemon", l.Name, l.Address)
		case err != nil:
			c.add(foundListener, "error", "stop the other program that uses it, or change the listener's address", "listener %s: %v", l.Name, err)
		case l.Address.Network == "unix":
			c.ok(foundListener, "listener %s: %s is made at the start", l.Name, l.Address)
		default:
			c.ok(foundListener, "listener %s: %s is free", l.Name, l.Address)
		}
	}
}

// hops looks at every next hop as an attempt would.
func (c *checker) hops(ctx context.Context) {
	r, err := newRelay(c.cfg, nil, c.p.logger(c.cfg))
	if err != nil {
		return // routes says it
	}
	seen := map[string]bool{}
	for _, route := range c.cfg.Routes {
		rt, m := route.relay(), c.example(route)
		if route.Role == "inbound" && route.Sender == "" {
			m.sender = "" // no server asks whether there is one
		}
		if route.Role == "outbound" {
			m.recipient = "postmaster@" + cmp.Or(route.RecipientDomain, "example.com")
		}
		if key := fmt.Sprint(rt, m); seen[key] {
			continue
		} else {
			seen[key] = true
		}
		list, err := r.Probe(ctx, rt, m.sender, m.recipient)
		if err != nil {
			c.add(foundHop, "error", "see routes", "%v", err)
		}
		for _, p := range list {
			c.probed(p, m.recipient)
		}
	}
}

// probed tells what was found at one next hop.
func (c *checker) probed(p relay.Probed, to string) {
	name := p.NextHop
	if p.Stage == relay.StageConnect {
		c.add(foundHop, "warning", "mail for it waits in the outbox until it answers; see whether smtp, smtps or lmtp is right", "next hop %s: %v", name, p.Err)
		return
	}
	c.ok(foundHop, "next hop %s answers", name)
	switch {
	case p.Stage == relay.StageTLS:
		c.add(foundTLS, graveness(p), "mail for it waits in the outbox; see tls, tls_pin and tls_ca, and whether smtp or smtps is right", "next hop %s: %v", name, p.Err)
		return
	case p.TLS != nil:
		c.ok(foundTLS, "next hop %s: %s, certificate of %s %s, key %s", name, p.TLS.Version, p.TLS.Peer, p.TLS.Trust, p.TLS.Pin)
	case p.Mode == relay.TLSOpportunistic:
		c.add(foundTLS, "warning", "write tls: verify once it can", "next hop %s has no TLS: mail for it goes in the clear", name)
	}
	switch {
	case p.Stage == relay.StageSignIn:
		c.add(foundSignIn, graveness(p), "mail for it waits in the outbox; see auth", "next hop %s: %v", name, p.Err)
		return
	case p.Signed:
		c.ok(foundSignIn, "next hop %s lets us sign in", name)
	}
	if p.Err != nil {
		c.add(foundTakes, "warning", "the next hop must take mail from this machine for that address; see tls and auth if it asks for them", "next hop %s does not take mail for %s: %v", name, to, p.Err)
	} else {
		c.ok(foundTakes, "next hop %s takes mail for %s", name, to)
	}
	slices.Sort(p.Lacks)
	if len(p.Lacks) > 0 {
		c.add(foundLacks, "warning", "mail that needs it cannot be handed on there: nothing is re-encoded", "next hop %s does not offer %s", name, strings.Join(p.Lacks, ", "))
	}
}

// graveness of what was met at a next hop: what may pass by itself is no reason
// to stop a deployment.
func graveness(p relay.Probed) string {
	if p.Lasting {
		return "error"
	}
	return "warning"
}

// specimen is a message as routes see it.
type specimen struct{ sender, recipient, mailbox string }

// example makes up a message that a route fits, of the first mailbox of ours
// that it can be of.
func (c *checker) example(r Route) specimen {
	m := specimen{sender: r.Sender, recipient: "someone@" + cmp.Or(r.RecipientDomain, "example.net"), mailbox: r.Mailbox}
	for _, own := range c.cfg.Mailboxes {
		there := r.Role == "outbound" || r.RecipientDomain == "" || strings.HasSuffix(store.Key(own.Address), store.Key("@"+r.RecipientDomain))
		if m.mailbox == "" && there {
			m.mailbox = own.Address
		}
	}
	if r.Role == "inbound" && m.mailbox != "" {
		m.recipient = m.mailbox
	}
	switch {
	case r.Sender == "<>":
		m.sender = ""
	case r.Sender == "" && r.Role == "outbound":
		m.sender = m.mailbox
	case r.Sender == "":
		m.sender = "someone@example.net"
	case strings.HasPrefix(r.Sender, "."):
		m.sender = "someone@mail" + r.Sender
	case strings.LastIndexByte(r.Sender, '@') < 1:
		m.sender = "someone@" + strings.TrimPrefix(r.Sender, "@")
	}
	return m
}

// routes prints the effective route of example messages: one for each mailbox,
// and one for each route that not all mail fits.
func (c *checker) routes() {
	r, err := newRelay(c.cfg, nil, c.p.logger(c.cfg))
	if err != nil {
		c.add(foundRoute, "error", "see routes", "%v", err)
		return
	}
	bySender := map[string]bool{} // by role: who sends makes a difference
	for _, route := range c.cfg.Routes {
		bySender[route.Role] = bySender[route.Role] || route.Sender != "" || route.Role == "outbound" && route.Mailbox != ""
	}
	for _, own := range c.cfg.Mailboxes {
		c.route(r, "inbound", specimen{"someone@example.net", own.Address, own.Address}, bySender["inbound"])
	}
	if !bySender["outbound"] {
		c.route(r, "outbound", c.example(Route{Role: "outbound"}), false)
	} else {
		for _, own := range c.cfg.Mailboxes {
			c.route(r, "outbound", specimen{own.Address, "someone@example.net", own.Address}, true)
		}
	}
	for _, route := range c.cfg.Routes {
		if route.RecipientDomain != "" || route.Sender != "" {
			c.route(r, route.Role, c.example(route), bySender[route.Role])
		}
	}
}

// route prints where a message goes; from whom, if that matters.
func (c *checker) route(r *relay.Relay, role string, m specimen, from bool) {
	mail := role + " mail for " + m.recipient
	if from {
		mail = fmt.Sprintf("%s mail from %s for %s", role, cmp.Or(m.sender, "<>"), m.recipient)
	}
	route, ok := r.RouteFor(role, m.sender, m.recipient, m.mailbox)
	switch {
	case !ok && role == "outbound":
		c.add(foundRoute, "error", "add a route of role outbound", "%s has no route and would be held", mail)
	case !ok || route.NextHop == relay.None:
		c.ok(foundRoute, "%s stays on its case", mail)
	default:
		c.ok(foundRoute, "%s goes to %s", mail, strings.Join(append([]string{route.NextHop}, route.Further...), ", then "))
	}
}

func (c *checker) print(asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(c.p.out)
		e.SetIndent("", "  ")
		return e.Encode(c.found)
	}
	for _, f := range c.found {
		fmt.Fprintf(c.p.out, "%s  %-7s  %s\n", f.ID, f.Level, clean(f.What))
		if f.Hint != "" {
			fmt.Fprintf(c.p.out, "        hint: %s\n", f.Hint)
		}
	}
	return nil
}
