package gateway

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// scriptConn is a client in memory: it sends its pieces one by one, each only
// when the server reads, and keeps what the server says.
type scriptConn struct {
	pieces [][]byte
	stall  bool // time out at the end instead of closing

	mu     sync.Mutex
	out    bytes.Buffer
	writes int
	done   chan struct{}
	once   sync.Once
}

func script(pieces ...string) *scriptConn {
	c := &scriptConn{done: make(chan struct{})}
	for _, p := range pieces {
		if p != "" {
			c.pieces = append(c.pieces, []byte(p))
		}
	}
	return c
}

func (c *scriptConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.writes == 0: // wait for the banner
		return 0, os.ErrDeadlineExceeded
	case len(c.pieces) == 0 && c.stall:
		return 0, os.ErrDeadlineExceeded
	case len(c.pieces) == 0:
		return 0, io.EOF
	}
	n := copy(p, c.pieces[0])
	if c.pieces[0] = c.pieces[0][n:]; len(c.pieces[0]) == 0 {
		c.pieces = c.pieces[1:]
	}
	return n, nil
}

func (c *scriptConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes++
	return c.out.Write(p)
}

func (c *scriptConn) CloseWrite() error { return nil }

func (c *scriptConn) Close() error {
	c.once.Do(func() { close(c.done) })
	return nil
}

func (c *scriptConn) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 25} }
func (c *scriptConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 2000}
}
func (c *scriptConn) SetDeadline(time.Time) error      { return nil }
func (c *scriptConn) SetReadDeadline(time.Time) error  { return nil }
func (c *scriptConn) SetWriteDeadline(time.Time) error { return nil }

// replies are the codes the server said, the banner first.
func (c *scriptConn) replies() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var codes []string
	for line := range strings.Lines(c.out.String()) {
		if len(line) > 3 && line[3] == ' ' {
			codes = append(codes, line[:3])
		}
	}
	return strings.Join(codes, " ")
}

// scripts is a net.Listener for scriptConns.
type scripts chan net.Conn

func (s scripts) Accept() (net.Conn, error) {
	c, ok := <-s
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (s scripts) Close() error   { return nil }
func (s scripts) Addr() net.Addr { return &net.TCPAddr{} }

// stage serves scripts until the test ends; play runs one to its end.
type stage struct {
	conns scripts
	l     *Listener
}

func newStage(t testing.TB, h Handler, change func(*ListenerOptions)) *stage {
	t.Helper()
	o := ListenerOptions{Name: "script", Role: RoleInbound, Hostname: "gw.test", Logger: quiet, MaxMessage: 1 << 20}
	if change != nil {
		change(&o)
	}
	conns := make(scripts)
	l, err := NewListener(conns, o)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); l.Serve(h) }()
	t.Cleanup(func() { close(conns); <-served })
	return &stage{conns, l}
}

var errStuck = errors.New("the session doesn't end")

func (s *stage) play(c *scriptConn) error {
	s.conns <- c
	select {
	case <-c.done:
		return nil
	case <-time.After(10 * time.Second):
		return errStuck
	}
}
