package relay

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/bolt"
)

// feed is a store that costs nothing: one message, as many deliveries of it as
// asked for.
type feed struct {
	store.Store
	left, settled atomic.Int64
	body          []byte
	done          chan struct{}
}

func (f *feed) NextDue(context.Context, store.Room) (time.Time, bool, error) {
	return time.Time{}, f.left.Load() > 0, nil
}

func (f *feed) Claim(_ context.Context, now time.Time, _ time.Duration, n int, _ store.Room) (out []store.Delivery, _ error) {
	for ; n > 0 && f.left.Add(-1) >= 0; n-- {
		out = append(out, store.Delivery{
			ID: store.NewID(), Role: "outbound", From: "desk@city.example", CreatedAt: now, State: store.Queued,
			Recipients: []store.Recipient{{Address: "ana@x.example"}},
		})
	}
	return out, nil
}

func (f *feed) Settle(_ context.Context, fn func(store.Delivery) (store.Delivery, error), claimed ...store.ID) error {
	for _, id := range claimed {
		d, err := fn(store.Delivery{ID: id, State: store.Queued, Recipients: []store.Recipient{{Address: "ana@x.example"}}})
		if err != nil {
			return err
		}
		if d.State == store.Delivered && f.settled.Add(-1) == 0 {
			close(f.done)
		}
	}
	return nil
}

func (f *feed) View(_ context.Context, fn func(store.Reader) error) error { return fn(feedReader{}) }

func (f *feed) Open(context.Context, store.ID, store.As) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(f.body)), nil
}

type feedReader struct{ store.Reader }

func (feedReader) Deliveries(store.DeliveryFilter, store.Page) ([]store.Delivery, store.Cursor, error) {
	return nil, "", nil
}

func (feedReader) Message(store.ID) (store.Message, error) { return store.Message{}, nil }

// BenchmarkRelay is one message from claim to settle over ten connections;
// half of the time is go-smtp's, the next hop in the same process.
func BenchmarkRelay(b *testing.B) {
	for name, lines := range map[string]int{"3KiB": 40, "1MiB": 13500} {
		b.Run(name, func(b *testing.B) {
			s := newSink(b, "smtp", nil)
			s.keep = false
			f := &feed{done: make(chan struct{})}
			f.body = []byte("From: a@b\r\n\r\n" + strings.Repeat(strings.Repeat("x", 76)+"\r\n", lines))
			f.left.Store(int64(b.N))
			f.settled.Store(int64(b.N))
			r, err := New(f, Options{Hostname: "gw.city.example", Routes: []Route{{Role: "outbound", NextHop: s.nextHop}}})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.SetBytes(int64(len(f.body)))
			b.ResetTimer()
			stop := start(r)
			<-f.done
			b.StopTimer()
			stop()
			if s.count != b.N {
				b.Errorf("%d of %d arrived", s.count, b.N)
			}
		})
	}
}

// BenchmarkRelayOnBolt is the same from a queue in the real store: claims and
// settles are on disk.
func BenchmarkRelayOnBolt(b *testing.B) {
	st, err := bolt.Open(filepath.Join(b.TempDir(), "casegate.db"), bolt.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	s := newSink(b, "smtp", nil)
	s.keep = false
	eml := "From: a@b\r\n\r\n" + strings.Repeat(strings.Repeat("x", 76)+"\r\n", 40)
	var wg sync.WaitGroup
	left := atomic.Int64{}
	left.Store(int64(b.N))
	for range 20 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				archive(b, st, eml, "ana@x.example")
			}
		})
	}
	wg.Wait()
	done := make(chan struct{}, b.N)
	r, err := New(st, Options{
		Hostname: "gw.city.example", Routes: []Route{{Role: "outbound", NextHop: s.nextHop}},
		Events: func(Event) { done <- struct{}{} },
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	stop := start(r)
	for range b.N {
		<-done
	}
	b.StopTimer()
	stop()
}
