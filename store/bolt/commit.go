package bolt

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/casegate/casegate/store"
)

// One goroutine writes. Updates that wait while a commit syncs are taken into
// the next one together: no timer, no window to wait for. The bounds keep a
// commit, and the memory of its pages, small.
const (
	maxCalls = 512     // updates in one commit
	maxBytes = 4 << 20 // put by one commit, but for what its last call adds
)

// call is one Update on its way.
type call struct {
	ctx     context.Context
	fn      func(*writer) error
	patient bool        // it may wait for others (patient.go)
	taken   atomic.Bool // by the committer, or by the caller who gave up
	wrote   bool
	err     error // what fn returned
	done    chan error
}

// start counts a call in, so that Close waits for it.
func (s *Store) start() (done func(), ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, false
	}
	s.started.Add(1)
	return s.started.Done, true
}

func (s *Store) update(ctx context.Context, fn func(*writer) error) error {
	done, ok := s.start()
	if !ok {
		return s.unavailable()
	}
	defer done()
	return s.submit(ctx, fn)
}

// submit hands fn to the committer and waits. Once taken it is seen through:
// what the context says then no longer counts.
func (s *Store) submit(ctx context.Context, fn func(*writer) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.db.Load() == nil {
		return s.unavailable()
	}
	c := &call{ctx: ctx, fn: fn, done: make(chan error, 1)}
	select {
	case s.calls <- c:
	case <-ctx.Done():
		return ctx.Err()
	}
	return c.wait()
}

// wait waits for the answer, or, while nobody has taken it, for the caller's
// context.
func (c *call) wait() error {
	select {
	case err := <-c.done:
		return err
	case <-c.ctx.Done():
		if c.taken.CompareAndSwap(false, true) {
			return c.ctx.Err()
		}
		return <-c.done
	}
}

// run is the committer.
func (s *Store) run() {
	debug.SetPanicOnFault(true)
	for c := range s.calls {
		if m := s.db.Load(); m == nil {
			c.answer(s.unavailable())
		} else if m.damage != nil && !m.damage.sound() {
			c.answer(fmt.Errorf("%w: %w, nothing is written to it", store.ErrUnavailable, ErrDamaged))
		} else if err := s.serve(m, c); err != nil {
			s.remount(m, err)
		}
	}
}

func (c *call) answer(err error) {
	if c.taken.CompareAndSwap(false, true) {
		c.done <- err
	}
}

// serve takes a call and all that wait behind it into one commit. An error
// means that the outcome is unknown.
func (s *Store) serve(m *mounted, first *call) error {
	b := &batch{st: s, m: m}
	if err := b.begin(); err != nil {
		first.answer(fmt.Errorf("%w: %w", store.ErrUnavailable, err))
		return err
	}
	for c := first; c != nil; c = s.waiting(b) {
		b.add(c)
	}
	runtime.Gosched() // who is just about to hand in an update saves a commit by it
	for c := s.waiting(b); c != nil; c = s.waiting(b) {
		b.add(c)
	}
	defer s.patient.passed(b.calls)
	return b.finish()
}

// waiting is the next call for a batch, while there is one and room for it.
func (s *Store) waiting(b *batch) *call {
	if b.full() {
		return nil
	}
	select {
	case c, ok := <-s.calls:
		if ok {
			return c
		}
	default:
	}
	c := s.patient.next()
	if c != nil {
		s.started.Done()
	}
	return c
}

// batch is a commit in the making.
type batch struct {
	st     *Store
	m      *mounted
	w      *writer
	calls  []*call // taken, in the order they ran
	closed bool    // takes no more
}

func (b *batch) full() bool {
	return b.closed || len(b.calls) >= maxCalls || b.w.bytes >= maxBytes
}

func (b *batch) begin() error {
	tx, err := b.m.db.Begin(true)
	if err != nil {
		return err
	}
	b.w = &writer{reader: *b.st.reader(b.m, tx), slab: b.st.slab[:0], epoch: b.st.epoch}
	return nil
}

// add runs a call, unless its caller gave up before.
func (b *batch) add(c *call) {
	if !c.taken.CompareAndSwap(false, true) {
		return
	}
	b.calls = append(b.calls, c)
	if b.try(c); c.err != nil && c.wrote {
		b.again()
	}
}

// try runs one call. A panic fails it alone.
func (b *batch) try(c *call) {
	before := b.w.puts
	returned := false
	defer func() {
		c.wrote = b.w.puts != before
		if p := recover(); p != nil {
			c.err = panicked(p)
		} else if !returned {
			b.abandon()
		}
	}()
	c.err = c.fn(b.w)
	returned = true
}

// again rolls back, because a call failed after it had written, and runs the
// others anew. The batch is then closed: failures must not add up.
func (b *batch) again() {
	b.closed = true
	for failed := true; failed; {
		failed = false
		b.w.bolt.Rollback()
		if b.begin() != nil {
			return // finish meets a transaction that is over
		}
		for _, c := range b.calls {
			if c.err != nil && c.wrote {
				continue
			}
			if b.try(c); c.err != nil && c.wrote {
				failed = true
				break
			}
		}
	}
}

// finish commits and answers. Also a call that wrote nothing, or failed, waits
// for the commit: it may have seen what the others wrote.
func (b *batch) finish() error {
	began := time.Now()
	err := b.commit()
	if tell := b.st.committed.Load(); tell != nil && b.w.puts > 0 {
		(*tell)(Commit{Took: time.Since(began), Updates: b.updates(), Err: err})
	}
	b.st.slab = b.w.slab
	switch {
	case err == nil:
		for _, fn := range b.w.after {
			fn()
		}
		for _, c := range b.calls {
			c.done <- c.err
		}
		return nil
	case errors.Is(err, store.ErrFull) && len(b.calls) > 1:
		return b.single()
	case errors.Is(err, store.ErrFull):
		b.answer(err)
		return nil
	}
	// Nobody may see what is perhaps not durable: views end before this answer.
	b.st.db.Store(nil)
	b.answer(fmt.Errorf("%w: %w", store.ErrUnavailable, err))
	return err
}

// updates counts the calls that the commit is about: what they wrote is in it.
func (b *batch) updates() (n int) {
	for _, c := range b.calls {
		if c.wrote && c.err == nil {
			n++
		}
	}
	return n
}

func (b *batch) answer(err error) {
	for _, c := range b.calls {
		c.done <- err
	}
}

// single runs each call in a commit of its own: what is too large for the room
// that is left must not keep small changes out.
func (b *batch) single() (err error) {
	rest := b.calls
	defer func() {
		(&batch{calls: rest}).answer(fmt.Errorf("%w: another transaction failed: %w", store.ErrUnavailable, err))
	}()
	for _, c := range b.calls {
		one := &batch{st: b.st, m: b.m, closed: true, calls: []*call{c}}
		if err = one.begin(); err != nil {
			return err
		}
		rest = rest[1:]
		if one.try(c); c.err != nil && c.wrote {
			one.again()
		}
		if err = one.finish(); err != nil {
			return err
		}
	}
	return nil
}

// abandon is for a call that ended its goroutine (a test's FailNow): the
// committer's. Another one takes over.
func (b *batch) abandon() {
	b.w.bolt.Rollback()
	b.answer(fmt.Errorf("%w: a transaction of this commit ended its goroutine", store.ErrUnavailable))
	b.st.wholes.Go(b.st.run)
}

// remount closes the file after a commit of unknown outcome, reads it back
// from the disk and checks it, until that succeeds. Meanwhile every call is
// refused.
func (s *Store) remount(m *mounted, cause error) {
	s.db.Store(nil)
	s.log.Error("the outcome of a commit is unknown: no more commits until the store is reopened and checked", "error", cause)
	if err := m.db.Close(); err != nil {
		s.log.Warn("closing the store", "error", err)
	}
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := guard(func() error { return s.mount(true) })
		if err == nil {
			s.log.Info("the store is open again")
			return
		}
		s.log.Error("reopening the store", "error", err, "next try in", wait)
		if !s.refuse(wait) {
			return
		}
	}
}

// refuse answers calls for a while; false when the store closes.
func (s *Store) refuse(wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return true
		case c, ok := <-s.calls:
			if !ok {
				return false
			}
			c.answer(s.unavailable())
		}
	}
}
