package relay

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/storetest"
)

// fickle is a next hop that answers anything, takes its time, and hangs up.
type fickle struct {
	mu     sync.Mutex
	random *rand.Rand
	taken  map[string]int  // copies, by recipient
	dared  map[string]bool // recipients it refused for good
}

// luck is true in so many cases of a hundred.
func (f *fickle) luck(percent int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.random.IntN(100) < percent
}

func (f *fickle) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if f.luck(10) {
		return nil, errors.New("connection refused")
	}
	ours, theirs := net.Pipe()
	go f.serve(theirs)
	return ours, nil
}

func (f *fickle) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	say := func(reply string) { io.WriteString(c, reply+"\r\n") }
	var to []string
	say("220 hop.example")
	for {
		line, err := r.ReadString('\n')
		if err != nil || f.luck(2) {
			return
		}
		switch line = strings.TrimSpace(line); strings.ToUpper(line[:min(4, len(line))]) {
		case "EHLO":
			say("250-hop.example\r\n250 8BITMIME")
		case "MAIL":
			if to = nil; f.luck(5) {
				say("451 4.3.2 not now")
				continue
			}
			say("250 2.1.0 ok")
		case "RCPT":
			address := line[strings.Index(line, "<")+1 : strings.Index(line, ">")]
			switch {
			case f.luck(15):
				say("450 4.2.1 later")
			case f.luck(10):
				f.mu.Lock()
				f.dared[address] = true
				f.mu.Unlock()
				say("550 5.1.1 nobody")
			default:
				to = append(to, address)
				say("250 2.1.5 ok")
			}
		case "DATA":
			if len(to) == 0 {
				say("554 5.5.1 for whom?")
				continue
			}
			say("354 go on")
			for line != "." {
				if line, err = r.ReadString('\n'); err != nil {
					return
				}
				line = strings.TrimRight(line, "\r\n")
			}
			if f.luck(50) {
				time.Sleep(20 * time.Second)
			}
			switch {
			case f.luck(10):
				say("451 4.3.0 later")
			case f.luck(10):
				return
			default:
				f.mu.Lock()
				for _, address := range to {
					f.taken[address]++
				}
				f.mu.Unlock()
				if f.luck(15) {
					return // and never says so
				}
				say("250 2.0.0 taken")
			}
		default:
			say("250 2.0.0 ok")
		}
	}
}

// clerk does to deliveries what the commands of the outbox do, and remembers what
// excuses an end without a report, or a second one.
type clerk struct {
	acts    store.Store
	random  *rand.Rand
	quiet   map[store.ID]bool // dropped, and nobody was to be told
	revived map[store.ID]int  // tried again after it had failed
}

func (k *clerk) act(id store.ID) error {
	what, at := k.random.IntN(5), time.Now()
	return k.acts.Update(context.Background(), func(tx store.Tx) error {
		d, err := tx.Delivery(id)
		if err != nil {
			return err
		}
		switch {
		case what == 0 && d.State == store.Queued:
			d.State, d.Reason = store.Held, "held by kim"
		case what == 1 && d.State == store.Held:
			d.State, d.Reason, d.Due, d.Since = store.Queued, "", at, at
		case what == 2 && d.State == store.Queued && d.Dropped == "":
			d.Due = at
		case what == 2 && d.State == store.Failed:
			k.revived[id]++
			d.State, d.Due, d.Since, d.Reason, d.Dropped = store.Queued, at, at, "", ""
			for i := range d.Recipients {
				if d.Recipients[i].State == store.Failed {
					d.Recipients[i].State = store.Queued
				}
			}
		case what == 3 && d.Dropped == "" && (d.State == store.Queued || d.State == store.Held) && k.random.IntN(3) == 0:
			k.quiet[id] = true
			d.State, d.Reason = store.Failed, "dropped by kim"
			for _, i := range open(&d) {
				d.Recipients[i].State, d.Recipients[i].Reply = store.Failed, "5.0.0 dropped by kim"
			}
		case what == 4 && d.Dropped == "" && (d.State == store.Queued || d.State == store.Held) && k.random.IntN(3) == 0:
			d.State, d.Due, d.Dropped, d.Lane = store.Queued, at, "wrong file", ""
		default:
			return nil
		}
		return tx.Enqueue(d)
	})
}

// TestAnythingAtAnyMoment: a next hop that answers anything, a store that fails,
// before the work or after it, and a person who acts on deliveries meanwhile.
// What comes of it must be true all the same.
func TestAnythingAtAnyMoment(t *testing.T) {
	for seed := range uint64(24) {
		inVirtualTime(t, func(b *bed) { anything(b, seed) })
	}
}

func anything(b *bed, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 7))
	hop := &fickle{random: rand.New(rand.NewPCG(seed, 8)), taken: map[string]int{}, dared: map[string]bool{}}
	faulty := storetest.NewFaulty(b.st)
	b.opts.Dial, b.opts.Concurrency = hop.dial, 5
	b.opts.Routes = []Route{{Role: "outbound", Sender: "<>", NextHop: None}, {Role: "outbound", NextHop: "smtp://10.0.0.1"}}
	var ids []store.ID
	for n := range 8 {
		var to []string
		for i := range 1 + random.IntN(3) {
			to = append(to, fmt.Sprintf("r%d.%d@x.example", n, i))
		}
		ids = append(ids, b.send(eml, nil, to...).ID)
	}
	r, err := New(faulty, b.opts)
	if err != nil {
		b.Fatal(err)
	}
	stop := start(r)
	kim := &clerk{acts: r.Acts(), random: random, quiet: map[store.ID]bool{}, revived: map[store.ID]int{}}
	for range 120 {
		time.Sleep(time.Duration(random.ExpFloat64() * float64(5*time.Minute)))
		switch random.IntN(3) {
		case 0:
			op := []storetest.Op{storetest.OpSettle, storetest.OpUpdate, storetest.OpClaim, storetest.OpView}[random.IntN(4)]
			faulty.Inject(storetest.Fault{Op: op, Skip: random.IntN(3), Lost: random.IntN(2) == 0})
		case 1: // an attempt may be under way in the next seconds
			r.Wake()
			time.Sleep(time.Duration(random.IntN(40)) * time.Second)
			fallthrough
		default:
			if err := kim.act(ids[random.IntN(len(ids))]); err != nil && !errors.Is(err, store.ErrUnavailable) {
				b.Fatal(err)
			}
		}
	}
	time.Sleep(8 * 24 * time.Hour)
	stop()
	for _, id := range ids {
		b.settledRightly(seed, b.delivery(id), hop, kim)
	}
	if due, ok, _ := b.st.NextDue(b.Context(), nil); ok {
		b.Errorf("seed %d: something is due or leased: %s", seed, due)
	}
}

// settledRightly compares a row with what the next hop knows, and with what its
// sender and its message were told.
func (b *bed) settledRightly(seed uint64, d store.Delivery, hop *fickle, kim *clerk) {
	wrong := func(format string, args ...any) {
		b.Errorf("seed %d, %s: %s\n%+v", seed, d.ID, fmt.Sprintf(format, args...), d)
	}
	if d.State == store.Queued {
		wrong("still queued")
	}
	ambiguous := slices.ContainsFunc(d.Attempts, func(a store.Attempt) bool { return a.Ambiguous })
	for i, a := range d.Attempts {
		if i > 0 && !a.At.After(d.Attempts[i-1].At) && a.NextHop != "" {
			wrong("attempts %d and %d are one", i-1, i)
		}
	}
	told := map[string]int{}
	for _, e := range b.message(d.Message).Events {
		if e.Action == "failed" {
			told[e.Recipient]++
		}
	}
	for _, to := range d.Recipients {
		copies, reports := hop.taken[to.Address], told[to.Address]
		switch {
		case to.State == store.Delivered && copies == 0:
			wrong("%s never got it", to.Address)
		case copies > 1 && !ambiguous, copies > 0 && to.State != store.Delivered && !ambiguous:
			wrong("%s got it %d times, and nothing says that this may be", to.Address, copies)
		case reports > 1+kim.revived[d.ID]:
			wrong("the failure for %s was told %d times", to.Address, reports)
		case to.State == store.Failed && d.Dropped == "" && !kim.quiet[d.ID] && reports == 0:
			wrong("the failure for %s was never told", to.Address)
		}
	}
}
