package gateway

import (
	"net/netip"
	"sync"
)

// Seats counts connections, in all and by the address that each counts for. The
// listeners that follow each other at one address share them, so that the caps
// hold for all their connections together.
type Seats struct {
	mu   sync.Mutex
	all  int
	each map[netip.Addr]int
}

// NewSeats has nobody on them.
func NewSeats() *Seats { return &Seats{each: map[netip.Addr]int{}} }

// enter takes one more connection, if there are fewer than most.
func (s *Seats) enter(most int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= most {
		return false
	}
	s.all++
	return true
}

// take counts a connection for a client, if fewer than most count for it. An
// address that is none has no cap.
func (s *Seats) take(client netip.Addr, most int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !client.IsValid() {
		return true
	}
	if s.each[client] >= most {
		return false
	}
	s.each[client]++
	return true
}

// leave forgets a connection that entered, and for whom it counted.
func (s *Seats) leave(client netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if !client.IsValid() {
		return
	}
	if s.each[client]--; s.each[client] <= 0 {
		delete(s.each, client)
	}
}
