package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/casegate/casegate/store"
)

// longestSleep bounds the wait for a due delivery: the wall clock may jump,
// timers don't.
const longestSleep = 5 * time.Minute

// mostTrouble bounds the wait for a store that fails: with room again on a full
// disk mail moves within 10 s.
const mostTrouble = 5 * time.Second

// crowded is how long a delivery to several next hops goes back that have no
// room, neither of them.
const crowded = 2 * time.Second

var (
	errStopping = errors.New("casegate is stopping")
	errLease    = errors.New("the attempt took too long")
)

// Relay works the outbox of a store.
type Relay struct {
	st       store.Store
	opts     Options
	swap     sync.Mutex // held while routes are replaced
	routes   atomic.Pointer[table]
	patience atomic.Pointer[Patience]
	blocks   sync.Pool     // of *block
	wake     chan struct{} // something may be due
	freed    chan struct{} // a delivery was finished
	inHand   inHand        // deliveries claimed and not settled
	work     sync.WaitGroup
}

// New makes a Relay; Run starts it. It refuses routes that cannot be meant, or
// whose files cannot be read.
func New(st store.Store, opts Options) (*Relay, error) {
	opts.defaults()
	if err := opts.check(); err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	r := &Relay{
		st: st, opts: opts,
		wake: make(chan struct{}, 1), freed: make(chan struct{}, 1),
	}
	r.blocks.New = func() any { return &block{out: make([]byte, 0, blockSize+blockSize/2)} }
	t, err := r.newTable(opts.Routes, nil)
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	r.routes.Store(t)
	patience := opts.Patience()
	r.patience.Store(&patience)
	return r, nil
}

func (r *Relay) now() time.Time { return r.opts.Now() }

// Wake hints that a delivery may be due: call it after a commit that enqueued
// or released one. It is cheap and never waits.
func (r *Relay) Wake() { signal(r.wake) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run works until ctx ends, then drains: it claims nothing more, puts back
// what has not begun, gives what has Options.Grace to finish, and returns when
// all is settled. Call it once. Without anything due it sleeps until Wake or
// the next due time.
func (r *Relay) Run(ctx context.Context) error {
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	r.dispatch(ctx, work)
	grace := time.AfterFunc(r.opts.Grace, func() {
		r.opts.Logger.Warn("deliveries under way are cut off: a stop waits no longer for them", "deliveries", r.inHand.len(), "waited", r.opts.Grace)
		cancel(errStopping)
	})
	defer grace.Stop()
	r.work.Wait()
	for _, h := range r.routes.Load().hops {
		h.close()
	}
	return nil
}

// dispatch claims what is due and starts it.
func (r *Relay) dispatch(ctx, work context.Context) {
	least, trouble, clock := 1, trouble{log: r.opts.Logger}, clock{now: r.now}
	r.work.Go(func() { r.recall(ctx) })
	for ctx.Err() == nil {
		t := r.routes.Load()
		if clock.back() {
			r.work.Go(func() { r.recall(ctx) })
		}
		free := t.capacity(r.opts.Concurrency) - r.inHand.places()
		if free < least {
			wait(ctx, r.freed, -1)
			continue
		}
		n, sleep, err := r.claim(ctx, work, t, free)
		if err != nil {
			wait(ctx, nil, trouble.met(err))
			continue
		}
		trouble.over()
		least = 1
		if n == 0 {
			wait(ctx, r.wake, sleep)
		} else if n == free {
			// There is more than we can do at once: the next claim, which
			// costs a commit, waits until it is worth it. So much comes free
			// even if all next hops but one hang.
			least = max(1, t.share(r.opts.Concurrency)/2)
		}
	}
}

// trouble is a store that fails: said once, and again when the reason is
// another.
type trouble struct {
	log   *slog.Logger
	said  string
	pause time.Duration
}

// met returns how long to wait before the next look.
func (t *trouble) met(err error) time.Duration {
	if t.said != err.Error() {
		t.said = err.Error()
		t.log.Error("the outbox can't be read: mail waits, and is looked for again every few seconds", "error", err)
	}
	t.pause = min(max(2*t.pause, time.Second), mostTrouble)
	return t.pause
}

func (t *trouble) over() {
	if t.said != "" {
		t.log.Info("the outbox is read again")
	}
	t.said, t.pause = "", 0
}

// claim claims up to n deliveries that their next hops have room for, and starts
// them. If there are none it returns how long that will be so, unless a next hop
// is done with something; negative if the outbox is empty.
func (r *Relay) claim(ctx, work context.Context, t *table, n int) (claimed int, sleep time.Duration, err error) {
	room, turn := t.room(t.share(r.opts.Concurrency))
	before := r.inHand.list()
	ds, err := r.st.Claim(work, r.now(), r.opts.Lease, n, room)
	if r.start(ctx, work, t, ds, before); err != nil || len(ds) > 0 {
		return len(ds), 0, err
	}
	due, ok, err := r.st.NextDue(work, room)
	if err != nil || !ok {
		return 0, turn, err
	}
	sleep = min(due.Sub(r.now()), longestSleep)
	if turn >= 0 {
		sleep = min(sleep, turn)
	}
	return 0, max(sleep, 10*time.Millisecond), nil // what is due and not handed out must not spin us
}

// wait returns on a signal, after d unless it is negative, or when ctx ends.
func wait(ctx context.Context, signal <-chan struct{}, d time.Duration) {
	var after <-chan time.Time
	if d >= 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		after = t.C
	}
	select {
	case <-signal:
	case <-after:
	case <-ctx.Done():
	}
}

// start begins the deliveries just claimed. One whose next hop has its share
// of us already is put back, into the lane of that hop: a slow destination must
// not block the others, however much waits for it. before is what was in hand
// before the claim.
func (r *Relay) start(ctx, work context.Context, t *table, claimed []store.Delivery, before map[store.ID]*held) {
	begun, share := time.Now(), t.share(r.opts.Concurrency)
	var back []*job
	for _, d := range claimed {
		j := t.plan(d, begun.Add(r.opts.Lease))
		busy := before[d.ID]
		if busy == nil {
			busy = r.inHand.take(d.ID)
		}
		if busy != nil {
			// Its lease ended, for the clock jumped or the outcome could not be
			// stored; or somebody made it due just when an attempt had been
			// stored. What was claimed may be out of date by now: it goes back.
			if turn, first := r.inHand.await(j); first {
				r.work.Go(func() {
					<-turn
					j.untouched(r.now())
					r.putBack(work, j)
				})
			}
			continue
		}
		if !j.admit(share) {
			if j.untouched(r.now()); r.Lane(&j.d) == "" {
				j.back = r.now().Add(crowded)
			}
			back = append(back, j)
			continue
		}
		r.work.Go(func() { r.deliver(ctx, work, j) })
	}
	if len(back) > 0 {
		r.work.Go(func() { r.putBack(work, back...) })
	}
}

// putBack stores that jobs go back, together; or each by itself, if one of them
// keeps the others from it.
func (r *Relay) putBack(work context.Context, back ...*job) {
	if !r.settle(work, back...) && len(back) > 1 {
		for _, j := range back {
			r.work.Go(func() { r.putBack(work, j) })
		}
		return
	}
	r.free(back...)
	r.Wake()
}

// free tells the dispatcher that deliveries are done with.
func (r *Relay) free(jobs ...*job) {
	for _, j := range jobs {
		r.inHand.drop(j.d.ID)
	}
	signal(r.freed)
}

// mostAside is how many deliveries are kept aside at most; past that, one whose
// outcome can't be stored keeps its place.
const mostAside = 100

// inHand is which deliveries this process is working on, and so doesn't begin
// once more.
type inHand struct {
	mu    sync.Mutex
	ids   map[store.ID]*held
	aside int
}

// held is a delivery in hand.
type held struct {
	done   chan struct{} // closed when that is over
	aside  bool          // it takes no place
	waiter *job          // what was claimed meanwhile: it has the delivery next
}

// take is nil, or what is in hand already.
func (h *inHand) take(id store.ID) (busy *held) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if busy := h.ids[id]; busy != nil {
		return busy
	}
	if h.ids == nil {
		h.ids = map[store.ID]*held{}
	}
	h.ids[id] = &held{done: make(chan struct{})}
	return nil
}

// await makes a job that was claimed while its delivery was in hand the next to
// have it, when turn is closed: nobody else may begin between. One is enough,
// however often the lease ends, so it is the first or forgotten: settling that one
// ends the last lease too.
func (h *inHand) await(j *job) (turn <-chan struct{}, first bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	busy := h.ids[j.d.ID]
	if busy == nil { // it is over by now
		busy = &held{done: make(chan struct{}), waiter: j}
		h.ids[j.d.ID] = busy
		h.pass(j.d.ID)
		return busy.done, true
	}
	if busy.waiter != nil {
		busy.waiter.d.Interrupted = busy.waiter.d.Interrupted || j.d.Interrupted
		return nil, false
	}
	busy.waiter = j
	return busy.done, true
}

// pass ends what is in hand, and lets who waits for that have it. h.mu is held.
func (h *inHand) pass(id store.ID) {
	was := h.ids[id]
	close(was.done)
	if was.aside {
		h.aside--
	}
	if delete(h.ids, id); was.waiter != nil {
		h.ids[id] = &held{done: make(chan struct{})}
	}
}

// setAside keeps a delivery in hand without a place; false if it is not in hand,
// is aside, or too many are.
func (h *inHand) setAside(id store.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.ids[id]
	if d == nil || d.aside || h.aside >= mostAside {
		return false
	}
	h.aside++
	d.aside = true
	return true
}

func (h *inHand) drop(id store.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pass(id)
}

// list is what is in hand now.
func (h *inHand) list() map[store.ID]*held {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.ids)
}

func (h *inHand) len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ids)
}

// places is how many of what may be claimed at a time are taken.
func (h *inHand) places() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ids) - h.aside
}
