package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway/testbed"
	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/bolt"
)

// archive puts a message with a delivery into a store, as the pipeline would.
func archive(t testing.TB, st store.Store, eml, to string) store.Delivery {
	t.Helper()
	ctx := t.Context()
	b, err := st.Stage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Discard()
	header, body, _ := strings.Cut(eml, "\r\n\r\n")
	header += "\r\n\r\n"
	if _, err := io.WriteString(b, body); err != nil {
		t.Fatal(err)
	}
	if err := b.Seal(ctx); err != nil {
		t.Fatal(err)
	}
	m := store.Message{ID: store.NewID(), Direction: store.Outgoing, ReceivedAt: time.Now()}
	m.Archived.ReceivedSize, m.Archived.SentSize = int64(len(eml)), int64(len(eml))
	d := store.Delivery{
		ID: store.NewID(), Message: m.ID, Role: "outbound", From: "desk@city.example",
		Recipients: []store.Recipient{{Address: to, State: store.Queued}},
		State:      store.Queued, Due: time.Now(), CreatedAt: time.Now(),
	}
	err = st.Update(ctx, func(tx store.Tx) error {
		if err := tx.PutMessage(m); err != nil {
			return err
		}
		if err := tx.Archive(m.ID, []byte(header), []byte(header), nil, b); err != nil {
			return err
		}
		return tx.Enqueue(d)
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func load(t testing.TB, st store.Store, id store.ID) (d store.Delivery) {
	t.Helper()
	err := st.View(t.Context(), func(r store.Reader) (err error) {
		d, err = r.Delivery(id)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestOnBolt is the whole way on the real store: archived, claimed, crashed,
// claimed again, delivered byte for byte.
func TestOnBolt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "casegate.db")
	open := func() store.Store {
		st, err := bolt.Open(path, bolt.Options{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	st := open()
	mails := map[store.ID]string{}
	var crashed store.Delivery
	for i := range 12 {
		eml := bigMail([]int{100, 70_000, 600_000}[i%3])
		d := archive(t, st, eml, fmt.Sprintf("ana%d@x.example", i))
		mails[d.ID] = eml
		if i == 0 {
			crashed = d
			if ds, err := st.Claim(t.Context(), time.Now(), time.Hour, 10, nil); err != nil || len(ds) != 1 {
				t.Fatal(ds, err)
			}
		}
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	st = open()
	defer st.Close()
	s := newSink(t, "smtp", nil)
	r, err := New(st, Options{Hostname: "gw.city.example", Routes: []Route{{Role: "outbound", NextHop: s.nextHop}}})
	if err != nil {
		t.Fatal(err)
	}
	stop := start(r)
	testbed.Until(t, "all are delivered", func() bool {
		for id := range mails {
			if load(t, st, id).State != store.Delivered {
				return false
			}
		}
		return true
	})
	stop()
	for id, eml := range mails {
		d := load(t, st, id)
		if got := s.got(d.Recipients[0].Address); len(got) != 1 || string(got[0]) != eml {
			t.Errorf("%d mails, not just the one sent", len(got))
		}
		if len(d.Attempts) != 1 || d.Attempts[0].Ambiguous != (id == crashed.ID) {
			t.Errorf("%+v", d.Attempts)
		}
	}
	if _, ok, err := st.NextDue(t.Context(), nil); ok || err != nil {
		t.Errorf("something is left: %v", err)
	}
}

// TestAwayForSixHours: a next hop that disappears and comes back gets each mail
// once, without anybody's help, and who submitted it heard that it takes long.
func TestAwayForSixHours(t *testing.T) {
	inVirtualTime(t, func(b *bed) {
		back, dial := time.Now().Add(6*time.Hour), b.opts.Dial
		b.opts.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if time.Now().Before(back) {
				return nil, errors.New("connection refused")
			}
			return dial(ctx, network, address)
		}
		var ids []store.ID
		for i := range 20 {
			ids = append(ids, b.send(eml, nil, fmt.Sprintf("ana%d@x.example", i)).ID)
		}
		b.run(11 * time.Hour) // the pause is 4 h by then
		for i, id := range ids {
			d := b.delivery(id)
			if n := len(b.sink.got(d.Recipients[0].Address)); d.State != store.Delivered || n != 1 {
				b.Errorf("mail %d came %d times: %+v", i, n, d)
			}
			for _, a := range d.Attempts {
				if a.Ambiguous {
					b.Errorf("%+v", a)
				}
			}
		}
		if got := b.reports(); len(got) != len(ids) || got[0].Recipients[0].Action != "delayed" {
			b.Errorf("%d reports for %d mails: %+v", len(got), len(ids), got)
		}
	})
}

// TestStopAtAStalledNextHop: what it holds when we must go is sent again after
// the start, and both rows say what nobody can know.
func TestStopAtAStalledNextHop(t *testing.T) {
	inVirtualTime(t, func(b *bed) {
		var stalls atomic.Bool
		stalls.Store(true)
		b.sink.data = func() {
			if stalls.Load() {
				time.Sleep(5 * time.Minute)
			}
		}
		d := b.send(eml, nil, "ana@x.example")
		begin := time.Now()
		b.run(time.Second)
		if took := time.Since(begin); took != 31*time.Second {
			b.Errorf("it stopped after %s", took)
		}
		stalls.Store(false)
		other := b.send(eml, nil, "ben@x.example")
		b.run(time.Hour)
		now := b.delivery(d.ID)
		if n := len(b.sink.got("ana@x.example")); now.State != store.Delivered || n != 2 || len(now.Attempts) != 2 || !now.Attempts[0].Ambiguous || now.Attempts[1].Ambiguous {
			b.Errorf("it came %d times: %+v", n, now)
		}
		if now := b.delivery(other.ID); now.State != store.Delivered || len(b.sink.got("ben@x.example")) != 1 {
			b.Errorf("%+v", now)
		}
	})
}
