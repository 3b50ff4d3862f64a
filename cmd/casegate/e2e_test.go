package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/casegate/casegate/gateway/testbed"
)

// What the end-to-end tests share: casegate as a process of its own (gate), and
// the records as the contract names them, read without casegate's own types.

// built is the program, built once for all tests. TestMain removes the folder
// where it lies. A test binary with the race detector gets a program with it.
var built = sync.OnceValues(func() (string, error) {
	beside, err := exec.LookPath("casegate") // put on the path by TestMain
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(beside), "casegate-built")
	args := []string{"build", "-trimpath", "-o", path}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, ".")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// gate is an installation of casegate in a folder of the test's, and its
// daemon.
type gate struct {
	t       testing.TB
	program string
	dir     string // holds casegate.yaml, data/, and run/ with lmtp.sock
	cmd     *exec.Cmd
	exited  chan error
	log     testbed.Buffer
	at      map[string]string // address by listener
	last    string            // what newest returned
}

// gateConfig has a listener of every kind. The ports are the system's choice.
const gateConfig = `hostname: gw.city.example
data_dir: ./data
listeners:
  - {name: inbound,   role: inbound,  protocol: smtp, address: 127.0.0.1:0, peers: [127.0.0.0/8]}
  - {name: border,    role: inbound,  protocol: smtp, address: 127.0.0.1:0, peers: [127.0.0.0/8], bare_newline: normalize}
  - {name: lmtp,      role: inbound,  protocol: lmtp, address: 127.0.0.1:0, peers: [127.0.0.0/8]}
  - {name: lmtp-unix, role: inbound,  protocol: lmtp, address: "unix:%s/run/lmtp.sock"}
  - {name: smarthost, role: outbound, protocol: smtp, address: 127.0.0.1:0, peers: [127.0.0.0/8]}
  - {name: desk,      role: outbound, protocol: smtp, address: 127.0.0.1:0, peers: [127.0.0.0/8], send_as: [kim@city.example]}
mailboxes:
  - {address: 311@city.example, queue: general}
  - {address: parks@city.example, queue: parks}
routes:
  - {role: inbound,  next_hop: %q}
  - {role: outbound, next_hop: %q}
console: {address: 127.0.0.1:0}
log: {format: json}
`

// newGate writes a configuration with these next hops.
func newGate(t testing.TB, inbound, outbound string) *gate {
	t.Helper()
	program, err := built()
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{t: t, program: program, dir: t.TempDir()}
	g.write("casegate.yaml", []byte(fmt.Sprintf(gateConfig, g.dir, inbound, outbound)))
	if err := os.Mkdir(filepath.Join(g.dir, "run"), 0o755); err != nil {
		t.Fatal(err)
	}
	return g
}

// startGate also runs the daemon. When the test ends the daemon must stop in
// order, and the store must hold what it promises.
func startGate(t testing.TB, inbound, outbound string) *gate {
	t.Helper()
	g := newGate(t, inbound, outbound)
	g.start()
	return g
}

// write makes a file in the gate's folder and returns its path.
func (g *gate) write(name string, text []byte) string {
	g.t.Helper()
	path := filepath.Join(g.dir, name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		g.t.Fatal(err)
	}
	return path
}

func (g *gate) command(args ...string) *exec.Cmd {
	cmd := exec.Command(g.program, args...)
	cmd.Dir = g.dir
	cmd.Env = append(cleanEnv(), "CASEGATE_ALLOW_VOLATILE=1", "GORACE=atexit_sleep_ms=0")
	return cmd
}

// cleanEnv is an environment in which nobody's settings count.
func cleanEnv() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "TZ=UTC", "LC_ALL=C.UTF-8"}
}

// start runs the daemon and waits until it is ready.
func (g *gate) start() {
	g.t.Helper()
	g.cmd, g.exited, g.at = g.command("serve"), make(chan error, 1), map[string]string{}
	pipe, err := g.cmd.StderrPipe()
	if err == nil {
		err = g.cmd.Start()
	}
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(g.stop)
	ready := make(chan bool, 1)
	cmd, exited := g.cmd, g.exited
	go func() {
		g.follow(pipe, ready)
		exited <- cmd.Wait()
	}()
	select {
	case ok := <-ready:
		if !ok {
			g.t.Fatalf("serve ended at its start:\n%s", g.log.String())
		}
	case <-time.After(30 * time.Second):
		g.t.Fatalf("serve was not ready within 30 s:\n%s", g.log.String())
	}
}

// follow keeps the daemon's log and reads the addresses out of it.
func (g *gate) follow(log io.Reader, ready chan<- bool) {
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		g.log.Write(append(lines.Bytes(), '\n'))
		var line struct{ Level, Msg, Listener, Address string }
		json.Unmarshal(lines.Bytes(), &line)
		switch line.Msg {
		case "listening":
			g.at[line.Listener] = line.Address
		case "ready":
			ready <- true
		}
	}
	select {
	case ready <- false:
	default:
	}
}

// stop ends the daemon with SIGTERM, if it runs, and looks at what it leaves.
func (g *gate) stop() {
	g.t.Helper()
	if g.cmd == nil {
		return
	}
	g.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-g.exited:
		if err != nil {
			g.t.Errorf("serve ended with %v after SIGTERM:\n%s", err, g.log.String())
		}
	case <-time.After(grace + 10*time.Second):
		g.cmd.Process.Kill()
		g.t.Errorf("serve did not stop after SIGTERM:\n%s", g.log.String())
	}
	g.cmd = nil
	g.verify()
	if log := g.log.String(); strings.Contains(log, `"level":"ERROR"`) {
		g.t.Errorf("the daemon complained:\n%s", log)
	}
	if g.t.Failed() {
		g.t.Logf("the daemon's log:\n%s", g.log.String())
	}
}

// verify has the program prove the store.
func (g *gate) verify() {
	g.t.Helper()
	var v struct {
		Findings []any
		Error    string
		Counts   struct{ Messages, Queued int }
	}
	g.json(&v, "verify")
	if len(v.Findings) > 0 || v.Error != "" {
		g.t.Errorf("verify: %v %s", v.Findings, v.Error)
	}
}

// try runs a command of the program.
func (g *gate) try(args ...string) (out []byte, said string, code int) {
	g.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := g.command(args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		g.t.Fatalf("casegate %s: %v", strings.Join(args, " "), err)
	}
	return stdout.Bytes(), stderr.String(), cmd.ProcessState.ExitCode()
}

// run is try for a command that must succeed.
func (g *gate) run(args ...string) []byte {
	g.t.Helper()
	out, said, code := g.try(args...)
	if code != exitOK {
		g.t.Fatalf("casegate %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, said)
	}
	return out
}

// json reads what a command prints with --json.
func (g *gate) json(into any, args ...string) {
	g.t.Helper()
	text := g.run(append(args, "--json")...)
	if err := json.Unmarshal(text, into); err != nil {
		g.t.Fatalf("casegate %s --json: %v\n%s", strings.Join(args, " "), err, text)
	}
}

// contact adds a contact and returns its id.
func (g *gate) contact(kind, name string, addresses ...string) string {
	g.t.Helper()
	args := []string{"contact", "add", "--kind", kind, "--name", name}
	for _, a := range addresses {
		args = append(args, "--email", a)
	}
	var c struct{ ID string }
	g.json(&c, args...)
	return c.ID
}

func (g *gate) caseOf(number string) (c shownCase) {
	g.t.Helper()
	g.json(&c, "case", "show", number)
	return c
}

func (g *gate) message(id string) (m shownMessage) {
	g.t.Helper()
	g.json(&m, "message", "show", id)
	return m
}

// newest is the message that came last; nobody must have asked for it before.
func (g *gate) newest(t testing.TB) shownMessage {
	t.Helper()
	var rows []struct{ ID string }
	g.json(&rows, "message", "list", "--limit", "1")
	if len(rows) != 1 || rows[0].ID == g.last {
		t.Fatal("no message came")
	}
	g.last = rows[0].ID
	return g.message(g.last)
}

// count is the number of rows that a list has.
func (g *gate) count(args ...string) int {
	g.t.Helper()
	var rows []any
	g.json(&rows, args...)
	return len(rows)
}

// settle waits until the outbox has nothing left to do.
func (g *gate) settle() {
	g.t.Helper()
	testbed.Until(g.t, "the outbox is empty", func() bool { return g.count("queue", "list", "--state", "queued") == 0 })
}

// The records as design.md §5 names them.
type (
	shownPerson struct{ ID, Kind, Name string }
	shownCase   struct {
		ID                          string
		Number                      uint64
		Title, State, Origin, Queue string
		Customer                    shownPerson
		Timeline                    []shownMessage
		Log                         []any
	}
	shownParty struct {
		Role        string
		AddressUsed string `json:"address_used"`
		Name        string `json:"unresolved_party_name"`
		Party       *struct{ Kind, ID, Name, Address string }
		Candidates  []shownPerson
		Why         string
	}
	shownMessage struct {
		ID                string
		MessageID         string `json:"message_id"`
		Direction         string
		Subject           string
		Case              *uint64
		Exception         *string
		Class, Identity   string
		Flags             []string
		Parties           []shownParty
		Links             []shownPerson
		CorrelationMethod string `json:"correlation_method"`
		Decision          struct{ Rules, Reasons []string }
		Internal          bool
		Archived          struct {
			ReceivedSHA256 string `json:"received_sha256"`
			SentSHA256     string `json:"sent_sha256"`
		}
		Delivery []struct {
			From, State string
			Recipients  []struct{ Address, State string }
		}
		Envelope struct {
			Listener, From string
			Recipients     []string
		}
	}
)

// people lists the parties as "role address = who".
func (m shownMessage) people() []string {
	var list []string
	for _, p := range m.Parties {
		who := "unresolved"
		if p.Party != nil {
			who = strings.TrimSpace(p.Party.Kind + " " + p.Party.Name + p.Party.Address)
		}
		list = append(list, p.Role+" "+p.AddressUsed+" = "+who)
	}
	return list
}

// linked lists the names of the contacts that a message is linked to, sorted.
func (m shownMessage) linked() []string {
	var list []string
	for _, l := range m.Links {
		list = append(list, l.Name)
	}
	slices.Sort(list)
	return list
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// letter makes the line ends of a text written in Go those of mail.
func letter(text string) []byte { return []byte(strings.ReplaceAll(text, "\n", "\r\n")) }

// same compares what must be equal.
func same(t testing.TB, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}
