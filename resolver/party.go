package resolver

import (
	"fmt"

	"github.com/casegate/casegate/store"
)

// people fills in the parties and links of an inbound message (rules §5,
// "Parties on inbound"): one row per address, never one per match.
func (in *inbound) people() {
	if in.d.Action == Duplicate || in.is(Unparsable) {
		return
	}
	p := &partyList{facts: in.facts, settings: in.settings, hand: in.d.Case.HandLinks}
	for _, a := range in.mail.From {
		p.add(in.senderParty(a))
	}
	for _, a := range in.mail.To {
		p.add(in.recipient(p, store.RoleTo, a))
	}
	for _, a := range in.mail.CC {
		p.add(in.recipient(p, store.RoleCC, a))
	}
	for _, r := range in.mail.Recipients {
		if m, ok := in.settings.Own(r); ok && !p.hasMailbox(m) {
			p.add(p.recipient(store.RoleBCC, Address{Address: r}))
		}
	}
	in.d.Parties = p.rows
	in.d.Links, in.d.Linked = links(p.rows, in.facts, in.settings, in.d.Guest)
	for _, row := range p.rows {
		if row.Party.Kind == store.Unresolved {
			in.d.Unresolved = append(in.d.Unresolved, row.AddressUsed)
		}
	}
}

// recipient is the row of a recipient. Whom an agent writes to is the customer
// of the case that it opens (rule I12).
func (in *inbound) recipient(p *partyList, role store.Role, a Address) store.Party {
	row := p.recipient(role, a)
	if in.d.Action == Open && in.d.Direction == store.Outgoing && in.d.Customer.HeldAt(a.Key(), in.mail.Received) {
		row.Party, row.Candidates, row.Why = contactRef(in.d.Customer), nil, "the customer of the case that this opens"
	}
	return row
}

// senderParty is the Sender row: several matches are settled by Case.Customer
// alone.
func (in *inbound) senderParty(a Address) store.Party {
	row := store.Party{Role: store.RoleSender, AddressUsed: a.Address, Name: a.Name}
	holders := in.facts.Holders[a.Key()]
	guest := in.d.Guest
	switch {
	case in.from(Own):
		return (&partyList{facts: in.facts, settings: in.settings}).recipient(store.RoleSender, a)
	case !in.sender.single:
		_, row.Candidates, _ = resolve(holders)
		row.Why = "From is not one plain address, so it is no identity"
	case guest != nil && guest.HeldAt(a.Key(), guest.CreatedAt):
		row.Party, row.Why = contactRef(*guest), "a new guest with this address"
	case in.from(Forged):
		_, row.Candidates, _ = resolve(holders)
		row.Why = "forged: nobody is taken for the sender"
	case in.sender.single && in.sender.vouched():
		row.Party, row.Why = contactRef(in.sender.contact), "vouched for by the form"
	case in.sender.single && matches(holders) > 1 && in.d.Customer.HeldAt(a.Key(), in.mail.Received):
		row.Party, row.Why = contactRef(in.d.Customer), "several share the address; the case's customer is one of them"
	default:
		if _, ok := linkedByHand(in.d.Case.HandLinks, a.Key()); ok {
			return (&partyList{facts: in.facts, settings: in.settings, hand: in.d.Case.HandLinks}).recipient(store.RoleSender, a)
		}
		row.Party, row.Candidates, row.Why = resolve(holders)
		if matches(holders) > 1 {
			row.Why = "duplicate_sender_unresolved: " + row.Why
		}
	}
	return row
}

// partyList grows by one row per address, beside the sender's; the first role
// of an address stays.
type partyList struct {
	facts    store.Facts
	settings Settings
	hand     []store.HandLink // of the case
	rows     []store.Party
	seen     map[seenParty]bool
}

type seenParty struct {
	sender bool
	key    string
}

func (p *partyList) add(row store.Party) {
	if p.seen == nil {
		p.seen = map[seenParty]bool{}
	}
	as := seenParty{row.Role == store.RoleSender, store.Key(row.AddressUsed)}
	if !p.seen[as] {
		p.seen[as] = true
		p.rows = append(p.rows, row)
	}
}

func (p *partyList) hasMailbox(m Mailbox) bool {
	for _, r := range p.rows {
		if r.Role != store.RoleSender && r.Party.Kind == store.PartyMailbox && r.Party.Address == m.Address {
			return true
		}
	}
	return false
}

// recipient is the row of one address that is no inbound sender.
func (p *partyList) recipient(role store.Role, a Address) store.Party {
	row := store.Party{Role: role, AddressUsed: a.Address, Name: a.Name}
	if m, ok := p.settings.Own(a.Address); ok {
		row.Party = store.PartyRef{Kind: store.PartyMailbox, Address: m.Address}
		row.Why = "our mailbox " + m.Address
		return row
	}
	if link, ok := linkedByHand(p.hand, a.Key()); ok {
		row.Party, row.ByHand = store.PartyRef{Kind: store.PartyContact, ID: link.Contact}, true
		row.Why = "linked by hand in this case by " + link.By
		return row
	}
	row.Party, row.Candidates, row.Why = resolve(p.facts.Holders[a.Key()])
	return row
}

// linkedByHand finds what a person said about an address of the case.
func linkedByHand(links []store.HandLink, key string) (store.HandLink, bool) {
	for _, l := range links {
		if l.Address == key {
			return l, true
		}
	}
	return store.HandLink{}, false
}

func matches(h store.Holders) int { return len(h.Contacts) + len(h.Accounts) + len(h.Agents) }

// resolve: exactly one match is the party; otherwise nobody is.
func resolve(h store.Holders) (store.PartyRef, []store.ID, string) {
	switch n := matches(h); {
	case n == 0:
		return store.PartyRef{}, nil, "no contact has this address"
	case n > 1:
		var ids []store.ID
		for _, c := range h.Contacts {
			ids = append(ids, c.ID)
		}
		return store.PartyRef{}, ids, fmt.Sprintf("shared by several (%d), left unresolved", n)
	case len(h.Contacts) == 1:
		return contactRef(h.Contacts[0]), nil, "exactly one contact has this address"
	case len(h.Accounts) == 1:
		return store.PartyRef{Kind: store.PartyAccount, ID: h.Accounts[0].ID}, nil, "exactly one account has this address"
	}
	return store.PartyRef{Kind: store.PartyAgent, ID: h.Agents[0].ID}, nil, "exactly one agent has this address"
}

func contactRef(c store.Contact) store.PartyRef {
	return store.PartyRef{Kind: store.PartyContact, ID: c.ID}
}

// links relates the message to every contact that has an address on it (S1 2);
// the guest that it mints is one of them.
func links(rows []store.Party, f store.Facts, s Settings, guest *store.Contact) ([]store.Link, []store.Contact) {
	var list []store.Link
	var linked []store.Contact
	seen := map[store.ID]bool{}
	for _, row := range rows {
		key := store.Key(row.AddressUsed)
		if _, own := s.Own(key); own {
			continue
		}
		contacts := f.Holders[key].Contacts
		if guest != nil && guest.HeldAt(key, guest.CreatedAt) {
			contacts = append(contacts[:len(contacts):len(contacts)], *guest)
		}
		if len(contacts) > 0 {
			list = appendNew(list, store.Link{Address: key})
		}
		for _, c := range contacts {
			if !seen[c.ID] {
				seen[c.ID] = true
				linked = append(linked, c)
			}
		}
	}
	return list, linked
}
