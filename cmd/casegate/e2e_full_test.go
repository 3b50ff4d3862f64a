package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFullDisk fills the store under load, in three ways. While there is no
// room, clients are told to come again and the command line still reads; with
// room again all goes on by itself within 10 s, and what was acknowledged is
// there.
func TestFullDisk(t *testing.T) {
	t.Run("ext4", func(t *testing.T) {
		dir := t.TempDir()
		image, at, ballast := filepath.Join(dir, "image"), filepath.Join(dir, "disk"), filepath.Join(dir, "disk", "ballast")
		must(t, os.WriteFile(image, nil, 0o600))
		must(t, os.Truncate(image, 192<<20))
		system(t, "mkfs.ext4", "-q", "-F", "-m", "0", image)
		mounted(t, at, "-o", "loop", image)
		fill(t, ballast, 140<<20)
		l := newLoad(t, rigOptions{data: filepath.Join(at, "data")})
		l.fillUp(t, 400<<10)
		l.kill() // and it must also start without room
		l.start()
		l.full(t)
		l.goOn(t, func() { must(t, os.Remove(ballast)) })
		if cut := l.count(""); cut > 8 {
			t.Errorf("%d messages were cut off by one kill", cut)
		}
	})
	t.Run("tmpfs", func(t *testing.T) {
		at := filepath.Join(t.TempDir(), "disk")
		mounted(t, at, "-t", "tmpfs", "-o", "size=24m", "tmpfs")
		l := newLoad(t, rigOptions{data: filepath.Join(at, "data")})
		l.fillUp(t, 400<<10)
		l.goOn(t, func() { system(t, "mount", "-o", "remount,size=192m", at) })
	})
	t.Run("file size limit", func(t *testing.T) {
		l := newLoad(t, rigOptions{})
		limitFiles(t, l.pid(), 6<<20)
		l.fillUp(t, 8<<10) // nothing that is staged and given up: the outbox finds no room either
		l.goOn(t, func() { limitFiles(t, l.pid(), unix.RLIM_INFINITY) })
	})
}

// fillUp has a load of messages up to a size fill the store. Until there is
// room again the next hop takes nothing, so that the outbox fills too.
func (l *load) fillUp(t *testing.T, size int) {
	t.Helper()
	l.to.busy.Store(true)
	l.run(func(random *rand.Rand) int { return 1 + random.IntN(size) })
	l.until(t, 30*time.Second, "the store is not full", func() bool { return l.count("452") >= 50 })
	t.Logf("full after %d messages", l.acked())
	l.full(t)
}

// goOn makes room and sees the daemon go on by itself.
func (l *load) goOn(t *testing.T, widen func()) {
	t.Helper()
	l.to.busy.Store(false)
	widen()
	began := time.Now()
	l.until(t, 10*time.Second, "not all listeners take mail again within 10 s", func() bool { return l.allTook(began) })
	t.Logf("every listener takes mail again after %v", time.Since(began).Round(time.Millisecond))
	l.stopped.Store(true)
	l.clients.Wait()
	l.emptied(time.Until(began.Add(10 * time.Second)))
	t.Logf("the outbox is empty %v after there was room again", time.Since(began).Round(time.Millisecond))
	l.finish()
	if code, _ := l.stop(); code != 0 {
		t.Errorf("serve ended with %d", code)
	}
	l.verify()
}

// full looks at a daemon that has no room: for two seconds it refuses what
// does not fit, and goes on answering.
func (l *load) full(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(300 * time.Millisecond) {
		if !l.alive() {
			t.Fatal("serve has ended")
		}
		began := time.Now()
		if out := l.cli("case", "list"); !strings.Contains(out, "load seed-0") {
			t.Errorf("case list does not show the first case:\n%s", out)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("case list took %v", took)
		}
	}
	l.cli("message", "list", "--limit", "5")
	l.cli("queue", "list", "--limit", "5")
	l.mu.Lock()
	defer l.mu.Unlock()
	for code := range l.replies {
		if code != "250" && code != "451" && code != "452" && code != "" {
			t.Errorf("a client was answered %s", code)
		}
	}
}

// count is how often a reply with that code came.
func (l *load) count(code string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.replies[code]
}

// allTook reports whether every listener has accepted a message since.
func (l *load) allTook(since time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, listener := range []string{"inbound", "lmtp", "smarthost"} {
		if !l.lastTaken[listener].After(since) {
			return false
		}
	}
	return true
}

// until waits for something to become true.
func (l *load) until(t *testing.T, within time.Duration, otherwise string, what func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !what(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) || !l.alive() {
			t.Errorf("%s; replies: %s", otherwise, perKey(l.replies))
			return
		}
	}
}

// mounted mounts a file system for the test; without the right to, the test is
// skipped.
func mounted(t *testing.T, at string, args ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount a small file system")
	}
	must(t, os.Mkdir(at, 0o755))
	system(t, "mount", append(args, at)...)
	t.Cleanup(func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Logf("umount: %v %s", err, out)
			exec.Command("umount", "-l", at).Run()
		}
	})
}

// system runs a program of the system; if that fails the test is skipped.
func system(t *testing.T, program string, args ...string) {
	t.Helper()
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		t.Skipf("%s: %v %s", program, err, out)
	}
}

// fill makes a file that takes up room.
func fill(t *testing.T, path string, size int64) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	must(t, unix.Fallocate(int(f.Fd()), 0, 0, size))
	must(t, f.Close())
}

// limitFiles bounds how large a file the process may write (RLIMIT_FSIZE).
func limitFiles(t *testing.T, pid int, size uint64) {
	t.Helper()
	must(t, unix.Prlimit(pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: size, Max: math.MaxUint64}, nil))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(fmt.Errorf("setting up: %w", err))
	}
}
