package relay

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Back-off of a next hop that no session can be opened with: in memory, and
// short, for it only keeps us from hammering. When a delivery is tried again
// is the retry table's business.
const (
	firstBackOff = 10 * time.Second
	lastBackOff  = 5 * time.Minute
)

// hopSettings are what the routes say of a next hop.
type hopSettings struct {
	endpoint
	*security
	xforward bool
	limit    int     // connections at once
	rate     float64 // messages a second; 0: as many as there are
}

// key tells two next hops apart: what one may, or knows, is not for the other.
func (s hopSettings) key() string {
	return fmt.Sprintf("%s %t %d %g %s", s.name, s.xforward, s.limit, s.rate, s.security.key)
}

// hop is one next hop: its connections, and whether it can be reached.
type hop struct {
	hopSettings
	r     *Relay
	lane  string        // where deliveries wait for it (store.Delivery.Lane)
	slots chan struct{} // one token for each connection in use
	probe chan struct{} // held by the one who tries a hop that was down
	quits sync.WaitGroup
	used  context.Context // ends when no route leads here any more
	end   context.CancelFunc

	mu     sync.Mutex
	idle   []*conn // the longest unused first
	reaper *time.Timer
	closed bool

	fails        int // in a row
	since, until time.Time
	why          error

	oneByOne bool // it offers PIPELINING and doesn't mean it

	load   int       // deliveries claimed for it
	mixed  int       // those of them that are for other next hops too
	share  int       // how many there may be
	full   bool      // it had its share, and hasn't done with enough of it
	asked  bool      // there was no room for more
	turnAt time.Time // when the rate lets the next message go

	further [][]*hop // those behind it, for each route that it is the first of
}

func newHop(r *Relay, s hopSettings) *hop {
	h := &hop{hopSettings: s, r: r, lane: s.key(), slots: make(chan struct{}, s.limit), probe: make(chan struct{}, 1)}
	h.used, h.end = context.WithCancel(context.Background())
	return h
}

// longestTurn is how long a delivery waits for its turn where the rate is
// bounded; past it, it goes back for so long.
const longestTurn = 10 * time.Second

// pass waits for a message's turn. wait is set if that would take too long.
func (h *hop) pass(ctx context.Context) (wait time.Duration, err error) {
	if h.rate == 0 {
		return 0, nil
	}
	h.mu.Lock()
	now := time.Now()
	if h.turnAt.Before(now) {
		h.turnAt = now
	}
	if wait = h.turnAt.Sub(now); wait > longestTurn {
		h.mu.Unlock()
		return wait, nil
	}
	h.turnAt = h.turnAt.Add(time.Duration(float64(time.Second) / h.rate))
	h.mu.Unlock()
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return 0, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// acquire waits for the right to use a connection.
func (h *hop) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *hop) release() { <-h.slots }

// take returns an unused session that is still quiet, or opens one.
func (h *hop) take(ctx context.Context) (c *conn, reused bool, err error) {
	for c := h.unused(); c != nil; c = h.unused() {
		if c.rouse() {
			return c, true, nil
		}
		c.Close()
	}
	c, err = h.dial(ctx)
	return c, false, err
}

// unused takes the session that was used last; nil if there is none.
func (h *hop) unused() (c *conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.idle); n > 0 {
		c, h.idle = h.idle[n-1], h.idle[:n-1]
	}
	return c
}

// dial opens a session, unless the hop is known to be down.
func (h *hop) dial(ctx context.Context) (*conn, error) {
	done, err := h.turn(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	c, err := h.r.connect(ctx, h)
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	h.note(err)
	if err == nil {
		h.mu.Lock()
		c.ext.pipelining = c.ext.pipelining && !h.oneByOne
		h.mu.Unlock()
	}
	return c, err
}

// slowDown has commands said one by one from now on: something before the next
// hop, a firewall most likely, drops what comes at once.
func (h *hop) slowDown() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.oneByOne {
		h.oneByOne = true
		h.r.opts.Logger.Warn("next hop offers PIPELINING but answers only the first of several commands: they are said one by one now", "next_hop", h.name)
	}
}

// turn waits for the leave to connect. While the hop fails, only one at a time
// finds out whether it still does.
func (h *hop) turn(ctx context.Context) (done func(), err error) {
	if failing, err := h.state(); !failing || err != nil {
		return func() {}, err
	}
	select {
	case h.probe <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	done = func() { <-h.probe }
	failing, err := h.state()
	if !failing || err != nil {
		done()
		done = func() {}
	}
	return done, err
}

// state reports whether the last try to connect failed; with an error while it
// is too early for another.
func (h *hop) state() (failing bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fails > 0 && h.r.now().Before(h.until) {
		err = fmt.Errorf("the next hop is down since %s (%w), not tried before %s",
			h.since.UTC().Format(time.RFC3339), h.why, h.until.UTC().Format(time.RFC3339))
	}
	return h.fails > 0, err
}

// note draws the conclusion from a try to connect.
func (h *hop) note(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		if !h.since.IsZero() {
			h.r.opts.Logger.Info("next hop is up again", "next_hop", h.name, "down_since", h.since)
		}
		h.fails, h.since = 0, time.Time{}
		return
	}
	now := h.r.now()
	if h.fails > 0 && now.Before(h.until) {
		return // others failed with us: that counts once
	}
	if h.fails == 0 {
		h.since = now
	}
	h.why = err
	h.until = now.Add(min(firstBackOff<<min(h.fails, 10), lastBackOff))
	h.fails++
	h.r.opts.Logger.Warn("next hop is down", "next_hop", h.name, "error", err, "until", h.until)
}

// give takes a session back, for reuse if it is fit for it.
func (h *hop) give(c *conn, broken bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if broken || h.closed {
		c.Close()
		return
	}
	if c.messages >= h.r.opts.PerConnection {
		h.leave(c)
		return
	}
	c.rest()
	h.idle = append(h.idle, c)
	if h.reaper == nil {
		h.reaper = time.AfterFunc(h.r.opts.Idle, h.reap)
	}
}

// leave ends a session behind our back. h.mu is held and h not closed.
func (h *hop) leave(c *conn) { h.quits.Go(c.quit) }

// reap ends the sessions that lay unused for long enough.
func (h *hop) reap() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reaper = nil
	if h.closed {
		return
	}
	old := time.Now().Add(-h.r.opts.Idle)
	n := 0
	for n < len(h.idle) && !h.idle[n].idle.After(old) {
		h.leave(h.idle[n])
		n++
	}
	if h.idle = slices.Delete(h.idle, 0, n); len(h.idle) > 0 {
		h.reaper = time.AfterFunc(h.idle[0].idle.Sub(old), h.reap)
	}
}

// close ends all unused sessions and keeps none from now on. Who waits for one
// goes back.
func (h *hop) close() {
	h.end()
	h.mu.Lock()
	for _, c := range h.idle {
		h.leave(c)
	}
	h.idle, h.closed = nil, true
	if h.reaper != nil {
		h.reaper.Stop()
	}
	h.mu.Unlock()
	h.quits.Wait()
}

// room is how many more deliveries may be claimed for the hop, of its share of
// all. Where that is none because of the rate, turn is how long; else negative.
func (h *hop) room(share int) (n int, turn time.Duration) {
	w := h.way()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.share = share
	if n, turn = h.free(w); n <= 0 {
		h.asked = true
	}
	return max(0, n), turn
}

// way is how what waits for a hop leaves now: by the hop itself, or by the one
// that stands in for it.
type way struct {
	none   bool      // it is only put off
	rate   float64   // messages a second, and when the next may go
	turnAt time.Time // as in hop
}

// way: a hop that is down has one standing in if all the routes that begin with
// it lead on to one that isn't, for the lane is the same for all of them; the
// slowest counts. No lock is held, for two hops may be behind each other.
func (h *hop) way() way {
	w, further := h.pace()
	if !w.none || len(further) == 0 {
		return w
	}
	least := way{}
	for _, hops := range further {
		up := way{none: true}
		for i := 0; i < len(hops) && up.none; i++ {
			up, _ = hops[i].pace()
		}
		if up.none {
			return w
		}
		if least.rate == 0 || up.rate > 0 && up.rate < least.rate {
			least = up
		}
	}
	return least
}

// pace is the way by the hop itself, and what is behind it.
func (h *hop) pace() (w way, further [][]*hop) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return way{h.fails > 0 && h.r.now().Before(h.until), h.rate, h.turnAt}, h.further
}

// lead says what is behind a hop.
func (h *hop) lead(further [][]*hop) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.further = further
}

// most is how many deliveries there may be by what waits in the lane: few where
// they are only put off, for the commits that this takes keep others waiting. A
// little of the share is left to mail for several next hops, which waits in no
// lane and would hardly ever meet a free place.
func (h *hop) most(w way) int {
	if w.none {
		return max(1, h.share/8)
	}
	return h.share - (h.share+4)/8
}

// free: once full, the hop is so until a quarter of its load is done with, so
// that a claim is worth its commit. No more is claimed than the rate lets go.
func (h *hop) free(w way) (n int, turn time.Duration) {
	n, turn = h.most(w)-h.load, -1
	if h.full = h.full || n <= 0; h.full {
		return 0, -1
	}
	if w.rate == 0 {
		return n, turn
	}
	wait := time.Until(w.turnAt)
	if h.load > 0 {
		return min(n, int((longestTurn-max(0, wait)).Seconds()*w.rate)-h.load), turn
	}
	if wait > longestTurn {
		return 0, wait - longestTurn
	}
	return min(n, max(1, int((longestTurn-max(0, wait)).Seconds()*w.rate))), turn
}

// admit counts a delivery in, unless the hop has its share already; of mixed
// ones, which are for other next hops too, half of it: the lane must not wait
// until there are none.
func (h *hop) admit(share int, mixed bool) bool {
	w := h.way()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.share = share; h.load >= share {
		h.full = true
		return false
	}
	if mixed && h.mixed >= max(1, share/2) {
		return false
	}
	if h.load++; mixed {
		h.mixed++
	}
	h.full = h.load >= h.most(w)
	return true
}

// finish counts a delivery out, and tells the dispatcher if that makes room.
func (h *hop) finish(mixed bool) {
	w := h.way()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.load--; mixed {
		h.mixed--
	}
	h.full = h.full && h.load > h.most(w)*3/4
	if n, turn := h.free(w); h.asked && (n > 0 || turn >= 0) {
		h.asked = false
		h.r.Wake()
	}
}
