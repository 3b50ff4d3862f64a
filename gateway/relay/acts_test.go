package relay

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/storetest"
)

// change does to a row what the API does.
func change(t *testing.T, r *Relay, id store.ID, do func(*store.Delivery)) {
	t.Helper()
	err := r.Acts().Update(context.Background(), func(tx store.Tx) error {
		d, err := tx.Delivery(id)
		if err != nil {
			return err
		}
		do(&d)
		return tx.Enqueue(d)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestActsDuringAnAttempt: what a person says while the mail is being tried
// holds; that somebody has it is a fact all the same.
func TestActsDuringAnAttempt(t *testing.T) {
	hold := func(d *store.Delivery) { d.State, d.Reason = store.Held, "held by kim" }
	drop := func(d *store.Delivery) {
		d.State = store.Failed
		for i := range d.Recipients {
			d.Recipients[i].State, d.Recipients[i].Reply = store.Failed, "5.0.0 dropped by kim"
		}
	}
	dropAndTell := func(d *store.Delivery) { d.Due, d.Dropped = time.Now(), "wrong file" }
	for _, c := range []struct {
		name, last  string
		do          func(*store.Delivery)
		state       store.DeliveryState
		reply       string
		mails, rows int
	}{
		{"hold, and it is delivered", "250 2.0.0 ok", hold, store.Delivered, "250 2.0.0 ok", 1, 1},
		{"hold, and it is deferred", "451 4.3.0 later", hold, store.Held, "451 4.3.0 later", 1, 1},
		{"hold, and it fails", "550 5.7.1 no", hold, store.Failed, "550 5.7.1 no", 1, 2},
		{"drop, and it is delivered", "250 2.0.0 ok", drop, store.Delivered, "250 2.0.0 ok", 1, 1},
		{"drop, and it is deferred", "451 4.3.0 later", drop, store.Failed, "5.0.0 dropped by kim", 1, 1},
		{"drop, and it fails", "550 5.7.1 no", drop, store.Failed, "5.0.0 dropped by kim", 1, 1},
		{"drop with a bounce, and it is delivered", "250 2.0.0 ok", dropAndTell, store.Delivered, "250 2.0.0 ok", 1, 1},
		{"drop with a bounce, and it is deferred", "451 4.3.0 later", dropAndTell, store.Failed, "5.0.0 given up by a person: wrong file", 1, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			inVirtualTime(t, func(b *bed) {
				p := newPeer(b.T, hello+eight+"C: MAIL*\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA\nS: 354 go\nD:\nW: 20s\nS: "+c.last)
				b.opts.Dial = p.Dial
				b.opts.Routes = append([]Route{{Role: "outbound", Sender: "<>", NextHop: None}}, b.opts.Routes...)
				d := b.send(eml, nil, "ana@x.example")
				r, err := New(b.st, b.opts)
				if err != nil {
					b.Fatal(err)
				}
				stop := start(r)
				time.Sleep(10 * time.Second)
				change(b.T, r, d.ID, c.do)
				time.Sleep(time.Hour)
				stop()
				row := b.delivery(d.ID)
				if row.State != c.state || row.Recipients[0].Reply != c.reply || len(row.Attempts) != 1 {
					b.Errorf("%+v", row)
				}
				if _, mails := p.seen(); len(mails) != c.mails || len(b.deliveries()) != c.rows {
					b.Errorf("%d mails, %d rows", len(mails), len(b.deliveries()))
				}
				if due, ok, _ := b.st.NextDue(b.Context(), nil); ok {
					b.Errorf("something is due or leased: %s", due)
				}
			})
		})
	}
}

// meddled is a store where somebody changes a delivery just before the relay's
// next few transactions.
type meddled struct {
	store.Store
	id    store.ID
	times int
}

func (m *meddled) Update(ctx context.Context, fn func(store.Tx) error) error {
	if m.times > 0 {
		m.times--
		err := m.Store.Update(ctx, func(tx store.Tx) error {
			d, err := tx.Delivery(m.id)
			if err != nil {
				return err
			}
			d.State, d.Reason = store.Held, fmt.Sprintf("held by kim, %d", m.times)
			return tx.Enqueue(d)
		})
		if err != nil {
			return err
		}
	}
	return m.Store.Update(ctx, fn)
}

// TestActsWhileAFailureIsStored: the report that was worked out for the row as it
// was is not sent; the one for the row as it is now goes once, however often it
// changes.
func TestActsWhileAFailureIsStored(t *testing.T) {
	for _, times := range []int{1, 2, 20} {
		inVirtualTime(t, func(b *bed) {
			p := newPeer(b.T, hello+eight+"C: MAIL*\nS: 250 ok\nC: RCPT*\nS: 550 5.1.1 no\nC: RSET\nS: 250 ok")
			b.opts.Dial = p.Dial
			b.opts.Routes = append([]Route{{Role: "outbound", Sender: "<>", NextHop: None}}, b.opts.Routes...)
			d := b.send(eml, nil, "ana@x.example")
			m := &meddled{Store: b.st, id: d.ID, times: times}
			r, err := New(m, b.opts)
			if err != nil {
				b.Fatal(err)
			}
			stop := start(r)
			time.Sleep(time.Hour)
			stop()
			if row := b.delivery(d.ID); row.State != store.Failed || len(row.Attempts) != 1 || m.times != 0 || row.Reason != "held by kim, 0" {
				b.Errorf("meddled %d times: %+v, %d left", times, row, m.times)
			}
			if n := len(b.deliveries()); n != 2 {
				b.Errorf("meddled %d times: %d rows, want the mail and one report", times, n)
			}
			if due, ok, _ := b.st.NextDue(b.Context(), nil); ok && due.After(time.Now().Add(time.Minute)) {
				b.Errorf("still leased until %s", due)
			}
		})
	}
}

// TestHoldOfWhatIsPutBack: one that waits for room at its next hop.
func TestHoldOfWhatIsPutBack(t *testing.T) {
	inVirtualTime(t, func(b *bed) {
		p := newPeer(b.T, hello+eight+strings.Repeat("C: MAIL*\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA\nS: 354 go\nD:\nW: 20s\nS: 250 ok\n", 9))
		b.opts.Dial, b.opts.PerHop, b.opts.Concurrency = p.Dial, 1, 2
		one, two := b.send(eml, nil, "ana@x.example"), b.send(eml, nil, "ana@x.example")
		r, err := New(b.st, b.opts)
		if err != nil {
			b.Fatal(err)
		}
		stop := start(r)
		time.Sleep(10 * time.Second)
		for _, d := range []store.Delivery{one, two} {
			change(b.T, r, d.ID, func(d *store.Delivery) { d.State = store.Held })
		}
		stop() // the one in the queue goes back
		states := string(b.delivery(one.ID).State + " " + b.delivery(two.ID).State)
		if states != "delivered held" && states != "held delivered" {
			b.Error(states)
		}
	})
}

// TestDroppedIsReported: of what a person gave up the sender hears, but no
// address is blamed for it.
func TestDroppedIsReported(t *testing.T) {
	inVirtualTime(t, func(b *bed) {
		d := b.send(eml, func(_ *store.Message, d *store.Delivery) { d.Dropped = "wrong file" }, "ana@x.example")
		b.run(time.Minute)
		got := b.reports()
		if len(got) != 1 || got[0].Recipients[0].DiagnosticCode != "X-Casegate; 5.0.0 given up by a person: wrong file" {
			b.Fatalf("%+v", got)
		}
		if row := b.delivery(d.ID); row.State != store.Failed || len(row.Attempts) != 0 {
			b.Errorf("%+v", row)
		}
		if m := b.message(d.Message); len(m.Events)+len(b.kase().Flags) != 0 {
			b.Errorf("%+v %+v", m.Events, b.kase())
		}
	})
}

// TestRetryForgetsThatAHopWasDown: who asks for it wants it now.
func TestRetryForgetsThatAHopWasDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMemory(), newPeer(t, accept)
		p.set(context.DeadlineExceeded)
		id := m.add(eml, time.Now(), "ana@x.example")
		r, stop := run(t, m, Options{Dial: p.Dial})
		time.Sleep(time.Second)
		p.set(nil)
		change(t, r, id, func(d *store.Delivery) { d.Due = time.Now() })
		time.Sleep(time.Second)
		stop()
		if d := m.get(id); d.State != store.Delivered {
			t.Errorf("%+v", d)
		}
	})
}

// TestLogTellsOfTheEnd: of a time when a next hop was down, once.
func TestLogTellsOfTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMemory(), newPeer(t, accept)
		p.set(context.DeadlineExceeded)
		m.add(eml, time.Now(), "ana@x.example")
		var mu sync.Mutex
		var logged bytes.Buffer
		_, stop := run(t, m, Options{Dial: p.Dial, Logger: newLogger(&mu, &logged)})
		time.Sleep(time.Second)
		p.set(nil)
		time.Sleep(time.Hour)
		stop()
		if down, up, _ := strings.Cut(logged.String(), "next hop is up again"); !strings.Contains(down, "next hop is down") || !strings.Contains(up, "state=delivered") || strings.Contains(up, "next hop is") {
			t.Errorf("%s", logged.String())
		}
	})
}

// TestReleasedAges: mail that was held for long is not given up at once.
func TestReleasedAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMemory(), newPeer(t)
		p.set(context.DeadlineExceeded)
		id := m.add(eml, time.Now().AddDate(0, 0, -30), "ana@x.example")
		m.change(id, func(d *store.Delivery) { d.Since, d.Due = time.Now(), time.Now() })
		_, stop := run(t, m, Options{Dial: p.Dial})
		time.Sleep(24 * time.Hour)
		stop()
		if d := m.get(id); d.State != store.Queued || len(d.Attempts) < 5 {
			t.Errorf("%+v", d)
		}
	})
}

// TestOneReport: whichever call of the store fails, done or not, the sender
// hears of a failure once.
func TestOneReport(t *testing.T) {
	for _, f := range []storetest.Fault{
		{Op: storetest.OpUpdate}, {Op: storetest.OpUpdate, Lost: true},
		{Op: storetest.OpSettle}, {Op: storetest.OpSettle, Lost: true},
		{Op: storetest.OpStage}, {Op: storetest.OpSeal}, {Op: storetest.OpView, Skip: 2}, {Op: storetest.OpView, Skip: 3},
	} {
		inVirtualTime(t, func(b *bed) {
			d := b.send(eml, nil, "unknown@x.example")
			faulty := storetest.NewFaulty(b.st)
			faulty.Inject(f)
			b.st = faulty
			b.run(3 * time.Minute)
			if n := len(b.reports()); n != 1 || len(b.deliveries()) != 2 || faulty.Fired() != 1 {
				b.Errorf("%+v: %d reports, %d deliveries", f, n, len(b.deliveries()))
			}
			if m := b.message(d.Message); len(m.Events) != 1 || len(b.delivery(d.ID).Attempts) != 1 {
				b.Errorf("%+v: %+v", f, m.Events)
			}
		})
	}
}
