package resolver

import (
	"errors"
	"fmt"
	"testing"

	"github.com/casegate/casegate/store"
)

// casesOf finds among these.
func casesOf(list ...store.Case) FindCase {
	return func(n uint64) (store.Case, error) {
		for _, c := range list {
			if c.Number == n {
				return c, nil
			}
		}
		return store.Case{}, fmt.Errorf("case %d: %w", n, store.ErrNotFound)
	}
}

// TestMaySee: Case.customer alone, whatever else leads from a contact to the
// case.
func TestMaySee(t *testing.T) {
	ana, ben := store.NewID(), store.NewID()
	acme := store.NewID()
	first := store.Case{Number: 1, Customer: ana, Accounts: []store.ID{acme}, Opener: "family@x.example",
		HandLinks: []store.HandLink{{Address: "family@x.example", Contact: ben}}}
	second := store.Case{Number: 2, Customer: ben, State: store.Cancelled, MergedInto: 1}
	third := store.Case{Number: 3, Customer: ben, State: store.Cancelled, MergedInto: 2}
	find := casesOf(first, second, third)
	for name, tc := range map[string]struct {
		contact store.ID
		c       store.Case
		want    Access
	}{
		"the customer":                      {ana, first, Access{true, "the contact is the customer of case 1"}},
		"linked by hand, on the timeline":   {ben, first, Access{false, "the contact is not the customer of case 1"}},
		"its account":                       {acme, first, Access{false, "the contact is not the customer of case 1"}},
		"nobody":                            {store.ID{}, first, Access{false, "the contact is not the customer of case 1"}},
		"nobody, of a case without one":     {store.ID{}, store.Case{Number: 9}, Access{false, "the contact is not the customer of case 9"}},
		"customer of a merged case":         {ben, second, Access{false, "the contact is not the customer of case 1, which case 2 was merged into"}},
		"customer of where it was merged":   {ana, second, Access{true, "the contact is the customer of case 1, which case 2 was merged into"}},
		"over two merges":                   {ana, third, Access{true, "the contact is the customer of case 1, which case 3 was merged into"}},
		"customer of the beginning of both": {ben, third, Access{false, "the contact is not the customer of case 1, which case 3 was merged into"}},
	} {
		if got, err := MaySee(tc.contact, tc.c, find); err != nil || got != tc.want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// TestMergedTo: a circle, a missing case and a store that fails.
func TestMergedTo(t *testing.T) {
	one, two, three := store.Case{Number: 1, MergedInto: 2}, store.Case{Number: 2, MergedInto: 3}, store.Case{Number: 3, MergedInto: 2}
	if end, err := MergedTo(one, casesOf(one, two, three)); err != nil || end.Number != 1 {
		t.Errorf("a circle ends at %d, %v", end.Number, err)
	}
	if end, err := MergedTo(one, casesOf(one, two)); err != nil || end.Number != 1 {
		t.Errorf("a missing case ends at %d, %v", end.Number, err)
	}
	if end, err := MergedTo(store.Case{Number: 4, MergedInto: 4}, casesOf(store.Case{Number: 4, MergedInto: 4})); err != nil || end.Number != 4 {
		t.Errorf("its own circle ends at %d, %v", end.Number, err)
	}
	broken := errors.New("no disk")
	if _, err := MergedTo(one, func(uint64) (store.Case, error) { return store.Case{}, broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
	if _, err := MaySee(store.NewID(), one, func(uint64) (store.Case, error) { return store.Case{}, broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
}
