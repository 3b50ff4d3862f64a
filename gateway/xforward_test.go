package gateway

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func encodeXtext(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < '!' || c > '~' || c == '+' || c == '=' {
			fmt.Fprintf(&b, "+%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// FuzzXtext: what is encoded decodes to itself, and nothing panics.
func FuzzXtext(f *testing.F) {
	for _, s := range []string{"", "a+b=c d", "+", "+4", "+4x", "\x00\xff", "a+2Bb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if back, ok := decodeXtext(encodeXtext(s)); !ok || back != s {
			t.Errorf("%q became %q, %v", s, back, ok)
		}
		if text, ok := decodeXtext(s); ok && strings.ContainsAny(s, " =\r\n\x00") {
			t.Errorf("%q was taken for %q", s, text)
		}
	})
}

// FuzzAttributes: what is taken is fit for logs and headers.
func FuzzAttributes(f *testing.F) {
	for _, s := range []string{"NAME=a ADDR=IPV6:2001:db8::1 PORT=25 PROTO=ESMTP HELO=+41 IDENT=x SOURCE=LOCAL", "ADDR=[UNAVAILABLE]", "name", "LOGIN=k", "ADDR=::ffff:1.2.3.4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, names := range []string{xforwardAttributes, xclientAttributes} {
			var c Client
			given, err := c.readAttributes(s, names)
			if err != nil {
				if _, ok := verdictIn(err); !ok {
					t.Errorf("%q: %v is no verdict", s, err)
				}
				continue
			}
			for _, text := range []string{c.Name, c.Helo, c.Ident, c.Login, c.Protocol, c.Source} {
				if !printable(text) || len(given) == 0 {
					t.Errorf("%q became %+v", s, c)
				}
			}
			if c.Addr.Zone() != "" || c.Addr.Is4In6() {
				t.Errorf("address %v", c.Addr)
			}
		}
	})
}

// TestXForwardFacts: what is told is about one transaction, beside the peer.
func TestXForwardFacts(t *testing.T) {
	h := &testHandler{}
	l := listen(t, h, func(o *ListenerOptions) { o.XForward = true })
	c := greeted(t, l)
	send := func() Envelope {
		t.Helper()
		c.begin()
		c.do("hi\r\n.", "250")
		all := h.got()
		return all[len(all)-1].env
	}
	c.do("XFORWARD NAME=spike.test ADDR=IPV6:2001:db8::2 PORT=4711 PROTO=esmtp", "250")
	c.do("XFORWARD HELO=spike+20x.test IDENT=4Xyz SOURCE=REMOTE", "250")
	want := Client{Name: "spike.test", Addr: netip.MustParseAddr("2001:db8::2"), Port: 4711, Protocol: "ESMTP", Helo: "spike x.test", Ident: "4Xyz", Source: "REMOTE"}
	if env := send(); env.Client != want || !env.Peer.IsLoopback() || env.PeerNamed || env.Helo != "client.test" {
		t.Errorf("%+v", env)
	}
	if env := send(); env.Client != (Client{}) {
		t.Errorf("the next message has %+v", env.Client)
	}
	c.do("XFORWARD NAME=spike.test", "250")
	c.do("RSET", "250")
	if env := send(); env.Client != (Client{}) {
		t.Errorf("after RSET: %+v", env.Client)
	}
	c.do("XFORWARD NAME=spike.test", "250")
	c.do("XFORWARD NAME=other.test ADDR=nonsense", "501") // all of it or nothing
	c.do("XFORWARD ADDR=[unavailable] HELO=[TEMPUNAVAIL]", "250")
	if env := send(); env.Client != (Client{Name: "spike.test"}) {
		t.Errorf("%+v", env.Client)
	}
}

// TestXClientFacts: the client that is named takes the proxy's place, with a
// login where it has one.
func TestXClientFacts(t *testing.T) {
	h := &testHandler{}
	l := listen(t, h, func(o *ListenerOptions) {
		o.XClient, o.XForward, o.Authenticator, o.Auth, o.Role = true, true, desk, AuthRequire, RoleOutbound
	})
	c := greeted(t, l)
	c.do("XCLIENT LOGIN=nobody@city.example ADDR=192.0.2.7", "535 5.7.8")
	c.do("XCLIENT NAME=home.test ADDR=192.0.2.7 PORT=4711 PROTO=SMTP HELO=laptop LOGIN=Kim@city.example", "220")
	c.begin() // HELO= stands for a greeting
	c.do("hi\r\n.", "250")
	env := h.got()[0].env
	if env.Peer != netip.MustParseAddr("192.0.2.7") || env.PeerName != "192.0.2.7:4711" || env.PeerHost != "home.test" ||
		!env.PeerNamed || env.Helo != "laptop" || env.Protocol != "SMTP" || env.Login != "kim@city.example" {
		t.Errorf("%+v", env)
	}
	for _, command := range []string{"XCLIENT ADDR=127.0.0.1", "XCLIENT LOGIN=ann@city.example", "XFORWARD NAME=x"} {
		c.do(command, "550 5.7.0 ")
	}
	c.do("EHLO other.test", "250")
	c.begin()
	c.do("hi\r\n.", "250")
	if env := h.got()[1].env; env.Helo != "other.test" || env.Protocol != "ESMTPA" || env.Peer != netip.MustParseAddr("192.0.2.7") {
		t.Errorf("%+v", env)
	}

	c = greeted(t, l) // another client has no login
	c.do("XCLIENT ADDR=192.0.2.8", "220")
	c.do("EHLO other.test", "250")
	c.do("MAIL FROM:<a@b.test>", "530 5.7.0")

	c = greeted(t, l) // a client that is a peer itself may go on
	c.do("XCLIENT ADDR=127.0.0.3", "220")
	c.do("EHLO other.test", "250")
	c.do("XCLIENT ADDR=192.0.2.8", "220")
}

// TestXClientWithoutAddress: a proxy that tells only a part has not named the
// client; one that does not know the address has.
func TestXClientWithoutAddress(t *testing.T) {
	h := &testHandler{}
	l := listen(t, h, func(o *ListenerOptions) { o.XClient = true })
	for command, named := range map[string]bool{"XCLIENT HELO=laptop.test": false, "XCLIENT ADDR=[UNAVAILABLE]": true, "XCLIENT ADDR=192.0.2.7": true} {
		c := greeted(t, l)
		c.do(command, "220")
		c.do("EHLO laptop.test", "250")
		c.begin()
		c.do("hi\r\n.", "250")
		all := h.got()
		if env := all[len(all)-1].env; env.PeerNamed != named {
			t.Errorf("%s: %+v", command, env)
		}
	}
}
