package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway/console"
)

// TestMemory sends 50 messages of 35 MB at once, each client in the middle of
// its body before the first has ended. The daemon takes them all and stays
// under 128 MiB of anonymous memory: what it holds does not grow with messages.
func TestMemory(t *testing.T) {
	const clients, size, most = 50, 35_000_000, 128 << 20
	if testing.Short() {
		t.Skip("it writes 2 GB")
	}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("the race detector needs memory of its own")
	}
	to := newSink(t); to.busy.Store(true); r := newRig(t, rigOptions{inbound: to.address})
	r.start()
	idle := anonymous(t, r.pid())
	peak := watch(t, r)
	began := time.Now()
	var clientsDone sync.WaitGroup
	halfway := make(chan struct{}) // closed when every client is in the middle
	var inMiddle sync.WaitGroup
	inMiddle.Add(clients)
	go func() { inMiddle.Wait(); close(halfway) }()
	results := make([]bigMail, clients)
	for n := range results {
		results[n].n = n
		clientsDone.Go(func() {
			listener := []string{"inbound", "lmtp"}[n%2]
			results[n].send(r.at(listener), listener == "lmtp", size, func() { inMiddle.Done(); <-halfway })
		})
	}
	clientsDone.Wait()
	took := time.Since(began)
	high, samples := peak()
	t.Logf("%d messages of %d bytes at once in %v (%.0f MB/s): at most %.1f MiB of anonymous memory in %d samples, %.1f MiB before",
		clients, size, took.Round(time.Millisecond), clients*size/1e6/took.Seconds(), mib(high), samples, mib(idle))
	if high > most {
		t.Errorf("%.1f MiB of anonymous memory, at most %d were allowed", mib(high), most>>20)
	}
	for _, m := range results {
		m.check(t, r)
	}
	if code, _ := r.stop(); code != 0 {
		t.Errorf("serve ended with %d", code)
	}
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

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

// watch samples the daemon's anonymous memory until the result is asked for.
func watch(t *testing.T, r *rig) (peak func() (high int64, samples int)) {
	stop, done := make(chan struct{}), make(chan struct{})
	var high int64
	var samples int
	go func() {
		defer close(done)
		for {
			high = max(high, anonymous(t, r.pid()))
			samples++
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return func() (int64, int) {
		close(stop)
		<-done
		return high, samples
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
