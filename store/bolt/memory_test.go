package bolt

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casegate/casegate/store"
)

// TestMemoryOfLargeBodies: fifty sessions with 35 MB each, at once, in a
// process that holds less than 128 MiB of memory of its own.
func TestMemoryOfLargeBodies(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 1.7 GB")
	}
	if raceEnabled {
		t.Skip("the race detector has memory of its own")
	}
	st := open(t, filepath.Join(t.TempDir(), "casegate.db"), Options{})
	runtime.GC()
	stop, peak := watchMemory(t)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range 50 {
		wg.Go(func() {
			if err := acceptLarge(st, uint64(i), 35<<20); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	close(stop)
	t.Logf("50 × 35 MB in %v (%.0f MB/s), anonymous memory up to %d MiB", took.Round(time.Millisecond), 50*35/took.Seconds(), peak.Load()>>10)
	if peak.Load() > 128<<10 {
		t.Errorf("%d KiB of anonymous memory", peak.Load())
	}
}

// Past the bound bodies are staged in smaller chunks, and come back the same.
func TestBodyMemoryIsBounded(t *testing.T) {
	const limit = 200 << 10
	st := open(t, filepath.Join(t.TempDir(), "casegate.db"), Options{BodyMemory: limit})
	ctx := context.Background()
	const n = 30
	var staged [n]store.Body
	var letters [n]*letter
	for i := range staged {
		letters[i] = newLetter(uint64(i), 100<<10)
		b, err := st.Stage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Write(letters[i].body); err != nil {
			t.Fatal(err)
		}
		staged[i] = b
	}
	if got := st.buffers.inUse.Load(); got > limit+n*int64(bufferSize(0)) {
		t.Errorf("%d bytes in use", got)
	}
	for i, b := range staged {
		if err := b.Seal(ctx); err != nil {
			t.Fatal(err)
		}
		if err := st.Update(ctx, func(tx store.Tx) error { return letters[i].record(tx, uint64(i+1), b) }); err != nil {
			t.Fatal(err)
		}
		b.Discard()
	}
	if got := st.buffers.inUse.Load(); got != 0 {
		t.Errorf("%d bytes in use at the end", got)
	}
	verifyClean(t, st) // compares digests
}

// acceptLarge writes a body block by block, as it comes from a connection.
func acceptLarge(st *Store, n uint64, size int) error {
	ctx := context.Background()
	l := newLetter(n, 16<<10)
	b, err := st.Stage(ctx)
	if err != nil {
		return err
	}
	defer b.Discard()
	for int(b.Size()) < size {
		if _, err := b.Write(l.body); err != nil {
			return err
		}
	}
	if err := b.Seal(ctx); err != nil {
		return err
	}
	return st.Update(ctx, func(tx store.Tx) error {
		number, err := st.ReserveCase(ctx)
		if err != nil {
			return err
		}
		return l.record(tx, number, b)
	})
}

// watchMemory notes the most anonymous memory that the process has, in KiB.
func watchMemory(t *testing.T) (stop chan struct{}, peak *atomic.Int64) {
	stop, peak = make(chan struct{}), new(atomic.Int64)
	if anonymous() == 0 {
		t.Skip("this system doesn't say what memory is anonymous")
	}
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				peak.Store(max(peak.Load(), anonymous()))
			}
		}
	}()
	return stop, peak
}

func anonymous() int64 {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return n
		}
	}
	return 0
}
