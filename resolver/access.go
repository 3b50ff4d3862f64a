package resolver

import (
	"errors"
	"fmt"

	"github.com/casegate/casegate/store"
)

// FindCase reads a case; store.ErrNotFound where there is none.
type FindCase func(number uint64) (store.Case, error)

// Access is whether a contact may see a case, and why.
type Access struct {
	Allowed bool   `json:"allowed"`
	Reason  string `json:"reason"`
}

// MaySee answers whether a contact may see a case (rules §7): by Case.customer
// alone, where the merges of the case end. Being on its timeline, holding an
// address that wrote, or belonging to the same account gives no access; so
// nothing of that is asked here.
func MaySee(contact store.ID, c store.Case, find FindCase) (Access, error) {
	end, err := MergedTo(c, find)
	if err != nil {
		return Access{}, err
	}
	where := fmt.Sprintf("case %d", c.Number)
	if end.Number != c.Number {
		where = fmt.Sprintf("case %d, which case %d was merged into", end.Number, c.Number)
	}
	if contact == (store.ID{}) || end.Customer != contact {
		return Access{false, "the contact is not the customer of " + where}, nil
	}
	return Access{true, "the contact is the customer of " + where}, nil
}

// MergedTo returns the case that one goes on in: itself, or where its merges
// end. A circle of merges ends at the case it was entered by, as does a way
// that leads to no case.
func MergedTo(c store.Case, find FindCase) (store.Case, error) {
	at, seen := c, map[uint64]bool{}
	for at.MergedInto != 0 {
		seen[at.Number] = true
		next, err := find(at.MergedInto)
		if errors.Is(err, store.ErrNotFound) || seen[next.Number] || len(seen) > maxMergeSteps {
			return c, nil
		}
		if err != nil {
			return c, err
		}
		at = next
	}
	return at, nil
}
