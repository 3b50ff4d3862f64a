package bolt

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/storetest"
)

// A store that fails on request passes the contract as long as nobody asks.
func TestFaultyKeepsTheContract(t *testing.T) {
	paths := map[store.Store]string{}
	storetest.Run(t, func(t *testing.T) store.Store {
		path := filepath.Join(t.TempDir(), "casegate.db")
		f := storetest.NewFaulty(open(t, path, Options{}))
		paths[f] = path
		return f
	}, func(t *testing.T, st store.Store) store.Store {
		st.Close()
		f := storetest.NewFaulty(open(t, paths[st], Options{}))
		paths[f] = paths[st]
		return f
	})
}

// Every write of an accepted message is broken twice: not done, and done with
// the answer lost. Then the sender repeats it.
func TestEveryStepOfAMessageMayFail(t *testing.T) {
	for _, op := range []storetest.Op{storetest.OpStage, storetest.OpWrite, storetest.OpSeal, storetest.OpUpdate} {
		for _, lost := range []bool{false, true} {
			st := open(t, filepath.Join(t.TempDir(), "casegate.db"), Options{})
			f := storetest.NewFaulty(st)
			f.Inject(storetest.Fault{Op: op, Lost: lost})
			l := newLetter(1, 300<<10)
			_, err := l.accept(context.Background(), f)
			if !errors.Is(err, store.ErrUnavailable) || f.Fired() != 1 {
				t.Errorf("%s, lost %v: %v", op, lost, err)
			}
			_, err = l.accept(context.Background(), f)
			if kept := op == storetest.OpUpdate && lost; (err == nil) == kept {
				t.Errorf("%s, lost %v: repeated: %v", op, lost, err)
			}
			verifyClean(t, st)
		}
	}
}

func verifyClean(t testing.TB, st *Store) store.Counts {
	t.Helper()
	counts, err := st.Verify(context.Background(), func(f store.Finding) { t.Errorf("verify: %s: %s", f.Record, f.What) })
	if err != nil {
		t.Fatal(err)
	}
	return counts
}
