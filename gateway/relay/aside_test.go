package relay

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casegate/casegate/store"
)

// rotten is a store that can't settle some rows, until a time.
type rotten struct {
	*memory
	rotten map[store.ID]bool
	added  time.Duration
	err    error
	until  time.Time
}

var errRotten = errors.New("the row is damaged")

func (s *rotten) Settle(ctx context.Context, fn func(store.Delivery) (store.Delivery, error), claimed ...store.ID) error {
	s.mu.Lock()
	bad := slices.ContainsFunc(claimed, func(id store.ID) bool { return s.rotten[id] })
	s.mu.Unlock()
	if bad && time.Now().Before(s.until) {
		return s.err
	}
	return s.memory.Settle(ctx, fn, claimed...)
}

// add queues a mail in its lane, or if there is no relay yet in none; later ones
// are due later.
func (s *rotten) add(r *Relay, rotten bool, role string) store.ID {
	id := s.memory.add(eml, time.Now().Add(s.added-time.Second), "ana@x.example")
	s.change(id, func(d *store.Delivery) {
		if d.Role = role; r != nil {
			d.Lane = r.Lane(d)
		}
	})
	s.added++
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rotten[id] = rotten
	return id
}

func newRotten(err error, lasts time.Duration) *rotten {
	return &rotten{memory: newMemory(), rotten: map[store.ID]bool{}, err: err, until: time.Now().Add(lasts)}
}

// relay has four places and two next hops, for outbound and inbound.
func (s *rotten) relay(t *testing.T, log *slog.Logger, out, in *peer) *Relay {
	t.Helper()
	r, err := New(s, Options{
		Hostname: "gw.city.example", Concurrency: 4, Jitter: -1, Logger: log,
		Dial:   dialers(map[string]*peer{"127.0.0.1:1": out, "127.0.0.1:2": in}),
		Routes: []Route{{Role: "outbound", NextHop: "smtp://127.0.0.1:1"}, {Role: "inbound", NextHop: "smtp://127.0.0.1:2"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// mails is how many there are where no outcome can be stored.
const mails = 150

// taking takes them all.
func taking(t *testing.T) *peer { return newPeer(t, hello+eight+strings.Repeat(mail1+data, mails)) }

// TestRowCannotBeSettled: outcomes that can't be stored take no place from others,
// and no memory that grows; what was delivered is not sent again, however often
// its lease ends; the log says it ever more seldom, and the outcome is stored when
// that is possible.
func TestRowCannotBeSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, out := newRotten(errRotten, 30*time.Hour), taking(t)
		var mu sync.Mutex
		var log bytes.Buffer
		var bad []store.ID
		r := s.relay(t, newLogger(&mu, &log), out, newPeer(t))
		for range 4 { // as many as there are places
			bad = append(bad, s.add(r, true, "outbound"))
		}
		stop := start(r)
		time.Sleep(time.Minute)
		good := s.add(r, false, "outbound")
		r.Wake()
		time.Sleep(time.Minute)
		if d := s.get(good); d.State != store.Delivered {
			t.Errorf("after a minute: %+v", d)
		}
		time.Sleep(5 * time.Hour)
		before := runtime.NumGoroutine()
		time.Sleep(20 * time.Hour)
		if n := runtime.NumGoroutine(); n > before {
			t.Errorf("%d goroutines more after 20 leases", n-before)
		}
		mu.Lock()
		said := log.String()
		mu.Unlock()
		if n := strings.Count(said, "can't be stored"); n != len(bad) {
			t.Errorf("said %d times that one is kept aside", n)
		}
		if n := strings.Count(said, "storing the outcome"); n > 20*len(bad) {
			t.Errorf("%d failures logged in a day", n)
		}
		time.Sleep(10 * time.Hour)
		stop()
		for _, id := range bad {
			if d := s.get(id); d.State != store.Delivered || len(d.Attempts) != 1 || d.Attempts[0].Ambiguous {
				t.Errorf("%+v", d)
			}
		}
		if _, got := out.seen(); len(got) != len(bad)+1 {
			t.Errorf("%d mails", len(got))
		}
		if r.inHand.len() != 0 || r.inHand.aside != 0 {
			t.Errorf("%d in hand, %d aside", r.inHand.len(), r.inHand.aside)
		}
	})
}

// TestNoRowCanBeSettled: so many are kept aside and no more; none, if it is the
// store that takes nothing.
func TestNoRowCanBeSettled(t *testing.T) {
	for _, c := range []struct {
		err  error
		sent int
	}{{errRotten, mostAside + 4}, {store.ErrFull, 4}, {store.ErrUnavailable, 4}} {
		synctest.Test(t, func(t *testing.T) {
			s, out := newRotten(c.err, 10*time.Hour), taking(t)
			r := s.relay(t, slog.New(slog.DiscardHandler), out, newPeer(t))
			for range mails {
				s.add(r, true, "outbound")
			}
			stop := start(r)
			time.Sleep(9 * time.Hour)
			if _, got := out.seen(); len(got) != c.sent {
				t.Errorf("%v: %d sent that nothing is known of, want %d", c.err, len(got), c.sent)
			}
			time.Sleep(9 * time.Hour)
			stop()
			if _, got := out.seen(); len(got) != mails {
				t.Errorf("%v: %d sent in the end", c.err, len(got))
			}
		})
	}
}

// TestOneOfABatchCannotGoBack: of those that go back together for want of room,
// one that can't does not keep the others; and it is sent once when it can,
// though it was claimed again meanwhile.
func TestOneOfABatchCannotGoBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := strings.Repeat(mail1+"C: DATA\nS: 354 go\nD:\nW: 1m\nS: 250 2.0.0 ok\n", 9)
		s, out, in := newRotten(errRotten, 5*time.Hour), newPeer(t, hello+eight+slow), taking(t)
		s.add(nil, false, "outbound")
		s.add(nil, false, "outbound")
		bad := s.add(nil, true, "outbound") // the share is two
		back := s.add(nil, false, "outbound")
		r := s.relay(t, slog.New(slog.DiscardHandler), out, in)
		stop := start(r)
		time.Sleep(3 * time.Minute)
		other := s.add(r, false, "inbound")
		r.Wake()
		time.Sleep(3 * time.Minute)
		for _, id := range []store.ID{back, other} {
			if d := s.get(id); d.State != store.Delivered {
				t.Errorf("%+v", d)
			}
		}
		time.Sleep(6 * time.Hour)
		stop()
		if _, got := out.seen(); len(got) != 4 || s.get(bad).State != store.Delivered {
			t.Errorf("%d mails; %+v", len(got), s.get(bad))
		}
	})
}
