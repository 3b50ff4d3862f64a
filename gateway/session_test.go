package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casegate/casegate/store"
)

func TestEnvelope(t *testing.T) {
	h := &testHandler{}
	l := listen(t, h, func(o *ListenerOptions) {
		o.Name, o.Role = "smarthost", RoleOutbound
	})
	c := greeted(t, l)
	c.do(`MAIL FROM:<"a b"@X.test> BODY=8BITMIME SIZE=99 RET=FULL ENVID=q+2B1 SMTPUTF8`, "250")
	c.do("RCPT TO:<c@d.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob@x.test", "250")
	c.do("RCPT TO:<C@D.test>", "250")
	c.do("RCPT TO:<é@d.test> NOTIFY=NEVER", "250")
	c.do("DATA", "354")
	c.do("hi\r\n.", "250")
	got := h.got()[0].env
	if !got.Peer.IsLoopback() || got.PeerName != c.LocalAddr().String() {
		t.Errorf("peer %v %q", got.Peer, got.PeerName)
	}
	want := Envelope{
		Listener: "smarthost", Role: RoleOutbound, Protocol: "ESMTP", Peer: got.Peer, PeerName: got.PeerName, Helo: "client.test",
		From: Path{`"a b"`, "X.test"}, SMTPUTF8: true, EightBit: true, RET: "FULL", EnvID: "q+1", DeclaredSize: 99,
		Recipients: []Recipient{
			{Path: Path{"c", "d.test"}, Notify: []string{"SUCCESS", "DELAY"}, ORCPT: "RFC822;Bob@x.test"},
			{Path: Path{"é", "d.test"}, Notify: []string{"NEVER"}},
		},
		Body: BodyFacts{Size: 4},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestHelloIsCleaned(t *testing.T) {
	h := &testHandler{}
	s := newStage(t, h, nil)
	c := script("HELO h\xc3\xa9\xff"+strings.Repeat("x", 300)+"\r\n", envelope+"DATA\r\n", "hi\r\n.\r\n")
	if err := s.play(c); err != nil {
		t.Fatal(err)
	}
	if env := h.got()[0].env; env.Helo != "h??"+strings.Repeat("x", 252) || env.Protocol != "SMTP" {
		t.Errorf("%q %q", env.Helo, env.Protocol)
	}
}

// TestHandlerErrors: whatever fails, the body is drained, the answer is ours,
// the session goes on, and the sink is given back.
func TestHandlerErrors(t *testing.T) {
	secret := errors.New("dial tcp 10.1.2.3: secret")
	for _, x := range []struct {
		name string
		h    *testHandler
		want string // replies to MAIL, RCPT, DATA, the message, and NOOP
		text string
	}{
		{"mail", &testHandler{mail: func(*Envelope) error { return secret }}, "451 502 502 500 250", "451 4.3.0 Local error"},
		{"rcpt", &testHandler{rcpt: func(Recipient) error { return fmt.Errorf("x: %w", Verdict{550, [3]int{5, 1, 1}, "nobody"}) }}, "250 550 502 500 250", "550 5.1.1 nobody"},
		{"spool", &testHandler{spool: func() error { return fmt.Errorf("stage: %w", store.ErrFull) }}, "250 250 354 452 250", "452 4.3.1 "},
		{"write", &testHandler{write: func(n int) error { return secret }}, "250 250 354 451 250", "451 4.3.0 Local error"},
		{"accept", &testHandler{accept: func(context.Context, *Envelope, []byte) error { return secret }}, "250 250 354 451 250", "451 4.3.0 Local error"},
		{"verdict", &testHandler{accept: func(context.Context, *Envelope, []byte) error { return &Verdict{550, [3]int{5, 7, 1}, "no\r\n250 x"} }}, "250 250 354 550 250", "550 5.7.1 no??250 x\r\n"},
		{"close", &testHandler{accept: func(context.Context, *Envelope, []byte) error { return Verdict{421, [3]int{4, 7, 0}, "enough"} }}, "250 250 354 421", "421 4.7.0 enough\r\n"},
		{"panic", &testHandler{accept: func(context.Context, *Envelope, []byte) error { panic("boom") }}, "250 250 354 421", "421 4.3.0 internal error (id "},
		{"panic in mail", &testHandler{mail: func(*Envelope) error { panic("boom") }}, "421", "421 4.3.0 internal error (id "},
		{"panic in rcpt", &testHandler{rcpt: func(Recipient) error { panic("boom") }}, "250 421", "421 4.3.0 internal error (id "},
		{"panic in spool", &testHandler{spool: func() error { panic("boom") }}, "250 250 354 421", "421 4.3.0 internal error (id "},
		{"panic in write", &testHandler{write: func(int) error { panic("boom") }}, "250 250 354 421", "421 4.3.0 internal error (id "},
	} {
		t.Run(x.name, func(t *testing.T) {
			s := newStage(t, x.h, nil)
			c := script(hello, envelope+"DATA\r\n", "XXXX\r\n.\r\n", "NOOP\r\n")
			if strings.HasPrefix(x.want, "451") || strings.Contains(x.want, "502") {
				c = script(hello, envelope+"DATA\r\n", "XXXX\r\n", "NOOP\r\n")
			}
			if err := s.play(c); err != nil || c.replies() != "220 250 "+x.want {
				t.Errorf("%v: got %s, want %s", err, c.replies(), x.want)
			}
			if out := c.out.String(); !strings.Contains(out, x.text) || strings.Contains(out, "secret") || strings.Contains(out, "boom") {
				t.Errorf("said %q", out)
			}
			if err := x.h.unbalanced(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestHandlerErrorsInBDAT is the same where the body comes in chunks, before
// go-smtp hears of it.
func TestHandlerErrorsInBDAT(t *testing.T) {
	for _, x := range []struct {
		name, want string
		h          *testHandler
	}{
		{"spool", "250 250 250 452 250", &testHandler{spool: func() error { return store.ErrFull }}},
		{"write", "250 250 250 452 250", &testHandler{write: func(int) error { return store.ErrFull }}},
		{"accept", "250 250 250 452 250", &testHandler{accept: func(context.Context, *Envelope, []byte) error { return store.ErrFull }}},
		{"panic in spool", "250 250 421", &testHandler{spool: func() error { panic("boom") }}},
		{"panic in write", "250 250 421", &testHandler{write: func(int) error { panic("boom") }}},
		{"panic in accept", "250 250 250 421", &testHandler{accept: func(context.Context, *Envelope, []byte) error { panic("boom") }}},
	} {
		t.Run(x.name, func(t *testing.T) {
			s := newStage(t, x.h, nil)
			c := script(hello, envelope+"BDAT 3\r\nabcBDAT 2 LAST\r\n\r\nNOOP\r\n")
			if err := s.play(c); err != nil || c.replies() != "220 250 "+x.want {
				t.Errorf("%v: got %s, want %s", err, c.replies(), x.want)
			}
			if err := x.h.unbalanced(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLMTPErrorForEach(t *testing.T) {
	h := &testHandler{accept: func(context.Context, *Envelope, []byte) error { return store.ErrFull }}
	s := newStage(t, h, func(o *ListenerOptions) { o.Protocol = "lmtp" })
	c := script("LHLO c.test\r\n", envelope+"RCPT TO:<c@d.test>\r\nDATA\r\n", "hi\r\n.\r\n", "NOOP\r\n")
	if err := s.play(c); err != nil || c.replies() != "220 250 250 250 250 354 452 452 250" {
		t.Error(err, c.replies())
	}
}

// TestBrokenOff: a connection that ends inside a body leaves no message and no
// sink.
func TestBrokenOff(t *testing.T) {
	h := &testHandler{}
	s := newStage(t, h, nil)
	for _, c := range []*scriptConn{
		script(hello, envelope+"DATA\r\n"),
		script(hello, envelope+"DATA\r\n", "half a mess"),
		script(hello, envelope+"DATA\r\n", "all but the end\r\n.\r"),
		script(hello, envelope+"BDAT 10\r\n", "half"),
		script(hello, envelope+"BDAT 4\r\n", "half"),
		script(hello, envelope+"BDAT 4 LAST\r\n", "hal"),
	} {
		if err := s.play(c); err != nil {
			t.Fatal(err)
		}
	}
	if len(h.got()) > 0 || h.opened != 6 {
		t.Errorf("%d messages, %d sinks", len(h.got()), h.opened)
	}
	if err := h.unbalanced(); err != nil {
		t.Error(err)
	}
}

func TestDeadlines(t *testing.T) {
	short := 40 * time.Millisecond
	for _, x := range []struct {
		name   string
		change func(*ListenerOptions)
		play   func(c *client)
	}{
		{"idle", func(o *ListenerOptions) { o.IdleTimeout = short }, func(c *client) {}},
		{"a line that trickles", func(o *ListenerOptions) { o.IdleTimeout = short }, func(c *client) { trickle(c, "N", 300) }},
		{"body idle", func(o *ListenerOptions) { o.BodyIdle = short }, func(c *client) { c.begin(); c.send("x") }},
		{"body in all", func(o *ListenerOptions) { o.BodyTotal, o.MinRate = short, -1 }, func(c *client) { c.begin(); trickle(c, "x", 300) }},
		{"body too slow", func(o *ListenerOptions) { o.BodyIdle, o.MinRate = short, 1e6 }, func(c *client) { c.begin(); trickle(c, "x", 300) }},
		{"between chunks", func(o *ListenerOptions) { o.BodyIdle = short }, func(c *client) {
			c.do("MAIL FROM:<a@b.test>", "250")
			c.do("RCPT TO:<c@d.test>", "250")
			c.do("BDAT 2\r\n", "250")
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			c := greeted(t, listen(t, &testHandler{}, x.change))
			start := time.Now()
			x.play(c)
			c.expect("421 4.4.2 ")
			if d := time.Since(start); d < short || d > 50*short {
				t.Errorf("after %v", d)
			}
			c.gone()
		})
	}
}

// trickle sends text again and again until the server has had enough.
func trickle(c *client, text string, times int) {
	for range times {
		if _, err := c.Write([]byte(text)); err != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Time that our sink takes is not the client's fault.
func TestOurSlownessIsNotTheClients(t *testing.T) {
	h := &testHandler{write: func(int) error { time.Sleep(50 * time.Millisecond); return nil }}
	c := greeted(t, listen(t, h, func(o *ListenerOptions) { o.BodyTotal, o.BodyIdle = 400*time.Millisecond, 300*time.Millisecond }))
	c.begin()
	c.send(strings.Repeat("0123456789abcd\r\n", 40_000) + ".\r\n")
	c.expect("250")
}

func TestPanicIsLogged(t *testing.T) {
	var log strings.Builder
	h := &testHandler{accept: func(context.Context, *Envelope, []byte) error { panic("line\r\nbreak") }}
	s := newStage(t, h, func(o *ListenerOptions) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	c := script(hello, envelope+"DATA\r\n", "hi\r\n.\r\n")
	if err := s.play(c); err != nil {
		t.Fatal(err)
	}
	_, id, _ := strings.Cut(c.out.String(), "(id ")
	id, _, _ = strings.Cut(id, ")")
	if got := log.String(); len(id) != 12 || !strings.Contains(got, "id="+id) || !strings.Contains(got, "peer=127.0.0.1:2000") || strings.Count(got, "\n") != 1 {
		t.Errorf("id %q, log %s", id, got)
	}
}

// TestContextEnds: a handler at work learns that the listener gives up.
func TestContextEnds(t *testing.T) {
	var ended atomic.Bool
	h := &testHandler{accept: func(ctx context.Context, _ *Envelope, _ []byte) error {
		<-ctx.Done()
		ended.Store(true)
		return ctx.Err()
	}}
	l := listen(t, h, nil)
	c := greeted(t, l)
	c.begin()
	c.send("x\r\n.\r\n")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	l.Shutdown(ctx)
	if !ended.Load() {
		t.Error("the handler's context didn't end before Shutdown returned")
	}
}
