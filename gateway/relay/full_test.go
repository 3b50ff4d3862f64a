package relay

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casegate/casegate/store"
)

// fullUntil is a store that has no room for a claim until a time, or can't be
// read at all.
type fullUntil struct {
	*memory
	room time.Time
	dead bool
}

func (f fullUntil) NextDue(ctx context.Context, room store.Room) (time.Time, bool, error) {
	if f.dead && time.Now().Before(f.room) {
		return time.Time{}, false, fmt.Errorf("looking: %w", store.ErrUnavailable)
	}
	return f.memory.NextDue(ctx, room)
}

func (f fullUntil) Claim(ctx context.Context, now time.Time, lease time.Duration, n int, room store.Room) ([]store.Delivery, error) {
	if now.Before(f.room) {
		return nil, fmt.Errorf("claiming: %w", store.ErrFull)
	}
	return f.memory.Claim(ctx, now, lease, n, room)
}

// TestRoomAgain: however long the store was full or dead, mail moves within 10 s
// of room (promise P7), and the log says once that it waits, and that it moves.
func TestRoomAgain(t *testing.T) {
	for _, dead := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) { moveAgain(t, dead) })
	}
}

func moveAgain(t *testing.T, dead bool) {
	m, p := newMemory(), newPeer(t, accept)
	room := time.Now().Add(32 * time.Second)
	id := m.add(eml, time.Now(), "ana@x.example")
	var log bytes.Buffer
	r, err := New(fullUntil{m, room, dead}, Options{
		Hostname: "gw.city.example", Dial: p.Dial, Logger: slog.New(slog.NewTextHandler(&log, nil)),
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
	if strings.Count(log.String(), "the outbox can't be read") != 1 || strings.Count(log.String(), "the outbox is read again") != 1 {
		t.Errorf("the log:\n%s", &log)
	}
}

// TestFullForLongerThanALease: what was delivered and cannot be recorded is not
// sent again, though its lease ends and it is claimed anew.
func TestFullForLongerThanALease(t *testing.T) {
	for _, full := range []time.Duration{62 * time.Minute, 3 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			m, p := newMemory(), newPeer(t, accept)
			id, room := m.add(eml, time.Now(), "ana@x.example"), time.Now().Add(full)
			m.settle = func() error {
				if time.Now().Before(room) {
					return store.ErrFull
				}
				return nil
			}
			_, stop := run(t, m, Options{Dial: p.Dial})
			time.Sleep(full + 2*time.Hour)
			stop()
			d := m.get(id)
			if _, mails := p.seen(); len(mails) != 1 || d.State != store.Delivered || len(d.Attempts) != 1 || d.Attempts[0].Ambiguous {
				t.Errorf("%s: %d mails, %+v", full, len(mails), d)
			}
		})
	}
}

// TestStoppedWhileFull: an outcome that could not be stored before the stop makes
// what was claimed anew meanwhile ambiguous.
func TestStoppedWhileFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMemory(), newPeer(t, accept, accept)
		id, stopped := m.add(eml, time.Now(), "ana@x.example"), time.Now().Add(2*time.Hour)
		failed := false
		m.settle = func() error {
			if failed {
				return nil
			}
			failed = !time.Now().Before(stopped)
			return store.ErrFull
		}
		opts := Options{Dial: p.Dial, Grace: time.Nanosecond}
		_, stop := run(t, m, opts)
		time.Sleep(time.Until(stopped))
		stop()
		_, stop = run(t, m, opts)
		time.Sleep(time.Minute)
		stop()
		if d := m.get(id); d.State != store.Delivered || len(d.Attempts) != 2 || !d.Attempts[0].Ambiguous {
			t.Errorf("%+v", d)
		}
	})
}
