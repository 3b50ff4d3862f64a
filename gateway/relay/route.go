package relay

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/casegate/casegate/store"
)

// None as a Route's NextHop keeps mail on the case and forwards it nowhere.
const None = "none"

// Route says where mail goes next. Routes are read top down at each attempt;
// the first whose Role, Sender and Recipient fit wins.
type Route struct {
	// Role of the mail: inbound (to the desk) or outbound (to the world).
	Role string
	// Sender and Recipient narrow the route to a MAIL FROM or RCPT TO, Mailbox to
	// mail of one of our mailboxes. Empty fits all; user@example.com one address,
	// as Sender of outbound mail user+anything@example.com too;
	// example.com or @example.com a domain; .example.com its subdomains; <> as
	// Sender the null reverse-path.
	Sender, Recipient, Mailbox string
	// NextHop is one of
	//
	//	none                  nowhere
	//	smtp://host:port      port 25 if left out
	//	smtps://host:port     port 465 if left out; TLS from the first octet (RFC 8314)
	//	lmtp://host:port      port 24 if left out
	//	smtp:///path          a UNIX socket
	//	lmtp:///path
	//
	// The host is connected to as it is; MX records are not asked.
	NextHop string
	// Further next hops: each is tried, in the same attempt, when no session can
	// be opened with those before it.
	Further []string
	// TLS is none, opportunistic, require, verify or pin. Default: none on
	// loopback and UNIX sockets, verify elsewhere.
	TLS string
	// TLSPin are the SHA-256 of the public keys (SPKI) that tls pin lets pass.
	TLSPin []string
	// TLSCA is a PEM file of who may vouch for tls verify; empty: whom the system
	// trusts.
	TLSCA string
	// Auth signs in; needs tls verify or pin.
	Auth *Auth
	// XForward passes on who handed the mail to us, where the next hop offers
	// XFORWARD. Only for next hops of our own.
	XForward bool
	// MaxConnections to a next hop at once. Default: Options.PerHop. With several
	// routes to one next hop the first that says a number counts.
	MaxConnections int
	// MaxPerSecond messages to a next hop; 0 is as many as there are. The first
	// route counts, as above.
	MaxPerSecond float64
}

// endpoint is a parsed NextHop.
type endpoint struct {
	name             string // as the route calls it
	network, address string
	lmtp             bool
	implicit         bool // TLS from the first octet
}

// Validate says what is wrong with a route, if anything. It reads no files.
func (rt Route) Validate() error {
	_, err := rt.compile()
	return err
}

// compiled is a Route ready to be matched.
type compiled struct {
	Route
	sender, recipient, mailbox pattern
	endpoints                  []endpoint
	hops                       []*hop // in the order they are tried; empty for none
}

func (rt Route) compile() (compiled, error) {
	c := compiled{Route: rt, sender: newPattern(rt.Sender), recipient: newPattern(rt.Recipient), mailbox: newPattern(rt.Mailbox)}
	if rt.Role != "inbound" && rt.Role != "outbound" {
		return c, fmt.Errorf("role %q is neither inbound nor outbound", rt.Role)
	}
	if rt.MaxConnections < 0 {
		return c, fmt.Errorf("max connections %d is negative", rt.MaxConnections)
	}
	if rt.MaxPerSecond < 0 {
		return c, fmt.Errorf("max per second %g is negative", rt.MaxPerSecond)
	}
	if rt.NextHop == None {
		if len(rt.Further) > 0 {
			return c, errors.New("none, and behind it a next hop")
		}
		return c, nil
	}
	for _, name := range append([]string{rt.NextHop}, rt.Further...) {
		e, err := parseNextHop(name)
		if err == nil {
			err = c.fit(e)
		}
		if err != nil {
			return c, err
		}
		c.endpoints = append(c.endpoints, e)
	}
	return c, nil
}

// fit refuses a next hop that cannot be secured as the route says: better no
// route than mail in the clear.
func (c *compiled) fit(e endpoint) error {
	for _, other := range c.endpoints {
		if other.name == e.name {
			return fmt.Errorf("next hop %s stands there twice", e.name)
		}
	}
	s, err := c.secure(e.local() && !e.implicit)
	if err == nil && e.implicit && s.mode == TLSOpportunistic {
		err = errors.New("smtps has TLS always: write tls require, verify or pin")
	}
	if err == nil && e.implicit && s.mode == TLSNone && c.TLS != "" {
		err = errors.New("smtps without TLS: write smtp, or tls verify")
	}
	if err != nil {
		return fmt.Errorf("next hop %s: %w", e.name, err)
	}
	return nil
}

// settings are those of a hop by this route.
func (c *compiled) settings(e endpoint) (hopSettings, error) {
	s, err := c.secure(e.local() && !e.implicit)
	if err == nil {
		err = s.load(&c.Route)
	}
	if err != nil {
		return hopSettings{}, fmt.Errorf("next hop %s: %w", e.name, err)
	}
	return hopSettings{endpoint: e, security: s, xforward: c.XForward}, nil
}

func parseNextHop(s string) (endpoint, error) {
	u, err := url.Parse(s)
	ports := map[string]string{"smtp": "25", "smtps": "465", "lmtp": "24"}
	if err != nil || ports[u.Scheme] == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return endpoint{}, fmt.Errorf("next hop %q: write none, smtp://host:port, smtps://host:port, lmtp://host:port, smtp:///path or lmtp:///path", s)
	}
	e := endpoint{name: s, network: "unix", address: u.Path, lmtp: u.Scheme == "lmtp", implicit: u.Scheme == "smtps"}
	path := strings.Trim(u.Path, "/")
	switch {
	case u.Host == "" && path != "":
		return e, nil
	case u.Hostname() == "unix" && path != "":
		return endpoint{}, fmt.Errorf("next hop %q: write %s://%s", s, u.Scheme, u.Path)
	case u.Hostname() == "" || path != "":
		return endpoint{}, fmt.Errorf("next hop %q: write %s://host:port or %s:///path", s, u.Scheme, u.Scheme)
	}
	if n, err := strconv.ParseUint(cmp.Or(u.Port(), "25"), 10, 16); err != nil || n == 0 {
		return endpoint{}, fmt.Errorf("next hop %q: port %s is none of 1 to 65535", s, u.Port())
	}
	e.network, e.address = "tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), ports[u.Scheme]))
	return e, nil
}

// local reports whether no packet to the endpoint leaves this machine.
func (e endpoint) local() bool {
	if e.network == "unix" {
		return true
	}
	host, _, _ := net.SplitHostPort(e.address)
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// sent reports whether the sender fits. What the desk sends leaves from
// mailbox+token, which is the mailbox.
func (c *compiled) sent(sender string) bool {
	return c.sender.fits(sender) || c.Role == "outbound" && c.sender.fits(withoutPlus(sender))
}

// concerns reports whether the mailbox fits. A mail that came in may be for
// several: each recipient is one, with or without a plus.
func (c *compiled) concerns(recipient, mailbox string) bool {
	if c.Role == "inbound" {
		mailbox = withoutPlus(recipient)
	}
	return c.mailbox.fits(mailbox)
}

// withoutPlus makes user@example.com of user+anything@example.com.
func withoutPlus(address string) string {
	at, plus := strings.LastIndexByte(address, '@'), strings.IndexByte(address, '+')
	if plus < 1 || plus > at {
		return address
	}
	return address[:plus] + address[at:]
}

// pattern fits addresses, by their canonical keys (store.Key).
type pattern struct{ kind, key string }

func newPattern(s string) pattern {
	switch {
	case s == "":
		return pattern{}
	case s == "<>":
		return pattern{kind: "null"}
	case strings.HasPrefix(s, "."):
		return pattern{kind: "suffix", key: strings.TrimPrefix(store.Key("x@x"+s), "x@x")}
	case strings.LastIndexByte(s, '@') > 0:
		return pattern{kind: "address", key: store.Key(s)}
	}
	return pattern{kind: "suffix", key: strings.TrimPrefix(store.Key("x@"+strings.TrimPrefix(s, "@")), "x")}
}

// fits reports whether an address fits; a domain's suffix begins with the @.
func (p pattern) fits(address string) bool {
	switch p.kind {
	case "":
		return true
	case "null":
		return address == ""
	case "address":
		return store.Key(address) == p.key
	}
	return strings.HasSuffix(store.Key(address), p.key)
}
