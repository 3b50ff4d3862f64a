package relay

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway/testbed"
	"github.com/casegate/casegate/store"
)

// peer is a next hop that plays scripts: one for each connection, the last
// one again and again. A script has a step on each line:
//
//	S: text    write a line; | is a line end within one write
//	P: text    the same, but for the line end that comes last
//	C: text    read a line that is text; with * at the end: begins with it
//	D:         read a message up to its final dot and keep it
//	R: n       read n octets
//	T: 2m      read 1000 octets each so long, until the client hangs up
//	W: 5s      wait
//	A:         read on to the end: anything but a finished message
//	H:         hang up
//
// QUIT may come at the end, and where MAIL might.
type peer struct {
	t       *testing.T
	scripts []string
	refuse  error // what dialling fails with

	mu    sync.Mutex
	dials int
	mails []string // as they came, dots and all
	wg    sync.WaitGroup
}

func newPeer(t *testing.T, scripts ...string) *peer { return &peer{t: t, scripts: scripts} }

// Dial makes a peer an Options.Dial.
func (p *peer) Dial(context.Context, string, string) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dials++
	if p.refuse != nil {
		return nil, p.refuse
	}
	client, server := net.Pipe()
	script := p.scripts[min(p.dials, len(p.scripts))-1]
	p.wg.Go(func() {
		defer server.Close()
		if err := p.play(server, script); err != nil {
			p.t.Errorf("connection %d: %v", p.dials, err)
		}
	})
	return client, nil
}

func (p *peer) set(refuse error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = refuse
}

func (p *peer) seen() (dials int, mails []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dials, p.mails
}

func (p *peer) play(c net.Conn, script string) error {
	// What is said waits in a buffer, as with TCP.
	say, said := make(chan string, 1000), make(chan struct{})
	go func() {
		defer close(said)
		for s := range say {
			io.WriteString(c, s) // or the client had enough
		}
	}()
	defer func() { <-said }()
	defer close(say)
	r := bufio.NewReader(c)
	for n, step := range strings.Split(strings.TrimSpace(script), "\n") {
		op, arg, _ := strings.Cut(strings.TrimSpace(step), ":")
		err := p.step(say, r, op, strings.TrimPrefix(arg, " "))
		if op == "H" || err == errQuit {
			return nil
		}
		if err != nil {
			return fmt.Errorf("step %d, %s: %w", n+1, step, err)
		}
	}
	if rest, _ := io.ReadAll(r); len(rest) > 0 && string(rest) != "QUIT\r\n" {
		return fmt.Errorf("at the end: %q", rest)
	}
	return nil
}

var errQuit = errors.New("quit")

func (p *peer) step(say chan<- string, r *bufio.Reader, op, arg string) error {
	switch op {
	case "S":
		say <- strings.ReplaceAll(arg, "|", "\r\n") + "\r\n"
	case "P":
		say <- strings.ReplaceAll(arg, "|", "\r\n")
	case "C":
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		want, prefix := strings.CutSuffix(arg, "*")
		if line == "QUIT\r\n" && strings.HasPrefix(arg, "MAIL") {
			return errQuit
		}
		if line = strings.TrimSuffix(line, "\r\n"); line != want && !(prefix && strings.HasPrefix(line, want)) {
			return fmt.Errorf("got %q", line)
		}
	case "D":
		return p.data(r)
	case "R":
		n, _ := strconv.Atoi(arg)
		_, err := io.CopyN(io.Discard, r, int64(n))
		return err
	case "T":
		d, err := time.ParseDuration(arg)
		for err == nil {
			time.Sleep(d)
			_, err = io.CopyN(io.Discard, r, 1000)
		}
		if err != io.EOF {
			return err
		}
	case "A":
		rest, err := io.ReadAll(r)
		if bytes.Contains(rest, []byte("\n.\r\n")) || bytes.Contains(rest, []byte("\r\n.\n")) {
			return fmt.Errorf("a final dot in %d octets", len(rest))
		}
		return err
	case "W":
		d, err := time.ParseDuration(arg)
		time.Sleep(d)
		return err
	}
	return nil
}

func (p *peer) data(r *bufio.Reader) error {
	var mail strings.Builder
	for mail.Len() == 0 || !strings.HasSuffix("\r\n"+mail.String(), "\r\n.\r\n") {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		mail.WriteString(line)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mails = append(p.mails, mail.String())
	return nil
}

// run runs a relay on a memory store until the test calls stop.
func run(t *testing.T, m *memory, opts Options) (r *Relay, stop func()) {
	t.Helper()
	if opts.Hostname == "" {
		opts.Hostname = "gw.city.example"
	}
	if opts.Routes == nil {
		opts.Routes = []Route{{Role: "outbound", NextHop: "smtp://127.0.0.1:2526"}}
	}
	if opts.Jitter == 0 {
		opts.Jitter = -1
	}
	r, err := New(m, opts)
	if err != nil {
		t.Fatal(err)
	}
	return r, start(r)
}

// attempt sends one mail by a route and returns the row after the first attempt.
func attempt(t *testing.T, rt Route, eml string, edit func(*store.Delivery), to ...string) store.Delivery {
	t.Helper()
	m := newMemory()
	id := m.add(eml, time.Now(), to...)
	if edit != nil {
		m.change(id, edit)
	}
	rt.Role = "outbound"
	_, stop := run(t, m, Options{Routes: []Route{rt}})
	defer stop()
	testbed.Until(t, "it is tried", func() bool { return len(m.get(id).Attempts) > 0 })
	return m.get(id)
}

// start runs a relay until stop is called, which waits for its end.
func start(r *Relay) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// newLogger logs into b.
func newLogger(mu *sync.Mutex, b *bytes.Buffer) *slog.Logger {
	return slog.New(slog.NewTextHandler(writer(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return b.Write(p)
	}), nil))
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }
