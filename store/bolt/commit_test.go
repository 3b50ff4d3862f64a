package bolt

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/casegate/casegate/store"
)

// sabotage breaks the commits that are asked for.
type sabotage struct {
	how     atomic.Pointer[func(*bbolt.Tx) error]
	commits atomic.Int64
	hold    chan struct{} // if set, every commit waits for a token
}

func (s *sabotage) commit(tx *bbolt.Tx) error {
	s.commits.Add(1)
	if s.hold != nil {
		<-s.hold
	}
	if how := s.how.Swap(nil); how != nil {
		return (*how)(tx)
	}
	return tx.Commit()
}

func (s *sabotage) next(how func(*bbolt.Tx) error) { s.how.Store(&how) }

func contact(name string) store.Contact {
	return store.Contact{ID: store.NewID(), Kind: store.Guest, Name: name}
}

func put(st *Store, c store.Contact) error {
	return st.Update(context.Background(), func(tx store.Tx) error { return tx.PutContact(c) })
}

func known(t *testing.T, st *Store, c store.Contact) bool {
	t.Helper()
	err := eventually(t, func() error {
		return st.View(context.Background(), func(r store.Reader) error {
			_, err := r.Contact(c.ID)
			return err
		})
	})
	return err == nil
}

// eventually repeats what is answered ErrUnavailable.
func eventually(t *testing.T, fn func() error) error {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := fn()
		if !errors.Is(err, store.ErrUnavailable) {
			return err
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// A commit of unknown outcome: everybody hears so, nothing is committed until
// the file has been opened again, and then it is known what was kept.
func TestUnknownOutcome(t *testing.T) {
	eio := &errorString{"input/output error"}
	for name, broken := range map[string]struct {
		commit func(*bbolt.Tx) error
		kept   bool
	}{
		"nothing written": {func(*bbolt.Tx) error { return eio }, false},
		"all written":     {func(tx *bbolt.Tx) error { return errors.Join(tx.Commit(), eio) }, true},
		"panic":           {func(*bbolt.Tx) error { panic("page 7: invalid page type") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			var s sabotage
			st := open(t, filepath.Join(t.TempDir(), "casegate.db"), Options{commit: s.commit})
			before, during, after := contact("before"), contact("during"), contact("after")
			if err := put(st, before); err != nil {
				t.Fatal(err)
			}
			s.next(broken.commit)
			if err := put(st, during); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("error %v", err)
			}
			if err := eventually(t, func() error { return put(st, after) }); err != nil {
				t.Errorf("afterwards: %v", err)
			}
			if !known(t, st, before) || !known(t, st, after) || known(t, st, during) != broken.kept {
				t.Errorf("before %v, during %v, after %v", known(t, st, before), known(t, st, during), known(t, st, after))
			}
			verifyClean(t, st)
		})
	}
}

type errorString struct{ s string }

func (e *errorString) Error() string { return e.s }

// Leases are this process's also after the file was opened again.
func TestLeasesSurviveReopening(t *testing.T) {
	var s sabotage
	st := open(t, filepath.Join(t.TempDir(), "casegate.db"), Options{commit: s.commit})
	if _, err := newLetter(1, 100).accept(context.Background(), st); err != nil {
		t.Fatal(err)
	}
	now := time.Now().Add(time.Minute)
	list, err := st.Claim(context.Background(), now, time.Hour, 5, nil)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	s.next(func(*bbolt.Tx) error { return syscall.EIO })
	if err := put(st, contact("x")); !errors.Is(err, store.ErrUnavailable) {
		t.Fatal(err)
	}
	err = eventually(t, func() (err error) {
		list, err = st.Claim(context.Background(), now, time.Hour, 5, nil)
		return err
	})
	if err != nil || len(list) != 0 {
		t.Errorf("claimed %v, %v", list, err)
	}
}

// No room while committing changes nothing and closes nothing.
func TestFullInTheMiddle(t *testing.T) {
	var s sabotage
	st := open(t, filepath.Join(t.TempDir(), "casegate.db"), Options{commit: s.commit})
	s.next(func(*bbolt.Tx) error { return fmt.Errorf("write casegate.db: %w", syscall.ENOSPC) })
	a := contact("a")
	if err := put(st, a); !errors.Is(err, store.ErrFull) {
		t.Fatal(err)
	}
	if known(t, st, a) {
		t.Error("it was kept")
	}
	if err := put(st, a); err != nil {
		t.Error(err)
	}
	// The same words after the meta page was written: nobody knows.
	s.next(func(tx *bbolt.Tx) error { return errors.Join(tx.Commit(), syscall.ENOSPC) })
	if err := put(st, contact("b")); !errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrFull) {
		t.Error(err)
	}
}

// What does not fit must not keep out what does.
func TestSmallChangesGetThroughWhenFull(t *testing.T) {
	s := sabotage{hold: make(chan struct{}, 10)}
	path := filepath.Join(t.TempDir(), "casegate.db")
	open(t, path, Options{}).Close()
	st := open(t, path, Options{commit: s.commit, MaxSize: 4 << 20})
	go put(st, contact("first"))
	for s.commits.Load() == 0 {
		runtime.Gosched()
	}
	small, large := make(chan error, 2), make(chan error)
	go func() { small <- put(st, contact("small")) }()
	for len(st.calls) < 1 {
		runtime.Gosched()
	}
	go func() {
		large <- st.Update(context.Background(), func(tx store.Tx) error {
			c := contact(strings.Repeat("large", 1<<20))
			return tx.PutContact(c)
		})
	}()
	for len(st.calls) < 2 {
		runtime.Gosched()
	}
	go func() { small <- put(st, contact("small")) }()
	close(s.hold)
	if err := errors.Join(<-small, <-small); err != nil {
		t.Error(err)
	}
	if err := <-large; !errors.Is(err, store.ErrFull) {
		t.Error(err)
	}
}

// Updates that wait for a commit share the next one; what one of them does
// wrong is its own affair.
func TestGroupCommit(t *testing.T) {
	s := sabotage{hold: make(chan struct{})}
	st := open(t, filepath.Join(t.TempDir(), "casegate.db"), Options{commit: s.commit})
	var wg sync.WaitGroup
	first := contact("first")
	wg.Go(func() {
		if err := put(st, first); err != nil {
			t.Error(err)
		}
	})
	for s.commits.Load() == 0 {
		runtime.Gosched()
	}
	const n = 40
	list := make([]store.Contact, n)
	for i := range list {
		list[i] = contact(fmt.Sprint(i))
		wg.Go(func() { oneOfMany(t, st, i, list[i]) })
	}
	for len(st.calls) < n {
		runtime.Gosched()
	}
	close(s.hold)
	wg.Wait()
	if got := s.commits.Load(); got > 3 { // the batch is closed by its first failure
		t.Logf("%d commits for %d updates", got, n)
	}
	for i, c := range list {
		if want := i%4 == 0; known(t, st, c) != want {
			t.Errorf("contact %d: known %v", i, !want)
		}
	}
	verifyClean(t, st)
}

// oneOfMany writes well, or fails in one of three ways.
func oneOfMany(t *testing.T, st *Store, i int, c store.Contact) {
	bad := errors.New("bad")
	err := st.Update(context.Background(), func(tx store.Tx) error {
		if i%4 == 1 {
			return bad // before it wrote
		}
		if err := tx.PutContact(c); err != nil {
			return err
		}
		switch i % 4 {
		case 2:
			return bad
		case 3:
			panic("bad")
		}
		return nil
	})
	switch i % 4 {
	case 0:
		if err != nil {
			t.Error(err)
		}
	case 1, 2:
		if err != bad {
			t.Errorf("update %d: %v", i, err)
		}
	case 3:
		if err == nil || !strings.Contains(err.Error(), "panic") {
			t.Errorf("update %d: %v", i, err)
		}
	}
}

// An answer that rests on what another call wrote waits for its commit too.
func TestReadersOfABatchFailWithIt(t *testing.T) {
	s := sabotage{hold: make(chan struct{}, 10)}
	st := open(t, filepath.Join(t.TempDir(), "casegate.db"), Options{commit: s.commit})
	go put(st, contact("first"))
	for s.commits.Load() == 0 {
		runtime.Gosched()
	}
	c := contact("c")
	wrote, saw := make(chan error), make(chan error)
	go func() { wrote <- put(st, c) }()
	for len(st.calls) < 1 {
		runtime.Gosched()
	}
	go func() {
		saw <- st.Update(context.Background(), func(tx store.Tx) error {
			_, err := tx.Contact(c.ID) // a duplicate: nothing to do
			return err
		})
	}()
	for len(st.calls) < 2 {
		runtime.Gosched()
	}
	s.hold <- struct{}{}
	for s.commits.Load() == 1 {
		runtime.Gosched()
	}
	s.next(func(*bbolt.Tx) error { return syscall.EIO })
	close(s.hold)
	if a, b := <-wrote, <-saw; !errors.Is(a, store.ErrUnavailable) || !errors.Is(b, store.ErrUnavailable) {
		t.Errorf("writer: %v, reader: %v", a, b)
	}
}

// A caller who gives up before his turn has changed nothing.
func TestGivingUp(t *testing.T) {
	s := sabotage{hold: make(chan struct{})}
	st := open(t, filepath.Join(t.TempDir(), "casegate.db"), Options{commit: s.commit})
	go put(st, contact("first"))
	for s.commits.Load() == 0 {
		runtime.Gosched()
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := contact("c")
	done := make(chan error)
	go func() {
		done <- st.Update(ctx, func(tx store.Tx) error { return tx.PutContact(c) })
	}()
	for len(st.calls) < 1 {
		runtime.Gosched()
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(s.hold)
	if err := put(st, contact("last")); err != nil {
		t.Error(err)
	}
	if known(t, st, c) {
		t.Error("it was written all the same")
	}
}

// A test's FailNow ends the goroutine it is called on, and that is the
// committer's. The store lives on.
func TestGoexitInAnUpdate(t *testing.T) {
	st := open(t, filepath.Join(t.TempDir(), "casegate.db"), Options{})
	err := st.Update(context.Background(), func(tx store.Tx) error {
		runtime.Goexit()
		return nil
	})
	if !errors.Is(err, store.ErrUnavailable) {
		t.Error(err)
	}
	if err := put(st, contact("c")); err != nil {
		t.Error(err)
	}
}

func TestInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "casegate.db")
	open(t, path, Options{})
	began := time.Now()
	if _, err := Open(path, Options{Timeout: 100 * time.Millisecond}); !errors.Is(err, store.ErrInUse) {
		t.Error(err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
}
