package console

import (
	"fmt"

	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// MergeOrder says where a case goes on.
type MergeOrder struct {
	Into uint64 `json:"into" minimum:"1" doc:"the number of the other case; if that was merged itself, the case where its merges end"`
}

// merge cancels the case and lets its mail go on in another. Both stay whole:
// customer, timeline and hand links of either are not mixed.
func (d *deed) merge(o MergeOrder) error {
	into, err := findCase(d.tx, o.Into)
	if err != nil {
		return err
	}
	end, err := resolver.MergedTo(into, d.tx.Case)
	if err != nil {
		return err
	}
	switch {
	case into.Number == d.c.Number:
		return problem(409, "name the case that it should go on in", "case %d cannot be merged into itself", d.c.Number)
	case end.Number == d.c.Number:
		return problem(409, fmt.Sprintf("casegate case show %d", d.c.Number), "case %d was merged into case %d: the other way round it would go in a circle", into.Number, d.c.Number)
	case d.c.MergedInto != 0:
		return d.mergedBefore(end)
	case end.State == store.Cancelled:
		return problem(409, fmt.Sprintf("casegate case reopen %d comes first", end.Number), "case %d is Cancelled: nothing can go on there", end.Number)
	}
	d.c.State, d.c.MergedInto = store.Cancelled, end.Number
	if err := d.audit(end.Number, fmt.Sprintf("case %d was merged into this case", d.c.Number)); err != nil {
		return err
	}
	if err := d.keep(end); err != nil {
		return err
	}
	return d.mergedInto(into, end)
}

// mergedInto says where the case went, and who may see it from now on (rules
// §7) where that changes.
func (d *deed) mergedInto(into, end store.Case) error {
	text := fmt.Sprintf("case %d is merged into case %d", d.c.Number, end.Number)
	if into.Number != end.Number {
		text += fmt.Sprintf(", where case %d went", into.Number)
	}
	if d.c.Customer != end.Customer {
		names := assemble(d.tx, false)
		was, err := names.person(store.PartyContact, d.c.Customer)
		if err != nil {
			return err
		}
		is, err := names.person(store.PartyContact, end.Customer)
		if err != nil {
			return err
		}
		text += fmt.Sprintf("; its customer is now %s, no longer %s", named(is), named(was))
	}
	return d.done("%s", text)
}

func (d *deed) mergedBefore(end store.Case) error {
	before, err := resolver.MergedTo(d.c, d.tx.Case)
	if err != nil {
		return err
	}
	if before.Number == end.Number {
		return d.was("case %d is merged into case %d already", d.c.Number, end.Number)
	}
	return d.unmerged()
}
