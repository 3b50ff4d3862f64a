package bolt

import (
	"log/slog"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestContract(t *testing.T) {
	paths := map[store.Store]string{}
	storetest.Run(t, func(t *testing.T) store.Store {
		path := filepath.Join(t.TempDir(), "casegate.db")
		st := open(t, path, Options{})
		paths[st] = path
		return st
	}, func(t *testing.T, st store.Store) store.Store {
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
		again := open(t, paths[st], Options{})
		paths[again] = paths[st]
		return again
	})
}

// open opens a store that the test closes.
func open(t testing.TB, path string, opts Options) *Store {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = quiet()
	}
	st, err := Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}
