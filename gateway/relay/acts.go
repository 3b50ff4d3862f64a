package relay

import (
	"context"

	"github.com/casegate/casegate/store"
)

// Acts returns the store for whoever else changes deliveries: holds, releases
// or drops them. What becomes due by that is tried at once, also where a next hop
// was down a moment ago. What an attempt under way comes to is entered into the
// row as the person left it.
func (r *Relay) Acts() store.Store { return acts{r.st, r} }

type acts struct {
	store.Store
	r *Relay
}

func (a acts) Update(ctx context.Context, fn func(store.Tx) error) error {
	var queued bool
	err := a.Store.Update(ctx, func(tx store.Tx) error {
		queued = false
		return fn(actTx{tx, &queued})
	})
	if queued && err == nil {
		a.r.relent()
		a.r.Wake()
	}
	return err
}

// actTx notices when a delivery is put into the outbox.
type actTx struct {
	store.Tx
	queued *bool
}

func (t actTx) Enqueue(d store.Delivery) error {
	*t.queued = *t.queued || d.State == store.Queued
	return t.Tx.Enqueue(d)
}

// relent forgets that next hops were down.
func (r *Relay) relent() {
	for _, h := range r.routes.Load().hops {
		h.relent()
	}
}

func (h *hop) relent() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fails = 0
}
