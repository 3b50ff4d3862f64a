package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway/testbed"
)

// testHandler keeps what it accepts and counts what it must give back.
type testHandler struct {
	mail   func(*Envelope) error
	rcpt   func(Recipient) error
	spool  func() error
	write  func(n int) error
	accept func(context.Context, *Envelope, []byte) error

	mu       sync.Mutex
	messages []testMessage
	opened   int
	discards map[*testSink]int
}

type testMessage struct {
	env  Envelope
	body []byte
}

type testSink struct {
	h   *testHandler
	buf bytes.Buffer
}

func (s *testSink) Write(p []byte) (int, error) {
	if len(p) > bigBuffer {
		panic("a block of more than 64 KiB")
	}
	if s.h.write != nil {
		if err := s.h.write(s.buf.Len() + len(p)); err != nil {
			return 0, err
		}
	}
	return s.buf.Write(p)
}

func (s *testSink) Discard() {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	s.h.discards[s]++
}

func (h *testHandler) Mail(_ context.Context, env *Envelope) error {
	if h.mail != nil {
		return h.mail(env)
	}
	return nil
}

func (h *testHandler) Rcpt(_ context.Context, _ *Envelope, to Recipient) error {
	if h.rcpt != nil {
		return h.rcpt(to)
	}
	return nil
}

func (h *testHandler) Spool(context.Context, *Envelope) (Sink, error) {
	if h.spool != nil {
		if err := h.spool(); err != nil {
			return nil, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.opened++
	s := &testSink{h: h}
	if h.discards == nil {
		h.discards = map[*testSink]int{}
	}
	h.discards[s] = 0
	return s, nil
}

func (h *testHandler) Accept(ctx context.Context, env *Envelope, s Sink) (Receipt, error) {
	body := bytes.Clone(s.(*testSink).buf.Bytes())
	if h.accept != nil {
		if err := h.accept(ctx, env, body); err != nil {
			return Receipt{}, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.messages = append(h.messages, testMessage{*env, body})
	return Receipt{ID: "0192", Text: "accepted 0192 case 7"}, nil
}

func (h *testHandler) got() []testMessage {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.messages
}

// unbalanced reports sinks that were not discarded exactly once.
func (h *testHandler) unbalanced() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range h.discards {
		if n != 1 {
			return fmt.Errorf("a sink was discarded %d times", n)
		}
	}
	return nil
}

var quiet = slog.New(slog.DiscardHandler)

// listen starts a listener on loopback and stops it with the test.
func listen(t testing.TB, h Handler, change func(*ListenerOptions)) *Listener {
	t.Helper()
	o := ListenerOptions{Name: "test", Role: RoleInbound, Address: "127.0.0.1:0", Hostname: "gw.test", Logger: quiet}
	if change != nil {
		change(&o)
	}
	l, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- l.Serve(h) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := l.Shutdown(ctx); err != nil {
			t.Error("Shutdown:", err)
		}
		if err := <-served; err != nil {
			t.Error("Serve:", err)
		}
		if th, ok := h.(*testHandler); ok {
			if err := th.unbalanced(); err != nil {
				t.Error(err)
			}
		}
	})
	return l
}

// client is a plain SMTP client that sends what it is told.
type client struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func dial(t testing.TB, l *Listener) *client {
	t.Helper()
	c, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return &client{t, c, bufio.NewReader(c)}
}

// greeted is a client that has its banner and said EHLO.
func greeted(t testing.TB, l *Listener) *client {
	t.Helper()
	c := dial(t, l)
	c.expect("220")
	c.do("EHLO client.test", "250")
	return c
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Fatal("send:", err)
	}
}

// reply reads one reply, all lines of it.
func (c *client) reply() (string, error) {
	var all strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		all.WriteString(line)
		if err != nil || len(line) > 3 && line[3] == ' ' {
			return all.String(), err
		}
	}
}

func (c *client) expect(prefix string) string {
	c.t.Helper()
	got, err := c.reply()
	if err != nil || !strings.HasPrefix(got, prefix) {
		c.t.Fatalf("got %q, %v; want %q", got, err, prefix)
	}
	return got
}

func (c *client) do(line, prefix string) string {
	c.t.Helper()
	c.send(line + "\r\n")
	return c.expect(prefix)
}

// gone expects the server to have closed the connection.
func (c *client) gone() {
	c.t.Helper()
	if b, err := io.ReadAll(c.r); err != nil && !errors.Is(err, syscall.ECONNRESET) || len(b) > 0 {
		c.t.Fatalf("got %q, %v; want the connection closed", b, err)
	}
}

// begin opens a transaction up to the 354.
func (c *client) begin() {
	c.t.Helper()
	c.do("MAIL FROM:<a@b.test>", "250")
	c.do("RCPT TO:<c@d.test>", "250")
	c.do("DATA", "354")
}

func TestPeerNotListed(t *testing.T) {
	l := listen(t, &testHandler{}, func(o *ListenerOptions) {
		o.Peers = []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}
	})
	c := dial(t, l)
	c.expect("554 5.7.1 ")
	c.gone()
}

func TestConnectionCaps(t *testing.T) {
	l := listen(t, &testHandler{}, func(o *ListenerOptions) { o.MaxConnections, o.MaxPerPeer = 3, 2 })
	first := greeted(t, l)
	greeted(t, l)
	refused := dial(t, l)
	refused.expect("421 4.7.0 Too many connections from your address")
	refused.gone()
	other := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 3)}}
	from3 := func() *client {
		c, err := other.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return &client{t, c, bufio.NewReader(c)}
	}
	from3().expect("220")
	from3().expect("421 4.7.0 Too many connections, ")
	first.do("QUIT", "221")
	first.gone()
	testbed.Until(t, "the place of the session that is gone is free", func() bool {
		got, _ := from3().reply()
		return strings.HasPrefix(got, "220")
	})
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lmtp.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	h := &testHandler{}
	l := listen(t, h, func(o *ListenerOptions) { o.Address, o.Protocol = "unix:"+path, "lmtp" })
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("socket mode %v, %v; want 0660", info.Mode(), err)
	}
	c := dial(t, l)
	c.expect("220")
	c.do("LHLO client.test", "250")
	c.begin()
	c.send("hello\r\n.\r\n")
	c.expect("250 2.0.0 <c@d.test> accepted 0192 case 7")
	env := h.got()[0].env
	if env.Peer.IsValid() || env.PeerName != "unix" || env.Protocol != "LMTP" {
		t.Errorf("envelope %+v", env)
	}
	if _, err := Listen(ListenerOptions{Role: RoleInbound, Address: "unix:" + path}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second listener on a live socket: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, nil, 0o600)
	if _, err := Listen(ListenerOptions{Role: RoleInbound, Address: "unix:" + file}); err == nil {
		t.Error("a plain file was taken for a stale socket")
	}
}

// flakyListener fails a few times before it accepts.
type flakyListener struct {
	net.Listener
	fails int
}

func (l *flakyListener) Accept() (net.Conn, error) {
	if l.fails > 0 {
		l.fails--
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Listener.Accept()
}

func TestAcceptErrorsBackOff(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewListener(&flakyListener{ln, 4}, ListenerOptions{Role: RoleInbound, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	go l.Serve(&testHandler{})
	dial(t, l).expect("220")
	if d := time.Since(start); d < 70*time.Millisecond { // 5+10+20+40
		t.Errorf("accepted again after %v, without backing off", d)
	}
	l.Shutdown(context.Background())
}

func TestBadOptions(t *testing.T) {
	for _, o := range []ListenerOptions{
		{},
		{Role: "both"},
		{Role: RoleInbound, Protocol: "http"},
		{Role: RoleInbound, BareNewline: "ignore"},
		{Role: RoleInbound, MaxMessage: 1 << 32},
		{Role: RoleInbound, Address: "127.0.0.1:notaport"},
	} {
		if l, err := Listen(o); err == nil {
			t.Errorf("%+v was taken", o)
			l.Shutdown(context.Background())
		}
	}
}

func TestShutdownIdle(t *testing.T) {
	l := listen(t, &testHandler{}, nil)
	fresh := dial(t, l)
	fresh.expect("220")
	half := greeted(t, l)
	half.do("MAIL FROM:<a@b.test>", "250")
	if err := l.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*client{fresh, half} {
		c.expect("421 4.3.2 gw.test is shutting down")
		c.gone()
	}
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		c.Close()
		t.Error("a connection after Shutdown")
	}
}

func TestShutdownLetsBodyFinish(t *testing.T) {
	h := &testHandler{}
	l := listen(t, h, nil)
	data, bdat := greeted(t, l), greeted(t, l)
	data.begin()
	data.send("first\r\n")
	bdat.do("MAIL FROM:<a@b.test>", "250")
	bdat.do("RCPT TO:<c@d.test>", "250")
	bdat.do("BDAT 7\r\nfirst", "250") // the CRLF that do adds is the chunk's
	down := make(chan error)
	go func() { down <- l.Shutdown(context.Background()) }()
	for !l.isClosing() {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	data.send("second\r\n.\r\nMAIL FROM:<late@b.test>\r\n")
	data.expect("250 2.0.0 accepted 0192 case 7")
	data.expect("421 4.3.2")
	data.gone()
	bdat.do("BDAT 6 LAST\r\nlast", "250")
	bdat.expect("421 4.3.2")
	if err := <-down; err != nil {
		t.Fatal(err)
	}
	if n := len(h.got()); n != 2 {
		t.Errorf("%d messages", n)
	}
}

func TestShutdownCutsOff(t *testing.T) {
	h := &testHandler{accept: func(ctx context.Context, _ *Envelope, _ []byte) error {
		<-ctx.Done()
		return ctx.Err()
	}}
	l := listen(t, h, nil)
	stuck, working := greeted(t, l), greeted(t, l)
	stuck.begin()
	working.begin()
	working.send("x\r\n.\r\n")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := l.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v", err)
	}
	if d := time.Since(start); d > 900*time.Millisecond {
		t.Errorf("took %v", d)
	}
	stuck.gone()
}
