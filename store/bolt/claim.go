package bolt

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/casegate/casegate/store"
)

// lease says until when a delivery is somebody's; it ends with the process.
type lease struct {
	until time.Time
	epoch store.ID
}

func (r *reader) lease(id, sealed []byte) (l lease, err error) {
	v, err := r.unseal(leases, id, sealed)
	if err == nil {
		f := newFields(v)
		l = lease{f.time(), f.id()}
	}
	return l, err
}

func (l lease) over(now time.Time, epoch store.ID) bool {
	return l.epoch != epoch || !now.Before(l.until)
}

// Claim takes back the leases that have ended first, then what is due. With
// nothing to take it writes nothing and waits for no commit.
func (s *Store) Claim(ctx context.Context, now time.Time, length time.Duration, n int, room store.Room) ([]store.Delivery, error) {
	by := hashRoom(room)
	at, ok, err := s.nextDue(ctx, now, by)
	if err != nil || !ok || at.After(now) || n <= 0 {
		return nil, err
	}
	var list []store.Delivery
	err = s.attend(ctx, func(w *writer) (err error) {
		list, err = w.claim(now, now.Add(length), n, by)
		return err
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

func (w *writer) claim(now, until time.Time, n int, room laneRoom) ([]store.Delivery, error) {
	list, err := w.reclaim(now, until, n)
	if err != nil {
		return nil, err
	}
	for _, wait := range w.waiting(now, n-len(list), room) {
		d, err := w.Delivery(wait.id())
		if err != nil {
			return nil, err
		}
		if err := w.drop(wait.in, wait.key); err != nil {
			return nil, err
		}
		if err := w.lend(d.ID, until); err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	return list, nil
}

// reclaim lends anew what nobody settled. A delivery that was held or ended
// meanwhile is let go.
func (w *writer) reclaim(now, until time.Time, n int) (list []store.Delivery, err error) {
	var ended [][]byte
	for k, v := range w.rows(leases, nil, nil) {
		l, err := w.lease(k, v)
		if err != nil {
			return nil, err
		}
		if l.over(now, w.epoch) {
			ended = append(ended, bytes.Clone(k))
		}
	}
	for _, k := range ended {
		if len(list) == n {
			break
		}
		d, err := w.Delivery(store.ID(k))
		if err != nil {
			return nil, err
		}
		if d.State != store.Queued {
			if err := w.drop(leases, k); err != nil {
				return nil, err
			}
			continue
		}
		if err := w.lend(d.ID, until); err != nil {
			return nil, err
		}
		d.Interrupted = true
		list = append(list, d)
	}
	return list, nil
}

func (w *writer) lend(id store.ID, until time.Time) error {
	return w.putSealed(leases, id[:], append(appendTime(nil, until), w.epoch[:]...))
}

// Settle shares a commit with whatever else is going on (patient.go).
func (s *Store) Settle(ctx context.Context, done ...store.Delivery) error {
	return s.attend(ctx, func(w *writer) error {
		for _, d := range done {
			if w.row(deliveries, d.ID[:]) == nil {
				return fmt.Errorf("delivery %s: %w", d.ID, store.ErrNotFound)
			}
			if err := w.drop(leases, d.ID[:]); err != nil {
				return err
			}
			if err := w.putDelivery(d, false); err != nil {
				return err
			}
		}
		return nil
	})
}

// NextDue counts the end of a lease too: then the delivery is to be had again.
func (s *Store) NextDue(ctx context.Context, room store.Room) (time.Time, bool, error) {
	return s.nextDue(ctx, s.opts.Now(), hashRoom(room))
}

func (s *Store) nextDue(ctx context.Context, now time.Time, room laneRoom) (at time.Time, ok bool, err error) {
	err = s.view(ctx, func(r *reader) error {
		at, ok = time.Time{}, false
		earlier := func(t time.Time) {
			if !ok || t.Before(at) {
				at, ok = t, true
			}
		}
		for k := range r.rows(due, nil, nil) {
			earlier(readTime(k))
			break
		}
		for lane, first := range r.lanes() {
			if room.of(lane) > 0 {
				earlier(readTime(first[len(lane):]))
			}
		}
		for k, v := range r.rows(leases, nil, nil) {
			l, err := r.lease(k, v)
			if err != nil {
				return err
			}
			if l.epoch != s.epoch {
				l.until = now
			}
			earlier(l.until)
		}
		return nil
	})
	return at, ok, err
}
