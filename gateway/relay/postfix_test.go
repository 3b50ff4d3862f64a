package relay

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/casegate/casegate/gateway/testbed"
	"github.com/casegate/casegate/store"
)

// behindReceived is a mail without the fields that a server put on top.
func behindReceived(mail string) string {
	for strings.HasPrefix(mail, "Received:") {
		end := strings.Index(mail, "\r\n")
		for end+2 < len(mail) && (mail[end+2] == ' ' || mail[end+2] == '\t') {
			end += 2 + strings.Index(mail[end+2:], "\r\n")
		}
		mail = mail[end+2:]
	}
	return mail
}

// TestPostfixAsNextHop: a real Postfix takes our mail over TLS that a CA of the
// test vouches for, from who signs in, and hands on the bytes we sent.
func TestPostfixAsNextHop(t *testing.T) {
	world := newSink(t, "smtp", func(srv *smtp.Server) { srv.MaxMessageBytes = 64 << 20 })
	ca := testbed.NewAuthority(t)
	cert := ca.Issue(nil)
	s := testbed.StartSubmission(t, cert, testbed.StartDovecot(t, cert), world.nextHop)
	testbed.Write(t, s.Path("password"), "secret of ana\n")
	testbed.Write(t, s.Path("wrong"), "secret of ben\n")
	route := func(scheme, at, password string) Route {
		return Route{
			NextHop: scheme + "://" + at, TLS: TLSVerify, TLSCA: ca.File, MaxConnections: 1,
			Auth: &Auth{User: "ana@x.example", PasswordFile: s.Path(password)},
		}
	}
	arrives := func(t *testing.T, to, eml string) {
		t.Helper()
		testbed.Until(t, "Postfix has handed it on to "+to, func() bool { return len(world.got(to)) > 0 })
		if got := world.got(to); len(got) != 1 || behindReceived(string(got[0])) != eml {
			t.Errorf("%s got %d mails, not just the one sent of %d octets: %.300q", to, len(got), len(eml), got[0])
		}
	}
	letter := strings.ReplaceAll(bigMail(3000), "\x00", "o")

	for _, c := range []struct{ scheme, at string }{{"smtp", s.STARTTLS}, {"smtps", s.SMTPS}} {
		t.Run(c.scheme, func(t *testing.T) {
			to := c.scheme + "@y.example"
			d := attempt(t, route(c.scheme, c.at, "password"), letter, nil, to)
			if d.State != store.Delivered || !strings.HasPrefix(d.Recipients[0].Reply, "250 2.0.0 Ok: queued as ") {
				t.Fatalf("%+v", d)
			}
			if f := d.Attempts[0].TLS; f == nil || f.Trust != "verified" || f.Version != "TLS 1.3" || f.Pin != cert.Pin || f.Peer != "127.0.0.1" {
				t.Errorf("%+v", f)
			}
			arrives(t, to, letter)
		})
	}
	t.Run("another CA", func(t *testing.T) {
		rt := route("smtp", s.STARTTLS, "password")
		rt.TLSCA = testbed.NewAuthority(t).File
		if d := attempt(t, rt, letter, nil, "other-ca@y.example"); d.State != store.Queued || !strings.Contains(d.Attempts[0].Reply, "unknown authority") {
			t.Errorf("%+v", d)
		}
	})
	t.Run("a wrong password", func(t *testing.T) {
		d := attempt(t, route("smtp", s.STARTTLS, "wrong"), letter, nil, "wrong@y.example")
		if d.State != store.Queued || !strings.Contains(d.Attempts[0].Reply, "signing in with PLAIN: 535 5.7.8 ") {
			t.Errorf("%+v", d)
		}
	})
	t.Run("nobody signs in", func(t *testing.T) {
		rt := route("smtp", s.STARTTLS, "")
		rt.Auth = nil
		if d := attempt(t, rt, letter, nil, "nobody@y.example"); d.State != store.Failed || !strings.HasPrefix(d.Recipients[0].Reply, "554 5.7.1 ") {
			t.Errorf("%+v", d)
		}
	})
	t.Run("DSN is passed on", func(t *testing.T) {
		d := attempt(t, route("smtp", s.STARTTLS, "password"), letter, func(d *store.Delivery) {
			d.RET, d.EnvID = "HDRS", "QQ+314 =15"
			d.Recipients[0].Notify, d.Recipients[0].ORcpt = []string{"SUCCESS", "DELAY"}, "rfc822;Dana+Old@y.example"
			d.Recipients[1].Notify = []string{"NEVER"}
		}, "dsn@y.example", "never@y.example")
		if d.State != store.Delivered {
			t.Fatalf("%+v", d)
		}
		arrives(t, "dsn@y.example", letter)
		world.mu.Lock()
		defer world.mu.Unlock()
		asked := world.asked["dsn@y.example"]
		if fmt.Sprint(asked.Notify) != "[SUCCESS DELAY]" || asked.OriginalRecipient != "Dana+Old@y.example" || fmt.Sprint(world.asked["never@y.example"].Notify) != "[NEVER]" {
			t.Errorf("%+v, %+v", asked, world.asked["never@y.example"])
		}
		if last := world.mailed[len(world.mailed)-1]; last.Return != "HDRS" || last.EnvelopeID != "QQ+314 =15" {
			t.Errorf("%+v", last)
		}
	})
	t.Run("one of three refused, one later", func(t *testing.T) {
		d := attempt(t, route("smtp", s.STARTTLS, "password"), letter, nil, "gone@x.example", "three@y.example", "busy@x.example")
		if r := d.Recipients; r[0].State != store.Failed || r[1].State != store.Delivered || r[2].State != store.Queued ||
			!strings.HasPrefix(r[0].Reply, "550 5.1.1 ") || !strings.HasPrefix(r[2].Reply, "450 4.2.1 ") {
			t.Errorf("%+v", d)
		}
		arrives(t, "three@y.example", letter)
	})
	t.Run("SMTPUTF8", func(t *testing.T) {
		d := attempt(t, route("smtp", s.STARTTLS, "password"), letter, nil, "dörte@y.example")
		if d.State != store.Delivered {
			t.Errorf("%+v", d)
		}
		testbed.Until(t, "Postfix tries to hand it on", func() bool { return strings.Contains(s.Log(), "to=<dörte@y.example>") }) // our sink knows no such ORCPT
	})
	t.Run("a next hop that lacks it", func(t *testing.T) {
		rt := route("smtp", s.Bare, "password")
		for to, c := range map[string]struct{ eml, reply string }{
			"eight@y.example": {letter, "5.6.3 the message is 8-bit"},
			"örte@y.example":  {eml, "5.6.7 the address needs SMTPUTF8"},
			"seven@y.example": {eml, "250 2.0.0 Ok: queued"},
		} {
			if d := attempt(t, rt, c.eml, nil, to); !strings.HasPrefix(d.Recipients[0].Reply, c.reply) {
				t.Errorf("%s: %+v", to, d)
			}
		}
		arrives(t, "seven@y.example", eml)
	})
	t.Run("large", func(t *testing.T) {
		large := strings.ReplaceAll(bigMail(20<<20), "\x00", "o")
		d := attempt(t, route("smtp", s.STARTTLS, "password"), large, nil, "large@y.example")
		if d.State != store.Delivered {
			t.Fatalf("%+v", d)
		}
		arrives(t, "large@y.example", large)
		before := strings.Count(s.Log(), "disconnect from")
		d = attempt(t, route("smtp", s.STARTTLS, "password"), large+large, nil, "larger@y.example")
		if d.State != store.Failed || !strings.Contains(d.Recipients[0].Reply, "octets, the next hop takes 30000000") {
			t.Errorf("%+v", d)
		}
		testbed.Until(t, "Postfix has seen the end of it", func() bool { return strings.Count(s.Log(), "disconnect from") > before })
		if strings.Contains(s.Log(), "too large") {
			t.Error("it was sent all the same")
		}
	})
	t.Run("one connection, commands at once", func(t *testing.T) {
		const mails = 40
		before := strings.Count(s.Log(), "]: connect from")
		m := newMemory()
		for i := range mails {
			m.add(letter, time.Now(), fmt.Sprintf("row%d@y.example", i))
		}
		rt := route("smtp", s.STARTTLS, "password")
		rt.Role = "outbound"
		_, stop := run(t, m, Options{Routes: []Route{rt}})
		for i := range mails {
			arrives(t, fmt.Sprintf("row%d@y.example", i), letter)
		}
		stop()
		testbed.Until(t, "Postfix has counted", func() bool {
			return strings.Contains(s.Log(), fmt.Sprintf("ehlo=2 starttls=1 auth=1 mail=%d rcpt=%[1]d data=%[1]d quit=1", mails))
		})
		if n := strings.Count(s.Log(), "]: connect from") - before; n != 1 {
			t.Errorf("%d connections", n)
		}
		if strings.Contains(s.Log(), "improper command pipelining") {
			t.Error("Postfix complains")
		}
	})
}
