package bolt

import (
	"errors"
	"slices"

	"github.com/casegate/casegate/store"
)

// Facts is on the path of every message, inside the commit loop: it reads by
// key and decodes nothing that was not asked for.
func (r *reader) Facts(q store.Query) (store.Facts, error) {
	f := store.Facts{
		Cases:      make(map[uint64]store.CaseFacts),
		MessageIDs: make(map[string][]store.MessageRef, len(q.MessageIDs)),
		Holders:    make(map[string]store.Holders, len(q.Addresses)),
		Contacts:   make(map[store.ID]store.Contact, len(q.Contacts)),
		Parents:    make(map[store.ID]store.Message),
	}
	var err error
	if f.Installation, err = r.Installation(); err != nil {
		return f, err
	}
	for _, step := range []func(store.Query, *store.Facts) error{r.whoHolds, r.whereIDsLead, r.whichCases} {
		if err := step(q, &f); err != nil {
			return f, err
		}
	}
	return f, nil
}

func (r *reader) whoHolds(q store.Query, f *store.Facts) error {
	for _, address := range q.Addresses {
		if _, done := f.Holders[address]; done {
			continue
		}
		h, err := r.Holders(address)
		if err != nil {
			return err
		}
		f.Holders[address] = h
	}
	for _, id := range q.Contacts {
		c, err := r.Contact(id)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		f.Contacts[id] = c
	}
	return nil
}

func (r *reader) whereIDsLead(q store.Query, f *store.Facts) error {
	for _, id := range q.MessageIDs {
		if _, done := f.MessageIDs[id]; done {
			continue
		}
		refs, err := r.refs(id)
		if err != nil {
			return err
		}
		if len(refs) > 0 {
			f.MessageIDs[id] = refs
		}
		if err := r.parents(q, refs, f); err != nil {
			return err
		}
	}
	return nil
}

// parents reads the whole messages that bear an id asked for.
func (r *reader) parents(q store.Query, refs []store.MessageRef, f *store.Facts) error {
	if !q.Parents {
		return nil
	}
	for _, ref := range refs {
		if _, done := f.Parents[ref.ID]; done || !ref.Own {
			continue
		}
		m, err := r.Message(ref.ID)
		if err != nil {
			return err
		}
		f.Parents[ref.ID] = m
	}
	return nil
}

func (r *reader) whichCases(q store.Query, f *store.Facts) error {
	addresses := asked(q, f)
	for _, n := range q.Cases {
		if err := r.follow(n, addresses, f); err != nil {
			return err
		}
	}
	for _, n := range ledTo(q, f) {
		if err := r.follow(n, addresses, f); err != nil {
			return err
		}
	}
	return nil
}

// ledTo lists the cases that the ids asked for lead to.
func ledTo(q store.Query, f *store.Facts) (numbers []uint64) {
	for _, id := range q.MessageIDs {
		for _, ref := range f.MessageIDs[id] {
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
func (r *reader) follow(n uint64, addresses map[string]bool, f *store.Facts) error {
	for n != 0 {
		if _, done := f.Cases[n]; done {
			return nil
		}
		var cf store.CaseFacts
		known, err := r.find(cases, number(n), &cf.Case)
		if !known || err != nil {
			return err
		}
		customer := cf.Case.Customer
		if _, err := r.find(contacts, customer[:], &cf.Customer); err != nil {
			return err
		}
		if cf.Used, err = r.usedOn(n, addresses, cf.Customer); err != nil {
			return err
		}
		f.Cases[n] = cf
		n = cf.Case.MergedInto
	}
	return nil
}

// asked is every address whose use on a case matters.
func asked(q store.Query, f *store.Facts) map[string]bool {
	set := make(map[string]bool, 2*len(q.Addresses))
	for _, address := range q.Addresses {
		set[address] = true
		for _, c := range f.Holders[address].Contacts {
			for _, e := range c.EmailAddresses {
				set[store.Key(e.Address)] = true
			}
		}
	}
	for _, c := range f.Contacts {
		for _, e := range c.EmailAddresses {
			set[store.Key(e.Address)] = true
		}
	}
	return set
}

func (r *reader) usedOn(n uint64, addresses map[string]bool, customer store.Contact) (map[string]store.Usage, error) {
	list := make(map[string]store.Usage)
	note := func(address string) error {
		u, err := r.usage(usedKey(n, address))
		if u != nil {
			list[address] = *u
		}
		return err
	}
	for address := range addresses {
		if err := note(address); err != nil {
			return nil, err
		}
	}
	for _, e := range customer.EmailAddresses {
		if address := store.Key(e.Address); !addresses[address] {
			if err := note(address); err != nil {
				return nil, err
			}
		}
	}
	return list, nil
}
