package relay

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/gateway/testbed"
	"github.com/casegate/casegate/store"
)

// script is how a hostile next hop behaves, by verb; "greeting" and "." are the
// greeting and the end of the data, EHLO is HELO and LHLO too, "EHLO, TLS" that
// under TLS. At what it does not name, the next hop behaves.
type script map[string]move

// move answers a command, or leaves it. An error ends the connection.
type move func(*foe) error

// foe is a connection to a hostile next hop.
type foe struct {
	net.Conn // TLS, perhaps
	tcp      *net.TCPConn
	r        *bufio.Reader
	lmtp     bool
	rcpt     int             // RCPTs since the last message
	over     <-chan struct{} // closed when the test ends
}

var errEnough = errors.New("enough")

// play plays a script until either side has enough.
func (f *foe) play(s script) error {
	if err := f.act(s, "greeting"); err != nil {
		return err
	}
	for {
		line, err := f.r.ReadString('\n')
		if err != nil {
			return err
		}
		verb, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch verb {
		case "LHLO", "HELO":
			verb = "EHLO"
		case "RCPT":
			f.rcpt++
		}
		if err := f.act(s, verb); err != nil {
			return err
		}
		if verb != "DATA" {
			continue
		}
		if err := takeData(f); err != nil {
			return err
		}
		if err := f.act(s, "."); err != nil {
			return err
		}
		f.rcpt = 0
	}
}

func (f *foe) act(s script, stage string) error {
	if do, ok := s[stage+", TLS"]; ok && f.Conn != net.Conn(f.tcp) {
		return do(f)
	}
	if do, ok := s[stage]; ok {
		return do(f)
	}
	return say(f.proper(stage))(f)
}

// proper is the reply of who behaves.
func (f *foe) proper(stage string) string {
	switch stage {
	case "greeting":
		return "220 mx.example\r\n"
	case "EHLO":
		return "250-mx.example\r\n250 8BITMIME\r\n"
	case "STARTTLS":
		return "220 go\r\n"
	case "DATA":
		return "354 go\r\n"
	case ".":
		if f.lmtp {
			return strings.Repeat("250 2.0.0 ok\r\n", f.rcpt)
		}
	}
	return "250 2.0.0 ok\r\n"
}

// say writes pieces, a moment apart from each other.
func say(pieces ...string) move {
	return func(f *foe) error {
		for i, piece := range pieces {
			if i > 0 {
				time.Sleep(30 * time.Millisecond)
			}
			if _, err := io.WriteString(f, piece); err != nil {
				return err
			}
		}
		return nil
	}
}

// inTurn makes one move after the other.
func inTurn(moves ...move) move {
	return func(f *foe) error {
		for _, do := range moves {
			if err := do(f); err != nil {
				return err
			}
		}
		return nil
	}
}

// hear reads lines.
func hear(n int) move {
	return func(f *foe) error {
		for range n {
			if _, err := f.r.ReadString('\n'); err != nil {
				return err
			}
		}
		return nil
	}
}

// takeData reads up to the final dot.
func takeData(f *foe) error {
	for {
		line, err := f.r.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull {
			return err
		}
		if string(line) == ".\r\n" {
			return nil
		}
	}
}

// mute says nothing more.
func mute(f *foe) error {
	io.Copy(io.Discard, f.r)
	return errEnough
}

// deaf reads nothing more.
func deaf(f *foe) error {
	<-f.over
	return errEnough
}

func hangUp(*foe) error { return errEnough }

func hangUpHard(f *foe) error {
	f.tcp.SetLinger(0)
	return errEnough
}

// sip reads an octet now and then.
func sip(f *foe) error {
	f.tcp.SetReadBuffer(1)
	for {
		if _, err := f.Read(make([]byte, 1)); err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// drip writes text again and again, an octet at a time.
func drip(text string) move {
	return func(f *foe) error {
		for i := 0; ; i = (i + 1) % len(text) {
			if _, err := io.WriteString(f, text[i:i+1]); err != nil {
				return err
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// pour writes text again and again, 1 GiB if it is let.
func pour(text string) move {
	return func(f *foe) error {
		many := strings.Repeat(text, 1+(64<<10)/len(text))
		for n := 0; n < 1<<30; n += len(many) {
			if _, err := io.WriteString(f, many); err != nil {
				return err
			}
		}
		return mute(f)
	}
}

// secure goes on under TLS.
func secure(cfg *tls.Config) move {
	return func(f *foe) error {
		t := tls.Server(f.Conn, cfg)
		f.Conn, f.r = t, bufio.NewReader(t)
		return nil
	}
}

// listen serves a script until the test ends.
func listen(t *testing.T, scheme string, s script) (nextHop string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	var all sync.WaitGroup
	serve := func(c net.Conn) {
		defer c.Close()
		defer context.AfterFunc(ctx, func() { c.Close() })()
		f := &foe{Conn: c, tcp: c.(*net.TCPConn), r: bufio.NewReader(c), lmtp: scheme == "lmtp", over: ctx.Done()}
		f.play(s)
	}
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { serve(c) })
		}
	})
	t.Cleanup(func() {
		end()
		l.Close()
		all.Wait()
	})
	return scheme + "://" + l.Addr().String()
}

// assault is mail for a hostile next hop, and what is to become of it.
type assault struct {
	name   string
	scheme string // "": smtp
	play   script
	route  Route
	to     int    // recipients; 0 is one
	eml    string // "": eml
	want   string // begins the first attempt: [ambiguous] result reply
	each   string // states of the recipients; "": all are as the attempt
}

// What strangers may have us keep or show of one mail, in octets.
const (
	mostWords = 8 << 10
	mostRow   = 32 << 10
	mostLog   = 16 << 10  // in a line
	mostHeap  = 512 << 10 // for each next hop at once, the hop itself included
	someHeap  = 96 << 20  // for the store, the floods of the foes themselves, and all else: what is kept of a flood would be hundreds
)

// siege sends a mail to each of the hostile next hops, and some to one that
// behaves, all at once. Our own deadlines end what never ends; patience, the same
// for each, is enough for a busy machine to do what does end. Checked is what
// becomes of the mail; and that all which strangers said is safe to show, and
// little, in the outbox, on the message, in the report and in the log.
func siege(t *testing.T, patience time.Duration, list []assault) {
	b := newBed(t)
	b.sink = newSink(t, "smtp", nil)
	var log testbed.Buffer
	dialer := &counting{open: map[net.Conn]bool{}}
	b.opts = Options{
		Hostname: "gw.city.example", Jitter: -1, Retry: []time.Duration{time.Hour}, DelayAfter: time.Nanosecond, Idle: 50 * time.Millisecond,
		Timeouts: Timeouts{Connect: patience, Greeting: patience, Mail: patience, Rcpt: patience, Data: patience, Block: patience, Dot: patience},
		Logger:   slog.New(slog.NewJSONHandler(&log, nil)), Dial: dialer.dial,
	}
	for i, a := range list {
		rt := a.route
		rt.Role, rt.Recipient = "outbound", fmt.Sprintf("n%d.example", i)
		rt.NextHop = listen(t, cmp.Or(a.scheme, "smtp"), a.play)
		if rt.TLSCA != "" { // the name, not the address, is in what the certificate is checked for
			rt.NextHop = strings.Replace(rt.NextHop, "127.0.0.1", "localhost", 1)
		}
		b.opts.Routes = append(b.opts.Routes, rt)
	}
	b.opts.Routes = append(b.opts.Routes, Route{Role: "outbound", NextHop: b.sink.nextHop})
	var attacked, others []store.Delivery
	for i, a := range list {
		var to []string
		for k := range max(1, a.to) {
			to = append(to, fmt.Sprintf("r%d@n%d.example", k, i))
		}
		attacked = append(attacked, b.send(cmp.Or(a.eml, eml), func(m *store.Message, d *store.Delivery) {
			m.Envelope.Peer = "192.0.2.7"
			for k := range d.Recipients {
				d.Recipients[k].Notify = []string{"SUCCESS", "FAILURE", "DELAY"}
			}
		}, to...))
		if i < 20 {
			others = append(others, b.send(eml, nil, fmt.Sprintf("other%d@x.example", i)))
		}
	}
	r, err := New(b.st, b.opts)
	if err != nil {
		t.Fatal(err)
	}
	heap := watchHeap()
	stop := start(r)
	testbed.Until(t, "all are reported on", func() bool { return len(b.sink.got(desk)) >= len(list) })
	stop()
	if grown := heap(); grown > someHeap+mostHeap*uint64(len(list)) {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	dialer.check(t)
	for _, d := range others {
		if d := b.delivery(d.ID); d.State != store.Delivered || len(d.Attempts) != 1 {
			t.Errorf("another's: %+v", d)
		}
	}
	checkLog(t, log.String())
	reports := map[string]string{} // by domain
	for _, rep := range b.sink.got(desk) {
		domain := regexp.MustCompile(`Final-Recipient: rfc822; r0@(\S+)`).FindSubmatch(rep)
		if domain == nil || reports[string(domain[1])] != "" {
			t.Fatalf("a report on whom? %s", rep)
		}
		reports[string(domain[1])] = string(rep)
	}
	for i, a := range list {
		t.Run(a.name, func(t *testing.T) {
			d := b.delivery(attacked[i].ID)
			a.checkRow(t, &d)
			checkJSON(t, d)
			checkJSON(t, b.message(d.Message).Events)
			checkReport(t, &d, reports[fmt.Sprintf("n%d.example", i)])
		})
	}
}

// checkRow checks what became of the mail.
func (a *assault) checkRow(t *testing.T, d *store.Delivery) {
	t.Helper()
	if len(d.Attempts) != 1 {
		t.Fatalf("%d attempts: %.2000s", len(d.Attempts), fmt.Sprint(d))
	}
	got := d.Attempts[0].Result + " " + d.Attempts[0].Reply
	if d.Attempts[0].Ambiguous {
		got = "ambiguous " + got
	}
	if !strings.HasPrefix(got, a.want) {
		t.Errorf("got %.300q, want %q", got, a.want)
	}
	var states []string
	for _, to := range d.Recipients {
		states = append(states, string(to.State))
	}
	each := a.each
	if each == "" {
		state := map[string]string{"deferred": "queued"}[d.Attempts[0].Result]
		each = strings.TrimSpace(strings.Repeat(cmp.Or(state, d.Attempts[0].Result)+" ", len(states)))
	}
	if got := strings.Join(states, " "); got != each {
		t.Errorf("recipients are %s, want %s", got, each)
	}
	words := []string{d.Reason, d.Attempts[0].Reply}
	for _, to := range d.Recipients {
		words = append(words, to.Reply)
	}
	if tls := d.Attempts[0].TLS; tls != nil {
		words = append(words, tls.Peer)
	}
	for _, w := range words {
		if len(w) > mostWords || strings.ContainsFunc(w, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%d octets: %.300q", len(w), w)
		}
	}
}

// escaped finds what JSON had to escape and nobody should have kept.
var escaped = regexp.MustCompile(`[^\\](\\\\)*\\([nrtbf]|u(00[019]|007f|008|20[23]|fffd))`)

// checkJSON: nothing that needs escaping is left for JSON to escape.
func checkJSON(t *testing.T, x any) {
	t.Helper()
	text, err := json.Marshal(x)
	if err != nil || len(text) > mostRow || escaped.Match(text) {
		t.Errorf("%v, %d octets: %.300s", err, len(text), text)
	}
}

func checkLog(t *testing.T, log string) {
	t.Helper()
	for line := range strings.Lines(log) {
		if len(line) > mostLog || !json.Valid([]byte(line)) || strings.ContainsFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return !unicode.IsPrint(r) }) || escaped.MatchString(line) {
			t.Errorf("%d octets in the log: %.300q", len(line), line)
		}
	}
}

// checkReport: a report is well formed, and nothing in it is a stranger's but a
// value.
func checkReport(t *testing.T, d *store.Delivery, eml string) {
	t.Helper()
	for line := range strings.SplitSeq(eml, "\r\n") {
		if len(line) > maxLine || !ascii(line) || strings.ContainsFunc(line, unicode.IsControl) || strings.HasPrefix(line, "X-Evil") {
			t.Errorf("%d octets in a line of the report: %.300q", len(line), line)
		}
	}
	n := strings.Index(eml, "\r\n\r\n") + 4
	rep, err := message.ReadReport(message.Parse([]byte(eml[:n])), strings.NewReader(eml[n:]))
	if err != nil || len(rep.Recipients) != len(d.Recipients) || len(eml) > mostRow {
		t.Fatalf("%v, %d recipients, %d octets: %.2000s", err, len(rep.Recipients), len(eml), eml)
	}
	for _, to := range rep.Recipients {
		class := map[string]string{"failed": "5", "delayed": "4", "relayed": "2", "delivered": "2"}[to.Action]
		if !regexp.MustCompile(`^` + class + `\.[0-9]{1,3}\.[0-9]{1,3}$`).MatchString(to.Status) {
			t.Errorf("%s with status %q", to.Action, to.Status)
		}
	}
}

// watchHeap tells by how much the heap in use grew at most.
func watchHeap() (stop func() uint64) {
	use := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	began, end, peak := use(), make(chan struct{}), make(chan uint64)
	go func() {
		most := began
		for {
			select {
			case <-end:
				peak <- most - began
				return
			case <-time.After(50 * time.Millisecond):
				most = max(most, use())
			}
		}
	}()
	return func() uint64 {
		close(end)
		return <-peak
	}
}

// counting knows which connections are open.
type counting struct {
	mu   sync.Mutex
	open map[net.Conn]bool
	most int
}

type counted struct {
	net.Conn
	c *counting
}

func (c *counting) dial(ctx context.Context, network, address string) (net.Conn, error) {
	nc, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[nc] = true
	c.most = max(c.most, len(c.open))
	return counted{nc, c}, nil
}

func (c counted) Close() error {
	c.c.mu.Lock()
	defer c.c.mu.Unlock()
	delete(c.c.open, c.Conn)
	return c.Conn.Close()
}

func (c *counting) check(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) > 0 {
		t.Errorf("%d connections are left open", len(c.open))
	}
}

// now is how many are open.
func (c *counting) now() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}
