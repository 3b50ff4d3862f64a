package main

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/casegate/casegate/gateway"
)

// door is a socket that listeners take turns at: with each reload a new one
// accepts connections where the old one left off, while the sessions of the old
// one go on to their end. Meanwhile connections wait in the kernel, and none is
// refused.
type door struct {
	socket net.Listener
	counts doorCounts
	memory *memoryBound
	seats  *gateway.Seats // of all turns
}

// turn is one listener's share of a door: the net.Listener that it is given.
type turn struct {
	*door
	holds  int64 // bytes of memory that one of them may hold
	over   atomic.Bool
	served chan struct{} // closed: nobody accepts any more

	mu     sync.Mutex
	inside int64
	empty  chan struct{} // closed: over, and no connection is left
	vacate sync.Once
}

func (d *door) turn(holds int64) *turn {
	return &turn{door: d, holds: holds, served: make(chan struct{}), empty: make(chan struct{})}
}

// Accept lets the next connection in, until the turn is over.
func (t *turn) Accept() (net.Conn, error) {
	if t.over.Load() {
		return nil, net.ErrClosed
	}
	c, err := t.socket.Accept()
	if err != nil && t.over.Load() {
		return nil, net.ErrClosed
	}
	if err != nil {
		return nil, err
	}
	t.counts.connections.Inc()
	t.enter()
	return &visit{Conn: c, turn: t}, nil
}

// Close closes the socket for good, if it is still this turn's.
func (t *turn) Close() error {
	if t.over.Load() {
		return nil
	}
	return t.socket.Close()
}

// Addr is where the door is.
func (t *turn) Addr() net.Addr { return t.socket.Addr() }

// end makes way for the next turn. It returns when nobody accepts any more.
func (t *turn) end() {
	t.over.Store(true)
	if s, ok := t.socket.(interface{ SetDeadline(time.Time) error }); ok {
		s.SetDeadline(time.Unix(1, 0))
		defer s.SetDeadline(time.Time{})
	}
	<-t.served
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle()
}

// settle notes when nobody is left and nobody comes.
func (t *turn) settle() {
	select {
	case <-t.served:
		if t.inside == 0 {
			t.vacate.Do(func() { close(t.empty) })
		}
	default:
	}
}

func (t *turn) enter() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inside++
	t.counts.open.Inc()
	t.memory.add(t.holds)
}

func (t *turn) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inside--
	t.counts.open.Dec()
	t.memory.add(-t.holds)
	t.settle()
}

// visit is a connection that is counted.
type visit struct {
	net.Conn
	turn  *turn
	spoke bool // read on one goroutine
	gone  atomic.Bool
}

func (v *visit) Read(p []byte) (int, error) {
	n, err := v.Conn.Read(p)
	if n > 0 {
		v.turn.counts.bytes.Add(float64(n))
		if !v.spoke {
			v.spoke = true
			v.turn.counts.sessions.Inc()
		}
	}
	return n, err
}

func (v *visit) Close() error {
	if v.gone.CompareAndSwap(false, true) {
		defer v.turn.leave()
	}
	return v.Conn.Close()
}

// CloseWrite is for who wants the other side to read our last words.
func (v *visit) CloseWrite() error {
	c, ok := v.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return c.CloseWrite()
}
