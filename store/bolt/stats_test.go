package bolt

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casegate/casegate/store"
)

func TestOutbox(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "casegate.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx := context.Background()
	var commits, updates atomic.Int64
	s.OnCommit(func(c Commit) {
		commits.Add(1)
		updates.Add(int64(c.Updates))
		if c.Took <= 0 || c.Err != nil {
			t.Errorf("commit: %+v", c)
		}
	})
	if o, err := s.Outbox(ctx); err != nil || !o.Oldest.IsZero() || o.Counts[store.Queued] != 0 {
		t.Errorf("empty: %+v, %v", o, err)
	}
	began := time.Now()
	put := func(id store.ID, state store.DeliveryState) {
		t.Helper()
		err := s.Update(ctx, func(tx store.Tx) error {
			return tx.Enqueue(store.Delivery{ID: id, Message: store.NewID(), State: state, Due: began, CreatedAt: began})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	first := store.NewID()
	put(first, store.Queued)
	time.Sleep(20 * time.Millisecond)
	second := store.NewID()
	put(second, store.Queued)
	put(store.NewID(), store.Held)
	put(store.NewID(), store.Failed)
	put(store.NewID(), store.Delivered)
	o, err := s.Outbox(ctx)
	if err != nil || o.Counts[store.Queued] != 2 || o.Counts[store.Held] != 1 || o.Counts[store.Failed] != 1 || len(o.Counts) != 3 {
		t.Errorf("%+v, %v", o, err)
	}
	if d := o.Oldest.Sub(began).Abs(); d > 15*time.Millisecond {
		t.Errorf("the oldest is from %v, not from %v", o.Oldest, began)
	}
	// What is being tried is queued all the same.
	if _, err := s.Claim(ctx, time.Now(), time.Hour, 1, nil); err != nil {
		t.Fatal(err)
	}
	if o, _ = s.Outbox(ctx); o.Counts[store.Queued] != 2 {
		t.Errorf("claimed: %+v", o)
	}
	put(first, store.Delivered)
	if o, _ = s.Outbox(ctx); o.Counts[store.Queued] != 1 || o.Oldest.Sub(began) < 15*time.Millisecond {
		t.Errorf("one less: %+v", o)
	}
	before := commits.Load()
	if err := s.Update(ctx, func(tx store.Tx) error { return nil }); err != nil || commits.Load() != before {
		t.Errorf("an update that writes nothing made a commit (%v)", err)
	}
	if commits.Load() != 7 || updates.Load() != 7 {
		t.Errorf("%d commits of %d updates", commits.Load(), updates.Load())
	}
}

// BenchmarkOutbox is a look at a long queue.
func BenchmarkOutbox(b *testing.B) {
	s, err := Open(filepath.Join(b.TempDir(), "casegate.db"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	ctx := context.Background()
	for range 100 {
		s.Update(ctx, func(tx store.Tx) error {
			for range 1000 {
				if err := tx.Enqueue(store.Delivery{ID: store.NewID(), Message: store.NewID(), State: store.Queued, Due: time.Now()}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for b.Loop() {
		if o, err := s.Outbox(ctx); err != nil || o.Counts[store.Queued] != 100_000 {
			b.Fatal(o.Counts, err)
		}
	}
}
