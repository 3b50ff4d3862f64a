package bolt

import (
	"bytes"
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
	contacts []store.Contact // read so far
	asked    []asked         // on every case; in order
}

func (r *reader) Facts(q store.Query) (store.Facts, error) {
	in := &inquiry{reader: r, Query: q}
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
		in.contacts = append(in.contacts, h.Contacts...)
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
	for _, c := range in.contacts {
		if c.ID == id {
			return c, true, nil
		}
	}
	read, err := lookup[store.Contact](in.reader, contacts, id[:])
	if read == nil || err != nil {
		return c, false, err
	}
	in.contacts = append(in.contacts, *read)
	return *read, true, nil
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
		known, err := in.find(cases, ofCase(n, ofRecord), &cf.Case)
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

// asked is an address whose use on a case matters.
type asked struct {
	hash    [hashSize]byte // by which rows of cases name it
	address string
}

func compareAsked(a, b asked) int { return bytes.Compare(a.hash[:], b.hash[:]) }

func hashed(address string) asked { return asked{hashKey(address), address} }

// ask notes the addresses that matter on every case: those asked, and all of
// the contacts read so far, who hold one of them or were asked for.
func (in *inquiry) ask() {
	for _, address := range in.Addresses {
		in.asked = append(in.asked, hashed(address))
	}
	for _, c := range in.contacts {
		in.asked = append(in.asked, contactAddresses(c)...)
	}
	slices.SortFunc(in.asked, compareAsked)
	in.asked = slices.Compact(in.asked)
}

func contactAddresses(c store.Contact) []asked {
	list := make([]asked, len(c.EmailAddresses))
	for i, e := range c.EmailAddresses {
		list[i] = hashed(store.Key(e.Address))
	}
	return list
}

// manyUsed is how many rows of a case are looked through before they are
// sought one by one.
const manyUsed = 32

// usedOn looks through the addresses used on a case: mostly they are fewer
// than those asked.
func (in *inquiry) usedOn(n uint64, customer store.Contact) (map[string]store.Usage, error) {
	list := make(map[string]store.Usage)
	others := contactAddresses(customer)
	rows := 0
	for k, v := range in.rows(cases, ofCase(n, ofUse), nil) {
		if rows++; rows > manyUsed {
			return list, in.seekUsed(n, others, list)
		}
		address, ok := in.matters([hashSize]byte(k[caseRow:]), others)
		if !ok {
			continue
		}
		v, err := in.unseal(cases, k, v)
		if err != nil {
			return nil, err
		}
		list[address] = readUsage(v)
	}
	return list, nil
}

// matters tells which address a hash is of, if it was asked or is among others.
func (in *inquiry) matters(h [hashSize]byte, others []asked) (string, bool) {
	if i, ok := slices.BinarySearchFunc(in.asked, asked{hash: h}, compareAsked); ok {
		return in.asked[i].address, true
	}
	for _, a := range others {
		if a.hash == h {
			return a.address, true
		}
	}
	return "", false
}

func (in *inquiry) seekUsed(n uint64, others []asked, list map[string]store.Usage) error {
	for _, set := range [][]asked{in.asked, others} {
		for _, a := range set {
			u, err := in.usage(ofCase(n, ofUse, a.hash[:]))
			if err != nil {
				return err
			}
			if u != nil {
				list[a.address] = *u
			}
		}
	}
	return nil
}
