package main

import (
	"os"
	"runtime/debug"
	"sync"

	"github.com/casegate/casegate/gateway"
)

// What the heap may grow to before the collector works against it: a base, and
// what connections hold that wait in the middle of a body. Without their share
// thousands of them would keep the collector running all the time, which costs
// everybody else's mail its speed.
const (
	memoryBase  = 96 << 20
	memoryClear = 11 << 10 // of a connection: 9 that it holds, and room for the garbage of others
	memoryTLS   = 20 << 10 // of one where the listener has TLS
	memoryStep  = 2 << 20  // the limit is not set anew for less
)

// memoryBound is the limit of the heap. It follows the connections that are open.
type memoryBound struct {
	mu   sync.Mutex
	held int64 // by connections
	now  int64
	set  func(limit int64) int64 // debug.SetMemoryLimit
}

// boundMemory lets garbage gather while there is little of it, and collects
// early once the heap nears the limit: buffers are bounded, so what grows is
// garbage. GOGC and GOMEMLIMIT overrule it; with the latter it returns nil.
func boundMemory() *memoryBound {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(800)
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	b := &memoryBound{set: debug.SetMemoryLimit}
	b.add(0)
	return b
}

// add notes that connections hold n bytes more, or less. A nil bound is none.
func (b *memoryBound) add(n int64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held += n
	if limit := boundFor(b.held); limit != b.now {
		b.now = limit
		b.set(limit)
	}
}

// boundFor is the limit while connections hold so many bytes.
func boundFor(held int64) int64 {
	return memoryBase + (held+memoryStep-1)/memoryStep*memoryStep
}

// memoryOf is what a connection of a listener may hold.
func memoryOf(mode gateway.TLSMode) int64 {
	if mode == gateway.TLSStart || mode == gateway.TLSImplicit {
		return memoryTLS
	}
	return memoryClear
}
