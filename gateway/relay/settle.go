package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/casegate/casegate/store"
)

var (
	errChanged = errors.New("the delivery was changed meanwhile")
	errNews    = errors.New("somebody must hear of it first")
)

// open lists the recipients of a delivery still to be served.
func open(d *store.Delivery) (list []int) {
	for i, to := range d.Recipients {
		if to.State != store.Delivered && to.State != store.Failed {
			list = append(list, i)
		}
	}
	return list
}

// news is a row before and after a job, and what of it somebody must hear.
type news struct {
	was, now store.Delivery
	failed   []int // recipients who failed for good
	expired  []int // those of them whom time ran out for
	delayed  []int // whose delay is to be told
	relayed  []int // delivered, and nobody further on tells of it

	last map[int]store.Attempt // that served a recipient just now
}

func (n *news) quiet() bool { return len(n.failed)+len(n.delayed)+len(n.relayed) == 0 }

// conclude enters what came of a job into the row as it is now, which somebody
// may have held, released or dropped since it was claimed, and says where it
// stands: done, failed, held, or when to try again.
func (r *Relay) conclude(j *job, was store.Delivery) *news {
	n := &news{was: was, now: was}
	d := &n.now
	d.Recipients, d.Attempts = slices.Clone(was.Recipients), slices.Clone(was.Attempts)
	if len(j.made) > 0 && len(d.Attempts) > j.before {
		return n // stored already, by a try whose answer was lost
	}
	d.Attempts = append(d.Attempts, j.made...)
	if !j.tried {
		if d.Lane = r.Lane(d); d.State == store.Queued && !j.back.IsZero() {
			d.Due = j.back
		}
		return n
	}
	n.last = j.last
	j.enter(d)
	r.stand(n, j.stuck)
	if d.Lane = ""; d.State == store.Queued {
		d.Lane = r.Lane(d)
		if j.full && !j.deferred() {
			d.Due = was.Due // what is left was not tried
		}
	}
	for i := range d.Recipients {
		before, to := was.Recipients[i].State, &d.Recipients[i]
		switch {
		case to.State == store.Failed && before != store.Failed:
			n.failed = append(n.failed, i)
		case to.State == store.Delivered && slices.Contains(j.relayed, i) && wants(to, "SUCCESS"):
			n.relayed = append(n.relayed, i)
		}
	}
	r.markDelayed(n)
	return n
}

// deferred reports whether somebody who was tried is to be tried again.
func (j *job) deferred() bool {
	return slices.ContainsFunc(j.made, func(a store.Attempt) bool { return a.Result == "deferred" })
}

// enter enters the verdicts. That somebody has the mail is a fact, whatever a
// person did to the row meanwhile; all else counts only for whom it left open.
func (j *job) enter(d *store.Delivery) {
	for _, i := range j.open {
		mine, to := j.d.Recipients[i], &d.Recipients[i]
		if mine.State == store.Delivered || to.State != store.Failed && to.State != store.Delivered {
			to.State, to.Reply = mine.State, mine.Reply
		}
	}
}

// stand says where a delivery stands after an attempt.
func (r *Relay) stand(n *news, stuck []int) {
	d, now := &n.now, r.now()
	left := open(d)
	switch {
	case len(left) == 0:
	case d.Dropped != "":
		giveUp(d, left, "5.0.0 given up by a person: "+d.Dropped)
	case d.State == store.Held:
		return // a person keeps it
	case len(stuck) >= len(left):
		d.State, d.Reason = store.Held, d.Recipients[left[0]].Reply
		return
	case now.Before(r.expires(d, now)):
		d.State, d.Due = store.Queued, r.next(d, now)
		return
	default:
		giveUp(d, left, fmt.Sprintf("5.4.7 given up after %s; last: ", days(r.patience.Load().Expire)))
		n.expired = left
	}
	d.State = store.Delivered
	if slices.ContainsFunc(d.Recipients, func(to store.Recipient) bool { return to.State == store.Failed }) {
		d.State = store.Failed
	}
}

// giveUp fails recipients; words that end in a blank go before the last reply.
func giveUp(d *store.Delivery, list []int, words string) {
	for _, i := range list {
		to := &d.Recipients[i]
		last := to.Reply
		if to.State, to.Reply = store.Failed, words; strings.HasSuffix(words, " ") {
			to.Reply += last
		}
	}
}

// next is when a delivery is tried again: by the retry table, but once when it
// expires, and once when its sender is to hear that it takes long.
func (r *Relay) next(d *store.Delivery, now time.Time) time.Time {
	at := now.Add(r.pause(d))
	if end := r.expires(d, now); at.After(end) {
		at = end // one last try
	}
	if tell := r.tellsDelay(d); tell.After(now) && at.After(tell) {
		at = tell
	}
	return at
}

// born is from when a delivery's age counts.
func born(d *store.Delivery) time.Time {
	switch {
	case !d.Since.IsZero():
		return d.Since
	case d.CreatedAt.IsZero() && len(d.Attempts) > 0:
		return d.Attempts[0].At
	}
	return d.CreatedAt
}

// expires is when a delivery is given up, asked after an attempt: by its age,
// but not before it was tried a few times. Its age may be that of a daemon that
// was off, or of a clock that jumped.
func (r *Relay) expires(d *store.Delivery, now time.Time) time.Time {
	p := r.patience.Load()
	end := born(d).Add(p.Expire)
	if owed := now.Add(p.owed(timesTried(d))); owed.After(end) {
		end = owed
	}
	return end
}

// timesTried is how often a delivery was tried. What was tried at one time, at
// several next hops perhaps, is one attempt; what was tried before somebody
// released it doesn't count.
func timesTried(d *store.Delivery) int { return tries(d, func(string) bool { return true }) }

// pause looks the wait up in the retry table.
func (r *Relay) pause(d *store.Delivery) time.Duration {
	wait := r.patience.Load().wait(timesTried(d))
	return wait + time.Duration(r.opts.Jitter*(2*rand.Float64()-1)*float64(wait))
}

func days(d time.Duration) string {
	if n := d / (24 * time.Hour); n > 1 && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%d days", n)
	}
	return d.String()
}

// How long settle waits before it tries again: while all may be in trouble, mail
// moves within 10 s of room; what is kept aside is in no hurry.
const (
	longestSettle = 5 * time.Second
	longestAside  = 5 * time.Minute
)

// ownTrouble is how often an outcome can't be stored, for another reason than a
// store that takes nothing now, before that is put down to the row.
const ownTrouble = 10

// settle stores what came of jobs. A crash before it returns brings the
// deliveries back as Interrupted; so does giving up here, which happens only
// when stopping, when the row is gone, or with a batch of which one is in
// trouble. Until then the worker stays, however long the store fails: what
// cannot be recorded must not go on being sent, and what is in hand is not begun
// again when its lease ends. If the row is at fault, others don't wait for it: it
// stays in hand, but aside.
func (r *Relay) settle(ctx context.Context, jobs ...*job) bool {
	most, own := longestSettle, 0
	log := r.opts.Logger.With("delivery", jobs[0].d.ID, "deliveries", len(jobs))
	for try, pause := 1, 100*time.Millisecond; ; try, pause = try+1, min(2*pause, most) {
		err := r.record(context.WithoutCancel(ctx), jobs)
		if err == nil {
			if try > 1 {
				log.Info("the outcome of a delivery is stored", "tries", try)
			}
			return true
		}
		if worthSaying(try) {
			log.Error("storing the outcome of a delivery", "tries", try, "error", err)
		}
		if errors.Is(err, store.ErrNotFound) || ctx.Err() != nil {
			return false
		}
		if !errors.Is(err, store.ErrFull) && !errors.Is(err, store.ErrUnavailable) {
			own++
		}
		if own >= ownTrouble && len(jobs) > 1 {
			return false
		}
		if own >= ownTrouble && r.inHand.setAside(jobs[0].d.ID) {
			log.Error("the outcome of a delivery can't be stored, for a reason of its own: it is kept aside, tried again ever more seldom, and not sent again before a restart", "error", err)
			most = longestAside
			signal(r.freed)
		}
		wait(ctx, nil, pause)
	}
}

// worthSaying reports whether a failure is logged: ever more seldom.
func worthSaying(try int) bool { return try&(try-1) == 0 || try%64 == 0 }

// record stores what came of jobs, each in its row as it is then. Where somebody
// must hear of it, a transaction stores the row together with what tells them,
// and after it Settle only ends the lease. A crash between the two: a row at rest
// is let go, one that waits is tried early.
func (r *Relay) record(ctx context.Context, jobs []*job) error {
	for range mostRounds {
		if err := r.settleQuiet(ctx, jobs); !errors.Is(err, errNews) {
			return err
		}
		if err := r.announce(ctx, jobs); err != nil && !errors.Is(err, errChanged) {
			return err
		}
	}
	return errChanged
}

// mostRounds is how often a row may change while its news is worked out, before
// that waits a little.
const mostRounds = 3

// settleQuiet stores what came of jobs and ends their leases; nothing, and
// errNews, if somebody must hear of one of them.
func (r *Relay) settleQuiet(ctx context.Context, jobs []*job) error {
	by, ids := make(map[store.ID]*job, len(jobs)), make([]store.ID, len(jobs))
	for i, j := range jobs {
		by[j.d.ID], ids[i] = j, j.d.ID
	}
	rows := make(map[store.ID]store.Delivery, len(jobs))
	err := r.st.Settle(ctx, func(was store.Delivery) (store.Delivery, error) {
		n := r.conclude(by[was.ID], was)
		if !n.quiet() {
			return was, errNews
		}
		rows[was.ID] = n.now
		return n.now, nil
	}, ids...)
	if err != nil {
		return err
	}
	for _, j := range jobs {
		j.d = rows[j.d.ID]
	}
	return nil
}

// announce stores the rows that somebody must hear of, and has them told.
func (r *Relay) announce(ctx context.Context, jobs []*job) error {
	for _, j := range jobs {
		var n *news
		err := r.st.View(ctx, func(rd store.Reader) error {
			d, err := rd.Delivery(j.d.ID)
			if err == nil {
				n = r.conclude(j, d)
			}
			return err
		})
		if err != nil {
			return err
		}
		if n.quiet() {
			continue
		}
		if err := r.publish(ctx, j, n); err != nil {
			return err
		}
	}
	return nil
}

// publish stores a row and its news in one transaction.
func (r *Relay) publish(ctx context.Context, j *job, n *news) error {
	b, err := r.bulletin(ctx, n)
	if err != nil {
		return err
	}
	defer b.discard()
	j.report = b.reportID() // even if the answer to the commit is lost
	return r.st.Update(ctx, func(tx store.Tx) error {
		now, err := tx.Delivery(n.now.ID)
		if err != nil {
			return err
		}
		if !reflect.DeepEqual(now, n.was) {
			return errChanged
		}
		if err := tx.Enqueue(n.now); err != nil {
			return err
		}
		return b.record(tx)
	})
}

// tell reports a settled attempt to the log and to Options.Events.
func (r *Relay) tell(j *job) {
	d := &j.d
	ev := Event{Delivery: *d, Attempts: j.made, Report: j.report}
	for _, i := range j.open {
		if bounce(d, &d.Recipients[i]) {
			ev.Bounce = append(ev.Bounce, d.Recipients[i])
		}
	}
	level := slog.LevelInfo
	if d.State != store.Delivered {
		level = slog.LevelWarn
	}
	var on slog.Attr // none: it is on no case
	if d.Case != 0 {
		on = slog.Uint64("case", d.Case)
	}
	for _, a := range j.made {
		r.opts.Logger.LogAttrs(context.Background(), level, "delivery attempt",
			slog.Any("delivery", d.ID), slog.Any("message", d.Message), on,
			slog.String("next_hop", a.NextHop), slog.String("result", a.Result), slog.String("status", status(a.Reply)),
			slog.Bool("ambiguous", a.Ambiguous), slog.String("state", string(d.State)), slog.Float64("ms", float64(time.Since(j.begun).Microseconds())/1000))
	}
	if j.report != (store.ID{}) {
		r.opts.Logger.Info("delivery report written", "delivery", d.ID, "message", d.Message, "report", j.report)
	}
	if r.opts.Events != nil {
		r.opts.Events(ev)
	}
}
