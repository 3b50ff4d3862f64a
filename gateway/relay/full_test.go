package relay

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casegate/casegate/store"
)

// fullUntil is a store that has no room for a claim until a time.
type fullUntil struct {
	*memory
	room time.Time
}

func (f fullUntil) Claim(ctx context.Context, now time.Time, lease time.Duration, n int, room store.Room) ([]store.Delivery, error) {
	if now.Before(f.room) {
		return nil, fmt.Errorf("claiming: %w", store.ErrFull)
	}
	return f.memory.Claim(ctx, now, lease, n, room)
}

// TestRoomAgain: however long the store was full, mail moves within 10 s of
// room (promise P7).
func TestRoomAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMemory(), newPeer(t, accept)
		room := time.Now().Add(32 * time.Second)
		id := m.add(eml, time.Now(), "ana@x.example")
		r, err := New(fullUntil{m, room}, Options{
			Hostname: "gw.city.example", Dial: p.Dial,
			Routes: []Route{{Role: "outbound", NextHop: "smtp://127.0.0.1:1"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		stop := start(r)
		time.Sleep(time.Until(room) + 10*time.Second)
		stop()
		if d := m.get(id); d.State != store.Delivered {
			t.Errorf("10 s after there was room again: %+v", d)
		}
	})
}
