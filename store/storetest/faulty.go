package storetest

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/casegate/casegate/store"
)

// Op is a call of a store that can be made to fail.
type Op string

// The calls that can fail.
const (
	OpUpdate Op = "update"
	OpView   Op = "view"
	OpStage  Op = "stage"
	OpWrite  Op = "write" // to a staged body
	OpSeal   Op = "seal"
	OpOpen   Op = "open"
	OpRead   Op = "read" // from an opened message
	OpClaim  Op = "claim"
	OpSettle Op = "settle"
)

// Fault says which call fails, and how. It fails once.
type Fault struct {
	Op   Op
	Skip int  // calls that still succeed before
	Lost bool // it was done, and only the answer is lost; else nothing was
	Err  error
}

// Faulty is a store that fails on request. An Update that fails runs its
// function all the same: what it wrote is undone, or, if only the answer is
// lost, kept.
type Faulty struct {
	store.Store
	mu     sync.Mutex
	faults []Fault
	fired  int
}

// NewFaulty wraps a store that works.
func NewFaulty(inner store.Store) *Faulty { return &Faulty{Store: inner} }

// Inject adds a fault; without an error it is store.ErrUnavailable.
func (f *Faulty) Inject(fault Fault) {
	if fault.Err == nil {
		fault.Err = store.ErrUnavailable
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, fault)
}

// Fired is how many faults have happened.
func (f *Faulty) Fired() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fired
}

// next counts a call and returns the fault that hits it, nil if none does.
func (f *Faulty) next(op Op) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.faults {
		if f.faults[i].Op != op {
			continue
		}
		if f.faults[i].Skip > 0 {
			f.faults[i].Skip--
			continue
		}
		hit := f.faults[i]
		f.faults = append(f.faults[:i], f.faults[i+1:]...)
		f.fired++
		return &hit
	}
	return nil
}

// do runs a call that has no transaction, unless a fault keeps it from it.
func (f *Faulty) do(op Op, fn func() error) error {
	hit := f.next(op)
	if hit != nil && !hit.Lost {
		return hit.Err
	}
	err := fn()
	if hit != nil && err == nil {
		err = hit.Err
	}
	return err
}

func (f *Faulty) Update(ctx context.Context, fn func(store.Tx) error) error {
	hit := f.next(OpUpdate)
	err := f.Store.Update(ctx, func(tx store.Tx) error {
		if err := fn(faultyTx{tx}); err != nil {
			return err
		}
		if hit != nil && !hit.Lost {
			return hit.Err
		}
		return nil
	})
	if err == nil && hit != nil {
		return hit.Err
	}
	return err
}

func (f *Faulty) View(ctx context.Context, fn func(store.Reader) error) error {
	return f.do(OpView, func() error { return f.Store.View(ctx, fn) })
}

func (f *Faulty) Claim(ctx context.Context, now time.Time, lease time.Duration, n int, room store.Room) (list []store.Delivery, err error) {
	err = f.do(OpClaim, func() (err error) {
		list, err = f.Store.Claim(ctx, now, lease, n, room)
		return err
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

func (f *Faulty) Settle(ctx context.Context, fn func(store.Delivery) (store.Delivery, error), claimed ...store.ID) error {
	return f.do(OpSettle, func() error { return f.Store.Settle(ctx, fn, claimed...) })
}

func (f *Faulty) Stage(ctx context.Context) (body store.Body, err error) {
	err = f.do(OpStage, func() (err error) {
		body, err = f.Store.Stage(ctx)
		return err
	})
	if err != nil {
		if body != nil {
			body.Discard()
		}
		return nil, err
	}
	return &faultyBody{body, f}, nil
}

func (f *Faulty) Open(ctx context.Context, id store.ID, as store.As) (r io.ReadCloser, err error) {
	err = f.do(OpOpen, func() (err error) {
		r, err = f.Store.Open(ctx, id, as)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, closeAll(r))
	}
	return &faultyReader{r, f}, nil
}

func closeAll(r io.Closer) error {
	if r == nil {
		return nil
	}
	return r.Close()
}

// faultyTx hands the store the body that it gave out.
type faultyTx struct{ store.Tx }

func (tx faultyTx) Archive(id store.ID, received, sent []byte, apart []store.Apart, body store.Body) error {
	if b, ok := body.(*faultyBody); ok {
		body = b.Body
	}
	return tx.Tx.Archive(id, received, sent, apart, body)
}

type faultyBody struct {
	store.Body
	f *Faulty
}

func (b *faultyBody) Write(p []byte) (n int, err error) {
	err = b.f.do(OpWrite, func() (err error) { n, err = b.Body.Write(p); return err })
	return n, err
}

func (b *faultyBody) Seal(ctx context.Context) error {
	return b.f.do(OpSeal, func() error { return b.Body.Seal(ctx) })
}

type faultyReader struct {
	io.ReadCloser
	f *Faulty
}

func (r *faultyReader) Read(p []byte) (n int, err error) {
	err = r.f.do(OpRead, func() (err error) { n, err = r.ReadCloser.Read(p); return err })
	return n, err
}
