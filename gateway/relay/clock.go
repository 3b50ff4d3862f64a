package relay

import (
	"context"
	"slices"
	"time"

	"github.com/casegate/casegate/store"
)

// What the wall clock may do to an outbox: jump forward, and all leases are
// over though their attempts go on (see inHand); or back, and what was put off
// before is due in years. Timers know nothing of either.

// jump is by how much the wall clock may be put back before what waits is
// looked through.
const jump = time.Minute

// clock notices that the wall clock was put back.
type clock struct {
	now  func() time.Time
	wall time.Time // at
	at   time.Time // by the clock that never jumps
}

// back reports whether that happened since it was last asked.
func (c *clock) back() bool {
	wall, at := c.now().Round(0), time.Now()
	jumped := !c.at.IsZero() && wall.Before(c.wall.Add(at.Sub(c.at)-jump))
	c.wall, c.at = wall, at
	return jumped
}

// latest is when a delivery can be due at most that is put off now.
func (r *Relay) latest() time.Time {
	return r.now().Add(2*slices.Max(r.patience.Load().Retry) + time.Hour)
}

// recall makes due what is put off for longer than it can be: it was queued by a
// clock that was ahead.
func (r *Relay) recall(ctx context.Context) {
	trouble := trouble{log: r.opts.Logger}
	for after := store.Cursor(""); ctx.Err() == nil; {
		next, err := r.recallSome(ctx, after)
		switch {
		case err != nil:
			wait(ctx, nil, trouble.met(err))
		case next == "":
			return
		default:
			trouble.over()
			after = next
			wait(ctx, nil, 10*time.Millisecond) // nothing is in a hurry after years
		}
	}
}

// recallSome looks through a page of what waits, and says where the next begins.
func (r *Relay) recallSome(ctx context.Context, after store.Cursor) (next store.Cursor, err error) {
	var ahead []store.ID
	err = r.st.View(ctx, func(rd store.Reader) (err error) {
		ahead = nil
		var list []store.Delivery
		list, next, err = rd.Deliveries(store.DeliveryFilter{State: store.Queued}, store.Page{After: after, Limit: 200})
		for _, d := range list {
			if d.Due.After(r.latest()) {
				ahead = append(ahead, d.ID)
			}
		}
		return err
	})
	if err != nil || len(ahead) == 0 {
		return next, err
	}
	r.opts.Logger.Warn("deliveries were put off by a clock that was ahead: they are due now", "deliveries", len(ahead))
	return next, r.Acts().Update(ctx, func(tx store.Tx) error { return r.due(tx, ahead) })
}

// due makes deliveries due now; the age of what was made in the future counts
// from now on.
func (r *Relay) due(tx store.Tx, list []store.ID) error {
	now := r.now()
	for _, id := range list {
		d, err := tx.Delivery(id)
		if err != nil {
			return err
		}
		if d.State != store.Queued || !d.Due.After(r.latest()) {
			continue
		}
		if d.Due = now; born(&d).After(now) {
			d.Since = now
		}
		if err := tx.Enqueue(d); err != nil {
			return err
		}
	}
	return nil
}
