package bolt

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/casegate/casegate/store"
)

// TestClaimPastDamage: a delivery, or a lease, that can't be read keeps no other
// in the outbox, is said once, and Verify goes on telling of it.
func TestClaimPastDamage(t *testing.T) {
	spoil := func(b bucket, id store.ID) func(w *writer) error {
		return func(w *writer) error {
			v := bytes.Clone(w.row(b, id[:]))
			v[len(v)/2] ^= 1
			return w.putRow(b, id[:], v)
		}
	}
	for name, c := range map[string]struct {
		leased bool // claimed once, by a process that is gone
		harm   func(id store.ID) func(*writer) error
		lost   bool
	}{
		"a delivery": {false, func(id store.ID) func(*writer) error { return spoil(deliveries, id) }, true},
		"a missing one": {false, func(id store.ID) func(*writer) error {
			return func(w *writer) error { return w.drop(deliveries, id[:]) }
		}, true},
		"a delivery on loan": {true, func(id store.ID) func(*writer) error { return spoil(deliveries, id) }, true},
		"a lease":            {true, func(id store.ID) func(*writer) error { return spoil(leases, id) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, now := context.Background(), time.Now().Add(time.Minute)
			path := filepath.Join(t.TempDir(), "casegate.db")
			var log bytes.Buffer
			st := open(t, path, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			for i := range uint64(3) {
				if _, err := newLetter(i, 100).accept(ctx, st); err != nil {
					t.Fatal(err)
				}
			}
			var ids []store.ID
			err := st.view(ctx, func(r *reader) error {
				for k := range r.rows(deliveries, nil, nil) {
					ids = append(ids, store.ID(k))
				}
				return nil
			})
			if err != nil || len(ids) != 3 {
				t.Fatal(ids, err)
			}
			if c.leased {
				if list, err := st.Claim(ctx, now, time.Hour, 9, nil); len(list) != 3 || err != nil {
					t.Fatal(list, err)
				}
				now = now.Add(2 * time.Hour)
			}
			if err := st.update(ctx, c.harm(ids[1])); err != nil {
				t.Fatal(err)
			}
			list, err := st.Claim(ctx, now, time.Hour, 9, nil)
			var got []store.ID
			for _, d := range list {
				got = append(got, d.ID)
			}
			want := ids
			if c.lost {
				want = []store.ID{ids[0], ids[2]}
			}
			slices.SortFunc(got, compareIDs)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("claimed %v, want %v: %v", got, want, err)
			}
			if at, ok, err := st.NextDue(ctx, nil); err != nil || !ok || !at.After(now) {
				t.Errorf("the next is due %v, %t, %v: who waits for it would spin", at, ok, err)
			}
			if n := strings.Count(log.String(), "a delivery can't be read"); c.lost != (n == 1) {
				t.Errorf("said %d times:\n%s", n, &log)
			}
			if counts, err := st.Verify(ctx, func(store.Finding) {}); c.lost && (err != nil || counts.Findings == 0) {
				t.Errorf("Verify: %+v, %v", counts, err)
			}
		})
	}
}

// TestUnheardClaim: where the outcome of the commit of a claim is unknown, what it
// may have lent is to be had again as soon as the store is open, and once.
func TestUnheardClaim(t *testing.T) {
	for name, done := range map[string]bool{"the lease stands": true, "the lease was not written": false} {
		t.Run(name, func(t *testing.T) {
			ctx, fail := context.Background(), false
			st := open(t, filepath.Join(t.TempDir(), "casegate.db"), Options{Logger: quiet(), commit: func(tx *bbolt.Tx) error {
				if !fail {
					return tx.Commit()
				}
				fail = false
				if done {
					return errors.Join(tx.Commit(), errors.New("input/output error"))
				}
				return errors.Join(tx.Rollback(), errors.New("input/output error"))
			}})
			for i := range uint64(2) {
				if _, err := newLetter(i, 100).accept(ctx, st); err != nil {
					t.Fatal(err)
				}
			}
			now := time.Now().Add(time.Minute)
			claim := func(want int) {
				t.Helper()
				var list []store.Delivery
				err := store.ErrUnavailable
				for end := time.Now().Add(5 * time.Second); errors.Is(err, store.ErrUnavailable) && time.Now().Before(end); time.Sleep(time.Millisecond) {
					list, err = st.Claim(ctx, now, time.Hour, 9, nil)
				}
				if err != nil || len(list) != want || slices.ContainsFunc(list, func(d store.Delivery) bool { return d.Interrupted }) {
					t.Errorf("%+v, %v; want %d", list, err, want)
				}
			}
			fail = true
			if list, err := st.Claim(ctx, now, time.Hour, 9, nil); !errors.Is(err, store.ErrUnavailable) || list != nil {
				t.Fatal(list, err)
			}
			claim(2)
			claim(0)
			verifyClean(t, st)
		})
	}
}
