package bolt

import (
	"errors"
	"slices"
	"time"

	"github.com/casegate/casegate/store"
)

// inquiry is one Query being answered. It is on the path of every message,
// inside the commit loop: it reads by key, and nothing twice.
type inquiry struct {
	*reader
	store.Query
	facts    store.Facts
	contacts map[store.ID]store.Contact // read so far
	asked    map[string]bool            // addresses whose use on a case matters
	hashed   map[[hashSize]byte]string  // the same by hash, as rows of used name them
}

func (r *reader) Facts(q store.Query) (store.Facts, error) {
	in := &inquiry{reader: r, Query: q, contacts: make(map[store.ID]store.Contact)}
	in.facts = store.Facts{
		Cases:      make(map[uint64]store.CaseFacts),
		MessageIDs: make(map[string][]store.MessageRef),
		Holders:    make(map[string]store.Holders, len(q.Addresses)),
		Contacts:   make(map[store.ID]store.Contact),
		Parents:    make(map[store.ID]store.Message),
		Answered:   make(map[store.CaseOrdinal]store.Message),
		Tallies:    make(map[store.TallyKey][]time.Time),
	}
	var err error
	if in.facts.Installation, err = r.Installation(); err != nil {
		return in.facts, err
	}
	for _, step := range []func() error{in.whoHolds, in.whereIDsLead, in.whichCases, in.whatTokensName, in.howMany} {
		if err := step(); err != nil {
			return in.facts, err
		}
	}
	return in.facts, nil
}

func (in *inquiry) whoHolds() error {
	for _, address := range in.Addresses {
		if _, done := in.facts.Holders[address]; done {
			continue
		}
		h, err := in.Holders(address)
		if err != nil {
			return err
		}
		for _, c := range h.Contacts {
			in.contacts[c.ID] = c
		}
		in.facts.Holders[address] = h
	}
	for _, id := range in.Query.Contacts {
		c, known, err := in.contact(id)
		if err != nil {
			return err
		}
		if known {
			in.facts.Contacts[id] = c
		}
	}
	return nil
}

// contact reads one that may be among those read already.
func (in *inquiry) contact(id store.ID) (c store.Contact, known bool, err error) {
	if c, known = in.contacts[id]; known {
		return c, true, nil
	}
	if known, err = in.find(contacts, id[:], &c); known {
		in.contacts[id] = c
	}
	return c, known, err
}

func (in *inquiry) whereIDsLead() error {
	for _, id := range in.Query.MessageIDs {
		if _, done := in.facts.MessageIDs[id]; done {
			continue
		}
		refs, err := in.refs(id)
		if err != nil {
			return err
		}
		if len(refs) > 0 {
			in.facts.MessageIDs[id] = refs
		}
		if err := in.parents(refs); err != nil {
			return err
		}
	}
	return nil
}

// parents reads the whole messages that bear an id asked for.
func (in *inquiry) parents(refs []store.MessageRef) error {
	if !in.Query.Parents {
		return nil
	}
	for _, ref := range refs {
		if _, done := in.facts.Parents[ref.ID]; done || !ref.Own {
			continue
		}
		m, err := in.Message(ref.ID)
		if err != nil {
			return err
		}
		in.facts.Parents[ref.ID] = m
	}
	return nil
}

func (in *inquiry) whichCases() error {
	numbers := append(slices.Clip(in.Query.Cases), in.ledTo()...)
	if len(numbers) > 0 {
		in.ask()
	}
	for _, n := range numbers {
		if err := in.follow(n); err != nil {
			return err
		}
	}
	return nil
}

func (in *inquiry) whatTokensName() error {
	for _, at := range in.Ordinals {
		m, err := in.ByOrdinal(at.Case, at.Ordinal)
		if err == nil {
			in.facts.Answered[at] = m
		} else if !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return nil
}

func (in *inquiry) howMany() error {
	for _, k := range in.Query.Tallies {
		events, err := in.tally(k, in.At)
		if err != nil {
			return err
		}
		if len(events) > 0 {
			in.facts.Tallies[k] = events
		}
	}
	return nil
}

// ledTo lists the cases that the ids asked for lead to.
func (in *inquiry) ledTo() (numbers []uint64) {
	for _, id := range in.Query.MessageIDs {
		for _, ref := range in.facts.MessageIDs[id] {
			if len(numbers) == store.MaxLedTo {
				return numbers
			}
			if ref.Case != 0 && !slices.Contains(numbers, ref.Case) {
				numbers = append(numbers, ref.Case)
			}
		}
	}
	return numbers
}

// follow reads a case and those it was merged into; a circle ends where it
// began.
func (in *inquiry) follow(n uint64) error {
	for n != 0 {
		if _, done := in.facts.Cases[n]; done {
			return nil
		}
		var cf store.CaseFacts
		known, err := in.find(cases, number(n), &cf.Case)
		if !known || err != nil {
			return err
		}
		if cf.Customer, _, err = in.contact(cf.Case.Customer); err != nil {
			return err
		}
		if cf.Used, err = in.usedOn(n, cf.Customer); err != nil {
			return err
		}
		in.facts.Cases[n] = cf
		n = cf.Case.MergedInto
	}
	return nil
}

// ask notes every address whose use on a case matters.
func (in *inquiry) ask() {
	in.asked = make(map[string]bool, 2*len(in.Addresses))
	for _, address := range in.Addresses {
		in.asked[address] = true
	}
	for _, c := range in.contacts { // who holds one of them, or was asked for; no customers yet
		for _, e := range c.EmailAddresses {
			in.asked[store.Key(e.Address)] = true
		}
	}
	in.hashed = make(map[[hashSize]byte]string, len(in.asked))
	for address := range in.asked {
		in.hashed[hashKey(address)] = address
	}
}

// manyUsed is how many rows of a case are looked through before they are
// sought one by one.
const manyUsed = 32

// usedOn looks through the addresses used on a case: mostly they are fewer
// than those asked.
func (in *inquiry) usedOn(n uint64, customer store.Contact) (map[string]store.Usage, error) {
	list := make(map[string]store.Usage)
	others := in.others(customer)
	rows := 0
	for k, v := range in.rows(used, number(n), nil) {
		if rows++; rows > manyUsed {
			return list, in.seekUsed(n, others, list)
		}
		h := [hashSize]byte(k[8:])
		address, ok := in.hashed[h]
		if !ok {
			address, ok = others[h]
		}
		if !ok {
			continue
		}
		v, err := in.unseal(used, k, v)
		if err != nil {
			return nil, err
		}
		list[address] = readUsage(v)
	}
	return list, nil
}

// others are the customer's addresses that were not asked.
func (in *inquiry) others(customer store.Contact) map[[hashSize]byte]string {
	var set map[[hashSize]byte]string
	for _, e := range customer.EmailAddresses {
		address := store.Key(e.Address)
		if in.asked[address] {
			continue
		}
		if set == nil {
			set = make(map[[hashSize]byte]string)
		}
		set[hashKey(address)] = address
	}
	return set
}

func (in *inquiry) seekUsed(n uint64, others map[[hashSize]byte]string, list map[string]store.Usage) error {
	for _, set := range []map[[hashSize]byte]string{in.hashed, others} {
		for h, address := range set {
			u, err := in.usage(append(number(n), h[:]...))
			if err != nil {
				return err
			}
			if u != nil {
				list[address] = *u
			}
		}
	}
	return nil
}
