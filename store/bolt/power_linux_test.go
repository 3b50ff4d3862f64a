package bolt

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// TestPowerCut takes the disk away while mail is accepted: what is not on it
// by then is gone. Everything acknowledged must be there afterwards, and a
// first start that was cut must start again by itself.
func TestPowerCut(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("cutting the power of a file system takes root")
	}
	rounds := rounds(t, 4)
	image := filepath.Join(t.TempDir(), "disk")
	mustRun(t, "truncate", "-s", "1G", image)
	mustRun(t, "mkfs.ext4", "-q", image)
	for range rounds {
		acknowledged := map[string]bool{}
		powered(t, image, func(dir string, _ func()) { os.Remove(filepath.Join(dir, "casegate.db")) })
		for _, most := range []int{20, 60, 300, 300} {
			powered(t, image, func(dir string, cut func()) {
				time.AfterFunc(time.Duration(rand.IntN(most))*time.Millisecond, cut)
				for _, id := range workUntilCut(filepath.Join(dir, "casegate.db")) {
					acknowledged[id] = true
				}
			})
			powered(t, image, func(dir string, _ func()) {
				st := open(t, filepath.Join(dir, "casegate.db"), Options{})
				verifyClean(t, st)
				lookFor(t, st, acknowledged)
				st.Close()
			})
		}
		t.Logf("%d messages acknowledged", len(acknowledged))
	}
}

// TestDiskErrors writes to a disk that is larger than what it is kept on: at
// some point the system has taken the bytes and can't put them anywhere.
func TestDiskErrors(t *testing.T) {
	below := smallDisk(t, "tmpfs")
	image := filepath.Join(below, "disk")
	mustRun(t, "truncate", "-s", "128M", image)
	mustRun(t, "mkfs.ext4", "-q", image)
	acknowledged := map[string]bool{}
	powered(t, image, func(dir string, _ func()) {
		for _, id := range workUntilCut(filepath.Join(dir, "casegate.db")) {
			acknowledged[id] = true
		}
	})
	if err := syscall.Mount("none", below, "tmpfs", syscall.MS_REMOUNT, "size=200m"); err != nil {
		t.Skipf("the disk can't be made larger: %v", err)
	}
	powered(t, image, func(dir string, _ func()) {
		st := open(t, filepath.Join(dir, "casegate.db"), Options{})
		verifyClean(t, st)
		lookFor(t, st, acknowledged)
		st.Close()
	})
	t.Logf("%d messages acknowledged", len(acknowledged))
}

// powered mounts the disk for as long as fn runs. cut takes its power away: it
// holds on to the disk itself, so that no other can be hit.
func powered(t *testing.T, image string, fn func(dir string, cut func())) {
	t.Helper()
	dir := t.TempDir()
	mustRun(t, "mount", "-o", "loop", image, dir)
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) }) // if the test fails before
	disk, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !isMounted(t, disk, filepath.Dir(dir)) {
		t.Fatal("the disk is not where it was mounted")
	}
	var mu sync.Mutex
	off := false
	fn(dir, func() {
		mu.Lock()
		defer mu.Unlock()
		if !off {
			cutPower(t, disk)
		}
	})
	mu.Lock()
	off = true
	mu.Unlock()
	disk.Close()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := syscall.Unmount(dir, 0)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("unmounting: %v", err)
		}
	}
}

// isMounted: the file is on another file system than the folder.
func isMounted(t *testing.T, f *os.File, folder string) bool {
	t.Helper()
	var a, b syscall.Stat_t
	if err := errors.Join(syscall.Fstat(int(f.Fd()), &a), syscall.Stat(folder, &b)); err != nil {
		t.Fatal(err)
	}
	return a.Dev != b.Dev
}

// cutPower is EXT4_IOC_SHUTDOWN without flushing the journal.
func cutPower(t *testing.T, disk *os.File) {
	flag := uint32(2)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, disk.Fd(), 0x8004587d, uintptr(unsafe.Pointer(&flag))); errno != 0 {
		t.Error("shutting the file system down:", errno)
	}
}

// workUntilCut accepts mail until the store can't any more, and returns what
// it acknowledged.
func workUntilCut(path string) (ids []string) {
	st, err := Open(path, Options{Logger: quiet()})
	for err != nil {
		if _, statErr := os.ReadDir(filepath.Dir(path)); statErr != nil || os.WriteFile(path+".probe", nil, 0o600) != nil {
			return nil // cut while it was made
		}
		st, err = Open(path, Options{Logger: quiet()})
	}
	defer st.Close()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for {
				l := newLetter(rand.Uint64(), []int{500, 30_000, 400_000}[i%3])
				if _, err := l.accept(context.Background(), st); err != nil {
					return
				}
				mu.Lock()
				ids = append(ids, l.id.String())
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return ids
}
