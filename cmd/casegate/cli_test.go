package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/casegate/casegate/gateway/console"
	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/bolt"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"casegate": main, "seed": seedMain, "slowclients": slowMain})
}

// TestScripts: the command line as people meet it, without a daemon.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("TZ", "UTC")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "deadsocket": deadSocket},
	})
}

// exits runs a command and asks for its exit code: exits 2 casegate serv
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

// deadSocket leaves a socket file that nobody listens on.
func deadSocket(ts *testscript.TestScript, _ bool, args []string) {
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: ts.MkAbs(args[0]), Net: "unix"})
	ts.Check(err)
	ln.SetUnlinkOnClose(false)
	ts.Check(ln.Close())
}

// seedMain fills ./data with a small case, for the scripts.
func seedMain() {
	if err := seed("data"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func seed(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	st, err := bolt.Open(filepath.Join(dir, "casegate.db"), bolt.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	return errors.Join(seedPeople(st), seedMail(st), st.Close())
}

// seedID is a fixed UUIDv7, n apart.
func seedID(n byte) store.ID {
	id, _ := store.ParseID("01957000-0000-7000-8000-000000000000")
	id[15] = n
	return id
}

// seedTime is minutes after a Monday morning.
func seedTime(minutes int) time.Time {
	return time.Date(2026, 3, 2, 9, minutes, 0, 0, time.UTC)
}

func seedPeople(st store.Store) error {
	return st.Update(context.Background(), func(tx store.Tx) error {
		return errors.Join(
			tx.PutContact(store.Contact{ID: seedID(1), Kind: store.Guest, Name: "Ana Silva", CreatedAt: seedTime(0),
				EmailAddresses: []store.EmailAddress{{Address: "ana@x.example", From: seedTime(0)}}}),
			tx.PutCase(store.Case{ID: seedID(2), Number: 1, Title: "Street light out", State: store.Active, Origin: "Email", Queue: "general",
				Customer: seedID(1), Ordinal: 2, CreatedAt: seedTime(0), UpdatedAt: seedTime(5)}),
			tx.Record(store.LogEntry{ID: seedID(3), Case: 1, At: seedTime(5), By: "kim@city.example", SourceType: "Case email-out", DocumentType: "Letter",
				Document: &store.Document{FileName: "answer.eml", FileType: "eml", Size: 90}}),
		)
	})
}

func seedMail(st store.Store) error {
	mailbox := store.Party{Role: store.RoleTo, AddressUsed: "311@city.example", Party: store.PartyRef{Kind: store.PartyMailbox, Address: "311@city.example"}, Why: "our mailbox"}
	ana := store.PartyRef{Kind: store.PartyContact, ID: seedID(1)}
	return errors.Join(
		seedMessage(st, store.Message{ID: seedID(11), MessageID: "a@x.example", Direction: store.Incoming, Case: 1, Ordinal: 1,
			Subject: "Street light out\x1b[2J\u202e", From: "ana@x.example", Class: "human", Identity: "unknown", CorrelationMethod: "none", ReceivedAt: seedTime(0),
			Parties:  []store.Party{{Role: store.RoleSender, AddressUsed: "ana@x.example", Party: ana, Why: "new guest"}, mailbox},
			Links:    []store.Link{{Address: "ana@x.example"}},
			Decision: store.Decision{Rules: []string{"T0", "I26"}, Reasons: []string{"no tracking evidence", "nobody has this address: a new guest"}},
			Envelope: store.Envelope{Listener: "inbound", Peer: "192.0.2.1", From: "ana@x.example", Recipients: []string{"311@city.example"}}},
			"From: ana@x.example\r\nSubject: Street light out\r\n\r\n", "", nil, "It is dark.\r\n"),
		seedMessage(st, store.Message{ID: seedID(12), MessageID: "b@city.example", Direction: store.Outgoing, Case: 1, Ordinal: 2,
			Subject: "Re: Street light out", From: "kim@city.example", Class: "human", CorrelationMethod: "in_reply_to", ReceivedAt: seedTime(5),
			Parties: []store.Party{{Role: store.RoleSender, AddressUsed: "kim@city.example", Why: "no one has this address"},
				{Role: store.RoleTo, AddressUsed: "ana@x.example", Party: ana, Why: "Case.Customer"}, {Role: store.RoleBCC, AddressUsed: "boss@city.example", Why: "stays Bcc"}},
			Decision: store.Decision{Rules: []string{"T2", "O0", "O3"}, Reasons: []string{"it answers a@x.example", "reply", "the customer stands in To"}},
			Envelope: store.Envelope{Listener: "smarthost", From: "kim@city.example", Recipients: []string{"ana@x.example", "boss@city.example"}},
			Archived: store.Archived{SentSHA256: "x"}},
			"From: kim@city.example\r\n\r\n", "From: kim@city.example\r\nX-Case-Ref: t\r\n\r\n", []store.Apart{{Offset: 24, Bytes: []byte("Bcc: boss@city.example\r\n")}}, "Soon.\r\n"),
		seedMessage(st, store.Message{ID: seedID(13), MessageID: "c@y.example", Direction: store.Incoming, Exception: "loop", From: "robot@y.example", Class: "loop",
			CorrelationMethod: "none", ReceivedAt: seedTime(9), Decision: store.Decision{Rules: []string{"I2"}, Reasons: []string{"our own loop header"}},
			Envelope: store.Envelope{Listener: "inbound", Peer: "192.0.2.9", Helo: "y.example", Recipients: []string{"311@city.example"}},
			Archived: store.Archived{ReceivedSHA256: "e0", ReceivedSize: 31}},
			"From: robot@y.example\r\n\r\n", "", nil, "beep\r\n"),
		st.Update(context.Background(), func(tx store.Tx) error {
			return tx.Enqueue(store.Delivery{ID: seedID(21), Message: seedID(12), Case: 1, Role: "outbound", From: "311+t@city.example", State: store.Queued,
				Recipients: []store.Recipient{{Address: "ana@x.example", State: store.Queued}, {Address: "boss@city.example", State: store.Queued}},
				Attempts:   []store.Attempt{{At: seedTime(5), NextHop: "smtp://127.0.0.1:2526", Result: "deferred", Reply: "451 4.3.0 later"}},
				Due:        seedTime(30), CreatedAt: seedTime(5)})
		}),
	)
}

func seedMessage(st store.Store, m store.Message, received, sent string, apart []store.Apart, text string) error {
	ctx := context.Background()
	body, err := st.Stage(ctx)
	if err != nil {
		return err
	}
	defer body.Discard()
	io.WriteString(body, text)
	if err := body.Seal(ctx); err != nil {
		return err
	}
	var out []byte
	if sent != "" {
		out = []byte(sent)
	}
	return st.Update(ctx, func(tx store.Tx) error {
		return errors.Join(tx.PutMessage(m), tx.Archive(m.ID, []byte(received), out, apart, body))
	})
}

// testProgram is a program in a folder of its own.
func testProgram(t *testing.T) (p *program, out, stderr *bytes.Buffer) {
	t.Helper()
	t.Chdir(t.TempDir())
	out, stderr = new(bytes.Buffer), new(bytes.Buffer)
	p = newProgram()
	p.in, p.out, p.err, p.environ = strings.NewReader(""), out, stderr, nil
	p.zone, p.patience = time.FixedZone("", -5*3600), 200*time.Millisecond
	return p, out, stderr
}

// TestDaemonIsAsked: with a daemon on the socket the command line asks it, and
// never opens the store itself.
func TestDaemonIsAsked(t *testing.T) {
	p, out, stderr := testProgram(t)
	if err := seed("data"); err != nil {
		t.Fatal(err)
	}
	st, err := openStore(defaults(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	ln, err := listenSocket(defaults().socket())
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(defaults().socket())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info.Mode(), err)
	}
	server := &http.Server{Handler: console.New(console.Service{Store: st}, console.Options{Access: console.Operator})}
	go server.Serve(ln)
	defer server.Close()
	p.openStore = func(*Config, *slog.Logger) (store.Store, error) {
		t.Error("the store was opened")
		return nil, store.ErrInUse
	}
	if code := p.run(t.Context(), []string{"message", "export", seedID(12).String(), "--bcc"}); code != 0 || out.String() != "From: kim@city.example\r\nBcc: boss@city.example\r\n\r\nSoon.\r\n" {
		t.Errorf("%d %q %s", code, out, stderr)
	}
	out.Reset()
	if code := p.run(t.Context(), []string{"case", "list"}); code != 0 || !strings.Contains(out.String(), "2026-03-02 04:05") {
		t.Errorf("times are not in the local zone: %d %s %s", code, out, stderr)
	}
	if code := p.run(t.Context(), []string{"case", "show", "9"}); code != 1 || stderr.String() != "error: no case 9\nhint: casegate case list shows what there is\n" {
		t.Errorf("%d %s", code, stderr)
	}
}

// TestDaemonHangs: a daemon that has its socket open but does not answer is
// named, and not gone around.
func TestDaemonHangs(t *testing.T) {
	p, _, stderr := testProgram(t)
	if err := os.MkdirAll("data", 0o700); err != nil {
		t.Fatal(err)
	}
	ln, err := listenSocket(defaults().socket())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	p.openStore = func(*Config, *slog.Logger) (store.Store, error) {
		t.Error("the store was opened")
		return nil, store.ErrInUse
	}
	if code := p.run(t.Context(), []string{"contact", "list"}); code != 1 || !strings.HasPrefix(stderr.String(), "error: the daemon on data/casegate.sock does not answer\nhint: ") {
		t.Errorf("%d %s", code, stderr)
	}
}

// TestStoreInUse: another process has the store open, without a socket.
func TestStoreInUse(t *testing.T) {
	p, _, stderr := testProgram(t)
	p.openStore = func(*Config, *slog.Logger) (store.Store, error) {
		return nil, fmt.Errorf("opening: %w", store.ErrInUse)
	}
	if code := p.run(t.Context(), []string{"contact", "add", "--name", "A", "--email", "a@x.example"}); code != 1 || !strings.Contains(stderr.String(), "\nhint: another casegate has it open and does not answer on data/casegate.sock") {
		t.Errorf("%d %s", code, stderr)
	}
}

// TestLongPath: a data_dir too deep for a socket's address is still reached, as
// seen from here.
func TestLongPath(t *testing.T) {
	testProgram(t)
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	deep := filepath.Join(wd, strings.Repeat("d", 90))
	if err := os.Mkdir(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(deep, "s")
	if _, err := dialSocket(path); !errors.Is(err, errNoDaemon) {
		t.Fatal(err)
	}
	ln, err := listenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dialSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if _, err := listenSocket(path); err == nil || !strings.HasPrefix(err.Error(), "another daemon answers on ") {
		t.Error(err)
	}
	ln.Close()
	if _, err := listenSocket(strings.Repeat("e", 120)); err == nil || !strings.HasSuffix(err.Error(), "is too long for a UNIX socket") {
		t.Error(err)
	}
}

// TestBrokenOff: an answer that ends early is an error, never half a message.
func TestBrokenOff(t *testing.T) {
	c := &http.Client{Transport: inProcess{http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "half of ")
		panic(http.ErrAbortHandler)
	})}}
	resp, err := c.Get("http://casegate/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) || string(text) != "half of " {
		t.Errorf("%q, %v", text, err)
	}
}

// TestInProcess: status, header and body arrive as over a network, and a
// request that is given up ends.
func TestInProcess(t *testing.T) {
	hangs := make(chan struct{})
	c := &http.Client{Transport: inProcess{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			<-hangs
			return
		}
		text, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Path", r.RequestURI)
		w.WriteHeader(http.StatusTeapot)
		w.Write(append([]byte(r.Method+" "), text...))
	})}}
	resp, err := c.Post("http://casegate/a?b=c", "text/plain", strings.NewReader("tea"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusTeapot || resp.Header.Get("X-Path") != "/a?b=c" || string(text) != "POST tea" {
		t.Errorf("%+v %q %v", resp, text, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://casegate/hang", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Do(r); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	close(hangs)
}

func TestVerification(t *testing.T) {
	for name, tc := range map[string]struct {
		answer string
		json   bool
		code   int
		stderr string
	}{
		"clean":    {`{"findings":[],"counts":{"cases":2}}`, false, 0, ""},
		"found":    {`{"findings":[{"record":"message 1","what":"its body is gone"}],"counts":{"findings":1}}`, false, 1, "error: 1 broken\nhint: keep a copy of the store before you touch it\n"},
		"as JSON":  {`{"findings":[{"record":"message 1","what":"its body is gone"}],"counts":{"findings":1}}`, true, 1, ""},
		"stopped":  {`{"findings":[],"counts":{},"error":"no page"}`, false, 1, "error: verify stopped: no page\n"},
		"cut off":  {`{"findings":[`, false, 1, "error: the answer broke off: unexpected end of JSON input\n"},
		"no store": {``, false, 1, "error: the answer broke off: unexpected end of JSON input\n"},
	} {
		p, _, stderr := testProgram(t)
		if code := p.fail(p.verification(output{json: tc.json}, strings.NewReader(tc.answer))); code != tc.code || stderr.String() != tc.stderr {
			t.Errorf("%s: %d %s", name, code, stderr)
		}
	}
}

func TestClean(t *testing.T) {
	if got := clean("a\x1b[31mb\u202ec\nd\te\x7f\u009b é"); got != `a\u001b[31mb\u202ec d e\u007f\u009b é` {
		t.Error(got)
	}
	if got := clip("äöüß", 3); got != "äö…" {
		t.Error(got)
	}
}

// runs runs one command as the program would, and returns its exit code.
func runs(t *testing.T, p *program, c *cobra.Command, args ...string) int {
	t.Helper()
	c.SetArgs(args)
	c.SilenceErrors, c.SilenceUsage = true, true
	return p.fail(c.ExecuteContext(t.Context()))
}

// TestWhoActs: the audit row of an act names the user of the system.
func TestWhoActs(t *testing.T) {
	p, out, stderr := testProgram(t)
	if err := seed("data"); err != nil {
		t.Fatal(err)
	}
	if code := runs(t, p, p.caseResolve(), "1"); code != 0 || out.String() != "case 1 is Resolved, was Active\n" {
		t.Fatalf("%d %s %s", code, out, stderr)
	}
	out.Reset()
	want := osUser()
	if want == "" {
		want = "cli"
	}
	if code := p.run(t.Context(), []string{"case", "show", "1"}); code != 0 || !strings.Contains(out.String(), "Case changed: case 1 is Resolved, was Active, by "+want+"\n") {
		t.Errorf("%d %s", code, out)
	}
}

// TestImportBatches: a long file is taken in several requests, and what stops
// it says from where on.
func TestImportBatches(t *testing.T) {
	p, out, stderr := testProgram(t)
	var file strings.Builder
	file.WriteString("name,email\n")
	for n := range 450 {
		fmt.Fprintf(&file, "Person %d,p%d@x.example\n", n, n)
	}
	if err := os.WriteFile("people.csv", []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if code := runs(t, p, p.contactImport(), "people.csv"); code != 0 || out.String() != "450 added, 0 updated, 0 the same, 0 refused\n" || stderr.Len() > 0 {
		t.Fatalf("%d %s %s", code, out, stderr)
	}
	out.Reset()
	if code := runs(t, p, p.contactImport(), "people.csv", "--json"); code != 0 || strings.Count(out.String(), `"same"`) != 450 || !json.Valid(out.Bytes()) {
		t.Errorf("%d %s %s", code, out, stderr)
	}
	if err := os.WriteFile("people.csv", []byte(file.String()+"\"never closed,"+strings.Repeat("a@x.example,", 20_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if code := runs(t, p, p.contactImport(), "people.csv"); code != 1 || stderr.String() != "error: nothing from line 402 on was taken: a row is longer than 65536 bytes\nhint: look for a quote that is not closed\n" {
		t.Errorf("%d %s", code, stderr)
	}
}

// TestImportStops: a store that is full stops an import at a row.
func TestImportStops(t *testing.T) {
	p, out, stderr := testProgram(t)
	asked := 0
	full := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked++; asked > 1 {
			w.WriteHeader(http.StatusInsufficientStorage)
			io.WriteString(w, `{"detail":"storage is full","hint":"make room"}`)
			return
		}
		io.WriteString(w, `[{"line":2,"action":"add","name":"A"}]`)
	})
	if err := os.WriteFile("people.csv", []byte("name,email\n"+strings.Repeat("A,a@x.example\n", 300)), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("people.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	im := &contactImport{p: p, api: &client{http: &http.Client{Transport: inProcess{full}}}, counts: map[console.ImportAction]int{}}
	if code := p.fail(im.run(t.Context(), f, console.ReadCSV)); code != 1 || stderr.String() != "error: nothing from line 202 on was taken: storage is full\nhint: make room\n" || out.Len() > 0 {
		t.Errorf("%d %s %s", code, out, stderr)
	}
}

// TestProgress: the bar stands on a terminal only, and is taken away.
func TestProgress(t *testing.T) {
	var out bytes.Buffer
	b := &progress{w: &out, size: 10, width: 40}
	r := b.reading(strings.NewReader("0123456789"))
	io.CopyN(io.Discard, r, 5)
	b.show(7)
	io.Copy(io.Discard, r)
	b.show(14)
	b.end()
	b.end()
	if out.String() != "\r[############............]  50%  7 rows\r[#######################] 100%  14 rows\r\x1b[K" {
		t.Errorf("%q", out.String())
	}
	out.Reset()
	none := newProgress(&out, 10)
	none.show(1)
	none.end()
	if file, err := os.Create(filepath.Join(t.TempDir(), "log")); err != nil || newProgress(file, 10).w != nil || out.Len() > 0 {
		t.Errorf("%v %q", err, out.String())
	}
	pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no terminal to try it on: ", err)
	}
	defer pty.Close()
	if b := newProgress(pty, 10); b.w == nil || b.width != 80 {
		t.Errorf("%+v", b)
	}
}
