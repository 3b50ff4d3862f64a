package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway/console"
)

// TestMemory sends 50 messages of 35 MB at once: each client is in the middle of
// its body before the first may end. The daemon takes them all, hands them on
// and verifies them within 128 MiB of anonymous memory: what it holds does not
// grow with messages.
func TestMemory(t *testing.T) {
	const clients, size = 50, 35_000_000
	if testing.Short() {
		t.Skip("it writes 2 GB")
	}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("the race detector needs memory of its own")
	}
	to := newSink(t)
	to.blind.Store(true)
	r := newRig(t, rigOptions{inbound: to.address, data: onDisk(t)})
	r.start()
	t.Logf("%.1f MiB of anonymous memory at the start", float64(anonymous(t, r.pid()))/(1<<20))
	results := make([]bigMail, clients)
	r.within(t, 128<<20, fmt.Sprintf("taking %d messages of %d bytes at once", clients, size), func() { sendAll(r, results, size) })
	r.within(t, 128<<20, "handing on what is left", func() { r.emptied(time.Minute) })
	if got := to.octets.Load(); got < clients*size {
		t.Errorf("the next hop got %d bytes", got)
	}
	for _, m := range results {
		m.check(t, r)
	}
	r.within(t, 128<<20, "verify", func() { r.verify() })
	if code, _ := r.stop(); code != 0 {
		t.Errorf("serve ended with %d", code)
	}
}

// onDisk is a folder that is not in memory, as a temporary one may be.
func onDisk(t *testing.T) string {
	dir := t.TempDir()
	if kind, _ := volatile(dir); kind == "" {
		return filepath.Join(dir, "data")
	}
	dir, err := os.MkdirTemp("/var/tmp", "casegate-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "data")
}

// sendAll sends messages of that size all at once.
func sendAll(r *rig, results []bigMail, size int) {
	var clients, inMiddle sync.WaitGroup
	inMiddle.Add(len(results))
	for n := range results {
		results[n].n = n
		clients.Go(func() {
			listener := []string{"inbound", "lmtp"}[n%2]
			results[n].send(r.at(listener), listener == "lmtp", size, func() { inMiddle.Done(); inMiddle.Wait() })
		})
	}
	clients.Wait()
}

// bigMail is a message that is made while it is sent.
type bigMail struct {
	n          int
	sha, reply string
	err        error
}

// send writes a message of about size bytes; in the middle of it it waits.
func (m *bigMail) send(address string, lmtp bool, size int, middle func()) {
	var once sync.Once
	defer once.Do(middle)
	c, err := dialWire(address, lmtp)
	if err != nil {
		m.err = err
		return
	}
	defer c.conn.Close()
	sum := sha256.New()
	from := fmt.Sprintf("client%d@example.net", m.n)
	m.reply, m.err = c.send(from, []string{rigMailbox}, func(w io.Writer) error {
		w = io.MultiWriter(w, sum)
		sent, err := fmt.Fprintf(w, "From: <%s>\r\nTo: <%s>\r\nSubject: big %d\r\nMessage-ID: <big-%d@load.example>\r\n\r\n",
			from, rigMailbox, m.n, m.n)
		block := []byte(strings.Repeat(fmt.Sprintf("%-76d\r\n", m.n), 800))
		for ; err == nil && sent < size; sent += len(block) {
			if sent > size/2 {
				once.Do(middle)
			}
			copy(block, fmt.Sprintf("%-20d", sent))
			_, err = w.Write(block)
		}
		return err
	})
	m.sha = hex.EncodeToString(sum.Sum(nil))
}

func (m *bigMail) check(t *testing.T, r *rig) {
	t.Helper()
	id := acceptedID(m.reply)
	if m.err != nil || id == "" {
		t.Errorf("message %d: %q, %v", m.n, m.reply, m.err)
		return
	}
	var d console.MessageDetail
	r.api("/messages/"+id, nil, &d)
	if d.Archived.ReceivedSHA256 != m.sha {
		t.Errorf("message %d is archived as %s, it was sent as %s", m.n, d.Archived.ReceivedSHA256, m.sha)
	}
}

// within samples the daemon's anonymous memory while something is done, and
// fails if it passes a bound.
func (r *rig) within(t *testing.T, most int64, what string, do func()) {
	t.Helper()
	began, done := time.Now(), make(chan struct{})
	go func() { defer close(done); do() }()
	high, samples := int64(0), 0
	for ticker := time.NewTicker(50 * time.Millisecond); ; samples++ {
		high = max(high, anonymous(t, r.pid()))
		select {
		case <-ticker.C:
			continue
		case <-done:
		}
		ticker.Stop()
		break
	}
	t.Logf("%s: at most %.1f MiB of anonymous memory in %d samples over %v", what, float64(high)/(1<<20), samples, time.Since(began).Round(time.Millisecond))
	if high > most {
		t.Errorf("%s: %.1f MiB of anonymous memory, at most %d are allowed", what, float64(high)/(1<<20), most>>20)
	}
}

// anonymous is the memory of a process that no file backs: its share of it
// (Pss_Anon), in bytes.
func anonymous(t *testing.T, pid int) int64 {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Error(err)
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "Pss_Anon:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 10, 64)
			if err != nil {
				t.Error(err)
			}
			return kib << 10
		}
	}
	t.Error("smaps_rollup does not tell Pss_Anon")
	return 0
}
