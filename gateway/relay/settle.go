package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/casegate/casegate/store"
)

// open lists the recipients still to be served.
func (j *job) open() (open []int) {
	for i, to := range j.d.Recipients {
		if to.State != store.Delivered && to.State != store.Failed {
			open = append(open, i)
		}
	}
	return open
}

// conclude says where the delivery stands after an attempt: done, failed,
// held, or when to try again.
func (r *Relay) conclude(j *job, made []store.Attempt) {
	d, now := &j.d, r.now()
	d.Attempts = append(d.Attempts, made...)
	open := j.open()
	if len(open) > 0 && len(j.stuck) == len(open) {
		d.State = store.Held
		return
	}
	expires := r.expires(d)
	if len(open) > 0 && now.Before(expires) {
		d.State, d.Due = store.Queued, now.Add(r.pause(d))
		if d.Due.After(expires) {
			d.Due = expires // one last try
		}
		return
	}
	for _, i := range open {
		to := &d.Recipients[i]
		to.State, to.Reply = store.Failed, fmt.Sprintf("5.4.7 given up after %s; last: %s", days(r.opts.Expire), to.Reply)
	}
	d.State = store.Delivered
	if slices.ContainsFunc(d.Recipients, func(to store.Recipient) bool { return to.State == store.Failed }) {
		d.State = store.Failed
	}
}

// expires is when a delivery is given up. Nothing is given up untried: this is
// asked after an attempt.
func (r *Relay) expires(d *store.Delivery) time.Time {
	born := d.CreatedAt
	if born.IsZero() && len(d.Attempts) > 0 {
		born = d.Attempts[0].At
	}
	return born.Add(r.opts.Expire)
}

// pause looks the wait up in the retry table. What was tried at one time, at
// several next hops perhaps, is one attempt.
func (r *Relay) pause(d *store.Delivery) time.Duration {
	tries := 0
	for i, a := range d.Attempts {
		if i == 0 || !a.At.Equal(d.Attempts[i-1].At) {
			tries++
		}
	}
	wait := r.opts.Retry[min(max(tries, 1), len(r.opts.Retry))-1]
	return wait + time.Duration(r.opts.Jitter*(2*rand.Float64()-1)*float64(wait))
}

func days(d time.Duration) string {
	if n := d / (24 * time.Hour); n > 1 && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%d days", n)
	}
	return d.String()
}

// settle stores outcomes. A crash before it returns brings the deliveries back
// as Interrupted; so does giving up here, which happens only when stopping or
// once the lease is over. Until then the worker stays: what cannot be recorded
// must not go on being sent.
func (r *Relay) settle(ctx context.Context, lease time.Time, ds ...store.Delivery) bool {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := r.st.Settle(context.WithoutCancel(ctx), ds...)
		if err == nil {
			return true
		}
		r.opts.Logger.Error("storing the outcome of a delivery", "delivery", ds[0].ID, "deliveries", len(ds), "error", err)
		if errors.Is(err, store.ErrNotFound) && len(ds) > 1 {
			return r.settleEach(ctx, lease, ds)
		}
		if errors.Is(err, store.ErrNotFound) || ctx.Err() != nil || time.Now().After(lease) {
			return false
		}
		wait(ctx, nil, pause)
	}
}

// settleEach is for a batch of which one was dropped meanwhile.
func (r *Relay) settleEach(ctx context.Context, lease time.Time, ds []store.Delivery) bool {
	ok := true
	for _, d := range ds {
		ok = r.settle(ctx, lease, d) && ok
	}
	return ok
}

// tell reports a settled attempt to the log and to Options.Events.
func (r *Relay) tell(j *job, made []store.Attempt, open []int) {
	d := &j.d
	ev := Event{Delivery: *d, Attempts: made}
	for _, i := range open {
		if bounce(d, &d.Recipients[i]) {
			ev.Bounce = append(ev.Bounce, d.Recipients[i])
		}
	}
	level := slog.LevelInfo
	if d.State != store.Delivered {
		level = slog.LevelWarn
	}
	for _, a := range made {
		r.opts.Logger.LogAttrs(context.Background(), level, "delivery attempt",
			slog.Any("delivery", d.ID), slog.Any("message", d.Message), slog.Uint64("case", d.Case),
			slog.String("next_hop", a.NextHop), slog.String("result", a.Result), slog.String("status", status(a.Reply)),
			slog.Bool("ambiguous", a.Ambiguous), slog.String("state", string(d.State)), slog.Duration("took", time.Since(j.begun)))
	}
	if r.opts.Events != nil {
		r.opts.Events(ev)
	}
}

// bounce reports whether the sender is owed a bounce about a recipient: he
// failed, wanted no silence about it (RFC 3461 §4.1), and there is a sender. A
// null reverse-path never gets one (RFC 5321 §4.5.5, §6.1): mail with it is a
// bounce itself, or an automatic answer. To write and send the bounce
// (RFC 3464, to Delivery.Submitter) comes with a later issue; this is where it
// will be asked for.
func bounce(d *store.Delivery, to *store.Recipient) bool {
	if to.State != store.Failed || d.From == "" {
		return false
	}
	return len(to.Notify) == 0 || slices.ContainsFunc(to.Notify, func(n string) bool { return strings.EqualFold(n, "FAILURE") })
}
