package console

import (
	"errors"

	"github.com/casegate/casegate/store"
)

// assembler builds API records out of one snapshot, looking each name up once.
type assembler struct {
	store.Reader
	seesBCC bool
	people  map[store.ID]Person
}

func assemble(rd store.Reader, seesBCC bool) *assembler {
	return &assembler{rd, seesBCC, map[store.ID]Person{}}
}

// person looks a contact, account or agent up; one that is gone keeps its id.
func (a *assembler) person(kind store.PartyKind, id store.ID) (Person, error) {
	if p, ok := a.people[id]; ok {
		return p, nil
	}
	p, err := a.look(kind, id)
	if errors.Is(err, store.ErrNotFound) {
		p, err = Person{ID: id, Kind: string(kind)}, nil
	}
	if err == nil {
		a.people[id] = p
	}
	return p, err
}

func (a *assembler) look(kind store.PartyKind, id store.ID) (Person, error) {
	switch kind {
	case store.PartyAccount:
		r, err := a.Account(id)
		return Person{id, string(r.Kind), r.Name}, err
	case store.PartyAgent:
		r, err := a.Agent(id)
		return Person{id, string(kind), r.Name}, err
	}
	r, err := a.Contact(id)
	return Person{id, string(r.Kind), r.Name}, err
}

func (a *assembler) caseRow(c store.Case) (Case, error) {
	customer, err := a.person(store.PartyContact, c.Customer)
	return Case{
		ID: c.ID, Number: c.Number, Title: c.Title, State: c.State, Origin: c.Origin, Queue: c.Queue,
		Customer: customer, MergedInto: c.MergedInto, Flags: c.Flags, CreatedAt: c.CreatedAt, UpdatedAt: c.UpdatedAt,
	}, err
}

// caseDetail is a case with its accounts, timeline and log.
func (a *assembler) caseDetail(c store.Case) (CaseDetail, error) {
	row, err := a.caseRow(c)
	d := CaseDetail{Case: row, Accounts: []Person{}, Timeline: []Activity{}, Log: []store.LogEntry{}}
	if err != nil {
		return d, err
	}
	for _, id := range c.Accounts {
		account, err := a.person(store.PartyAccount, id)
		if err != nil {
			return d, err
		}
		d.Accounts = append(d.Accounts, account)
	}
	messages, err := all(func(p store.Page) ([]store.Message, store.Cursor, error) {
		return a.Messages(store.MessageFilter{Case: c.Number}, p)
	})
	if err != nil {
		return d, err
	}
	for _, m := range messages {
		activity, err := a.activity(m)
		if err != nil {
			return d, err
		}
		d.Timeline = append(d.Timeline, activity)
	}
	v := veilFor(a.seesBCC, messages...)
	if d.HandLinks, err = a.handLinks(c, v); err != nil {
		return d, err
	}
	d.Log, err = a.log(c.Number, v)
	return d, err
}

func (a *assembler) handLinks(c store.Case, v veil) (list []HandLink, err error) {
	for _, l := range c.HandLinks {
		if v.hides(l.Address) {
			continue
		}
		contact, err := a.person(store.PartyContact, l.Contact)
		if err != nil {
			return nil, err
		}
		list = append(list, HandLink{l.Address, contact, l.By, l.At})
	}
	return list, nil
}

// log is the log of a case, without what the veil hides.
func (a *assembler) log(number uint64, v veil) ([]store.LogEntry, error) {
	entries, err := all(func(p store.Page) ([]store.LogEntry, store.Cursor, error) { return a.Log(number, p) })
	for i := range entries {
		entries[i].Text = v.text(entries[i].Text)
	}
	return entries, err
}

// all reads a list to its end.
func all[T any](list func(store.Page) ([]T, store.Cursor, error)) ([]T, error) {
	rows := []T{}
	for page := (store.Page{Limit: maxPage}); ; {
		more, next, err := list(page)
		rows = append(rows, more...)
		if err != nil || next == "" {
			return rows, err
		}
		page.After = next
	}
}

// messageRow tells a message in one row. Its subject and sender are its own
// words, Bcc never among them.
func messageRow(m store.Message) MessageRow {
	return MessageRow{
		ID: m.ID, MessageID: m.MessageID, Subject: m.Subject, Direction: m.Direction,
		Case: given(m.Case), Exception: given(m.Exception), From: m.From, ReceivedAt: m.ReceivedAt,
	}
}

// given is null in JSON for what is not set.
func given[T comparable](v T) *T {
	var unset T
	if v == unset {
		return nil
	}
	return &v
}

func (a *assembler) activity(m store.Message) (Activity, error) {
	v := veilFor(a.seesBCC, m)
	act := Activity{
		MessageRow: messageRow(m), Class: m.Class, Identity: m.Identity, Flags: m.Flags,
		CorrelationMethod: m.CorrelationMethod, RelatedCases: m.Related, Internal: m.Internal, Archived: m.Archived,
		Decision: store.Decision{Rules: filled(m.Decision.Rules), Reasons: filled(v.texts(m.Decision.Reasons))},
		Events:   v.events(m),
	}
	var err error
	if act.Parties, err = a.parties(v.parties(m.Parties)); err != nil {
		return act, err
	}
	if act.Links, err = a.links(m, v); err != nil {
		return act, err
	}
	act.Delivery, err = a.deliveries(m, v)
	return act, err
}

func (a *assembler) messageDetail(m store.Message) (MessageDetail, error) {
	act, err := a.activity(m)
	v := veilFor(a.seesBCC, m)
	d := MessageDetail{Activity: act, References: m.References, Mailboxes: m.Mailboxes, Envelope: m.Envelope, Authentication: m.Authentication}
	d.Envelope.Recipients = filled(v.addresses(m.Envelope.Recipients))
	return d, err
}

func (a *assembler) parties(list []store.Party) ([]ActivityParty, error) {
	out := []ActivityParty{}
	for _, p := range list {
		row := ActivityParty{Role: p.Role, AddressUsed: p.AddressUsed, Name: p.Name, ByHand: p.ByHand, Why: p.Why}
		switch p.Party.Kind {
		case store.Unresolved:
		case store.PartyMailbox:
			row.Party = &PartyRef{Kind: p.Party.Kind, Address: p.Party.Address}
		default:
			who, err := a.person(p.Party.Kind, p.Party.ID)
			if err != nil {
				return out, err
			}
			row.Party = &PartyRef{Kind: p.Party.Kind, ID: p.Party.ID, Name: who.Name}
		}
		for _, id := range p.Candidates {
			who, err := a.person(store.PartyContact, id)
			if err != nil {
				return out, err
			}
			row.Candidates = append(row.Candidates, who)
		}
		out = append(out, row)
	}
	return out, nil
}

// name fills in the names of the parties that have none.
func (a *assembler) name(parties []ActivityParty) error {
	for _, p := range parties {
		if p.Party == nil || p.Party.Name != "" || p.Party.Kind == store.PartyMailbox {
			continue
		}
		who, err := a.person(p.Party.Kind, p.Party.ID)
		if err != nil {
			return err
		}
		p.Party.Name = who.Name
	}
	return nil
}

// links expands a message's links to the contacts that held the address when
// it came; an address that has moved on since keeps its old links.
func (a *assembler) links(m store.Message, v veil) ([]ContactLink, error) {
	out := []ContactLink{}
	for _, l := range m.Links {
		if v.hides(l.Address) {
			continue
		}
		holders, err := a.HeldBy(l.Address, m.ReceivedAt)
		if err != nil {
			return out, err
		}
		for _, c := range holders {
			out = append(out, ContactLink{Person{c.ID, string(c.Kind), c.Name}, l.Address})
		}
	}
	return out, nil
}

func (a *assembler) deliveries(m store.Message, v veil) ([]store.Delivery, error) {
	rows, err := all(func(p store.Page) ([]store.Delivery, store.Cursor, error) {
		return a.Deliveries(store.DeliveryFilter{Message: m.ID}, p)
	})
	for i := range rows {
		rows[i] = v.delivery(rows[i])
	}
	return rows, err
}

// filled is never null in JSON.
func filled(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
