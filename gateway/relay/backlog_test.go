package relay

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casegate/casegate/gateway/testbed"
	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/bolt"
)

// backlogSize is how many deliveries wait in the tests of a long queue: 3 000,
// or as many as CASEGATE_BACKLOG says (make backlog).
func backlogSize(t *testing.T) (n int, many bool) {
	t.Helper()
	text := os.Getenv("CASEGATE_BACKLOG")
	if text == "" {
		return 3000, false
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1000 {
		t.Fatalf("CASEGATE_BACKLOG=%s: write a number of at least 1000", text)
	}
	return n, true
}

// backlog is a long queue in a store on disk.
type backlog struct {
	*testing.T
	path    string
	st      *bolt.Store
	commits atomic.Int64
}

func newBacklog(t *testing.T) *backlog {
	b := &backlog{T: t, path: filepath.Join(t.TempDir(), "casegate.db")}
	b.open()
	t.Cleanup(func() { b.st.Close() })
	return b
}

func (b *backlog) open() {
	b.Helper()
	st, err := bolt.Open(b.path, bolt.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	st.OnCommit(func(bolt.Commit) { b.commits.Add(1) })
	b.st = st
}

func (b *backlog) relay(o Options) *Relay {
	b.Helper()
	o.Hostname, o.Grace = "gw.city.example", 10*time.Millisecond
	r, err := New(b.st, o)
	if err != nil {
		b.Fatal(err)
	}
	return r
}

// fill queues n deliveries as the pipeline does, a hundred of each message, to
// addresses made of a number.
func (b *backlog) fill(r *Relay, n int, address string) {
	b.Helper()
	for i := 0; i < n; i += 100 {
		first := archive(b, b.st, eml, fmt.Sprintf(address, i))
		err := b.st.Update(b.Context(), func(tx store.Tx) error {
			for k := i; k < min(i+100, n); k++ {
				d := first
				if k > i {
					d.ID = store.NewID()
				}
				d.Recipients = []store.Recipient{{Address: fmt.Sprintf(address, k), State: store.Queued}}
				d.Lane = r.Lane(&d)
				if err := tx.Enqueue(d); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func (b *backlog) outbox() map[store.DeliveryState]int {
	b.Helper()
	o, err := b.st.Outbox(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return o.Counts
}

// send sends mails one after the other and returns how long each took.
func (b *backlog) send(r *Relay, n int, address string, done <-chan Event) (took []time.Duration) {
	b.Helper()
	for i := range n {
		began := time.Now()
		d := archive(b, b.st, eml, fmt.Sprintf(address, i))
		r.Wake()
		select {
		case e := <-done:
			if e.Delivery.ID != d.ID {
				b.Fatalf("%v came before %v", e.Delivery, d)
			}
		case <-time.After(20 * time.Second):
			b.Fatalf("mail %d to a next hop that is up doesn't leave", i)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took
}

// hanging accepts connections and says nothing.
func hanging(t *testing.T) (nextHop string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				io.Copy(io.Discard, c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return "smtp://" + l.Addr().String()
}

// refusing is an address where nobody listens.
func refusing(t *testing.T) (nextHop string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "smtp://" + l.Addr().String()
}

// TestDeadDestination: however much waits for a next hop that hangs, or is
// down, mail to another leaves at once.
func TestDeadDestination(t *testing.T) {
	n, many := backlogSize(t)
	const mails = 30
	for _, c := range []struct {
		name string
		dead func(*testing.T) string
		n    int
	}{{"nobody waits", hanging, 0}, {"it hangs", hanging, n}, {"it is down", refusing, n}} {
		t.Run(c.name, func(t *testing.T) {
			b, good := newBacklog(t), newSink(t, "smtp", nil)
			done := make(chan Event, mails)
			r := b.relay(Options{
				Routes: []Route{
					{Role: "outbound", Recipient: "dead.example", NextHop: c.dead(t)},
					{Role: "outbound", NextHop: good.nextHop},
				},
				Events: func(e Event) {
					if strings.HasSuffix(e.Delivery.Recipients[0].Address, "@good.example") {
						done <- e
					}
				},
			})
			b.fill(r, c.n, "ana%d@dead.example")
			b.commits.Store(0)
			stop := start(r)
			took := b.send(r, mails, "ben%d@good.example", done)
			commits := b.commits.Load()
			stop()
			t.Logf("%d wait: median %v, worst %v; %d commits", c.n, took[mails/2], took[mails-1], commits)
			if counts := b.outbox(); counts[store.Queued] != c.n {
				t.Errorf("in the outbox: %v", counts)
			}
			// What waits for the one that hangs is claimed as far as there is room, and
			// then left alone. (Archiving, claiming, settling: three commits a mail.)
			if name := "it hangs"; c.name == name && commits > 3*mails+10 {
				t.Errorf("%d commits for %d mails", commits, mails)
			}
			if most := time.Second; many && took[mails-1] > most {
				t.Errorf("a mail took %v", took[mails-1])
			}
		})
	}
}

// TestDeadForOthers: a message for two next hops reaches one though the other
// hangs, and what hangs takes nothing of the other's room.
func TestDeadForOthers(t *testing.T) {
	good, m := newSink(t, "smtp", nil), newMemory()
	for i := range 60 {
		m.add(eml, time.Now(), fmt.Sprintf("ana%d@good.example", i), "ana@dead.example")
	}
	_, stop := run(t, m, Options{Grace: 10 * time.Millisecond, Routes: []Route{
		{Role: "outbound", Recipient: "good.example", NextHop: good.nextHop},
		{Role: "outbound", NextHop: hanging(t)},
	}})
	defer stop()
	testbed.Until(t, "all have reached who can be reached", func() bool {
		for i := range 60 {
			if len(good.got(fmt.Sprintf("ana%d@good.example", i))) != 1 {
				return false
			}
		}
		return true
	})
}

// TestForTwoThatAreBusy: mail for two next hops leaves though much waits for each
// of them that came before, and a third has room.
func TestForTwoThatAreBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, by := newBacklog(t), map[string]*peer{}
		for address, takes := range map[string]string{"127.0.0.1:1": "7300ms", "127.0.0.1:2": "11700ms"} {
			by[address] = newPeer(t, hello+eight+strings.Repeat("C: MAIL*\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA\nS: 354 go\nD:\nW: "+takes+"\nS: 250 ok\n", 100))
		}
		var mu sync.Mutex
		var before []int // how many had left when one for both did
		left := 0
		r := b.relay(Options{
			Dial: dialers(by),
			Routes: []Route{
				{Role: "inbound", NextHop: "smtp://127.0.0.1:3"},
				{Role: "outbound", Recipient: "one.example", NextHop: "smtp://127.0.0.1:1"},
				{Role: "outbound", NextHop: "smtp://127.0.0.1:2"},
			},
			Events: func(e Event) {
				mu.Lock()
				defer mu.Unlock()
				if left++; len(e.Delivery.Recipients) == 2 && e.Delivery.State == store.Delivered {
					before = append(before, left)
				}
			},
		})
		b.fill(r, 300, "ana%d@one.example")
		b.fill(r, 300, "ana%d@two.example")
		stop := start(r)
		time.Sleep(time.Minute)
		d := archive(t, b.st, eml, "ben@one.example")
		d.Recipients = append(d.Recipients, store.Recipient{Address: "ben@two.example", State: store.Queued})
		if err := b.st.Update(t.Context(), func(tx store.Tx) error { return tx.Enqueue(d) }); err != nil {
			t.Fatal(err)
		}
		r.Wake()
		time.Sleep(time.Hour)
		stop()
		if counts := b.outbox(); len(counts) > 0 || len(before) != 1 || before[0] > 300 {
			t.Errorf("it left after %d of 600; left in the outbox: %v", before, counts)
		}
		if err := b.st.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestBacklogDrains: a long queue leaves in memory that does not grow with it,
// at a pace that does not fall, with several deliveries to a commit; a restart
// in the middle goes on at once, and nothing comes twice.
func TestBacklogDrains(t *testing.T) {
	n, many := backlogSize(t)
	b, s := newBacklog(t), newSink(t, "smtp", nil)
	s.keep = false
	arrived := map[string]int{}
	s.rcpt = func(to string) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		arrived[to]++
		return nil
	}
	var settled atomic.Int64
	var quarters [5]time.Time
	half, all := make(chan struct{}), make(chan struct{})
	o := Options{Routes: []Route{{Role: "outbound", NextHop: s.nextHop}}, Events: func(e Event) {
		k := settled.Add(1)
		if k%int64(n/4) == 0 {
			quarters[k/int64(n/4)] = time.Now()
		}
		switch k {
		case int64(n / 2):
			close(half)
		case int64(n):
			close(all)
		}
	}}
	r := b.relay(o)
	b.fill(r, n, "ana%d@x.example")
	b.commits.Store(0)
	quarters[0] = time.Now()
	stop := start(r)
	<-half
	stop()
	if err := b.st.Close(); err != nil {
		t.Fatal(err)
	}
	before, began := settled.Load(), time.Now()
	b.open()
	r = b.relay(o)
	stop = start(r)
	testbed.Until(t, "the first after the restart has left", func() bool { return settled.Load() > before })
	resumed := time.Since(began)
	<-all
	stop()
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	first, last := quarters[1].Sub(quarters[0]), quarters[4].Sub(quarters[3])
	t.Logf("%d deliveries: first quarter %v, last %v; resumed in %v; %d commits; heap %d MiB",
		n, first, last, resumed, b.commits.Load(), m.HeapInuse>>20)
	if resumed > 5*time.Second {
		t.Errorf("it took %v to go on", resumed)
	}
	if counts := b.outbox(); len(counts) > 0 || len(arrived) != n {
		t.Errorf("%d arrived, left %v", len(arrived), counts)
	}
	for to, times := range arrived {
		if times != 1 {
			t.Errorf("%s: %d times", to, times)
		}
	}
	if got := b.commits.Load(); got > int64(n)/2 { // by themselves they would take three each
		t.Errorf("%d commits for %d deliveries", got, n)
	}
	if many && last > 3*first {
		t.Errorf("the pace fell: %v, then %v", first, last)
	}
}
