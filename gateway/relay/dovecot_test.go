package relay

import (
	"strings"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway/testbed"
	"github.com/casegate/casegate/store"
)

// kept is a mail as Dovecot keeps it: with LF, and below fields of its own.
func kept(mail string) string {
	for strings.HasPrefix(mail, "Return-Path:") || strings.HasPrefix(mail, "Delivered-To:") ||
		strings.HasPrefix(mail, "Received:") || strings.HasPrefix(mail, "\t") || strings.HasPrefix(mail, " ") {
		_, mail, _ = strings.Cut(mail, "\n")
	}
	return strings.ReplaceAll(mail, "\n", "\r\n")
}

// TestDovecotAsNextHop: a real Dovecot takes mail by LMTP, over TCP and over a
// UNIX socket, with a word on each recipient (RFC 2033 §4.2).
func TestDovecotAsNextHop(t *testing.T) {
	ca := testbed.NewAuthority(t)
	cert := ca.Issue(nil)
	s := testbed.StartDovecot(t, cert)
	letter := strings.ReplaceAll(bigMail(3000), "\x00", "o")
	taken := 0 // by ana
	arrives := func(t *testing.T, eml string) {
		t.Helper()
		taken++
		testbed.Until(t, "it is in ana's mailbox", func() bool { return len(s.Mailbox("ana")) == taken })
		for _, got := range s.Mailbox("ana") {
			if kept(got) == eml {
				return
			}
		}
		t.Errorf("not as it was sent")
	}
	for _, c := range []struct {
		name  string
		route Route
		trust string
	}{
		{"UNIX", Route{NextHop: "lmtp://" + s.LMTPSocket}, ""},
		{"TCP", Route{NextHop: "lmtp://" + s.LMTP}, ""},
		{"TCP, verified", Route{NextHop: "lmtp://" + s.LMTP, TLS: TLSVerify, TLSCA: ca.File}, "verified"},
		{"UNIX, pinned", Route{NextHop: "lmtp://" + s.LMTPSocket, TLS: TLSPin, TLSPin: []string{cert.Pin}}, "pinned"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := attempt(t, c.route, letter, nil, "ana@x.example", "gone@x.example", "full@x.example")
			r := d.Recipients
			if r[0].State != store.Delivered || !strings.HasPrefix(r[0].Reply, "250 2.0.0 <ana@x.example> ") ||
				r[1].State != store.Failed || !strings.HasPrefix(r[1].Reply, "550 5.1.1 ") ||
				r[2].State == store.Delivered || !strings.Contains(r[2].Reply, "2.2 ") {
				t.Errorf("%+v", d)
			}
			if f := d.Attempts[0].TLS; (f == nil) != (c.trust == "") || f != nil && (f.Trust != c.trust || f.Pin != cert.Pin) {
				t.Errorf("%+v", f)
			}
			arrives(t, letter)
		})
	}
	t.Run("large", func(t *testing.T) {
		large := strings.ReplaceAll(bigMail(20<<20), "\x00", "o")
		if d := attempt(t, Route{NextHop: "lmtp://" + s.LMTPSocket}, large, nil, "ana@x.example"); d.State != store.Delivered {
			t.Errorf("%+v", d)
		}
		arrives(t, large)
	})
	t.Run("SMTPUTF8 is not offered", func(t *testing.T) {
		d := attempt(t, Route{NextHop: "lmtp://" + s.LMTPSocket}, letter, nil, "dörte@x.example", "ana@x.example")
		if r := d.Recipients; r[0].State != store.Failed || !strings.HasPrefix(r[0].Reply, "5.6.7 ") || r[1].State != store.Delivered {
			t.Errorf("%+v", d)
		}
		arrives(t, letter)
	})
	t.Run("one connection", func(t *testing.T) {
		const mails = 30
		before := strings.Count(s.Log(), ": Connect from")
		m := newMemory()
		for range mails {
			m.add(letter, time.Now(), "ben@x.example")
		}
		_, stop := run(t, m, Options{Routes: []Route{{Role: "outbound", NextHop: "lmtp://" + s.LMTPSocket, MaxConnections: 1}}})
		testbed.Until(t, "all are in ben's mailbox", func() bool { return len(s.Mailbox("ben")) == mails })
		stop()
		testbed.Until(t, "Dovecot has seen the end", func() bool {
			return strings.Count(s.Log(), ": Disconnect from") == strings.Count(s.Log(), ": Connect from")
		})
		if n := strings.Count(s.Log(), ": Connect from") - before; n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}
