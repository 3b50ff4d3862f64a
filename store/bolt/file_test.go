package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/casegate/casegate/store"
)

func TestANewerSchemaIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "casegate.db")
	st := open(t, path, Options{})
	err := st.update(context.Background(), func(w *writer) error {
		return w.putSealed(meta, []byte(keySchema), binary.AppendUvarint(nil, schema+1))
	})
	if err != nil {
		t.Fatal(err)
	}
	st.Close()
	before, _ := os.ReadFile(path)
	if _, err := Open(path, Options{Logger: quiet()}); !errors.Is(err, store.ErrSchema) {
		t.Errorf("error %v", err)
	}
	if after, _ := os.ReadFile(path); string(after) != string(before) {
		t.Error("the file was changed")
	}
}

func TestWhatIsNotOursIsRefused(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(dir, "other.db")
	db, err := bbolt.Open(other, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	text := filepath.Join(dir, "text")
	os.WriteFile(text, make([]byte, 100_000), 0o600)
	empty := filepath.Join(dir, "empty")
	os.WriteFile(empty, nil, 0o600)
	short := filepath.Join(dir, "short")
	os.WriteFile(short, []byte("hello"), 0o600)
	for _, path := range []string{other, text, empty, short} {
		if _, err := Open(path, Options{Logger: quiet()}); !errors.Is(err, store.ErrSchema) {
			t.Errorf("%s: %v", filepath.Base(path), err)
		}
	}
	if _, err := Open(filepath.Join(dir, "none", "casegate.db"), Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
}

// A crash while the store is made leaves a draft, whole or not.
func TestALeftOverDraftIsMadeAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "casegate.db")
	if err := os.WriteFile(path+".new", []byte("half a page"), 0o600); err != nil {
		t.Fatal(err)
	}
	verifyClean(t, open(t, path, Options{}))
	if _, err := os.Stat(path + ".new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the draft is still there: %v", err)
	}
}

// Two first starts at once: one makes the store, the other finds it in use.
func TestTwoFirstStarts(t *testing.T) {
	for range 4 {
		path := filepath.Join(t.TempDir(), "casegate.db")
		var wg sync.WaitGroup
		var mu sync.Mutex
		var opened []*Store
		for range 4 {
			wg.Go(func() {
				st, err := Open(path, Options{Logger: quiet(), Timeout: 300 * time.Millisecond})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					opened = append(opened, st)
				} else if !errors.Is(err, store.ErrInUse) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(opened) != 1 {
			t.Errorf("%d have it open", len(opened))
		}
		for _, st := range opened {
			st.Close()
		}
	}
}

// What was staged and never archived is gone after the next start.
func TestOrphansAreSwept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "casegate.db")
	ctx := context.Background()
	stage := func(st *Store) store.Body {
		b, err := st.Stage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Write(make([]byte, 3<<20)); err != nil {
			t.Fatal(err)
		}
		return b
	}
	st := open(t, path, Options{})
	stage(st)
	if rows(t, st, bodies) == 0 || rows(t, st, staged) != 1 {
		t.Fatal("nothing is staged")
	}
	st.Close()
	st = open(t, path, Options{})
	if n := rows(t, st, bodies) + rows(t, st, staged); n != 0 {
		t.Errorf("%d rows after a restart", n)
	}
	for range 3 {
		stage(st).Discard()
	}
	st.Close() // waits for the sweeping
	st = open(t, path, Options{})
	if n := rows(t, st, bodies) + rows(t, st, staged); n != 0 {
		t.Errorf("%d rows after Discard", n)
	}
	verifyClean(t, st)
}

func rows(t *testing.T, st *Store, b bucket) (n int) {
	t.Helper()
	err := st.view(context.Background(), func(r *reader) error {
		for range r.rows(b, nil, nil) {
			n++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A file of an earlier version gets the buckets it lacks; one with a bucket
// that is nobody's does not: there a name is damaged.
func TestMissingBuckets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "casegate.db")
	change := func(fn func(tx *bbolt.Tx) error) {
		t.Helper()
		db, err := bbolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.Update(fn), db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	open(t, path, Options{}).Close()
	change(func(tx *bbolt.Tx) error {
		return errors.Join(tx.DeleteBucket([]byte("tallies")), tx.DeleteBucket([]byte("externals")))
	})
	st := open(t, path, Options{})
	if err := put(st, contact("x")); err != nil {
		t.Fatal(err)
	}
	verifyClean(t, st)
	st.Close()
	change(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket([]byte("tollies"))
		return errors.Join(tx.DeleteBucket([]byte("tallies")), err)
	})
	st = open(t, path, Options{})
	counts, err := st.Verify(context.Background(), func(store.Finding) {})
	if err != nil || counts.Findings == 0 {
		t.Errorf("a bucket under another name: %+v, %v", counts, err)
	}
}
