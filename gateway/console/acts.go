package console

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// The source types of audit rows: of a case's log, and of the installation's.
const (
	caseChanged         = "Case changed"
	installationChanged = "Installation changed"
)

func (a *api) actRoutes(h huma.API) {
	on := func(id, summary string) huma.Operation {
		return act(id+"-case", "/cases/{number}/"+id, summary, 404, 409, 422, 507)
	}
	handle(h, on("resolve", "Resolve an active case"), acts(a, (*deed).resolve))
	handle(h, on("reopen", "Make a resolved or cancelled case active again"), acts(a, (*deed).reopen))
	handle(h, on("cancel", "Cancel an active case"), acts(a, (*deed).cancel))
	handle(h, on("merge", "Merge a case into another: it is cancelled, and its mail goes on there"), actsWith(a, (*deed).merge))
	handle(h, on("set-customer", "Change who a case is about; mail never does"), actsWith(a, (*deed).setCustomer))
	handle(h, on("unflag", "Take a flag off a case: somebody has seen to it"), actsWith(a, (*deed).unflag))
	handle(h, on("link", "Say who an unresolved address is, in one message or in the case"), actsWith(a, (*deed).link))
	handle(h, on("unlink", "Take back who an address was said to be"), actsWith(a, (*deed).unlink))
}

// CaseAct is a case after an act on it.
type CaseAct struct {
	Case
	Already bool   `json:"already" doc:"it was so before: nothing was changed"`
	Said    string `json:"said" doc:"what was done, in a sentence"`
}

// CaseNumber names the case that an act is on.
type CaseNumber struct {
	Number uint64 `path:"number" doc:"the case number"`
}

// CaseOrder is an act with what it needs to know.
type CaseOrder[T any] struct {
	CaseNumber
	Body T
}

// deed is an act on a case within its transaction.
type deed struct {
	tx      store.Tx
	by      string
	at      time.Time
	c       store.Case
	already bool
	said    string
}

// acts makes an act of a change that needs no more than the case.
func acts(a *api, do func(*deed) error) func(context.Context, *CaseNumber) (*one[CaseAct], error) {
	return func(ctx context.Context, in *CaseNumber) (*one[CaseAct], error) { return a.act(ctx, in.Number, do) }
}

func actsWith[T any](a *api, do func(*deed, T) error) func(context.Context, *CaseOrder[T]) (*one[CaseAct], error) {
	return func(ctx context.Context, in *CaseOrder[T]) (*one[CaseAct], error) {
		return a.act(ctx, in.Number, func(d *deed) error { return do(d, in.Body) })
	}
}

// act does one thing to a case and leaves its audit row, in one transaction.
// What was so already leaves none.
func (a *api) act(ctx context.Context, number uint64, do func(*deed) error) (*one[CaseAct], error) {
	at := a.Now().UTC()
	var out one[CaseAct]
	err := a.Store.Update(ctx, func(tx store.Tx) error {
		c, err := findCase(tx, number)
		if err != nil {
			return err
		}
		d := &deed{tx: tx, by: by(ctx), at: at, c: c}
		if err := do(d); err != nil {
			return err
		}
		if !d.already {
			if err := d.keep(d.c); err != nil {
				return err
			}
		}
		row, err := assemble(tx, false).caseRow(d.c)
		out.Body = CaseAct{row, d.already, d.said}
		return err
	})
	return &out, err
}

// keep stores a case as changed by this act.
func (d *deed) keep(c store.Case) error {
	c.UpdatedAt = d.at
	if c.Number == d.c.Number {
		d.c = c
	}
	return d.tx.PutCase(c)
}

// done says what was done, and leaves it in the case's log.
func (d *deed) done(format string, args ...any) error {
	d.said = fmt.Sprintf(format, args...)
	return d.audit(d.c.Number, d.said)
}

func (d *deed) audit(number uint64, text string) error {
	return d.tx.Record(store.LogEntry{ID: store.NewID(), Case: number, At: d.at, By: d.by, SourceType: caseChanged, Text: text})
}

// was says that it was so before.
func (d *deed) was(format string, args ...any) error {
	d.already, d.said = true, fmt.Sprintf(format, args...)
	return nil
}

func (d *deed) resolve() error {
	if err := d.become(store.Resolved, store.Active); err != nil || d.already {
		return err
	}
	d.c.ResolvedAt = d.at
	return nil
}

func (d *deed) reopen() error {
	if err := d.become(store.Active, store.Resolved, store.Cancelled); err != nil || d.already {
		return err
	}
	d.c.ResolvedAt = time.Time{}
	return nil
}

func (d *deed) cancel() error { return d.become(store.Cancelled, store.Active) }

// become changes the state, from one of those it may be changed from.
func (d *deed) become(state store.CaseState, from ...store.CaseState) error {
	before := d.c.State
	switch err := d.unmerged(); {
	case err != nil:
		return err
	case before == state:
		return d.was("case %d is %s already", d.c.Number, state)
	case !slices.Contains(from, before):
		return problem(409, fmt.Sprintf("casegate case reopen %d comes first", d.c.Number), "case %d is %s: only an active case can become %s", d.c.Number, before, state)
	}
	d.c.State = state
	return d.done("case %d is %s, was %s", d.c.Number, state, before)
}

// unmerged refuses a case that was merged, naming where it went.
func (d *deed) unmerged() error {
	if d.c.MergedInto == 0 {
		return nil
	}
	end, err := resolver.MergedTo(d.c, d.tx.Case)
	if err != nil {
		return err
	}
	return problem(409, fmt.Sprintf("it goes on there: casegate case show %d", end.Number), "case %d was merged into case %s", d.c.Number, way(d.c.MergedInto, end))
}

// way tells where a merge leads, over others or not.
func way(into uint64, end store.Case) string {
	if into == end.Number {
		return fmt.Sprint(into)
	}
	return fmt.Sprintf("%d, which goes on in case %d", into, end.Number)
}
