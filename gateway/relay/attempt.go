package relay

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/casegate/casegate/store"
)

// fault is the reply of an attempt that struck a fault of ours; after three
// the delivery is held.
const fault = "4.3.0 not sent: an internal fault, see the log"

// job is a claimed delivery, where it goes, and what came of it.
type job struct {
	d      store.Delivery
	lease  time.Time // its end, by time.Now
	open   []int     // recipients to be served
	groups []group
	astray []int // recipients for whom no route leads on
	begun  time.Time

	before  int                   // attempts made by earlier jobs
	made    []store.Attempt       // to be recorded
	last    map[int]store.Attempt // those of them that were the last for a recipient
	tried   bool                  // else it goes back as it is
	mixed   bool                  // for several next hops
	full    bool                  // some of the recipients found no room at their next hop
	back    time.Time             // when to come again, of one that goes back; zero: as before
	stuck   []int                 // recipients for whom trying again is no use before somebody acts
	relayed []int                 // recipients delivered to who tells nobody of it (RFC 3461 §5.2.2)
	report  store.ID              // the report that was written
}

// group is the recipients of a delivery that go the same way.
type group struct {
	hops []*hop // tried in this order
	rcpt []int  // indices in Delivery.Recipients
}

// plan finds the route of each recipient that is still to be served.
func (t *table) plan(d store.Delivery, lease time.Time) *job {
	j := &job{d: d, lease: lease, open: open(&d), before: len(d.Attempts), begun: time.Now(), last: map[int]store.Attempt{}}
	if d.Dropped != "" {
		return j // it goes nowhere
	}
	for _, i := range j.open {
		to := &d.Recipients[i]
		rt, ok := t.find(d.Role, d.From, to.Address, d.Mailbox)
		if !ok || len(rt.hops) == 0 {
			j.astray = append(j.astray, i)
			continue
		}
		k := slices.IndexFunc(j.groups, func(g group) bool { return slices.Equal(g.hops, rt.hops) })
		if k < 0 {
			k, j.groups = len(j.groups), append(j.groups, group{hops: rt.hops})
		}
		j.groups[k].rcpt = append(j.groups[k].rcpt, i)
	}
	return j
}

// admit keeps the groups that their next hops have room for; false if that is
// none, though there are some.
func (j *job) admit(share int) bool {
	all := j.groups
	j.groups, j.mixed = nil, len(all) > 1
	for _, g := range all {
		if g.hops[0].admit(share, j.mixed) {
			j.groups = append(j.groups, g)
		} else {
			j.full = true
		}
	}
	return len(j.groups) > 0 || len(all) == 0
}

// deliver makes one attempt and settles it.
func (r *Relay) deliver(ctx, work context.Context, j *job) {
	defer r.free(j)
	// A claim must not outlive its lease: somebody else may have the delivery
	// then. One that waited too long for its turn goes back.
	margin := r.opts.Lease / 20
	attempt, cancel := context.WithDeadlineCause(work, j.lease.Add(-margin), errLease)
	defer cancel()
	if j.d.Dropped != "" {
		j.untouched(r.now())
	} else {
		j.made = r.attempt(ctx, attempt, j)
	}
	if j.tried = len(j.made) > 0 || len(j.open) == 0 || j.d.Dropped != ""; !j.tried {
		j.untouched(r.now())
	}
	settled := r.settle(work, j)
	if settled && j.tried {
		r.tell(j)
	}
	if !settled || j.d.State == store.Queued || j.report != (store.ID{}) {
		r.Wake() // NextDue has changed
	}
}

// attempt tries every open recipient once and returns what is to be recorded;
// nothing if it did not begin. The groups are tried at the same time: a next
// hop that hangs must not keep a message from another's recipients.
func (r *Relay) attempt(ctx, work context.Context, j *job) (made []store.Attempt) {
	at, tried := r.now(), make([]trial, len(j.groups))
	var others sync.WaitGroup
	for i, g := range j.groups {
		try := func() {
			defer g.hops[0].finish(j.mixed)
			tried[i] = r.try(ctx, work, j, g)
		}
		if i == len(j.groups)-1 {
			try()
		} else {
			others.Go(try)
		}
	}
	others.Wait()
	for i, t := range tried {
		for _, v := range t.visits {
			made = append(made, j.note(v, j.groups[i], at))
		}
		if t.back.After(j.back) {
			j.back = t.back
		}
	}
	if len(j.astray) > 0 && (len(made) > 0 || len(j.groups) == 0) {
		made = append(made, j.strand(at))
	}
	if len(made) > 0 && j.d.Interrupted {
		made[0].Ambiguous, j.d.Interrupted = true, false
	}
	return made
}

// visit is what came of a group at one next hop.
type visit struct {
	h        *hop
	begun    time.Time
	verdicts []verdict
}

// elsewhere reports whether the next hop was not asked to take the mail for
// anyone, and so another may be.
func (v visit) elsewhere() bool {
	for _, to := range v.verdicts {
		if to.unreached {
			return true
		}
		if !to.unfit {
			return false
		}
	}
	return true
}

// trial is what came of a group: nothing if there was no room, or no time.
type trial struct {
	visits []visit
	back   time.Time // when its turn comes, if that takes long
}

// try tries the recipients of a group at the first of its next hops that a
// session can be opened with, and that offers what the message needs.
func (r *Relay) try(ctx, work context.Context, j *job, g group) (t trial) {
	for _, h := range g.hops {
		v, wait, ok := r.visit(ctx, work, j, h, g)
		if !ok {
			if wait > 0 {
				t.back = r.now().Add(wait)
			}
			return t
		}
		t.visits = append(t.visits, v)
		if !v.elsewhere() {
			break
		}
	}
	return t
}

// visit tries a group at one next hop, when there is room for it. It says how
// long its turn takes to come, if that is too long to wait for. Who waits for a
// next hop that no route leads to any more goes back, as when stopping.
func (r *Relay) visit(ctx, work context.Context, j *job, h *hop, g group) (v visit, wait time.Duration, begun bool) {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	defer context.AfterFunc(h.used, leave)()
	if _, err := h.state(); err == nil { // one that is down needs no turn
		if wait, err := h.pass(ctx); err != nil || wait > 0 {
			return v, wait, false
		}
	}
	if h.acquire(ctx) != nil {
		return v, 0, false
	}
	defer h.release()
	if time.Until(j.lease) < r.opts.Lease/2 {
		return v, 0, false
	}
	v = visit{h: h, begun: time.Now()}
	reach, cancel := context.WithCancelCause(work)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { cancel(errStopping) })()
	v.verdicts = r.hand(reach, work, &j.d, h, g)
	// Nobody waits for a session to open then.
	stopped := errors.Is(context.Cause(reach), errStopping) && !slices.ContainsFunc(v.verdicts, func(v verdict) bool { return !v.unreached })
	return v, 0, !stopped
}

// untouched prepares a delivery to go back without an attempt. What is known
// of an earlier one that never ended must not get lost: Settle does not keep
// Interrupted.
func (j *job) untouched(at time.Time) {
	if j.d.Interrupted {
		j.made = []store.Attempt{{
			At: at, Result: "deferred", Ambiguous: true,
			Reply: "4.4.2 an attempt was interrupted, it may have been taken",
		}}
	}
}

// hand hands the message to a next hop for the recipients of a group, in as
// many transactions as it takes, and returns a verdict on each. While reach
// lasts sessions are opened.
func (r *Relay) hand(reach, ctx context.Context, d *store.Delivery, h *hop, g group) (verdicts []verdict) {
	defer func() {
		if p := recover(); p != nil {
			r.opts.Logger.Error("panic in a delivery", "delivery", d.ID, "message", d.Message, "panic", p, "stack", string(debug.Stack()))
			verdicts = all(len(g.rcpt), faultVerdict(d))
		}
	}()
	if _, err := h.state(); err != nil {
		return all(len(g.rcpt), unreached(err))
	}
	l, err := r.letter(ctx, d)
	if err != nil {
		return setAside(d, all(len(g.rcpt), sourceVerdict(err)))
	}
	verdicts = make([]verdict, len(g.rcpt))
	rest := make([]int, len(g.rcpt))
	for k := range rest {
		rest[k] = k
	}
	for len(rest) > 0 {
		part := rest[:min(len(rest), r.opts.PerTransaction)]
		rest = rest[len(part):]
		again := g.collect(verdicts, part, r.transact(reach, ctx, h, g.envelope(d, part), l))
		rest = append(again, rest...)
	}
	return setAside(d, verdicts)
}

// envelope is that of one transaction for part of a group.
func (g group) envelope(d *store.Delivery, part []int) *envelope {
	e := &envelope{from: d.From, ret: d.RET, envid: d.EnvID, utf8: d.SMTPUTF8}
	for _, k := range part {
		e.to = append(e.to, d.Recipients[g.rcpt[k]])
	}
	return e
}

// collect files the verdicts on part. It returns those that there was no room
// for, if the transaction did bring others there: they go again at once, in
// one of their own (RFC 5321 §4.5.3.1.10).
func (g group) collect(verdicts []verdict, part []int, got []verdict) (again []int) {
	moved := false
	for n, k := range part {
		verdicts[k] = got[n]
		moved = moved || got[n].state == store.Delivered
		if got[n].again {
			again = append(again, k)
		}
	}
	if !moved {
		return nil
	}
	return again
}

// transact runs one transaction, over an unused session if there is one. If
// that had been ended by the other side meanwhile, a fresh one takes its place.
func (r *Relay) transact(reach, ctx context.Context, h *hop, env *envelope, l *letter) []verdict {
	src, err := l.source(ctx)
	if err != nil {
		return all(len(env.to), sourceVerdict(err))
	}
	defer src.close()
	c, reused, err := h.take(reach)
	if err != nil {
		return all(len(env.to), unreached(err))
	}
	sound := false // a panic must not leave a session in the middle of something
	defer func() {
		if !sound {
			c.Close()
		}
	}()
	t := c.send(ctx, env, l, src)
	if reused && t.stale() {
		c.Close()
		fresh, err := h.dial(reach)
		if err != nil {
			return all(len(env.to), unreached(err))
		}
		c = fresh
		t = c.send(ctx, env, l, src)
	}
	sound = true
	if t.deaf {
		h.slowDown()
	}
	for i := range t.to {
		t.to[i].tls = c.tls
	}
	h.give(c, t.broken)
	return t.to
}

func all(n int, v verdict) []verdict {
	vs := make([]verdict, n)
	for i := range vs {
		vs[i] = v
	}
	return vs
}

func unreached(err error) verdict {
	return verdict{state: store.Queued, reply: whyUnreached(err) + " " + clean([]byte(err.Error())), unreached: true}
}

// whyUnreached is the status of a session that could not be opened (RFC 3463
// §3.5, §3.8): 4.7 is for who answers and does not do what a route asks of him.
func whyUnreached(err error) string {
	switch {
	case errors.As(err, new(without)):
		return "4.7.4" // security features not supported
	case errors.Is(err, errTLS):
		return "4.7.5" // cryptographic failure
	case errors.Is(err, errSignIn):
		return "4.7.0"
	}
	return "4.4.1" // no answer from host
}

// faultVerdict is for an attempt that panicked, we don't know where.
func faultVerdict(d *store.Delivery) verdict {
	v := verdict{state: store.Queued, reply: fault, ambiguous: true}
	if tries(d, func(reply string) bool { return reply == fault }) >= mostFaults-1 {
		v.state = store.Held
	}
	return v
}

// mostFaults is after how many tries with a fault of ours a delivery is set
// aside: the fault may be in the message.
const mostFaults = 3

// setAside holds a message that could not be read in three attempts.
func setAside(d *store.Delivery, verdicts []verdict) []verdict {
	before := -1
	for i, v := range verdicts {
		if !v.unreadable {
			continue
		}
		if before < 0 {
			before = tries(d, func(reply string) bool { return reply != fault && strings.HasPrefix(reply, notSent) })
		}
		if before >= mostFaults-1 {
			verdicts[i].state = store.Held
		}
	}
	return verdicts
}

// tries counts the attempts that ended so, since somebody looked last; those at
// one time are one.
func tries(d *store.Delivery, so func(reply string) bool) (n int) {
	var last time.Time
	for _, a := range d.Attempts {
		if !a.At.Before(d.Since) && so(a.Reply) && !a.At.Equal(last) {
			n, last = n+1, a.At
		}
	}
	return n
}

// note enters the verdicts on a group into the delivery.
func (j *job) note(at visit, g group, when time.Time) store.Attempt {
	a := store.Attempt{At: when, NextHop: at.h.name}
	j.begun = at.begun
	for k, i := range g.rcpt {
		v, to := at.verdicts[k], &j.d.Recipients[i]
		a.Ambiguous = a.Ambiguous || v.ambiguous
		if v.tls != nil {
			a.TLS = v.tls
		}
		to.State, to.Reply = v.state, v.reply
		if v.relayed && v.state == store.Delivered {
			j.relayed = append(j.relayed, i)
		}
		if v.state == store.Held {
			to.State = store.Queued
			j.stuck = append(j.stuck, i)
		}
	}
	a.Result, a.Reply = sum(at.verdicts)
	for _, i := range g.rcpt {
		j.last[i] = a
	}
	return a
}

// sum puts the verdicts of an attempt into one word and one reply: of what is
// left to do if anything is, then of what failed. What the next hop said of a
// single recipient stays with that recipient; here are only its codes.
func sum(verdicts []verdict) (result, reply string) {
	rank := map[store.DeliveryState]int{store.Delivered: 0, store.Failed: 1, store.Queued: 2, store.Held: 2}
	worst := slices.MaxFunc(verdicts, func(a, b verdict) int { return rank[a.state] - rank[b.state] })
	n := 0
	for _, v := range verdicts {
		if rank[v.state] == rank[worst.state] {
			n++
		}
	}
	result = []string{"delivered", "failed", "deferred"}[rank[worst.state]]
	if worst.own {
		return result, fmt.Sprintf("%s (%d of %d recipients)", status(worst.reply), n, len(verdicts))
	}
	return result, worst.reply
}

// strand notes the recipients that no route leads to.
func (j *job) strand(at time.Time) store.Attempt {
	const why = "4.4.4 no route leads to a next hop, held until somebody releases it"
	for _, i := range j.astray {
		j.d.Recipients[i].State, j.d.Recipients[i].Reply = store.Queued, why
	}
	j.stuck = append(j.stuck, j.astray...)
	return store.Attempt{At: at, NextHop: None, Result: "deferred", Reply: why}
}
