package relay

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"

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
// leaves when that is mended, running or after a restart, also if the store has
// no room at first.
func TestClockJumpsBack(t *testing.T) {
	for _, restart := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			const years = 10 * 365 * 24 * time.Hour
			m, p := newMemory(), newPeer(t, hello+eight+"C: MAIL*\nS: 451 4.3.0 later", accept)
			var ahead, full atomic.Int64
			full.Store(3)
			m.update = func() error {
				if ahead.Load() == 0 && full.Add(-1) >= 0 {
					return store.ErrFull
				}
				return nil
			}
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
			if full.Load() >= 0 {
				t.Error("the store was not asked often enough")
			}
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

// TestNotGivenUpAfterOneTry: by its age mail is to be given up, for a clock that
// jumped or a daemon that was off; but it was hardly tried.
func TestNotGivenUpAfterOneTry(t *testing.T) {
	const m, week = time.Minute, 7 * 24 * time.Hour
	for _, c := range []struct {
		name   string
		expire time.Duration
		tried  []time.Duration // since the first time
	}{
		{"as by default", 0, []time.Duration{0, m, 6 * m, 21 * m, 51 * m}},
		{"given up early anyway", 10 * m, []time.Duration{0, m, 6 * m}},
		{"given up before it would be tried again", m / 2, []time.Duration{0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, p := newMemory(), newPeer(t)
				p.set(errors.New("connection refused"))
				id := m.add(eml, time.Now().Add(-week), "ana@x.example")
				_, stop := run(t, m, Options{Dial: p.Dial, Expire: c.expire})
				time.Sleep(time.Hour)
				stop()
				d := m.get(id)
				var tried []time.Duration
				for _, a := range d.Attempts {
					tried = append(tried, a.At.Sub(d.Attempts[0].At))
				}
				if diff := cmp.Diff(c.tried, tried); diff != "" || d.State != store.Failed {
					t.Errorf("%s; tried at: want - got +\n%s", d.State, diff)
				}
			})
		})
	}
}

// TestClockJumpsWhileMailWaits: what is given up by the new time was tried by it
// a few times; who is back after half an hour gets his mail.
func TestClockJumpsWhileMailWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMemory(), newPeer(t, accept)
		p.set(errors.New("connection refused"))
		var ahead atomic.Int64
		id := m.add(eml, time.Now(), "ana@x.example")
		r, stop := run(t, m, Options{Dial: p.Dial, Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
		time.Sleep(10 * time.Second)
		ahead.Store(int64(10 * 365 * 24 * time.Hour))
		r.Wake()
		time.Sleep(30 * time.Minute)
		p.set(nil)
		time.Sleep(30 * time.Minute)
		stop()
		if d := m.get(id); d.State != store.Delivered {
			t.Errorf("%+v", d)
		}
	})
}

// TestDelayToldLate: a report never says that mail is tried until a time that is
// over.
func TestDelayToldLate(t *testing.T) {
	inVirtualTime(t, func(b *bed) {
		b.sink.rcpt = func(to string) error {
			if to == desk {
				return nil
			}
			return &smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 2, 1}, Message: "busy"}
		}
		b.send(eml, nil, "ana@x.example")
		time.Sleep(7 * 24 * time.Hour)
		b.run(time.Minute / 2)
		if raw := string(b.sink.got(desk)[0]); !strings.Contains(raw, "It is tried again until "+time.Now().UTC().Add(50*time.Minute+30*time.Second).Format(time.RFC1123Z)) {
			t.Error(raw)
		}
	})
}
