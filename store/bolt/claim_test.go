package bolt

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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
