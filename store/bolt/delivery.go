package bolt

import (
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
		return behindPrefix(r, r.rows, messages, deliveries, under(f.Message), p, keep)
	case f.Case != 0:
		return behindPrefix(r, r.rows, cases, deliveries, ofCase(f.Case, ofDeliveries), p, keep)
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
	Lane    string              `json:"lane"`
}

func place(d *store.Delivery) *placed {
	return &placed{d.ID, d.Message, d.Case, d.State, d.Due, d.Lane}
}

// laneKey begins the rows of a lane.
func laneKey(lane string) []byte {
	h := hashKey(lane)
	return h[:]
}

func dueKey(p *placed) []byte {
	return append(appendTime(make([]byte, 0, timeSize+len(p.ID)), p.Due), p.ID[:]...)
}

// rowsIn are the rows of a delivery in one of its indices; nil has none.
func (p *placed) rowsIn(b bucket) [][]byte {
	switch {
	case p == nil:
	case b == messages:
		return [][]byte{join(under(p.Message), p.ID[:])}
	case b == cases && p.Case != 0:
		return [][]byte{ofCase(p.Case, ofDeliveries, p.ID[:])}
	case b == deliveryStates && p.State != store.Delivered: // most are, and a scan finds those
		return [][]byte{named(string(p.State), p.ID[:])}
	case b == due && p.State == store.Queued && p.Lane == "":
		return [][]byte{dueKey(p)}
	case b == lanes && p.State == store.Queued && p.Lane != "":
		return [][]byte{append(laneKey(p.Lane), dueKey(p)...)}
	}
	return nil
}

// Enqueue leaves a lease alone: what is being tried stays with who tries it.
func (w *writer) Enqueue(d store.Delivery) error {
	was, err := lookup[placed](&w.reader, deliveries, d.ID[:])
	if err != nil {
		return err
	}
	leased := was != nil && w.row(leases, d.ID[:]) != nil
	return w.putDelivery(was, &d, leased)
}

// putDelivery stores a delivery where was, nil if it is new, has its rows.
func (w *writer) putDelivery(was *placed, d *store.Delivery, leased bool) error {
	d.Interrupted = false // for Claim to say
	now := place(d)
	for _, b := range []bucket{messages, cases, deliveryStates} {
		if err := w.swap(b, was.rowsIn(b), now.rowsIn(b)); err != nil {
			return err
		}
	}
	// A leased delivery waits nowhere.
	for _, b := range []bucket{due, lanes} {
		for _, key := range was.rowsIn(b) {
			if err := w.drop(b, key); err != nil {
				return err
			}
		}
		if !leased {
			if err := w.swap(b, nil, now.rowsIn(b)); err != nil {
				return err
			}
		}
	}
	return w.putRecord(deliveries, d.ID[:], d)
}
