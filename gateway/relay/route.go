package relay

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/casegate/casegate/store"
)

// None as a Route's NextHop keeps mail on the case and forwards it nowhere.
const None = "none"

// The ways to secure a next hop. Only TLSNone is built; the others come with a
// later issue and are refused until then.
const (
	TLSNone          = "none"
	TLSOpportunistic = "opportunistic"
	TLSRequire       = "require"
	TLSVerify        = "verify"
	TLSPin           = "pin"
)

// Route says where mail goes next. Routes are read top down at each attempt;
// the first whose Role, Sender and Recipient fit wins.
type Route struct {
	// Role of the mail: inbound (to the desk) or outbound (to the world).
	Role string
	// Sender and Recipient narrow the route to a MAIL FROM or RCPT TO. Empty
	// fits all; user@example.com one address; example.com or @example.com a
	// domain; .example.com its subdomains; <> as Sender the null reverse-path.
	Sender, Recipient string
	// NextHop is one of
	//
	//	none                  nowhere
	//	smtp://host:port      port 25 if left out
	//	lmtp://host:port      port 24 if left out
	//	smtp:///path          a UNIX socket
	//	lmtp:///path
	//
	// The host is connected to as it is; MX records are not asked.
	NextHop string
	// TLS is none, opportunistic, require, verify or pin. Default: none on
	// loopback and UNIX sockets, verify elsewhere.
	TLS string
	// MaxConnections to NextHop at once. Default: Options.PerHop. With several
	// routes to one next hop the first that says a number counts.
	MaxConnections int
}

// endpoint is a parsed NextHop.
type endpoint struct {
	network, address string
	lmtp             bool
}

// Validate says what is wrong with a route, if anything.
func (rt Route) Validate() error {
	_, err := rt.compile()
	return err
}

// compiled is a Route ready to be matched.
type compiled struct {
	Route
	sender, recipient pattern
	endpoint          endpoint
	hop               *hop // nil for none
}

func (rt Route) compile() (compiled, error) {
	c := compiled{Route: rt, sender: newPattern(rt.Sender), recipient: newPattern(rt.Recipient)}
	if rt.Role != "inbound" && rt.Role != "outbound" {
		return c, fmt.Errorf("role %q is neither inbound nor outbound", rt.Role)
	}
	if rt.MaxConnections < 0 {
		return c, fmt.Errorf("max connections %d is negative", rt.MaxConnections)
	}
	if rt.NextHop == None {
		return c, nil
	}
	var err error
	if c.endpoint, err = parseNextHop(rt.NextHop); err != nil {
		return c, err
	}
	return c, c.secure()
}

// secure refuses what would need TLS: better no route than mail in the clear
// where somebody asked for, or left it at, a protected one.
func (c *compiled) secure() error {
	switch c.TLS {
	case "":
		if c.TLS = TLSVerify; c.endpoint.local() {
			c.TLS = TLSNone
		}
	case TLSNone, TLSOpportunistic, TLSRequire, TLSVerify, TLSPin:
	default:
		return fmt.Errorf("tls %q is none of none, opportunistic, require, verify, pin", c.TLS)
	}
	if c.TLS != TLSNone {
		return fmt.Errorf("next hop %s: tls %s is not built yet, it comes with a later issue; tls none would send in the clear", c.NextHop, c.TLS)
	}
	return nil
}

func parseNextHop(s string) (endpoint, error) {
	u, err := url.Parse(s)
	ports := map[string]string{"smtp": "25", "lmtp": "24"}
	if err != nil || ports[u.Scheme] == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return endpoint{}, fmt.Errorf("next hop %q: write none, smtp://host:port, lmtp://host:port, smtp:///path or lmtp:///path", s)
	}
	e := endpoint{network: "unix", address: u.Path, lmtp: u.Scheme == "lmtp"}
	path := strings.Trim(u.Path, "/")
	switch {
	case u.Host == "" && path != "":
		return e, nil
	case u.Hostname() == "unix" && path != "":
		return endpoint{}, fmt.Errorf("next hop %q: write %s://%s", s, u.Scheme, u.Path)
	case u.Hostname() == "" || path != "":
		return endpoint{}, fmt.Errorf("next hop %q: write %s://host:port or %s:///path", s, u.Scheme, u.Scheme)
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
