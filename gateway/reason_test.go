package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/casegate/casegate/gateway/testbed"
	"github.com/casegate/casegate/store"
)

// tally keeps what a listener told of its refusals, as "reason code".
type tally struct {
	mu   sync.Mutex
	list []string
}

func (a *tally) refused(why Reason, code int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list = append(a.list, fmt.Sprint(why, " ", code))
}

func (a *tally) got() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string{}, a.list...)
}

// TestRefusals: each answer 4xx or 5xx is told of once, with its reason, whoever
// gave it: the framing, go-smtp, the session or the handler.
func TestRefusals(t *testing.T) {
	p := testTLS(t)
	const mail, rcpt, data = "MAIL FROM:<a@b.test>\r\n", "RCPT TO:<c@d.test>\r\n", "DATA\r\n"
	for _, c := range []struct {
		name   string
		change func(*ListenerOptions, *testHandler)
		says   string // EHLO before it
		want   []string
	}{
		{"nothing", nil, mail + rcpt + data, nil},
		{"a long line", nil, "NOOP " + strings.Repeat("x", lineMax) + "\r\n", []string{"line 500"}},
		{"controls", nil, "NOOP \x01\r\n", []string{"line 501"}},
		{"only mistakes", nil, strings.Repeat("NOOP \x01\r\n", faultsMax+1), append(slicesOf("line 501", faultsMax+1), "errors 421")},
		{"no such command", nil, "HELLO\r\n", []string{"command 501"}},
		{"out of order", nil, rcpt, []string{"command 502"}},
		{"twice", nil, "HELLO\r\nHELLO\r\n", []string{"command 501", "command 501"}},
		{"nested", nil, mail + mail, []string{"command 503"}},
		{"no address", nil, "MAIL FROM:<a b@c>\r\n", []string{"command 501"}},
		{"an address that is not taken", nil, "MAIL FROM:<\"a@b\"@c.test>\r\n", []string{"address 553"}},
		{"declared too large", nil, "MAIL FROM:<a@b.test> SIZE=99999999999\r\n", []string{"size 552"}},
		{"a chunk too large", func(o *ListenerOptions, _ *testHandler) { o.MaxMessage = 5 }, mail + rcpt + "BDAT 9 LAST\r\n123456789", []string{"size 552"}},
		{"before 354", nil, mail + rcpt + data + "Subject: x\r\n", []string{"early 554"}},
		{"AUTH not offered", nil, "AUTH PLAIN\r\n", []string{"command 502"}},
		{"AUTH without TLS", func(o *ListenerOptions, _ *testHandler) { o.Authenticator = desk }, "AUTH PLAIN AGEAYg==\r\n", []string{"tls 538"}},
		{"a wrong password", func(o *ListenerOptions, _ *testHandler) { o.Authenticator, o.AuthWithoutTLS = desk, true }, "AUTH PLAIN AGEAYg==\r\n", []string{"auth 535"}},
		{"AUTH required", func(o *ListenerOptions, _ *testHandler) {
			o.Authenticator, o.AuthWithoutTLS, o.Auth = desk, true, AuthRequire
		}, mail, []string{"auth 530"}},
		{"TLS required", func(o *ListenerOptions, _ *testHandler) { o.TLSMode, o.TLS, o.RequireTLS = TLSStart, p.server, true }, mail, []string{"tls 530"}},
		{"input behind STARTTLS", func(o *ListenerOptions, _ *testHandler) { o.TLSMode, o.TLS = TLSStart, p.server }, "STARTTLS\r\nNOOP\r\n", []string{"early 554"}},
		{"a rule", func(_ *ListenerOptions, h *testHandler) {
			h.rcpt = func(Recipient) error { return Verdict{550, [3]int{5, 1, 1}, "nobody"} }
		}, mail + rcpt, []string{"rule 550"}},
		{"a full disk", func(_ *ListenerOptions, h *testHandler) {
			h.rcpt = func(Recipient) error { return store.ErrFull }
		}, mail + rcpt, []string{"local 452"}},
		{"a defect", func(_ *ListenerOptions, h *testHandler) { h.rcpt = func(Recipient) error { return errors.New("x") } }, mail + rcpt, []string{"local 451"}},
		{"a rule that hangs up", func(_ *ListenerOptions, h *testHandler) {
			h.rcpt = func(Recipient) error { return Verdict{421, [3]int{4, 7, 0}, "go"} }
		}, mail + rcpt, []string{"rule 421"}},
		{"a panic", func(_ *ListenerOptions, h *testHandler) { h.rcpt = func(Recipient) error { panic("x") } }, mail + rcpt, []string{"local 421"}},
		{"idle", func(o *ListenerOptions, _ *testHandler) { o.IdleTimeout = 50 * time.Millisecond }, "", []string{"idle 421"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var all tally
			h := &testHandler{}
			l := listen(t, h, func(o *ListenerOptions) {
				o.Refused = all.refused
				if c.change != nil {
					c.change(o, h)
				}
			})
			conn := dial(t, l)
			conn.expect("220")
			conn.do("EHLO client.test", "250")
			conn.send(c.says)
			want := c.want
			if want == nil {
				want = []string{}
			}
			for range 500 {
				if len(all.got()) >= len(want) {
					break
				}
				time.Sleep(2 * time.Millisecond)
			}
			if diff := cmp.Diff(want, all.got()); diff != "" {
				t.Error(diff)
			}
		})
	}
	for _, c := range []struct {
		name, body string
		want       string
	}{
		{"bare newlines", "x\ny\r\n.\r\n", "newline 550"},
		{"NUL beside a dot", "x\x00.\r\n.\r\n", "newline 550"},
		{"too large", strings.Repeat("x", 70) + "\r\n.\r\n", "size 552"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var all tally
			l := listen(t, &testHandler{}, func(o *ListenerOptions) { o.Refused, o.MaxMessage = all.refused, 64 })
			conn := greeted(t, l)
			conn.begin()
			conn.send(c.body)
			conn.expect("55")
			if diff := cmp.Diff([]string{c.want}, all.got()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func slicesOf(s string, n int) (list []string) {
	for range n {
		list = append(list, s)
	}
	return list
}

// TestRefusedAtTheDoor: who is not let in is counted, too.
func TestRefusedAtTheDoor(t *testing.T) {
	var all tally
	l := listen(t, &testHandler{}, func(o *ListenerOptions) {
		o.Refused, o.Peers = all.refused, []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}
	})
	dial(t, l).expect("554")
	l = listen(t, &testHandler{}, func(o *ListenerOptions) { o.Refused, o.MaxPerPeer = all.refused, 1 })
	greeted(t, l)
	dial(t, l).expect("421")
	if diff := cmp.Diff([]string{"peer 554", "connections 421"}, all.got()); diff != "" {
		t.Error(diff)
	}
}

// TestSharedSeats: the caps hold for listeners together that share their seats,
// and a place is free again when its connection has gone.
func TestSharedSeats(t *testing.T) {
	seats := NewSeats()
	share := func(o *ListenerOptions) { o.Seats, o.MaxConnections, o.MaxPerPeer = seats, 3, 2 }
	one, two := listen(t, &testHandler{}, share), listen(t, &testHandler{}, share)
	first := greeted(t, one)
	greeted(t, two)
	for _, l := range []*Listener{one, two} {
		dial(t, l).expect("421 4.7.0 Too many connections from your address")
	}
	first.do("QUIT", "221")
	first.gone()
	testbed.Until(t, "the first connection is forgotten", func() bool { return one.Connections() == 0 })
	greeted(t, two)
	dial(t, one).expect("421 4.7.0 Too many connections from your address")
}
