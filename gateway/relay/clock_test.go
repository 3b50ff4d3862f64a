package relay

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casegate/casegate/store"
)

// TestClockJumpsForward: what is being delivered when the clock jumps is not
// delivered once more, though its lease seems to be over.
func TestClockJumpsForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMemory(), newPeer(t, hello+eight+mail1+"C: DATA\nS: 354 go\nD:\nW: 5m\nS: 250 2.0.0 ok")
		var ahead atomic.Int64
		id := m.add(eml, time.Now(), "ana@x.example")
		r, stop := run(t, m, Options{Dial: p.Dial, Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
		time.Sleep(time.Minute)
		ahead.Store(int64(10 * 365 * 24 * time.Hour))
		r.Wake()
		time.Sleep(time.Hour)
		stop()
		d := m.get(id)
		if _, mails := p.seen(); len(mails) != 1 || d.State != store.Delivered || len(d.Attempts) != 1 || d.Attempts[0].Ambiguous {
			t.Errorf("%d mails, %+v", len(mails), d)
		}
	})
}

// TestClockJumpsBack: what was put off, or queued, by a clock that was ahead
// leaves when that is mended, running or after a restart.
func TestClockJumpsBack(t *testing.T) {
	for _, restart := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			const years = 10 * 365 * 24 * time.Hour
			m, p := newMemory(), newPeer(t, hello+eight+"C: MAIL*\nS: 451 4.3.0 later", accept)
			var ahead atomic.Int64
			ahead.Store(int64(years))
			opts := Options{Dial: p.Dial, PerConnection: 1, Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }}
			late := m.add(eml, time.Now().Add(years), "ana@x.example")
			_, stop := run(t, m, opts)
			time.Sleep(10 * time.Second) // it is put off
			soon := m.add(eml, time.Now().Add(years+time.Hour), "ana@x.example")
			ahead.Store(0)
			if restart {
				stop()
				_, stop = run(t, m, opts)
			}
			time.Sleep(10 * time.Minute)
			stop()
			for _, id := range []store.ID{late, soon} {
				if d := m.get(id); d.State != store.Delivered || d.Since.After(time.Now()) {
					t.Errorf("after a restart: %t: %+v", restart, d)
				}
			}
		})
	}
}

// TestDueAgainAtOnce: somebody has mail tried again in the moment in which the
// outcome of an attempt is stored and the attempt is not quite over.
func TestDueAgainAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMemory(), newPeer(t, hello+eight+"C: MAIL*\nS: 451 4.3.0 later", accept)
		id := m.add(eml, time.Now(), "ana@x.example")
		known := make(chan *Relay, 1)
		r, stop := run(t, m, Options{Dial: p.Dial, PerConnection: 1, Retry: []time.Duration{20 * time.Hour}, Events: func(e Event) {
			if e.Delivery.State == store.Queued {
				m.change(id, func(d *store.Delivery) { d.Due = time.Now() })
				(<-known).Wake()
				time.Sleep(time.Second)
			}
		}})
		known <- r
		time.Sleep(time.Minute)
		stop()
		if d := m.get(id); d.State != store.Delivered || len(d.Attempts) != 2 || d.Attempts[1].Ambiguous {
			t.Errorf("%+v", d)
		}
	})
}
