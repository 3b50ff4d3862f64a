package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/mail"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/casegate/casegate/gateway/console"
	"github.com/casegate/casegate/store"
)

// What the load tests share: a daemon that may be killed and started again, on
// any file system (rig); a client that sends bytes exactly as they are
// (wireClient); a next hop that keeps count (sink); and the account of what was
// sent and answered (ledger).

const rigMailbox = "311@city.example"

// rig is one installation of casegate and its daemon. Ports are fresh at each
// start; the addresses are read from the daemon's log.
type rig struct {
	t      testing.TB
	binary string
	config string
	data   string
	env    []string

	mu      sync.Mutex
	cmd     *exec.Cmd
	exited  chan struct{}
	address map[string]string // by listener
	ready   chan struct{}
	tail    []string // of the log
	errors  []string // its lines of level ERROR
}

// rigOptions are the choices of a load test; zero fields are the defaults.
type rigOptions struct {
	hostname, mailbox string // default: gw.city.example, rigMailbox
	data              string // default: a folder of the test's own
	inbound, outbound string // next hops; default none, and one that nobody serves
	strict            bool   // as serve is by default: no store in memory
	listeners         string // further ones, a line each
	routes            string // further ones, before these two, a line each
	flood             string // default: no bounds
	more              string // further settings, a line each
}

func newRig(t testing.TB, o rigOptions) *rig {
	t.Helper()
	binary, err := built()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	o.hostname, o.mailbox = cmp.Or(o.hostname, "gw.city.example"), cmp.Or(o.mailbox, rigMailbox)
	if o.data == "" {
		o.data = filepath.Join(dir, "data")
	}
	if o.inbound == "" {
		o.inbound = "none"
	}
	if o.outbound == "" {
		o.outbound = "smtp://127.0.0.1:9"
	}
	r := &rig{t: t, binary: binary, config: filepath.Join(dir, "casegate.yaml"), data: o.data, env: cleanEnv()}
	if !o.strict {
		r.env = append(r.env, "CASEGATE_ALLOW_VOLATILE=1") // as a temporary folder may be
	}
	text := fmt.Sprintf(`hostname: %s
data_dir: %s
listeners:
  - {name: inbound, role: inbound, protocol: smtp, address: 127.0.0.1:0, peers: [127.0.0.0/8]}
  - {name: lmtp, role: inbound, protocol: lmtp, address: 127.0.0.1:0, peers: [127.0.0.0/8]}
  - {name: smarthost, role: outbound, protocol: smtp, address: 127.0.0.1:0, peers: [127.0.0.0/8]}
%smailboxes:
  - {address: %s, queue: general}
routes:
%s  - {role: inbound, next_hop: %q}
  - {role: outbound, next_hop: %q}
console: {address: 127.0.0.1:0}
flood: %s
retry: {schedule: [1s]}
log: {format: json}
%s`, o.hostname, o.data, o.listeners, o.mailbox, o.routes, o.inbound, o.outbound, cmp.Or(o.flood, "{new_cases: off, answers: off}"), o.more)
	if err := os.WriteFile(r.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.kill()
		if t.Failed() {
			t.Logf("the end of the daemon's log:\n%s", strings.Join(r.tail, "\n"))
		}
	})
	return r
}

// start runs the daemon and waits until it is ready.
func (r *rig) start() time.Duration {
	r.t.Helper()
	began := time.Now()
	if err := r.spawn(); err != nil {
		r.t.Fatal(err)
	}
	select {
	case <-r.ready:
	case <-r.exited:
		r.t.Fatalf("serve ended at its start: %v\n%s", r.cmd.ProcessState, strings.Join(r.tail, "\n"))
	case <-time.After(30 * time.Second):
		r.t.Fatal("serve was not ready within 30 s")
	}
	return time.Since(began)
}

func (r *rig) spawn() error { return r.follow(r.command("serve")) }

// follow starts the daemon by a command and reads its log.
func (r *rig) follow(cmd *exec.Cmd) error {
	pipe, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	r.mu.Lock()
	r.cmd, r.exited, r.ready, r.address = cmd, make(chan struct{}), make(chan struct{}), map[string]string{}
	r.mu.Unlock()
	go func() {
		r.read(pipe)
		cmd.Wait()
		close(r.exited)
	}()
	return nil
}

// read follows the daemon's log to its end.
func (r *rig) read(log io.Reader) {
	lines := bufio.NewReader(log)
	for {
		text, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		text = strings.TrimSpace(text)
		var line struct{ Level, Msg, Listener, Address string }
		json.Unmarshal([]byte(text), &line)
		r.mu.Lock()
		if line.Msg != "delivery attempt" && line.Msg != "accepted" {
			r.tail = append(r.tail, text)
			r.tail = r.tail[max(0, len(r.tail)-40):]
		}
		if line.Level == "ERROR" || line.Level == "" {
			r.errors = append(r.errors, text)
		}
		if line.Msg == "listening" {
			r.address[line.Listener] = line.Address
		}
		r.mu.Unlock()
		if line.Msg == "ready" {
			close(r.ready)
		}
	}
}

// at is the address of a listener of the daemon that runs now.
func (r *rig) at(listener string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.address[listener]
}

// complaints are the lines of level ERROR since the last call, and what is no
// log line at all, such as a panic.
func (r *rig) complaints() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.errors
	r.errors = nil
	return list
}

func (r *rig) pid() int { return r.cmd.Process.Pid }

func (r *rig) alive() bool {
	select {
	case <-r.exited:
		return false
	default:
		return true
	}
}

// kill ends the daemon without a word (SIGKILL), if it runs.
func (r *rig) kill() {
	if r.cmd == nil {
		return
	}
	r.cmd.Process.Kill()
	<-r.exited
}

// stop asks the daemon to stop (SIGTERM) and returns its exit code.
func (r *rig) stop() (code int, took time.Duration) {
	r.t.Helper()
	began := time.Now()
	r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.exited:
	case <-time.After(grace + 5*time.Second):
		r.t.Fatalf("serve did not stop within %v of SIGTERM", grace+5*time.Second)
	}
	return r.cmd.ProcessState.ExitCode(), time.Since(began)
}

func (r *rig) command(args ...string) *exec.Cmd {
	cmd := exec.Command(r.binary, append([]string{"--config", r.config}, args...)...)
	cmd.Env = r.env
	return cmd
}

// cli runs a command of the program and returns what it printed.
func (r *rig) cli(args ...string) string {
	r.t.Helper()
	var out, said bytes.Buffer
	cmd := r.command(args...)
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		r.t.Errorf("casegate %s: %v\n%s%s", strings.Join(args, " "), err, out.Bytes(), said.Bytes())
	}
	return out.String()
}

// verify has the program prove the store, and returns what it counted.
func (r *rig) verify() store.Counts {
	r.t.Helper()
	var v console.Verification
	text := r.cli("verify", "--json")
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		r.t.Errorf("verify --json: %v\n%s", err, text)
	}
	if v.Error != "" || len(v.Findings) > 0 {
		r.t.Errorf("verify is not clean: %s %v", v.Error, v.Findings)
	}
	return v.Counts
}

// api reads JSON from the daemon's socket.
func (r *rig) api(path string, q url.Values, into any) {
	r.t.Helper()
	c := socketClient(filepath.Join(r.data, "casegate.sock"))
	defer c.close()
	text, err := c.get(context.Background(), path, q)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		r.t.Fatalf("GET %s: %v", path, err)
	}
}

// rows reads a list from the daemon's socket.
func rows[T any](r *rig, path string, q url.Values) (list []T) {
	r.t.Helper()
	c := socketClient(filepath.Join(r.data, "casegate.sock"))
	defer c.close()
	err := c.list(context.Background(), path, q, 0, func(page []json.RawMessage) error {
		for _, text := range page {
			var row T
			if err := json.Unmarshal(text, &row); err != nil {
				return err
			}
			list = append(list, row)
		}
		return nil
	})
	if err != nil {
		r.t.Fatalf("GET %s: %v", path, err)
	}
	return list
}

// emptied waits until the outbox has nothing left to do.
func (r *rig) emptied(within time.Duration) time.Duration {
	r.t.Helper()
	began := time.Now()
	for {
		open := rows[store.Delivery](r, "/queue", url.Values{"state": {"queued"}})
		if len(open) == 0 {
			break
		}
		if time.Since(began) > within {
			r.t.Errorf("the outbox still has %d deliveries after %v; the first: %+v", len(open), within, open[0])
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return time.Since(began)
}

// wireClient speaks SMTP or LMTP and changes nothing of what it is given but
// to double dots.
type wireClient struct {
	conn net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
}

func dialWire(address string, lmtp bool) (*wireClient, error) {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(2 * time.Minute))
	c := &wireClient{conn, bufio.NewReader(conn), bufio.NewWriterSize(conn, 64<<10)}
	hello := "EHLO"
	if lmtp {
		hello = "LHLO"
	}
	reply, err := c.reply()
	if err == nil && strings.HasPrefix(reply, "220") {
		reply, err = c.say(hello + " client.example")
	}
	if err == nil && !strings.HasPrefix(reply, "250") {
		err = errors.New(reply)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// say sends a line and reads the reply's last line.
func (c *wireClient) say(line string) (string, error) {
	c.w.WriteString(line + "\r\n")
	if err := c.w.Flush(); err != nil {
		return "", err
	}
	return c.reply()
}

func (c *wireClient) reply() (string, error) {
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return "", err
		}
		if line = strings.TrimRight(line, "\r\n"); len(line) < 4 || line[3] != '-' {
			return line, nil
		}
	}
}

// send runs one transaction and returns the reply that decided it; an error
// means that none came. The bytes end with CRLF and have no CR or LF alone.
func (c *wireClient) send(from string, to []string, body func(io.Writer) error) (string, error) {
	if reply, err := c.envelope(from, to, "DATA"); err != nil || reply[0] > '3' {
		return reply, err
	}
	d := &dotWriter{w: c.w, atStart: true}
	if err := body(d); err != nil {
		return "", err
	}
	return c.say(".")
}

// mustSay is say for what must be answered 2xx or 3xx.
func (c *wireClient) mustSay(t testing.TB, line string) {
	t.Helper()
	if reply, err := c.say(line); err != nil || reply[0] > '3' {
		t.Fatalf("%s: %s %v", line, reply, err)
	}
}

// envelope says MAIL and RCPT, and what else is given, up to a refusal.
func (c *wireClient) envelope(from string, to []string, more ...string) (reply string, err error) {
	commands := []string{"MAIL FROM:<" + from + ">"}
	for _, r := range to {
		commands = append(commands, "RCPT TO:<"+r+">")
	}
	for _, line := range append(commands, more...) {
		reply, err = c.say(line)
		if err != nil || reply[0] > '3' {
			if err == nil && !strings.HasPrefix(reply, "421") {
				_, err = c.say("RSET")
			}
			return reply, err
		}
	}
	return reply, nil
}

// chunks is send by BDAT (RFC 3030), where the bytes may be any, in chunks of
// this size.
func (c *wireClient) chunks(from string, to []string, eml []byte, size int) (string, error) {
	if reply, err := c.envelope(from, to); err != nil || reply[0] > '3' {
		return reply, err
	}
	for {
		n, last := size, ""
		if n >= len(eml) {
			n, last = len(eml), " LAST"
		}
		fmt.Fprintf(c.w, "BDAT %d%s\r\n%s", n, last, eml[:n])
		if err := c.w.Flush(); err != nil {
			return "", err
		}
		if reply, err := c.reply(); err != nil || last != "" || reply[0] > '3' {
			return reply, err
		}
		eml = eml[n:]
	}
}

// dotWriter doubles the dots at the beginning of lines.
type dotWriter struct {
	w       *bufio.Writer
	atStart bool
}

func (d *dotWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		if d.atStart && rest[0] == '.' {
			d.w.WriteByte('.')
		}
		end := bytes.IndexByte(rest, '\n') + 1
		if d.atStart = end > 0; !d.atStart {
			end = len(rest)
		}
		if _, err := d.w.Write(rest[:end]); err != nil {
			return 0, err
		}
		rest = rest[end:]
	}
	return len(p), nil
}

// acceptedID is the id in a reply to a message taken; LMTP names the recipient
// before it.
func acceptedID(reply string) string {
	code, text, _ := strings.Cut(reply, " accepted ")
	if !strings.HasPrefix(code, "250 2.0.0") {
		return ""
	}
	id, _, _ := strings.Cut(text, " ")
	return id
}

// sink is a next hop that keeps count of what it accepted, by Message-ID.
type sink struct {
	address string
	busy    atomic.Bool  // answers 451 to everyone
	blind   atomic.Bool  // only counts octets
	pause   atomic.Int64 // so long it takes for each message
	octets  atomic.Int64

	mu    sync.Mutex
	count map[string]int
	torn  []string
}

func newSink(t testing.TB) *sink {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{address: "smtp://" + ln.Addr().String(), count: map[string]int{}}
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return sinkSession{s}, nil }))
	server.Domain, server.MaxMessageBytes = "sink.example", 64<<20
	server.ErrorLog = log.New(io.Discard, "", 0) // it is cut off all the time
	go server.Serve(ln)
	t.Cleanup(func() { server.Close() })
	return s
}

// once: nothing came twice, as after attempts that all came to their end.
func (s *sink) once(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, n := range s.count {
		if n != 1 {
			t.Errorf("%s came %d times", id, n)
		}
	}
}

// seen is how often the sink accepted a message.
func (s *sink) seen(messageID string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count[messageID]
}

type sinkSession struct{ *sink }

func (sinkSession) Reset()                               {}
func (sinkSession) Logout() error                        { return nil }
func (sinkSession) Mail(string, *smtp.MailOptions) error { return nil }
func (sinkSession) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (s sinkSession) Data(r io.Reader) error {
	if s.blind.Load() {
		n, err := io.Copy(io.Discard, r)
		s.octets.Add(n)
		return err
	}
	eml, err := io.ReadAll(r)
	if err != nil {
		return err // cut off: not accepted
	}
	time.Sleep(time.Duration(s.pause.Load()))
	if s.busy.Load() {
		return &smtp.SMTPError{Code: 451, Message: "come again"}
	}
	m, err := mail.ReadMessage(bytes.NewReader(eml))
	if err != nil {
		return err
	}
	_, body, _ := bytes.Cut(eml, []byte("\r\n\r\n"))
	id := strings.Trim(m.Header.Get("Message-Id"), "<>")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count[id]++
	if hexSum(body) != m.Header.Get("X-Load-Body") {
		s.torn = append(s.torn, id)
	}
	return nil
}

// loadMail makes a message whose Message-ID and body follow from its key, with
// lines that begin with dots.
func loadMail(key, from, to string, size int, headers ...string) []byte {
	var body, m bytes.Buffer
	for n := 0; body.Len() < size; n++ {
		fmt.Fprintf(&body, "%s line %d of %s %s\r\n", strings.Repeat(".", n%3), n, key, strings.Repeat("x", n%50))
	}
	fmt.Fprintf(&m, "From: %s\r\nTo: %s\r\nSubject: load %s\r\nDate: Mon, 02 Mar 2026 10:00:00 +0000\r\n", from, to, key)
	fmt.Fprintf(&m, "Message-ID: <%s@load.example>\r\nX-Load-Body: %s\r\n", key, hexSum(body.Bytes()))
	for _, h := range headers {
		m.WriteString(h + "\r\n")
	}
	m.WriteString("\r\n")
	m.Write(body.Bytes())
	return m.Bytes()
}

// sent is one message of a load test.
type sent struct {
	key, sha string
	acked    string // the id it was accepted under, if it was
	onCase   uint64 // that it must be on, if that is known
	uncased  bool   // it is on none
}

func (s *sent) messageID() string { return s.key + "@load.example" }

// ledger is the account of a load test: what was sent, what was answered.
type ledger struct {
	mu   sync.Mutex
	sent map[string]*sent // by Message-ID
}

func newLedger() *ledger { return &ledger{sent: map[string]*sent{}} }

// note enters a message before it is sent.
func (l *ledger) note(key string, eml []byte, onCase uint64) *sent {
	s := &sent{key: key, sha: hexSum(eml), onCase: onCase}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent[s.messageID()] = s
	return s
}

// ack enters that a message was answered with 250.
func (l *ledger) ack(s *sent, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.acked = id
}

func (l *ledger) acked() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sent {
		if s.acked != "" {
			n++
		}
	}
	return n
}

// audit holds the archive and the sink against the ledger: what was
// acknowledged is archived exactly once, and what is there is whole; it reached
// the sink, and more than once only with an attempt marked ambiguous. (Two kills
// in one attempt leave one mark.) A nil sink was not to be reached.
func (l *ledger) audit(r *rig, to *sink) {
	r.t.Helper()
	archived := map[string][]store.ID{}
	for _, row := range rows[console.MessageRow](r, "/messages", url.Values{}) {
		archived[row.MessageID] = append(archived[row.MessageID], row.ID)
	}
	acked, extra, twice := 0, 0, 0
	for id, s := range l.sent {
		list := archived[id]
		delete(archived, id)
		switch {
		case s.acked == "" && len(list) == 0:
			continue
		case len(list) != 1:
			r.t.Errorf("%s (acknowledged as %q) is archived %d times: %v", id, s.acked, len(list), list)
			continue
		case s.acked == "":
			extra++
		case s.acked != list[0].String():
			r.t.Errorf("%s was acknowledged as %s and is archived as %s", id, s.acked, list[0])
		default:
			acked++
		}
		var m console.MessageDetail
		r.api("/messages/"+list[0].String(), nil, &m)
		s.check(r.t, m)
		if to != nil && s.arrived(r.t, m, to.seen(id)) {
			twice++
		}
	}
	for id, list := range archived {
		r.t.Errorf("%q is archived (%v) and nobody sent it", id, list)
	}
	if to != nil && len(to.torn) > 0 {
		r.t.Errorf("torn at the sink: %v", to.torn)
	}
	r.t.Logf("%d acknowledged and archived once each; %d archived whose 250 was lost and that nobody sent again; %d more than once at the sink",
		acked, extra, twice)
}

// check looks at the record of one message.
func (s *sent) check(t testing.TB, m console.MessageDetail) {
	t.Helper()
	if m.Archived.ReceivedSHA256 != s.sha {
		t.Errorf("%s is archived with digest %s, it was sent with %s", s.key, m.Archived.ReceivedSHA256, s.sha)
	}
	if (m.Case == nil) != s.uncased || m.Case != nil && s.onCase != 0 && *m.Case != s.onCase {
		t.Errorf("%s is on case %v (exception %v), want %d", s.key, m.Case, m.Exception, s.onCase)
	}
}

// arrived checks the deliveries of a message against how often the sink
// accepted it, and reports whether that was more than once.
func (s *sent) arrived(t testing.TB, m console.MessageDetail, times int) (twice bool) {
	t.Helper()
	ambiguous := 0
	for _, d := range m.Delivery {
		if d.State != store.Delivered {
			t.Errorf("a delivery of %s is %s: %+v", s.key, d.State, d.Attempts)
		}
		for _, a := range d.Attempts {
			if a.Ambiguous {
				ambiguous++
			}
		}
	}
	if len(m.Delivery) != 1 || times < 1 || times > 1 && ambiguous == 0 {
		t.Errorf("%s has %d deliveries, reached the sink %d times, with %d attempts marked ambiguous", s.key, len(m.Delivery), times, ambiguous)
	}
	return times > 1
}

// sender is one client of a load test: it connects anew whenever that is
// needed.
type sender struct {
	r        *rig
	listener string
	chunk    int    // by BDAT in chunks of this size; 0: by DATA
	held     string // the address of a socket that is never refused
	conn     *wireClient
}

// try sends a message once. It waits for the daemon, if need be; an empty reply
// means that it went away in the middle.
func (s *sender) try(from, to string, eml []byte) string {
	for began := time.Now(); s.conn == nil; {
		conn, err := dialWire(cmp.Or(s.held, s.r.at(s.listener)), s.listener == "lmtp")
		if err == nil {
			s.conn = conn
			break
		}
		if s.held != "" && !strings.HasPrefix(err.Error(), "421 ") {
			s.r.t.Errorf("a connection to listener %s is refused: %v", s.listener, err)
			return ""
		}
		if time.Since(began) > time.Minute {
			s.r.t.Errorf("listener %s cannot be reached: %v", s.listener, err)
			return ""
		}
		time.Sleep(20 * time.Millisecond)
	}
	reply, err := s.deliver(from, to, eml)
	if err != nil || strings.HasPrefix(reply, "421") {
		s.close()
	}
	if err != nil {
		return ""
	}
	return reply
}

func (s *sender) deliver(from, to string, eml []byte) (string, error) {
	if s.chunk > 0 {
		return s.conn.chunks(from, []string{to}, eml, s.chunk)
	}
	return s.conn.send(from, []string{to}, func(w io.Writer) error {
		_, err := w.Write(eml)
		return err
	})
}

func (s *sender) close() {
	if s.conn != nil {
		s.conn.conn.Close()
		s.conn = nil
	}
}

// counted tells values and how often each occurs, the most frequent first.
func perKey[K comparable](m map[K]int) string {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b K) int { return m[b] - m[a] })
	var list []string
	for _, k := range keys {
		list = append(list, fmt.Sprintf("%v %d", k, m[k]))
	}
	return strings.Join(list, ", ")
}
