package bolt

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/casegate/casegate/store"
)

// lease says until when a delivery is somebody's; it ends with the process.
type lease struct {
	until time.Time
	epoch store.ID
}

// lease reads a row; one that is damaged is over.
func (r *reader) lease(id, sealed []byte) lease {
	v, err := r.unseal(leases, id, sealed)
	if err != nil {
		return lease{}
	}
	f := newFields(v)
	return lease{f.time(), f.id()}
}

func (l lease) over(now time.Time, epoch store.ID) bool {
	return l.epoch != epoch || !now.Before(l.until)
}

// Claim takes back the leases that have ended first, then what is due. With
// nothing to take it writes nothing and waits for no commit. A delivery that
// can't be read is taken out of the outbox, lest it keep all others there; Verify
// goes on telling of it.
func (s *Store) Claim(ctx context.Context, now time.Time, length time.Duration, n int, room store.Room) ([]store.Delivery, error) {
	by := hashRoom(room)
	at, ok, err := s.nextDue(ctx, now, by)
	if err != nil || !ok || at.After(now) || n <= 0 {
		return nil, err
	}
	var c claim
	err = s.attend(ctx, func(w *writer) error {
		for id, interrupted := range c.found { // by a run that was undone
			s.unheard.add(id, interrupted)
		}
		c = claim{writer: w, unheard: &s.unheard, found: map[store.ID]bool{}, now: now, until: now.Add(length), n: n}
		if err := c.back(); err != nil {
			return err
		}
		return c.due(by)
	})
	if err != nil {
		for _, d := range c.list {
			s.unheard.add(d.ID, d.Interrupted)
		}
		return nil, err
	}
	for _, err := range c.lost {
		s.log.Error("a delivery can't be read: it is not tried any more, the others are; casegate verify tells what else is damaged", "error", err)
	}
	return c.list, nil
}

// unheard are the deliveries whose lease may stand though their claim failed, in
// a commit of unknown outcome: nobody has them. The value is what the claim would
// have said of Delivery.Interrupted.
type unheard struct {
	mu  sync.Mutex
	ids map[store.ID]bool
}

func (u *unheard) add(id store.ID, interrupted bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ids == nil {
		u.ids = map[store.ID]bool{}
	}
	u.ids[id] = interrupted
}

func (u *unheard) drop(id store.ID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.ids, id)
}

func (u *unheard) has(id store.ID) (interrupted, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	interrupted, ok = u.ids[id]
	return interrupted, ok
}

// claim is one Claim being answered.
type claim struct {
	*writer
	unheard    *unheard
	now, until time.Time
	n          int
	list       []store.Delivery
	found      map[store.ID]bool // those of them that were unheard
	lost       []error           // deliveries that can't be read
}

// due lends what waits.
func (c *claim) due(room laneRoom) error {
	for _, wait := range c.waiting(c.now, c.n-len(c.list), room) {
		if err := c.drop(wait.in, wait.key); err != nil {
			return err
		}
		if err := c.lend(wait.id(), false); err != nil {
			return err
		}
	}
	return nil
}

// back lends anew what nobody settled, and what nobody heard that he had.
func (c *claim) back() error {
	ended := map[store.ID]bool{}
	for k, v := range c.rows(leases, nil, nil) {
		id := store.ID(k)
		if interrupted, ok := c.unheard.has(id); ok {
			ended[id] = interrupted
		} else if c.lease(k, v).over(c.now, c.epoch) {
			ended[id] = true
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(ended), compareIDs) {
		if len(c.list) == c.n {
			break
		}
		if err := c.drop(leases, id[:]); err != nil {
			return err
		}
		if err := c.lend(id, ended[id]); err != nil {
			return err
		}
	}
	return nil
}

// lend hands out a delivery. One that was held or ended meanwhile is let go.
func (c *claim) lend(id store.ID, interrupted bool) error {
	if was, ok := c.unheard.has(id); ok {
		c.found[id] = was
		c.unheard.drop(id)
	}
	d, err := c.Delivery(id)
	switch {
	case errors.Is(err, ErrDamaged), errors.Is(err, store.ErrNotFound):
		c.lost = append(c.lost, err)
		return nil
	case err != nil:
		return err
	case d.State != store.Queued:
		return nil
	}
	d.Interrupted = interrupted
	c.list = append(c.list, d)
	return c.putSealed(leases, id[:], append(appendTime(nil, c.until), c.epoch[:]...))
}

// Settle shares a commit with whatever else is going on (patient.go).
func (s *Store) Settle(ctx context.Context, fn func(store.Delivery) (store.Delivery, error), claimed ...store.ID) error {
	return s.attend(ctx, func(w *writer) error {
		for _, id := range claimed {
			was, err := w.Delivery(id)
			if err != nil {
				return err
			}
			now, err := fn(was)
			if err != nil {
				return err
			}
			if err := w.drop(leases, id[:]); err != nil {
				return err
			}
			if err := w.putDelivery(place(&was), &now, false); err != nil {
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
			l := r.lease(k, v)
			if _, ok := s.unheard.has(store.ID(k)); ok || l.epoch != s.epoch {
				l.until = now
			}
			earlier(l.until)
		}
		return nil
	})
	return at, ok, err
}
