package bolt

import (
	"context"
	"time"

	"github.com/casegate/casegate/store"
)

// Commit is one attempt at making a batch of updates durable.
type Commit struct {
	Took    time.Duration
	Updates int // that wrote something and did not fail
	Err     error
}

// OnCommit has tell called after each commit, by the one goroutine that makes
// them: it must not wait.
func (s *Store) OnCommit(tell func(Commit)) { s.committed.Store(&tell) }

// Outbox is what waits in the outbox, by state, and since when the oldest of
// what is queued has.
type Outbox struct {
	Counts map[store.DeliveryState]int
	Oldest time.Time // zero: nothing is queued
}

// Outbox counts rows of an index, and reads no delivery. An id tells when its
// delivery was made.
func (s *Store) Outbox(ctx context.Context) (Outbox, error) {
	var o Outbox
	err := s.view(ctx, func(r *reader) error {
		o = Outbox{Counts: map[store.DeliveryState]int{}}
		for _, state := range []store.DeliveryState{store.Queued, store.Held, store.Failed} {
			prefix := named(string(state), nil)
			for k := range r.rows(deliveryStates, prefix, nil) {
				if state == store.Queued && o.Counts[state] == 0 {
					o.Oldest = time.Unix(store.ID(k[len(prefix):]).Time().UnixTime())
				}
				o.Counts[state]++
			}
		}
		return nil
	})
	return o, err
}
