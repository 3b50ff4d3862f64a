package resolver

import (
	"cmp"
	"fmt"

	"github.com/casegate/casegate/store"
)

// create opens a case for mail about none (uncased: create), as rule I12 does
// for what an agent writes: the one outsider addressed is the customer.
func (o *outbound) create() *Refusal {
	if sign := autoReplySign(o.sub.Mail); sign != "" {
		o.note("uncased: no case is opened for what a machine answers: %s", sign)
		return nil
	}
	shown, n := o.outsiders()
	switch {
	case n == 0:
		o.note("uncased: nobody outside is addressed, so no case is opened")
		return nil
	case n > 1:
		o.note("refused: a new case has one customer, and %d outsiders are addressed", n)
		return &Refusal{550, [3]int{5, 7, 1}, fmt.Sprintf("the message is about no case, and %d outsiders are addressed: write to the customer alone to open a case, or answer a message of the case (outbound.uncased is create)", n)}
	case shown == nil:
		o.note("refused: the only outsider addressed is in Bcc")
		return &Refusal{550, [3]int{5, 7, 1}, "the message is about no case, and its only outsider is in Bcc: put the customer in To to open a case (outbound.uncased is create)"}
	case o.sub.DirectoryOut != "" && o.settings.OnUnknown != "pass":
		return o.deferred()
	}
	o.open(*shown)
	return nil
}

// outsiders counts the addresses given that are neither ours nor an agent's,
// and returns the first that To or Cc shows.
func (o *outbound) outsiders() (shown *Address, n int) {
	seen := map[string]bool{}
	count := func(a Address) bool {
		key := a.Key()
		_, own := o.settings.Own(a.Address)
		if seen[key] || own || len(o.facts.Holders[key].Agents) > 0 {
			return false
		}
		seen[key] = true
		n++
		return true
	}
	for _, list := range [][]Address{o.sub.To, o.sub.CC} {
		for _, a := range list {
			if count(a) && shown == nil {
				shown = &a
			}
		}
	}
	for _, r := range o.sub.Recipients {
		count(Address{Address: r})
	}
	return shown, n + o.sub.Omitted
}

// open makes the case; its number is for the caller to give.
func (o *outbound) open(to Address) {
	customer := o.newCustomer(to)
	c := store.Case{
		ID: o.sub.NewCase, Number: o.sub.NewNumber, Title: cmp.Or(o.sub.Subject, "(no subject)"),
		State: store.Active, Origin: "Email", Customer: customer.ID, Opener: to.Address, Ordinal: 1,
		CreatedAt: o.sub.Received, UpdatedAt: o.sub.Received,
	}
	if m, ok := o.settings.Own(o.caseMailbox()); ok {
		c.Queue, c.Mailbox = m.Queue, m.Address
	}
	if customer.Account != (store.ID{}) {
		c.Accounts = append(c.Accounts, customer.Account)
	}
	for _, a := range o.facts.Holders[to.Key()].Accounts {
		c.Accounts = appendNew(c.Accounts, a.ID)
	}
	o.cased, o.d.Opens = true, true
	o.found = store.CaseFacts{Case: c, Customer: customer, Used: map[string]store.Usage{}}
	o.d.Case, o.d.Customer, o.d.Ordinal = c, customer, 1
}

// newCustomer is the single registered contact who has the address, else a new
// guest.
func (o *outbound) newCustomer(to Address) store.Contact {
	if r := ofKind(o.facts.Holders[to.Key()].Contacts, store.Registered); len(r) == 1 {
		o.note("a new case is opened for contact %s, to whom it is written (uncased: create)", r[0].ID)
		return r[0]
	}
	o.d.Guest = &store.Contact{
		ID: o.sub.NewContact, Kind: store.Guest, Name: to.Name, CreatedAt: o.sub.Received,
		EmailAddresses: []store.EmailAddress{{Address: to.Address, From: o.sub.Received}},
	}
	o.note("a new case is opened for a new guest, %s, to whom it is written (uncased: create)", to.Address)
	return *o.d.Guest
}
