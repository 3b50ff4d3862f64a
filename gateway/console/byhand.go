package console

import (
	"fmt"
	"slices"

	"github.com/casegate/casegate/store"
)

// LinkOrder says who an unresolved address is.
type LinkOrder struct {
	Address string `json:"address" minLength:"1" doc:"as the messages have it"`
	Contact string `json:"contact" doc:"id of the contact"`
	Message string `json:"message,omitempty" doc:"only in this message; none: in all messages of the case, also later ones"`
	Force   bool   `json:"force,omitempty" doc:"also a contact who never had the address"`
}

// UnlinkOrder takes a link by hand back.
type UnlinkOrder struct {
	Address string `json:"address" minLength:"1"`
	Message string `json:"message,omitempty" doc:"only in this message; none: wherever the case has it by hand"`
}

// link says who an address is: in one message, or in the case and its later
// mail. Never outside the case: an address is no identity (rules §5).
func (d *deed) link(o LinkOrder) error {
	contact, err := findContact(d.tx, o.Contact)
	if err != nil {
		return err
	}
	key := store.Key(o.Address)
	had := func(e store.EmailAddress) bool { return store.Key(e.Address) == key }
	if !o.Force && !slices.ContainsFunc(contact.EmailAddresses, had) {
		return problem(409, "add --force if you know that it is theirs", "%s never had the address %s", named(person(contact)), o.Address)
	}
	if o.Message != "" {
		return d.linkInMessage(o, key, contact)
	}
	return d.linkInCase(o, key, contact)
}

func (d *deed) linkInMessage(o LinkOrder, key string, contact store.Contact) error {
	m, err := d.message(o.Message)
	if err != nil {
		return err
	}
	rows := tally(m, key)
	is := named(person(contact))
	switch other := rows.other(contact.ID); {
	case rows.none():
		return problem(404, "casegate message show "+m.ID.String()+" shows who took part", "message %s has no %s", m.ID, o.Address)
	case other != (store.ID{}):
		return d.linkedToOther(o, other)
	case rows.open == 0 && rows.byHand == nil:
		return d.settled(o.Address, "message "+m.ID.String())
	case rows.open == 0:
		return d.was("%s is linked to %s in message %s already", o.Address, is, m.ID)
	}
	if err := d.tx.PutMessage(linked(m, key, contact, "linked by hand in this message by "+d.by)); err != nil {
		return err
	}
	return d.done("%s linked by hand to %s in message %s", o.Address, identified(person(contact)), m.ID)
}

func (d *deed) linkInCase(o LinkOrder, key string, contact store.Contact) error {
	if err := d.unmerged(); err != nil { // later mail goes elsewhere
		return err
	}
	is := named(person(contact))
	at := d.handLink(key)
	if at >= 0 && d.c.HandLinks[at].Contact != contact.ID {
		return d.linkedToOther(o, d.c.HandLinks[at].Contact)
	}
	all, changed := rowsOf{}, 0
	err := d.messages(func(m store.Message) error {
		rows := tally(m, key)
		all.add(rows)
		if rows.open == 0 {
			return nil
		}
		changed++
		return d.tx.PutMessage(linked(m, key, contact, "linked by hand in this case by "+d.by))
	})
	switch {
	case err != nil:
		return err
	case at >= 0 && changed == 0:
		return d.was("%s is linked to %s in case %d already", o.Address, is, d.c.Number)
	case all.none():
		return d.stranger(o.Address)
	case all.open == 0 && all.byHand == nil && at < 0:
		return d.settled(o.Address, fmt.Sprintf("case %d", d.c.Number))
	}
	if at < 0 {
		d.c.HandLinks = append(slices.Clone(d.c.HandLinks), store.HandLink{Address: key, Contact: contact.ID, By: d.by, At: d.at})
	}
	return d.done("%s linked by hand to %s in case %d: %s, and later mail", o.Address, identified(person(contact)), d.c.Number, count(changed, "message"))
}

// unlink makes an address that was linked by hand unresolved again, with those
// who have it now as candidates.
func (d *deed) unlink(o UnlinkOrder) error {
	key := store.Key(o.Address)
	if o.Message != "" {
		return d.unlinkInMessage(o, key)
	}
	all, changed := rowsOf{}, 0
	err := d.messages(func(m store.Message) error {
		rows := tally(m, key)
		all.add(rows)
		if rows.byHand == nil {
			return nil
		}
		changed++
		return d.unlinked(m, key)
	})
	at := d.handLink(key)
	switch {
	case err != nil:
		return err
	case all.none() && at < 0:
		return d.stranger(o.Address)
	case changed == 0 && at < 0:
		return d.was("%s is not linked by hand in case %d", o.Address, d.c.Number)
	case at >= 0:
		d.c.HandLinks = slices.Delete(slices.Clone(d.c.HandLinks), at, at+1)
	}
	return d.done("%s no longer linked by hand in case %d: %s", o.Address, d.c.Number, count(changed, "message"))
}

func (d *deed) unlinkInMessage(o UnlinkOrder, key string) error {
	m, err := d.message(o.Message)
	if err != nil {
		return err
	}
	switch rows := tally(m, key); {
	case rows.none():
		return problem(404, "casegate message show "+m.ID.String()+" shows who took part", "message %s has no %s", m.ID, o.Address)
	case rows.byHand == nil:
		return d.was("%s is not linked by hand in message %s", o.Address, m.ID)
	}
	if err := d.unlinked(m, key); err != nil {
		return err
	}
	text := fmt.Sprintf("%s no longer linked by hand in message %s", o.Address, m.ID)
	if d.handLink(key) >= 0 {
		text += "; later mail on the case still is"
	}
	return d.done("%s", text)
}

// linked is a message whose unresolved rows of an address are a contact.
func linked(m store.Message, key string, contact store.Contact, why string) store.Message {
	m.Parties = slices.Clone(m.Parties)
	for i, p := range m.Parties {
		if store.Key(p.AddressUsed) == key && p.Party.Kind == store.Unresolved {
			p.Party, p.Candidates = store.PartyRef{Kind: store.PartyContact, ID: contact.ID}, nil
			p.ByHand, p.Why = true, why
			m.Parties[i] = p
		}
	}
	return m
}

func (d *deed) unlinked(m store.Message, key string) error {
	holders, err := d.tx.Holders(key)
	if err != nil {
		return err
	}
	var candidates []store.ID
	for _, c := range holders.Contacts {
		candidates = append(candidates, c.ID)
	}
	m.Parties = slices.Clone(m.Parties)
	for i, p := range m.Parties {
		if store.Key(p.AddressUsed) == key && p.ByHand {
			p.Party, p.ByHand, p.Candidates = store.PartyRef{}, false, candidates
			p.Why = fmt.Sprintf("unlinked by hand by %s; %s the address", d.by, have(len(candidates)))
			m.Parties[i] = p
		}
	}
	return d.tx.PutMessage(m)
}

// have counts contacts, as the beginning of a sentence.
func have(n int) string {
	if n == 0 {
		return "no contact has"
	}
	if n == 1 {
		return "one contact has"
	}
	return fmt.Sprintf("%d contacts have", n)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// rowsOf counts the party rows of one address: open ones are unresolved.
type rowsOf struct {
	open, fixed int
	byHand      []store.ID // contacts
}

func tally(m store.Message, key string) (rows rowsOf) {
	for _, p := range m.Parties {
		switch {
		case store.Key(p.AddressUsed) != key:
		case p.Party.Kind == store.Unresolved:
			rows.open++
		case p.ByHand:
			rows.byHand = append(rows.byHand, p.Party.ID)
		default:
			rows.fixed++
		}
	}
	return rows
}

func (r *rowsOf) add(more rowsOf) {
	r.open, r.fixed, r.byHand = r.open+more.open, r.fixed+more.fixed, append(r.byHand, more.byHand...)
}

func (r rowsOf) none() bool { return r.open == 0 && r.fixed == 0 && r.byHand == nil }

// other is a contact that the address was said to be before.
func (r rowsOf) other(than store.ID) store.ID {
	for _, id := range r.byHand {
		if id != than {
			return id
		}
	}
	return store.ID{}
}

// handLink is the place of an address among the case's links by hand, else -1.
func (d *deed) handLink(key string) int {
	return slices.IndexFunc(d.c.HandLinks, func(l store.HandLink) bool { return l.Address == key })
}

// message reads a message of this case.
func (d *deed) message(text string) (store.Message, error) {
	m, err := findMessage(d.tx, text)
	if err == nil && m.Case != d.c.Number {
		return m, problem(404, fmt.Sprintf("casegate message list --case %d shows the ids", d.c.Number), "message %s is not on case %d", m.ID, d.c.Number)
	}
	return m, err
}

// messages goes through the case's timeline.
func (d *deed) messages(each func(store.Message) error) error {
	for page := (store.Page{Limit: maxPage}); ; {
		rows, next, err := d.tx.Messages(store.MessageFilter{Case: d.c.Number}, page)
		if err != nil {
			return err
		}
		for _, m := range rows {
			if m.Case != d.c.Number {
				continue // it is only shown here
			}
			if err := each(m); err != nil {
				return err
			}
		}
		if next == "" {
			return nil
		}
		page.After = next
	}
}

func (d *deed) linkedToOther(o LinkOrder, id store.ID) error {
	who, err := assemble(d.tx, false).person(store.PartyContact, id)
	if err != nil {
		return err
	}
	undo := fmt.Sprintf("casegate case unlink %d --address %s", d.c.Number, o.Address)
	if o.Message != "" {
		undo += " --message " + o.Message
	}
	return problem(409, undo+" comes first", "%s is linked by hand to %s", o.Address, named(who))
}

func (d *deed) settled(address, where string) error {
	return problem(409, "casegate unresolved list shows what a person can link", "%s is resolved in %s by the rules", address, where)
}

func (d *deed) stranger(address string) error {
	return problem(404, fmt.Sprintf("casegate case show %d shows who took part", d.c.Number), "case %d has no message of or to %s", d.c.Number, address)
}
