package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/casegate/casegate/store"
)

const accept = hello + eight + mail1 + data

// TestFiveDays lives through a next hop that never answers.
func TestFiveDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMemory(), newPeer(t)
		p.set(errors.New("connection refused"))
		begin := time.Now()
		id := m.add(eml, begin, "ana@x.example")
		var events []Event
		_, stop := run(t, m, Options{Dial: p.Dial, Events: func(e Event) { events = append(events, e) }})
		time.Sleep(6 * 24 * time.Hour)
		stop()
		d := m.get(id)
		var waits []time.Duration
		for i := range d.Attempts[:min(10, len(d.Attempts)-1)] {
			waits = append(waits, d.Attempts[i+1].At.Sub(d.Attempts[i].At))
		}
		const h = time.Hour
		want := []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute, h, 2 * h, 4 * h, 4 * h, 4 * h, 4 * h}
		if diff := cmp.Diff(want, waits); diff != "" {
			t.Errorf("waits: want - got +\n%s", diff)
		}
		last := d.Attempts[len(d.Attempts)-1]
		if last.At != begin.Add(5*24*h) || last.Reply != "4.4.1 connecting: connection refused" || last.Result != "deferred" {
			t.Errorf("last attempt: %+v", last)
		}
		if d.State != store.Failed || d.Recipients[0].Reply != "5.4.7 given up after 5 days; last: 4.4.1 connecting: connection refused" {
			t.Errorf("in the end: %+v", d)
		}
		if n := len(events); n != len(d.Attempts) || len(events[n-1].Bounce) != 1 || len(events[0].Bounce) != 0 {
			t.Errorf("%d events for %d attempts", n, len(d.Attempts))
		}
	})
}

func TestLaterThenOK(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t, hello+eight+mail1+"C: DATA\nS: 354 go\nD:\nS: 451 4.7.1 greylisted", accept)
		m := newMemory()
		id := m.add(eml, time.Now(), "ana@x.example")
		_, stop := run(t, m, Options{Dial: p.Dial})
		time.Sleep(time.Hour)
		stop()
		want := outcome{store.Delivered, []string{"delivered 250 2.0.0 ok"}, []string{"deferred 451 4.7.1 greylisted", "delivered 250 2.0.0 ok"}, 2}
		if diff := cmp.Diff(want, outcomeOf(m.get(id), p)); diff != "" {
			t.Errorf("want - got +\n%s", diff)
		}
	})
}

// TestOnlyTheRest: a retry is for those who are left, and nobody else.
func TestOnlyTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t,
			hello+fast+three+"S: 250 ok\nS: 250 ok\nS: 550 5.1.1 no\nS: 450 4.2.1 later\nS: 354 go\nD:\nS: 250 2.0.0 ok",
			hello+fast+"C: MAIL*\nC: RCPT TO:<eva@x.example>\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nD:\nS: 250 2.0.0 ok")
		m := newMemory()
		id := m.add(eml, time.Now(), "ana@x.example", "ben@x.example", "eva@x.example")
		_, stop := run(t, m, Options{Dial: p.Dial})
		time.Sleep(time.Hour)
		stop()
		want := outcome{store.Failed, []string{"delivered 250 2.0.0 ok", "failed 550 5.1.1 no", "delivered 250 2.0.0 ok"},
			[]string{"deferred 450 4.2.1 (1 of 3 recipients)", "delivered 250 2.0.0 ok"}, 2}
		if diff := cmp.Diff(want, outcomeOf(m.get(id), p)); diff != "" {
			t.Errorf("want - got +\n%s", diff)
		}
	})
}

// TestInterrupted: after a crash in mid-attempt nobody knows whether the next
// hop has the message; the next attempt says so.
func TestInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMemory(), newPeer(t, accept)
		id := m.add(eml, time.Now(), "ana@x.example")
		m.Claim(t.Context(), time.Now(), time.Hour, 1, nil)
		m.crash()
		_, stop := run(t, m, Options{Dial: p.Dial})
		time.Sleep(time.Minute)
		stop()
		d := m.get(id)
		if d.State != store.Delivered || len(d.Attempts) != 1 || !d.Attempts[0].Ambiguous || d.Interrupted {
			t.Errorf("%+v", d)
		}
	})
}

// TestInterruptedAndPutBack: that knowledge survives a claim that came to
// nothing.
func TestInterruptedAndPutBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMemory(), newPeer(t, hello+eight+strings.Repeat(mail1+"C: DATA\nS: 354 go\nD:\nW: 20s\nS: 250 2.0.0 ok\n", 9))
		ids := []store.ID{m.add(eml, time.Now(), "ana@x.example"), m.add(eml, time.Now(), "ana@x.example")}
		m.Claim(t.Context(), time.Now(), time.Hour, 2, nil)
		m.crash()
		_, stop := run(t, m, Options{Dial: p.Dial, PerHop: 1})
		time.Sleep(time.Second)
		stop()
		d := m.get(ids[0])
		if d.State == store.Delivered { // one is, the other waited for it
			d = m.get(ids[1])
		}
		if d.State != store.Queued || len(d.Attempts) != 1 || !d.Attempts[0].Ambiguous || d.Attempts[0].NextHop != "" {
			t.Errorf("%+v", d)
		}
	})
}

// TestRoutesAreReadAtEachAttempt follows a mail whose route comes and goes.
func TestRoutesAreReadAtEachAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMemory(), newPeer(t, accept)
		p.set(errors.New("connection refused"))
		id := m.add(eml, time.Now(), "ana@x.example")
		r, stop := run(t, m, Options{Dial: p.Dial, Routes: []Route{{Role: "outbound", NextHop: "smtp://127.0.0.1:1"}}})
		time.Sleep(30 * time.Second)
		r.SetRoutes([]Route{{Role: "outbound", NextHop: None}})
		time.Sleep(time.Hour)
		if d := m.get(id); d.State != store.Held || len(d.Attempts) != 2 || d.Recipients[0].State != store.Queued {
			t.Errorf("without a route: %+v", d)
		}
		p.set(nil)
		r.SetRoutes([]Route{{Role: "outbound", NextHop: "smtp://127.0.0.1:2"}})
		m.change(id, func(d *store.Delivery) { d.State = store.Queued })
		r.Wake()
		time.Sleep(time.Second)
		stop()
		var hops []string
		for _, a := range m.get(id).Attempts {
			hops = append(hops, a.NextHop+" "+a.Result)
		}
		want := []string{"smtp://127.0.0.1:1 deferred", "none deferred", "smtp://127.0.0.1:2 delivered"}
		if diff := cmp.Diff(want, hops); diff != "" {
			t.Errorf("want - got +\n%s", diff)
		}
	})
}

// TestSeveralNextHops splits the recipients of a delivery by their routes.
func TestSeveralNextHops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, one, two := newMemory(), newPeer(t, hello+eight+"C: MAIL*\nS: 250 ok\nC: RCPT TO:<ana@one.example>\nS: 250 ok\n"+data), newPeer(t)
		two.set(errors.New("connection refused"))
		id := m.add(eml, time.Now(), "ana@one.example", "ben@two.example", "eva@nowhere.example")
		_, stop := run(t, m, Options{
			Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
				return map[string]*peer{"127.0.0.1:1": one, "127.0.0.1:2": two}[address].Dial(ctx, network, address)
			},
			Routes: []Route{
				{Role: "outbound", Recipient: "one.example", NextHop: "smtp://127.0.0.1:1"},
				{Role: "outbound", Recipient: "two.example", NextHop: "smtp://127.0.0.1:2"},
			},
		})
		time.Sleep(10 * time.Second)
		stop()
		d := m.get(id)
		if d.State != store.Queued || len(d.Attempts) != 3 || d.Due.Sub(d.Attempts[0].At) != time.Minute {
			t.Errorf("%+v", d)
		}
		if d.Recipients[0].State != store.Delivered || !strings.HasPrefix(d.Recipients[2].Reply, "4.4.4 no route") {
			t.Errorf("%+v", d.Recipients)
		}
	})
}

// TestDownIsNotHammered: many mails for a next hop that is down cost it a few
// connections, and those for another nothing.
func TestDownIsNotHammered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, dials, up := newMemory(), atomic.Int64{}, newPeer(t, hello+eight+strings.Repeat(mail1+data, 100))
		var late store.ID
		for range 150 {
			m.add(eml, time.Now(), "ana@down.example")
		}
		late = m.add(eml, time.Now(), "ana@x.example")
		_, stop := run(t, m, Options{
			Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
				if address == "127.0.0.1:2" {
					return up.Dial(ctx, network, address)
				}
				dials.Add(1)
				<-ctx.Done() // a black hole
				return nil, ctx.Err()
			},
			Routes: []Route{
				{Role: "outbound", Recipient: "down.example", NextHop: "smtp://127.0.0.1:1"},
				{Role: "outbound", NextHop: "smtp://127.0.0.1:2"},
			},
		})
		time.Sleep(time.Second)
		if d := m.get(late); d.State != store.Delivered {
			t.Errorf("a black hole elsewhere keeps mail back: %+v", d)
		}
		time.Sleep(time.Hour)
		stop()
		if dials.Load() > 20 {
			t.Errorf("%d connections in an hour", dials.Load())
		}
		tried, words := 0, 0
		for _, r := range m.rows {
			if r.d.ID == late {
				continue
			}
			tried += len(r.d.Attempts)
			for _, a := range r.d.Attempts {
				if strings.HasPrefix(a.Reply, "4.4.1 the next hop is down since ") {
					words++
				}
			}
		}
		if tried < 150*4 || words < tried/2 {
			t.Errorf("%d attempts, %d of them spared", tried, words)
		}
	})
}

// TestSlowNextHopKeepsNobodyBack: one that takes a minute for each mail, with
// a long queue, next to a fast one.
func TestSlowNextHopKeepsNobodyBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sleepy := newPeer(t, hello+eight+strings.Repeat(mail1+"C: DATA\nS: 354 go\nD:\nW: 1m\nS: 250 2.0.0 ok\n", 100))
		m, quick := newMemory(), newPeer(t, hello+eight+strings.Repeat(mail1+data, 100))
		for range 200 {
			id := m.add(eml, time.Now(), "ana@x.example")
			m.change(id, func(d *store.Delivery) { d.Role = "inbound" })
		}
		r, stop := run(t, m, Options{
			Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
				return map[string]*peer{"127.0.0.1:1": sleepy, "127.0.0.1:2": quick}[address].Dial(ctx, network, address)
			},
			Routes: []Route{{Role: "inbound", NextHop: "smtp://127.0.0.1:1", MaxConnections: 2}, {Role: "outbound", NextHop: "smtp://127.0.0.1:2"}},
		})
		for range 50 {
			time.Sleep(7 * time.Second)
			id := m.add(eml, time.Now(), "ana@x.example")
			r.Wake()
			time.Sleep(time.Second)
			if d := m.get(id); d.State != store.Delivered {
				t.Fatalf("after a second: %+v", d)
			}
		}
		if claims, _ := m.calls(); claims > 1000 {
			t.Errorf("%d claims: the long queue is turned over and over", claims)
		}
		time.Sleep(3 * time.Hour)
		stop()
		for _, row := range m.rows {
			if row.d.State != store.Delivered || len(row.d.Attempts) != 1 {
				t.Fatalf("%+v", row.d)
			}
		}
		if dials, _ := sleepy.seen(); dials > 4 {
			t.Errorf("%d connections to a next hop with two", dials)
		}
	})
}

// TestIdleSleeps: with nothing to do nothing is done.
func TestIdleSleeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMemory(), newPeer(t, accept)
		r, stop := run(t, m, Options{Dial: p.Dial})
		time.Sleep(24 * time.Hour)
		if claims, lookups := m.calls(); claims > 1 || lookups > 1 {
			t.Errorf("%d claims and %d looks in an idle day", claims, lookups)
		}
		id := m.add(eml, time.Now(), "ana@x.example")
		r.Wake()
		time.Sleep(time.Second)
		if d := m.get(id); d.State != store.Delivered {
			t.Errorf("not woken: %+v", d)
		}
		stop()
	})
}

// TestTheStoreFails: an outcome that cannot be stored is kept and stored later,
// and nothing is sent twice.
func TestTheStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMemory(), newPeer(t, accept)
		id := m.add(eml, time.Now(), "ana@x.example")
		broken := true
		m.settle = func() error {
			if broken {
				return store.ErrFull
			}
			return nil
		}
		_, stop := run(t, m, Options{Dial: p.Dial})
		time.Sleep(10 * time.Minute)
		m.mu.Lock()
		broken = false
		m.mu.Unlock()
		time.Sleep(time.Minute)
		stop()
		if got := outcomeOf(m.get(id), p); got.State != store.Delivered || got.Mails != 1 || len(got.Attempts) != 1 {
			t.Errorf("%+v", got)
		}
	})
}

// TestPanic: a fault of ours is one message's trouble; after three tries it is
// held.
func TestPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMemory(), newPeer(t, accept)
		bad := m.put(mail{header: "A: b\r\n\r\n", msg: store.Message{Archived: store.Archived{Transforms: []string{"boom"}}}}, time.Now(), "ana@x.example")
		good := m.add(eml, time.Now(), "ana@x.example")
		_, stop := run(t, m, Options{Dial: p.Dial}) // no Transform: deferred
		time.Sleep(time.Second)
		stop()
		if d := m.get(bad); d.State != store.Queued || d.Recipients[0].Reply != "4.3.0 not sent: the message needs transforms and none are set up" {
			t.Errorf("%+v", d)
		}
		_, stop = run(t, m, Options{Dial: p.Dial, Transform: panics})
		time.Sleep(24 * time.Hour)
		stop()
		if d := m.get(bad); d.State != store.Held || len(d.Attempts) != 4 || d.Recipients[0].Reply != fault {
			t.Errorf("%+v", d)
		}
		if d := m.get(good); d.State != store.Delivered {
			t.Errorf("%+v", d)
		}
	})
}

func TestRecipientsInPortions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var to []string
		script := hello + fast
		one := func(first, last int, refused string) {
			script += "C: MAIL*\n"
			for i := first; i <= last; i++ {
				script += fmt.Sprintf("C: RCPT TO:<r%d@x.example>\n", i)
			}
			script += "C: DATA\nS: 250 ok\n" + strings.Repeat("S: 250 ok\n", last-first) + "S: " + refused + "\nS: 354 go\nD:\nS: 250 2.0.0 ok\n"
		}
		for i := range 8 {
			to = append(to, fmt.Sprintf("r%d@x.example", i))
		}
		one(0, 2, "452 4.5.3 too many") // r2 goes again at once
		one(2, 4, "250 ok")
		one(5, 7, "250 ok")
		m, p := newMemory(), newPeer(t, script)
		id := m.add(eml, time.Now(), to...)
		_, stop := run(t, m, Options{Dial: p.Dial, PerTransaction: 3})
		time.Sleep(time.Second)
		stop()
		if got := outcomeOf(m.get(id), p); got.State != store.Delivered || got.Mails != 3 || len(got.Attempts) != 1 {
			t.Errorf("%+v", got)
		}
	})
}

func TestBounceIsOwed(t *testing.T) {
	for _, c := range []struct {
		from   string
		state  store.DeliveryState
		notify []string
		want   bool
	}{
		{"a@b", store.Failed, nil, true},
		{"", store.Failed, nil, false},
		{"a@b", store.Delivered, nil, false},
		{"a@b", store.Failed, []string{"NEVER"}, false},
		{"a@b", store.Failed, []string{"SUCCESS"}, false},
		{"a@b", store.Failed, []string{"success", "failure"}, true},
	} {
		if got := bounce(&store.Delivery{From: c.from}, &store.Recipient{State: c.state, Notify: c.notify}); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// TestPatienceIsReadAtEachAttempt: a changed schedule counts for what waits
// already, from its next attempt on.
func TestPatienceIsReadAtEachAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		later := hello + eight + mail1 + "C: DATA\nS: 354 go\nD:\nS: 451 4.7.1 greylisted"
		p := newPeer(t, later, later, accept)
		m := newMemory()
		id := m.add(eml, time.Now(), "ana@x.example")
		r, stop := run(t, m, Options{Dial: p.Dial, Retry: []time.Duration{time.Hour}, Jitter: -1})
		time.Sleep(time.Minute)
		if err := r.SetPatience(Patience{Retry: []time.Duration{-time.Second}}); err == nil {
			t.Error("a wait that is negative is taken")
		}
		if err := r.SetPatience(Patience{Retry: []time.Duration{time.Minute}}); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		time.Sleep(2 * time.Hour)
		stop()
		d := m.get(id)
		if d.State != store.Delivered || len(d.Attempts) != 3 {
			t.Fatalf("%s after %d attempts", d.State, len(d.Attempts))
		}
		first, second := d.Attempts[1].At.Sub(begun), d.Attempts[2].At.Sub(d.Attempts[1].At)
		if first != 59*time.Minute || second != time.Minute {
			t.Errorf("tried again after %s and %s: the wait begun goes on, the next one is the new one", first, second)
		}
	})
}
