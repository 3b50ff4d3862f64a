package bolt

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/storetest"
)

// fill accepts mail until there is no room, and returns the last that went in.
func fill(t *testing.T, st *Store, size int) (last *letter, n int) {
	t.Helper()
	for n = 1; n < 10_000; n++ {
		l := newLetter(uint64(n), size)
		_, err := l.accept(context.Background(), st)
		if errors.Is(err, store.ErrFull) {
			return last, n - 1
		}
		if err != nil {
			t.Fatalf("message %d: %v", n, err)
		}
		last = l
	}
	t.Fatal("there is no end to the room")
	return nil, 0
}

// staysUseful: a full store answers, lets deliveries be settled, and is right.
func staysUseful(t *testing.T, st *Store, n int, last *letter) {
	t.Helper()
	ctx := context.Background()
	if c := verifyClean(t, st); c.Messages != n {
		t.Errorf("%d messages, want %d", c.Messages, n)
	}
	for range 20 { // one commit frees the pages that the next needs
		d, err := last.delivered(ctx, st)
		if err == nil {
			err = storetest.Settle(ctx, st, d)
		}
		if err != nil {
			t.Fatalf("settling on a full store: %v", err)
		}
	}
	if _, err := newLetter(99_999, 600<<10).accept(ctx, st); !errors.Is(err, store.ErrFull) {
		t.Errorf("a large message on a full store: %v", err)
	}
	for end := time.Now().Add(5 * time.Second); rows(t, st, staged) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("what it left is not swept")
		}
	}
}

func (l *letter) delivered(ctx context.Context, st *Store) (d store.Delivery, err error) {
	err = st.View(ctx, func(r store.Reader) error {
		d, err = r.Delivery(l.delivery)
		return err
	})
	d.State = store.Delivered
	d.Attempts = append(d.Attempts, store.Attempt{Result: "delivered"})
	return d, err
}

func TestQuota(t *testing.T) {
	for name, size := range map[string]int{"small": 8000, "middling": 50 << 10, "large": 600 << 10} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "casegate.db")
			const quota = 8 << 20
			st := open(t, path, Options{MaxSize: quota})
			last, n := fill(t, st, size)
			if room := n * size; room < quota/4 {
				t.Errorf("full after %d bytes of %d", room, quota)
			}
			staysUseful(t, st, n, last)
			if info, err := os.Stat(path); err != nil || info.Size() > quota {
				t.Errorf("the file has %d bytes, %v", info.Size(), err)
			}
			st.Close()
			again := open(t, path, Options{MaxSize: 2 * quota})
			if _, err := newLetter(100_000, size).accept(context.Background(), again); err != nil {
				t.Errorf("with more room: %v", err)
			}
		})
	}
}

// TestFullDisk: a file system without room, and then with room again.
func TestFullDisk(t *testing.T) {
	for _, kind := range []string{"tmpfs", "ext4"} {
		for name, size := range map[string]int{"small": 8000, "large": 600 << 10} {
			t.Run(kind+"/"+name, func(t *testing.T) {
				dir := smallDisk(t, kind)
				ballast := filepath.Join(dir, "ballast")
				if err := os.WriteFile(ballast, make([]byte, 11<<20), 0o600); err != nil {
					t.Fatal(err)
				}
				st := open(t, filepath.Join(dir, "casegate.db"), Options{})
				last, n := fill(t, st, size)
				staysUseful(t, st, n, last)
				if err := os.Remove(ballast); err != nil {
					t.Fatal(err)
				}
				syscall.Sync()
				if _, err := newLetter(100_000, size).accept(context.Background(), st); err != nil {
					t.Errorf("with room again: %v", err)
				}
				if c := verifyClean(t, st); c.Messages != n+1 {
					t.Errorf("%d messages, want %d", c.Messages, n+1)
				}
			})
		}
	}
}

// smallDisk mounts a file system of 20 MiB.
func smallDisk(t *testing.T, kind string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system takes root")
	}
	dir := t.TempDir()
	if kind == "tmpfs" {
		if err := syscall.Mount("none", dir, "tmpfs", 0, "size=20m"); err != nil {
			t.Skipf("no tmpfs can be mounted here: %v", err)
		}
	} else {
		image := filepath.Join(t.TempDir(), "disk")
		mustRun(t, "truncate", "-s", "20M", image)
		mustRun(t, "mkfs.ext4", "-q", image)
		mustRun(t, "mount", "-o", "loop", image, dir)
	}
	t.Cleanup(func() { syscall.Unmount(dir, 0) })
	return dir
}

func mustRun(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Skipf("%s %v: %v: %s", name, args, err, out)
	}
}

// A disk that is full at the very first start leaves nothing behind that could
// keep the second from working.
func TestFullDiskAtCreation(t *testing.T) {
	dir := smallDisk(t, "tmpfs")
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 20<<20-8<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "casegate.db")
	if _, err := Open(path, Options{Logger: quiet()}); !errors.Is(err, store.ErrFull) {
		t.Errorf("error %v", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	verifyClean(t, open(t, path, Options{}))
}

// A disk with room and without an inode is full too. A store that is open needs
// no more of them.
func TestNoInodes(t *testing.T) {
	dir := smallDisk(t, "tmpfs")
	inodes := func(n string) {
		t.Helper()
		if err := syscall.Mount("none", dir, "tmpfs", syscall.MS_REMOUNT, "size=20m,nr_inodes="+n); err != nil {
			t.Skipf("the disk can't be changed: %v", err)
		}
	}
	inodes("1") // the folder's own
	path := filepath.Join(dir, "casegate.db")
	if _, err := Open(path, Options{Logger: quiet()}); !errors.Is(err, store.ErrFull) {
		t.Errorf("error %v", err)
	}
	inodes("2")
	st := open(t, path, Options{})
	if err := os.WriteFile(filepath.Join(dir, "other"), nil, 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("there is an inode left: %v", err)
	}
	if _, err := newLetter(1, 600<<10).accept(context.Background(), st); err != nil {
		t.Errorf("a message: %v", err)
	}
	verifyClean(t, st)
}
