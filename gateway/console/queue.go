package console

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casegate/casegate/store"
)

func (a *api) queueRoutes(h huma.API) {
	handle(h, get("list-deliveries", "/queue", "List the outbox", 403), a.listDeliveries)
	handle(h, get("show-delivery", "/queue/{id}", "Show a delivery", 403, 404), a.showDelivery)
	for _, c := range chores() {
		if c.one {
			handle(h, act(c.name+"-delivery", "/queue/{id}/"+c.name, c.summary, 404, 409, 422, 507), func(ctx context.Context, in *oneChore) (*one[QueueDone], error) {
				return a.actOnDelivery(ctx, c, in)
			})
		}
		handle(h, act(c.name+"-deliveries", "/queue/"+c.name, c.summary+": all that are selected", 422, 507), func(ctx context.Context, in *manyChores) (*one[QueueDone], error) {
			return a.actOnDeliveries(ctx, c, in)
		})
	}
}

type queueQuery struct {
	Paging
	Case    uint64              `query:"case" doc:"only deliveries of this case"`
	State   store.DeliveryState `query:"state" enum:"queued,held,delivered,failed" doc:"only deliveries in this state"`
	Address string              `query:"address" doc:"only deliveries to this address"`
	BCC     bool                `query:"bcc" doc:"show Bcc too; local socket only"`
}

func (a *api) listDeliveries(ctx context.Context, in *queueQuery) (*list[store.Delivery], error) {
	bcc, err := a.mayBCC(in.BCC)
	if err != nil {
		return nil, err
	}
	filter := store.DeliveryFilter{Case: in.Case, State: in.State}
	if in.Address != "" {
		filter.Address = store.Key(in.Address)
	}
	return fetch(ctx, a, &in.Paging, func(rd store.Reader) ([]store.Delivery, store.Cursor, error) {
		rows, next, err := rd.Deliveries(filter, in.page())
		if err != nil {
			return nil, "", err
		}
		shown := rows[:0:0]
		for _, d := range rows {
			v, err := veilOf(rd, d, bcc)
			if err != nil {
				return nil, "", err
			}
			if filter.Address == "" || !v.hides(filter.Address) { // the filter must not tell what the row hides
				shown = append(shown, veiled(v, d))
			}
		}
		return shown, next, nil
	})
}

// veilOf is the veil of a delivery's message.
func veilOf(rd store.Reader, d store.Delivery, seesBCC bool) (veil, error) {
	if seesBCC {
		return veil{}, nil
	}
	m, err := rd.Message(d.Message)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return veil{}, err
	}
	return veilFor(seesBCC, m), nil
}

// ByID asks for one record.
type ByID struct {
	ID  string `path:"id"`
	BCC bool   `query:"bcc" doc:"show Bcc too; local socket only"`
}

func (a *api) showDelivery(ctx context.Context, in *ByID) (*one[store.Delivery], error) {
	bcc, err := a.mayBCC(in.BCC)
	if err != nil {
		return nil, err
	}
	id, err := store.ParseID(in.ID)
	if err != nil {
		return nil, problem(404, "casegate queue list shows the ids", "%q is not the id of a delivery", in.ID)
	}
	var out one[store.Delivery]
	err = a.Store.View(ctx, func(rd store.Reader) error {
		d, err := rd.Delivery(id)
		if errors.Is(err, store.ErrNotFound) {
			return problem(404, "casegate queue list shows what there is", "no delivery %s", id)
		}
		if err != nil {
			return err
		}
		v, err := veilOf(rd, d, bcc)
		out.Body = veiled(v, d)
		return err
	})
	return &out, err
}

// veiled is a delivery as the caller may see it.
func veiled(v veil, d store.Delivery) store.Delivery {
	d = v.delivery(d)
	d.Reason, d.Dropped = v.text(d.Reason), v.text(d.Dropped)
	return d
}

// QueueOrder says why something is done to the outbox.
type QueueOrder struct {
	Reason string `json:"reason,omitempty" maxLength:"500" doc:"for the log; drop needs one"`
	Bounce bool   `json:"bounce,omitempty" doc:"drop only: tell the sender"`
}

// QueueSelection says which deliveries are meant: those to which all applies.
type QueueSelection struct {
	Case    uint64              `json:"case,omitempty" doc:"deliveries of this case"`
	State   store.DeliveryState `json:"state,omitempty" enum:"queued,held,failed" doc:"deliveries in this state"`
	Address string              `json:"address,omitempty" doc:"deliveries to this address"`
	QueueOrder
}

// QueueDone is what was done to the outbox.
type QueueDone struct {
	Changed int    `json:"changed" doc:"how many deliveries"`
	Already bool   `json:"already" doc:"it was so before: nothing was changed"`
	Said    string `json:"said" doc:"what was done, in a sentence"`
}

type oneChore struct {
	ID   string `path:"id" doc:"of the delivery"`
	Body QueueOrder
}

type manyChores struct{ Body QueueSelection }

// chore is an act on deliveries. It says what it did, or that it was so before
// (""), or refuses.
type chore struct {
	name, summary string
	one           bool                  // it is an act on a single one too
	from          []store.DeliveryState // what a selection without a state means
	do            func(*store.Delivery, QueueOrder, string, time.Time) (string, error)
}

func chores() []chore {
	return []chore{
		{"hold", "Keep a delivery back until somebody releases it", true, []store.DeliveryState{store.Queued}, holdDelivery},
		{"release", "Let go of a delivery that is held", true, []store.DeliveryState{store.Held}, releaseDelivery},
		{"retry", "Try a delivery at once, also one that failed", true, []store.DeliveryState{store.Queued}, retryDelivery},
		{"drop", "Give a delivery up", true, []store.DeliveryState{store.Queued, store.Held}, dropDelivery},
		{"flush", "Try at once what waits", false, []store.DeliveryState{store.Queued}, retryDelivery},
	}
}

func holdDelivery(d *store.Delivery, o QueueOrder, by string, _ time.Time) (string, error) {
	switch d.State {
	case store.Held:
		return "", nil
	case store.Queued:
		d.State, d.Reason = store.Held, because("held by "+by, o.Reason)
		return because("held", o.Reason), nil
	}
	return "", atRest(d, "held")
}

// releaseDelivery: its age counts from now on, or it might be given up at once.
func releaseDelivery(d *store.Delivery, o QueueOrder, _ string, at time.Time) (string, error) {
	switch d.State {
	case store.Queued:
		return "", nil
	case store.Held:
		d.State, d.Reason, d.Due, d.Since = store.Queued, "", at, at
		return because("released", o.Reason), nil
	}
	return "", atRest(d, "released")
}

func retryDelivery(d *store.Delivery, o QueueOrder, _ string, at time.Time) (string, error) {
	switch d.State {
	case store.Held:
		return "", problem(409, "casegate queue release "+d.ID.String(), "delivery %s is held", d.ID)
	case store.Delivered:
		return "", atRest(d, "tried again")
	case store.Failed:
		d.Since, d.Reason, d.Dropped = at, "", ""
		d.Recipients = slices.Clone(d.Recipients)
		for i := range d.Recipients {
			if to := &d.Recipients[i]; to.State == store.Failed {
				to.State = store.Queued
			}
		}
	}
	was := d.State
	d.State, d.Due = store.Queued, at
	return because("tried again, was "+string(was), o.Reason), nil
}

// dropDelivery ends it here, or leaves it to the relay to end it with a report.
func dropDelivery(d *store.Delivery, o QueueOrder, by string, at time.Time) (string, error) {
	switch {
	case d.State == store.Failed && o.Bounce:
		return "", problem(409, "casegate queue show "+d.ID.String(), "delivery %s has failed already: its sender is told nothing more", d.ID)
	case d.State == store.Failed || d.State == store.Queued && d.Dropped != "":
		return "", nil
	case d.State == store.Delivered:
		return "", atRest(d, "dropped")
	case o.Bounce && (d.Role != "outbound" || d.From == "" || d.Submitter == ""):
		return "", problem(409, "leave bounce out", "there is nobody to tell about delivery %s: it came from outside, or is a report itself", d.ID)
	}
	d.Reason = because("dropped by "+by, o.Reason)
	if o.Bounce {
		d.State, d.Due, d.Dropped, d.Lane = store.Queued, at, o.Reason, "" // it waits for no next hop
		return because("dropped, and its sender is told", o.Reason), nil
	}
	d.State = store.Failed
	d.Recipients = slices.Clone(d.Recipients)
	for i := range d.Recipients {
		if to := &d.Recipients[i]; to.State != store.Delivered && to.State != store.Failed {
			to.State, to.Reply = store.Failed, "5.0.0 "+d.Reason
		}
	}
	return because("dropped, and nobody is told", o.Reason), nil
}

// standing is how a delivery stands, for who asks for what is so already.
func standing(d *store.Delivery) string {
	if d.State == store.Queued && d.Dropped != "" {
		return "dropped"
	}
	return string(d.State)
}

func atRest(d *store.Delivery, what string) error {
	return problem(409, "casegate queue show "+d.ID.String(), "delivery %s is %s: it cannot be %s", d.ID, d.State, what)
}

func because(what, reason string) string {
	if reason = strings.TrimSpace(reason); reason == "" {
		return what
	}
	return what + ": " + reason
}

// asked refuses an order that lacks something.
func (c chore) asked(o *QueueOrder) error {
	o.Reason = strings.TrimSpace(o.Reason)
	switch {
	case c.name == "drop" && o.Reason == "":
		return Invalid("say why, in reason", "to drop mail needs a reason")
	case c.name != "drop" && o.Bounce:
		return Invalid("casegate queue drop has it", "bounce is for drop only")
	case strings.ContainsFunc(o.Reason, func(r rune) bool { return !unicode.IsPrint(r) }):
		return Invalid("write one line", "the reason has characters that cannot be shown")
	}
	return nil
}

// carryOut does a chore to one row, and leaves its audit row; a flush has one
// for many. The words name no recipient: he may be a secret.
func (a *api) carryOut(ctx context.Context, tx store.Tx, c chore, d *store.Delivery, o QueueOrder, at time.Time) (changed bool, said string, err error) {
	said, err = c.do(d, o, by(ctx), at)
	if err != nil || said == "" {
		return false, fmt.Sprintf("delivery %s is %s already: nothing is changed", d.ID, standing(d)), err
	}
	said = fmt.Sprintf("delivery %s: %s", d.ID, said)
	if err := tx.Enqueue(*d); err != nil || !c.one {
		return true, said, err
	}
	kind := caseChanged
	if d.Case == 0 {
		kind = installationChanged
	}
	return true, said, tx.Record(store.LogEntry{ID: store.NewID(), Case: d.Case, At: at, By: by(ctx), SourceType: kind, Text: said})
}

func (a *api) actOnDelivery(ctx context.Context, c chore, in *oneChore) (*one[QueueDone], error) {
	id, err := store.ParseID(in.ID)
	if err != nil {
		return nil, problem(404, "casegate queue list shows the ids", "%q is not the id of a delivery", in.ID)
	}
	if err := c.asked(&in.Body); err != nil {
		return nil, err
	}
	var out one[QueueDone]
	at := a.Now().UTC()
	err = a.Store.Update(ctx, func(tx store.Tx) error {
		d, err := tx.Delivery(id)
		if errors.Is(err, store.ErrNotFound) {
			return problem(404, "casegate queue list shows what there is", "no delivery %s", id)
		}
		if err != nil {
			return err
		}
		changed, said, err := a.carryOut(ctx, tx, c, &d, in.Body, at)
		out.Body = QueueDone{Already: !changed, Said: said}
		if changed {
			out.Body.Changed = 1
		}
		return err
	})
	return &out, err
}

// actOnDeliveries does a chore to all that are selected, some at a time. What is
// no longer as it was when it was found is left alone.
func (a *api) actOnDeliveries(ctx context.Context, c chore, in *manyChores) (*one[QueueDone], error) {
	s := in.Body
	if err := c.asked(&s.QueueOrder); err != nil {
		return nil, err
	}
	if c.one && s.Case == 0 && s.Address == "" && s.State == "" {
		return nil, Invalid("say case, address or state", "which deliveries are meant is not said")
	}
	states := c.from
	if s.State != "" {
		states = []store.DeliveryState{s.State}
	}
	var out one[QueueDone]
	for _, state := range states {
		n, err := a.actOnState(ctx, c, s, state)
		out.Body.Changed += n
		if err != nil {
			return nil, err
		}
	}
	out.Body.Already = out.Body.Changed == 0
	out.Body.Said = fmt.Sprintf("%s: %d deliveries", c.name, out.Body.Changed)
	if out.Body.Changed == 1 {
		out.Body.Said = c.name + ": 1 delivery"
	}
	return &out, nil
}

func (a *api) actOnState(ctx context.Context, c chore, s QueueSelection, state store.DeliveryState) (n int, err error) {
	filter := store.DeliveryFilter{Case: s.Case, State: state}
	if s.Address != "" {
		filter.Address = store.Key(s.Address)
	}
	for after := store.Cursor(""); ; {
		var rows []store.Delivery
		err := a.Store.View(ctx, func(rd store.Reader) (err error) {
			rows, after, err = rd.Deliveries(filter, store.Page{After: after, Limit: 200})
			return err
		})
		if err != nil {
			return n, err
		}
		done, err := a.actOnRows(ctx, c, s.QueueOrder, rows, state)
		if n += done; err != nil || after == "" {
			return n, err
		}
	}
}

func (a *api) actOnRows(ctx context.Context, c chore, o QueueOrder, rows []store.Delivery, state store.DeliveryState) (n int, err error) {
	if len(rows) == 0 {
		return 0, nil
	}
	at := a.Now().UTC()
	err = a.Store.Update(ctx, func(tx store.Tx) error {
		n = 0
		for _, row := range rows {
			d, err := tx.Delivery(row.ID)
			if errors.Is(err, store.ErrNotFound) || err == nil && d.State != state {
				continue
			}
			if err != nil {
				return err
			}
			changed, _, err := a.carryOut(ctx, tx, c, &d, o, at)
			var refused *Problem
			if errors.As(err, &refused) {
				continue // nobody to tell, say
			}
			if err != nil {
				return err
			}
			if changed {
				n++
			}
		}
		if c.one || n == 0 {
			return nil
		}
		return a.audit(ctx, tx, fmt.Sprintf("%s: %d deliveries", c.name, n)) // one row, however many wait
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}
