package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// manager is a service manager: it hears what the daemon tells it, and may hold
// its sockets.
type manager struct {
	t       testing.TB
	address string
	mu      sync.Mutex
	heard   []string
}

func newManager(t testing.TB) *manager {
	t.Helper()
	m := &manager{t: t, address: filepath.Join(t.TempDir(), "notify")}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.heard = append(m.heard, string(buf[:n]))
			m.mu.Unlock()
		}
	}()
	return m
}

// await waits until so many messages hold a word, and returns the last of them.
func (m *manager) await(word string, n int) string {
	m.t.Helper()
	for range 1000 {
		seen := 0
		m.mu.Lock()
		for _, one := range m.heard {
			if strings.Contains(one, word) {
				if seen++; seen == n {
					m.mu.Unlock()
					return one
				}
			}
		}
		m.mu.Unlock()
		time.Sleep(10 * time.Millisecond)
	}
	m.t.Fatalf("the service manager heard no %s %d times: %q", word, n, m.heard)
	return ""
}

// TestNotify: a service manager hears when we are ready, reload, stop, and that
// we are alive.
func TestNotify(t *testing.T) {
	m := newManager(t)
	r := newRig(t, rigOptions{})
	r.env = append(r.env, "NOTIFY_SOCKET="+m.address, "WATCHDOG_USEC=300000")
	r.start()
	m.await("READY=1", 1)
	m.await("WATCHDOG=1", 3)
	r.cmd.Process.Signal(syscall.SIGHUP)
	if said := m.await("RELOADING=1", 1); !regexp.MustCompile(`MONOTONIC_USEC=\d+\n`).MatchString(said) {
		t.Errorf("reloading: %q", said)
	}
	m.await("READY=1", 2)
	if err := os.WriteFile(r.config, []byte("hostnam: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.cmd.Process.Signal(syscall.SIGHUP)
	if said := m.await("READY=1", 3); !strings.Contains(said, "STATUS=serving with the configuration of before") {
		t.Errorf("a reload refused: %q", said)
	}
	if code, _ := r.stop(); code != 0 {
		t.Errorf("it ended with %d", code)
	}
	m.await("STOPPING=1", 1)
	if list := r.complaints(); len(list) != 1 || !strings.Contains(list[0], `did you mean hostname`) && !strings.Contains(list[0], "hostnam") {
		t.Errorf("complaints: %v", list)
	}
}

// TestSocketActivation: the service manager holds the sockets while the daemon
// restarts, again and again, in the middle of a load both ways and with a next
// hop that is behind. No connection is refused, and no mail lost or sent twice.
func TestSocketActivation(t *testing.T) {
	to := newSink(t)
	r := newRig(t, rigOptions{inbound: to.address, outbound: to.address})
	names := []string{"inbound", "lmtp", "smarthost", "console", "nobody"}
	files, at := heldSockets(t, names)
	start := func() {
		t.Helper()
		// The shell knows the process id that the sockets are for.
		r.spawnAs(exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" --config "$1" serve`, r.binary, r.config), files,
			fmt.Sprintf("LISTEN_FDS=%d", len(files)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
		select {
		case <-r.ready:
		case <-r.exited:
			t.Fatalf("serve ended at its start:\n%s", strings.Join(r.tail, "\n"))
		}
	}
	start()
	for _, name := range names[:3] {
		same(t, name, r.at(name), at[name])
	}
	if res, err := http.Get("http://" + at["console"] + "/readyz"); err != nil || res.StatusCode != 200 {
		t.Errorf("the console: %v, %v", res, err)
	}

	l := loadOn(r, to)
	l.held = at
	l.seed()
	to.pause.Store(int64(50 * time.Millisecond))
	l.run(func(random *rand.Rand) int { return 1 + random.IntN(30<<10) })
	var tried, drained atomic.Int64
	for n := range 4 { // clients that come anew for each mail
		l.clients.Go(func() {
			for i := 0; !l.stopped.Load() && !t.Failed(); i++ {
				l.anew(fmt.Sprintf("restart-%d-%d", n, i), &tried, &drained)
			}
		})
	}
	const restarts = 5
	for range restarts {
		time.Sleep(400 * time.Millisecond)
		if code, _ := r.stop(); code != 0 {
			t.Errorf("it ended with %d", code)
		}
		time.Sleep(100 * time.Millisecond) // nobody serves
		start()
	}
	to.pause.Store(0)
	l.finish()
	to.once(t)
	same(t, "cut off", l.replies[""], 0)
	if drained.Load() > restarts*4 {
		t.Errorf("%d connections were let in to be sent away", drained.Load())
	}
	t.Logf("%d restarts, %d fresh connections, %d of them met a stop before they said anything", restarts, tried.Load(), drained.Load())
	if list := r.complaints(); len(list) > 0 {
		t.Errorf("the daemon complains: %v", list)
	}
}

// heldSockets opens sockets as a service manager does, and tells where.
func heldSockets(t *testing.T, names []string) (files []*os.File, at map[string]string) {
	t.Helper()
	at = map[string]string{}
	for _, name := range names {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		at[name] = ln.Addr().String()
		f, err := ln.(*net.TCPListener).File()
		ln.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		files = append(files, f)
	}
	return files, at
}

// anew sends a mail over fresh connections until it is taken, as an MTA does.
func (l *load) anew(key string, tried, drained *atomic.Int64) {
	from := key + "@example.org"
	eml := loadMail(key, from, rigMailbox, 500)
	m := l.note(key, eml, 0)
	for !l.t.Failed() {
		tried.Add(1)
		c, err := dialWire(l.held["inbound"], false)
		if err != nil && strings.HasPrefix(err.Error(), "421 ") {
			drained.Add(1) // let in just before the stop
			continue
		}
		if err != nil {
			l.t.Errorf("a connection is refused: %v", err)
			return
		}
		reply, err := c.send(from, []string{rigMailbox}, writes(eml))
		c.conn.Close()
		if err == nil && l.heard("inbound", reply) {
			l.ack(m, acceptedID(reply))
			return
		}
	}
}

// spawnAs runs the daemon by another command, with files from descriptor 3 on.
func (r *rig) spawnAs(cmd *exec.Cmd, files []*os.File, env ...string) {
	r.t.Helper()
	cmd.Env, cmd.ExtraFiles = append(append([]string{}, r.env...), env...), files
	if err := r.follow(cmd); err != nil {
		r.t.Fatal(err)
	}
}

// TestUnit: what --print-unit prints is a unit that systemd takes.
func TestUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd here")
	}
	r := newRig(t, rigOptions{})
	text := r.cli("serve", "--print-unit")
	text = strings.NewReplacer("/usr/local/bin/casegate", r.binary, "User=casegate", "User=daemon", "Group=casegate", "Group=daemon").Replace(text)
	path := filepath.Join(t.TempDir(), "casegate-tried.service")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(analyze, "verify", "--man=no", path).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "casegate-tried") {
			t.Errorf("systemd-analyze verify: %s", line)
		}
	}
	t.Logf("%v\n%s", err, out)
}
