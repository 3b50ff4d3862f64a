package main

import "testing"

// TestMemoryBound: the limit of the heap follows the connections that are open,
// in steps, and comes back.
func TestMemoryBound(t *testing.T) {
	var limits []int64
	b := &memoryBound{set: func(limit int64) int64 { limits = append(limits, limit); return 0 }}
	b.add(0)
	d := &door{counts: newMetrics().door("x"), memory: b}
	turns := []*turn{d.turn(memoryClear), d.turn(memoryTLS)}
	for range 1000 {
		turns[0].enter()
		turns[1].enter()
	}
	same(t, "with 2000 connections", b.now, boundFor(1000*(memoryClear+memoryTLS)))
	if n := len(limits); n > 2+1000*(memoryClear+memoryTLS)/memoryStep {
		t.Errorf("the limit was set %d times", n)
	}
	for range 1000 {
		turns[0].leave()
		turns[1].leave()
	}
	same(t, "with none", limits[len(limits)-1], int64(memoryBase))
	(*memoryBound)(nil).add(1) // GOMEMLIMIT counts
}
