package bolt

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/casegate/casegate/store"
)

func (r *reader) Delivery(id store.ID) (store.Delivery, error) {
	return get[store.Delivery](r, deliveries, id[:], "delivery", id)
}

func (r *reader) Deliveries(f store.DeliveryFilter, p store.Page) ([]store.Delivery, store.Cursor, error) {
	keep := func(d store.Delivery) bool { return wanted(f, d) }
	switch {
	case f.Message != (store.ID{}):
		return behindPrefix(r, r.rows, deliveryMessages, deliveries, f.Message[:], p, keep)
	case f.Case != 0:
		return behindPrefix(r, r.rows, deliveryCases, deliveries, number(f.Case), p, keep)
	case f.State != "" && f.State != store.Delivered:
		return behindPrefix(r, r.rows, deliveryStates, deliveries, named(string(f.State), nil), p, keep)
	}
	return records(r, r.rows, deliveries, nil, p, keep)
}

func wanted(f store.DeliveryFilter, d store.Delivery) bool {
	return (f.Message == store.ID{} || f.Message == d.Message) &&
		(f.Case == 0 || f.Case == d.Case) &&
		(f.State == "" || f.State == d.State) &&
		(f.Address == "" || slices.ContainsFunc(d.Recipients, func(r store.Recipient) bool {
			return store.Key(r.Address) == f.Address
		}))
}

// placed is the part of a delivery that its index rows depend on.
type placed struct {
	ID      store.ID            `json:"id"`
	Message store.ID            `json:"message"`
	Case    uint64              `json:"case"`
	State   store.DeliveryState `json:"state"`
	Due     time.Time           `json:"due"`
}

func place(d *store.Delivery) *placed { return &placed{d.ID, d.Message, d.Case, d.State, d.Due} }

func dueKey(p *placed) []byte {
	return append(appendTime(make([]byte, 0, timeSize+len(p.ID)), p.Due), p.ID[:]...)
}

// rowsIn are the rows of a delivery in one of its indices; nil has none.
func (p *placed) rowsIn(b bucket) [][]byte {
	switch {
	case p == nil:
	case b == deliveryMessages:
		return [][]byte{join(p.Message[:], p.ID[:])}
	case b == deliveryCases && p.Case != 0:
		return [][]byte{join(number(p.Case), p.ID[:])}
	case b == deliveryStates && p.State != store.Delivered: // most are, and a scan finds those
		return [][]byte{named(string(p.State), p.ID[:])}
	case b == due && p.State == store.Queued:
		return [][]byte{dueKey(p)}
	}
	return nil
}

// Enqueue leaves a lease alone: what is being tried stays with who tries it.
func (w *writer) Enqueue(d store.Delivery) error {
	return w.putDelivery(d, w.row(leases, d.ID[:]) != nil)
}

func (w *writer) putDelivery(d store.Delivery, leased bool) error {
	d.Interrupted = false // for Claim to say
	was, err := lookup[placed](&w.reader, deliveries, d.ID[:])
	if err != nil {
		return err
	}
	now := place(&d)
	for _, b := range []bucket{deliveryMessages, deliveryCases, deliveryStates} {
		if err := w.swap(b, was.rowsIn(b), now.rowsIn(b)); err != nil {
			return err
		}
	}
	// A leased delivery has no due row.
	for _, key := range was.rowsIn(due) {
		if err := w.drop(due, key); err != nil {
			return err
		}
	}
	if !leased {
		if err := w.swap(due, nil, now.rowsIn(due)); err != nil {
			return err
		}
	}
	return w.putRecord(deliveries, d.ID[:], &d)
}

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
func (s *Store) Claim(ctx context.Context, now time.Time, length time.Duration, n int) ([]store.Delivery, error) {
	at, ok, err := s.nextDue(ctx, now)
	if err != nil || !ok || at.After(now) || n <= 0 {
		return nil, err
	}
	var list []store.Delivery
	err = s.update(ctx, func(w *writer) (err error) {
		list, err = w.claim(now, now.Add(length), n)
		return err
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

func (w *writer) claim(now, until time.Time, n int) ([]store.Delivery, error) {
	list, err := w.reclaim(now, until, n)
	if err != nil {
		return nil, err
	}
	limit := appendTime(nil, now)
	var keys [][]byte
	for k := range w.rows(due, nil, nil) {
		if len(list)+len(keys) == n || bytes.Compare(k[:timeSize], limit) > 0 {
			break
		}
		keys = append(keys, bytes.Clone(k))
	}
	for _, k := range keys {
		d, err := w.Delivery(store.ID(k[timeSize:]))
		if err != nil {
			return nil, err
		}
		if err := w.drop(due, k); err != nil {
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

// Settle shares a commit with whatever else is going on.
func (s *Store) Settle(ctx context.Context, done ...store.Delivery) error {
	return s.update(ctx, func(w *writer) error {
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
func (s *Store) NextDue(ctx context.Context) (time.Time, bool, error) {
	return s.nextDue(ctx, s.opts.Now())
}

func (s *Store) nextDue(ctx context.Context, now time.Time) (at time.Time, ok bool, err error) {
	err = s.view(ctx, func(r *reader) error {
		at, ok = time.Time{}, false
		for k := range r.rows(due, nil, nil) {
			at, ok = readTime(k), true
			break
		}
		for k, v := range r.rows(leases, nil, nil) {
			l, err := r.lease(k, v)
			if err != nil {
				return err
			}
			if l.epoch != s.epoch {
				l.until = now
			}
			if !ok || l.until.Before(at) {
				at, ok = l.until, true
			}
		}
		return nil
	})
	return at, ok, err
}
