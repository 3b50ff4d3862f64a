package bolt

import (
	"context"
	"sync"
	"time"
)

// What no session waits for, a claim or the outcome of a delivery, rides along
// in the commits of updates: a commit of its own would keep the next update
// waiting. Unless updates come several at a time it goes at once. (Measured, ten
// sessions and all delivered: a fifth fewer commits.)
const (
	ride = 4 * time.Millisecond // how long it waits for one at most
	soon = 5 * time.Millisecond // so long after one another is expected
)

// patient are the calls that wait for a ride.
type patient struct {
	mu     sync.Mutex
	calls  []*call
	timer  *time.Timer // when they go by themselves; nil: none waits
	update time.Time   // when the last commit of several updates ended
}

// attend is update for a call that may wait.
func (s *Store) attend(ctx context.Context, fn func(*writer) error) error {
	done, ok := s.start()
	if !ok {
		return s.unavailable()
	}
	defer done()
	if err := ctx.Err(); err != nil {
		return err
	}
	c := &call{ctx: ctx, fn: fn, patient: true, done: make(chan error, 1)}
	s.started.Add(1) // the call's own: its caller may give up before it leaves
	p := &s.patient
	p.mu.Lock()
	p.calls = append(p.calls, c)
	if p.timer == nil {
		wait := ride
		if time.Since(p.update) > soon {
			wait = 0
		}
		p.timer = time.AfterFunc(wait, s.depart)
	}
	p.mu.Unlock()
	return c.wait()
}

// depart sends those who found no ride on their own way.
func (s *Store) depart() {
	s.patient.mu.Lock()
	s.patient.timer = nil
	s.patient.mu.Unlock()
	for c := s.patient.next(); c != nil; c = s.patient.next() {
		s.calls <- c
		s.started.Done()
	}
}

// next takes one; nil if none waits.
func (p *patient) next() *call {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.calls) == 0 {
		return nil
	}
	c := p.calls[0]
	p.calls[0] = nil
	if p.calls = p.calls[1:]; len(p.calls) == 0 {
		p.calls = nil
		if p.timer != nil && p.timer.Stop() {
			p.timer = nil
		}
	}
	return c
}

// passed notes the end of a commit.
func (p *patient) passed(calls []*call) {
	updates := 0
	for _, c := range calls {
		if !c.patient {
			updates++
		}
	}
	if updates < 2 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.update = time.Now()
}
