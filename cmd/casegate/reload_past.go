package main

import (
	"slices"
	"sync"

	"github.com/casegate/casegate/gateway"
)

// pastListeners are those of earlier editions that have sessions left.
type pastListeners struct {
	mu   sync.Mutex
	list []*gateway.Listener
}

func (p *pastListeners) add(ln *gateway.Listener) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = append(p.list, ln)
}

func (p *pastListeners) remove(ln *gateway.Listener) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = slices.DeleteFunc(p.list, func(one *gateway.Listener) bool { return one == ln })
}

func (p *pastListeners) all() []*gateway.Listener {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.list)
}
