package resolver

import (
	"slices"
	"time"

	"github.com/casegate/casegate/store"
)

// world is all that a store would hold in a test: contacts by address, cases,
// messages. It answers queries and nothing else, so that a decision which Ask
// did not prepare goes wrong here as it would there.
type world struct {
	installation store.Installation
	cases        map[uint64]store.CaseFacts
	messageIDs   map[string][]store.MessageRef
	holders      map[string]store.Holders
	contacts     map[store.ID]store.Contact
	answered     map[store.CaseOrdinal]store.Message
	tallies      map[store.TallyKey][]time.Time
}

func (w world) facts(q store.Query) store.Facts {
	f := store.Facts{
		Installation: w.installation,
		Cases:        map[uint64]store.CaseFacts{},
		MessageIDs:   pick(w.messageIDs, q.MessageIDs),
		Holders:      pick(w.holders, q.Addresses),
		Contacts:     pick(w.contacts, q.Contacts),
		Answered:     pick(w.answered, q.Ordinals),
		Tallies:      pick(w.tallies, q.Tallies),
	}
	for _, a := range q.Addresses {
		f.Holders[a] = w.holders[a]
	}
	numbers := slices.Clone(q.Cases)
	for _, refs := range f.MessageIDs {
		for _, ref := range refs {
			numbers = append(numbers, ref.Case)
		}
	}
	for len(numbers) > 0 {
		n := numbers[0]
		numbers = numbers[1:]
		c, exists := w.cases[n]
		if _, was := f.Cases[n]; was || !exists {
			continue
		}
		f.Cases[n] = store.CaseFacts{Case: c.Case, Customer: c.Customer, Used: w.used(c, f.Holders)}
		numbers = append(numbers, c.Case.MergedInto)
	}
	return f
}

// used keeps, of the addresses of a case, those that a store tells about.
func (w world) used(c store.CaseFacts, asked map[string]store.Holders) map[string]store.Usage {
	told := map[string]store.Usage{}
	tell := func(address string) {
		if u, used := c.Used[address]; used {
			told[address] = u
		}
	}
	of := func(contact store.Contact) {
		for _, e := range contact.EmailAddresses {
			tell(store.Key(e.Address))
		}
	}
	of(c.Customer)
	for a, h := range asked {
		tell(a)
		for _, contact := range h.Contacts {
			of(contact)
		}
	}
	return told
}

func pick[K comparable, V any](all map[K]V, keys []K) map[K]V {
	some := make(map[K]V, len(keys))
	for _, k := range keys {
		if v, ok := all[k]; ok {
			some[k] = v
		}
	}
	return some
}
