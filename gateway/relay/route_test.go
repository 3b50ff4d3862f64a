package relay

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/casegate/casegate/store"
)

func TestNextHops(t *testing.T) {
	for _, c := range []struct{ in, network, address, err string }{
		{in: "smtp://127.0.0.1:2526", network: "tcp", address: "127.0.0.1:2526"},
		{in: "smtp://localhost", network: "tcp", address: "localhost:25"},
		{in: "lmtp://[::1]/", network: "tcp", address: "[::1]:24"},
		{in: "lmtp:///run/lmtp", network: "unix", address: "/run/lmtp"},
		{in: "smtp:///run/a%20b", network: "unix", address: "/run/a b"},
		{in: "lmtp://unix:/run/lmtp", err: "write lmtp:///run/lmtp"},
		{in: "lmtp+unix:/run/lmtp", err: "or lmtp:///path"},
		{in: "lmtp:run", err: "write lmtp://host:port or lmtp:///path"},
		{in: "smtp://host/path", err: "write smtp://host:port or smtp:///path"},
		{in: "127.0.0.1:25", err: "write none, smtp://host:port"},
		{in: "smtp://user@host", err: "write none, smtp://host:port"},
		{in: "smtp://mx.example:99999", err: "port 99999 is none of 1 to 65535"},
		{in: "smtp://mx.example:0", err: "port 0 is none of"},
		{in: "smtp://", err: "write smtp://host:port"},
		{in: "", err: "write none"},
	} {
		e, err := parseNextHop(c.in)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: error %v lacks %q", c.in, err, c.err)
			}
			continue
		}
		if err != nil || e.network != c.network || e.address != c.address || e.lmtp != strings.HasPrefix(c.in, "lmtp") {
			t.Errorf("%q: %+v, %v", c.in, e, err)
		}
	}
}

// TestRoutesThatCannotBeMeant: better no route than mail in the clear, or a
// password where everybody can read it.
func TestRoutesThatCannotBeMeant(t *testing.T) {
	pin := strings.Repeat("ab", 32)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	auth := &Auth{User: "kim", PasswordFile: secret}
	for _, c := range []struct {
		route Route
		err   string
	}{
		{Route{NextHop: "smtp://127.0.0.1:25"}, ""},
		{Route{NextHop: "smtp://[::1]:25", TLS: "none"}, ""},
		{Route{NextHop: "lmtp:///run/lmtp"}, ""},
		{Route{NextHop: "none", TLS: "verify"}, ""},
		{Route{NextHop: "smtp://mx.example:25"}, ""},
		{Route{NextHop: "smtp://mx.example:25", TLS: "require", Further: []string{"smtps://mx2.example"}}, ""},
		{Route{NextHop: "smtp://mx.example:25", TLS: "pin", TLSPin: []string{pin}, Auth: auth}, ""},
		{Route{NextHop: "smtp://127.0.0.1:25", TLS: "yes"}, `tls "yes" is none of`},
		{Route{NextHop: "smtp://mx.example:25", TLS: "pin"}, "tls pin and the pins themselves go together"},
		{Route{NextHop: "smtp://mx.example:25", TLSPin: []string{pin}}, "tls pin and the pins themselves go together"},
		{Route{NextHop: "smtp://mx.example:25", TLS: "pin", TLSPin: []string{"abc"}}, "is not the SHA-256 of a public key"},
		{Route{NextHop: "smtp://mx.example:25", TLS: "require", TLSCA: secret}, "a CA file is for tls verify"},
		{Route{NextHop: "smtp://mx.example:25", TLSCA: secret}, "holds no certificate in PEM"},
		{Route{NextHop: "smtp://mx.example:25", TLSCA: secret + "x"}, "no such file"},
		{Route{NextHop: "smtps://mx.example", TLS: "opportunistic"}, "smtps has TLS always"},
		{Route{NextHop: "smtps://mx.example", TLS: "none"}, "smtps without TLS"},
		{Route{NextHop: "smtp://mx.example", Further: []string{"smtp://mx.example"}}, "stands there twice"},
		{Route{NextHop: "none", Further: []string{"smtp://mx.example"}}, "none, and behind it a next hop"},
		{Route{NextHop: "smtp://127.0.0.1:25", Auth: auth}, "signing in needs tls verify or pin, not none"},
		{Route{NextHop: "smtp://mx.example", TLS: "require", Auth: auth}, "signing in needs tls verify or pin, not require"},
		{Route{NextHop: "smtp://mx.example", TLS: "opportunistic", Auth: auth}, "signing in needs tls verify or pin, not opportunistic"},
		{Route{NextHop: "smtp://mx.example", Auth: &Auth{PasswordFile: secret}}, "needs a user"},
		{Route{NextHop: "smtp://mx.example", Auth: &Auth{User: "kim"}}, "a password file or a token URL"},
		{Route{NextHop: "smtp://mx.example", Auth: &Auth{User: "kim", PasswordFile: secret + "x"}}, "no such file"},
		{Route{NextHop: "smtp://mx.example", Auth: &Auth{User: "kim", TokenURL: "http://login.example/token", ClientID: "x", SecretFile: secret}}, "must be https"},
		{Route{NextHop: "smtp://mx.example", MaxPerSecond: -1}, "max per second -1 is negative"},
	} {
		c.route.Role = "outbound"
		_, err := New(newMemory(), Options{Hostname: "gw.city.example", Routes: []Route{{Role: "inbound", NextHop: None}, c.route}})
		switch {
		case c.err == "" && err != nil:
			t.Errorf("%+v: %v", c.route, err)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), "route 2 (outbound): ") || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%+v: %v", c.route, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Error("it tells a secret")
		}
	}
}

func TestFirstRouteWins(t *testing.T) {
	r, err := New(newMemory(), Options{Hostname: "gw.city.example", Routes: []Route{
		{Role: "inbound", NextHop: None},
		{Role: "outbound", Sender: "<>", NextHop: "smtp://127.0.0.1:1"},
		{Role: "outbound", Recipient: "Ana@Example.com", NextHop: "smtp://127.0.0.1:2"},
		{Role: "outbound", Recipient: "@example.com", NextHop: "smtp://127.0.0.1:3"},
		{Role: "outbound", Recipient: ".example.com", NextHop: "smtp://127.0.0.1:4"},
		{Role: "outbound", Sender: "bücher.example", NextHop: "smtp://127.0.0.1:5"},
		{Role: "outbound", Sender: "desk@city.example", NextHop: "smtp://127.0.0.1:6"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ role, from, to, want string }{
		{"inbound", "a@b", "c@d", "none"},
		{"outbound", "", "ana@example.com", "1"},
		{"outbound", "a@b", "aNA@EXAMPLE.com", "2"},
		{"outbound", "a@b", "ben@example.com.", "3"},
		{"outbound", "a@b", "ben@mx.example.com", "4"},
		{"outbound", "a@b", "ben@badexample.com", ""},
		{"outbound", "a@xn--bcher-kva.example", "x@y", "5"},
		{"outbound", "desk@city.example", "x@y", "6"},
		{"outbound", "Desk+token@city.example", "x@y", "6"},
		{"outbound", "+desk@city.example", "x@y", ""},
		{"outbound", "desk@city.example+x", "x@y", ""},
		{"other", "desk@city.example", "x@y", ""},
	} {
		rt, ok := r.Route(c.role, c.from, c.to)
		if got := rt.NextHop[strings.LastIndexByte(rt.NextHop, ':')+1:]; got != c.want || ok != (c.want != "") {
			t.Errorf("%+v: %q %v", c, got, ok)
		}
	}
	if err := r.SetRoutes([]Route{{Role: "sideways"}}); err == nil {
		t.Error("bad routes were taken")
	}
	if rt, _ := r.Route("inbound", "", ""); rt.NextHop != None {
		t.Error("the old routes are gone")
	}
}

// FuzzSendable: whatever address is let through, MAIL and RCPT stay one line
// with one path.
func FuzzSendable(f *testing.F) {
	for _, s := range []string{"a@b", `"a b"@c`, `"a\"> X"@c`, "a@b>\r\nDATA", "a b@c", `"a`, "@a,@b:c@d", "jürgen@x", "a\x00@b", "<a@b>", "a@b> SIZE=1", `a\>@b`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e := envelope{from: s, ret: s, envid: s}
		ext := extensions{dsn: true, utf8: true, eightBit: true}
		mail := string(e.appendMail(nil, ext, 1))
		rcpt := string(appendRcpt(nil, store.Recipient{Address: s, Notify: []string{s}, ORcpt: s}, ext))
		if !sendable(s) { // never sent; but the parameters must be safe
			mail, rcpt = mail[strings.LastIndex(mail, "> BODY"):], strings.Replace(rcpt, "<"+s+">", "<>", 1)
		} else if path(mail) != "MAIL FROM:<"+s+">" || path(rcpt) != "RCPT TO:<"+s+">" {
			t.Errorf("%q and %q end their path elsewhere", mail, rcpt)
		}
		for _, line := range []string{mail, rcpt} {
			if !strings.HasSuffix(line, "\r\n") || strings.IndexFunc(line[:len(line)-2], unicode.IsControl) >= 0 {
				t.Errorf("%q is not one line", line)
			}
		}
	})
}

// path returns a command up to the > that ends its path.
func path(line string) string {
	quoted := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == '>' && !quoted:
			return line[:i+1]
		}
	}
	return ""
}

func TestAddresses(t *testing.T) {
	for s, want := range map[string]bool{
		"": true, "a@b": true, `"a b"@c`: true, `"a\">"@c`: true, "jürgen@x": true, "a@[127.0.0.1]": true,
		"a b@c": false, "a@b>": false, "a@b\r\n": false, `"a`: false, "@a,@b:c@d": false, "a\x7f@b": false, "\xff@b": false, `a\@b`: false, "a\u2028@b": false,
	} {
		if sendable(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
}

// TestReloadMendsWhatHangs: with new routes mail does not wait for those before it
// at a next hop that is in them no more, be it slow or silent.
func TestReloadMendsWhatHangs(t *testing.T) {
	for _, script := range []string{
		"A:", // no greeting
		hello + eight + "C: MAIL*\nA:",
	} {
		synctest.Test(t, func(t *testing.T) {
			m, hangs := newMemory(), newPeer(t, script)
			good := newPeer(t, hello+eight+strings.Repeat(mail1+data, 100))
			var ids []store.ID
			for range 200 {
				ids = append(ids, m.add(eml, time.Now(), "ana@x.example"))
			}
			r, stop := run(t, m, Options{
				Dial:   dialers(map[string]*peer{"127.0.0.1:1": hangs, "127.0.0.1:2": good}),
				Routes: []Route{{Role: "outbound", NextHop: "smtp://127.0.0.1:1"}},
			})
			time.Sleep(time.Minute)
			if err := r.SetRoutes([]Route{{Role: "outbound", NextHop: "smtp://127.0.0.1:2"}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			left := 0
			for _, id := range ids {
				if d := m.get(id); d.State != store.Delivered {
					left++
				}
			}
			stop()
			if most := strings.Count(script, "MAIL") * 10; left != most {
				t.Errorf("%d wait, %d of them at the old next hop", left, most)
			}
		})
	}
}
