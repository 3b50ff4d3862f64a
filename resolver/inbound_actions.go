package resolver

import (
	"slices"

	"github.com/casegate/casegate/store"
)

// The actions of the inbound table. Each fills in the decision; none of them
// changes the customer of an existing case.

func except(reason string) func(*inbound) {
	return func(in *inbound) { in.d.Action, in.d.Exception = Except, reason }
}

func (in *inbound) duplicate() {
	in.d.Action, in.d.Original = Duplicate, in.original
	in.note("same Message-ID and content as message %s: nothing is done twice", in.original.ID)
}

func (in *inbound) linkOnly() {
	in.d.Action = Link
	in.join()
	in.note("linked to case %d, whose state stays %s", in.d.Case.Number, in.d.Case.State)
	if in.d.Internal = in.consult; in.consult {
		in.note("it answers an internal consultation: internal, and nobody new is made a contact")
	}
}

func (in *inbound) link() {
	in.linkOnly()
	in.newcomer()
}

func (in *inbound) linkLate() {
	in.link()
	if !in.consult {
		in.d.Flags = append(in.d.Flags, "late-reply")
	}
}

func (in *inbound) linkCancelled() {
	in.link()
	in.d.Flags = append(in.d.Flags, "case-cancelled")
}

func (in *inbound) reopen() {
	in.linkOnly()
	in.d.Action = Reopen
	in.d.Case.State = store.Active
	in.d.Case.ReopenedAt = append(slices.Clone(in.d.Case.ReopenedAt), in.mail.Received)
	in.note("case %d is active again; its queue and owner stay", in.d.Case.Number)
	in.newcomer()
}

// join puts the message on the case that its evidence leads to.
func (in *inbound) join() {
	c := in.tracking.found.Case
	c.Ordinal++
	c.UpdatedAt = in.mail.Received
	in.d.Case, in.d.Customer, in.d.AlsoOn = c, in.tracking.found.Customer, in.tracking.alsoOn
	in.d.Ordinal = c.Ordinal
}

// newcomer mints a guest as sender when a person nobody knows writes on a case.
func (in *inbound) newcomer() {
	if in.directoryOut {
		in.d.Flags = append(in.d.Flags, "pending-directory")
		in.note("nobody is made a contact before the directory answers")
		return
	}
	if in.consult || !in.is(Human) || in.from(Forged) || !in.sender.single || in.sender.matches() > 0 || in.sender.vouched() {
		return
	}
	in.mint(false)
	in.note("new guest %s: nobody has the sender's address", in.sender.address.Address)
}

func (s sender) matches() int { return matches(s.holders) }

// vouched: a trusted form says which contact it is.
func (s sender) vouched() bool { return s.identity == Asserted && s.contact.ID != (store.ID{}) }

func (in *inbound) openUnverified() {
	in.mint(true)
	in.open(*in.d.Guest)
	in.d.Case.Queue = "unverified"
	in.note("new case in the queue unverified for a new guest, who is unverified")
}

func (in *inbound) openAsserted() {
	if !in.sender.vouched() {
		in.openGuest()
		return
	}
	in.open(in.sender.contact)
	in.note("new case for the asserted contact %s", in.sender.contact.ID)
}

func (in *inbound) openRegistered() {
	if in.settings.Strict {
		in.note("identity.on_unverified is guest")
		in.openGuest()
		return
	}
	in.openVerified()
}

func (in *inbound) openVerified() {
	in.open(in.sender.contact)
	in.note("new case for contact %s", in.sender.contact.ID)
}

func (in *inbound) openGuest() {
	in.mint(false)
	in.open(*in.d.Guest)
	in.note("new case for a new guest; %s", in.shares())
}

func (in *inbound) shares() string {
	switch len(in.sender.holders.Contacts) {
	case 0:
		return "nobody else has the address"
	case 1:
		return "one other contact shares the address and is linked"
	}
	return "the other contacts that share the address are linked"
}

// mint prepares the guest whom this message brings about: its sender.
func (in *inbound) mint(unverified bool) {
	in.mintFor(in.sender.address, unverified)
	if !in.sender.single {
		in.d.Guest.EmailAddresses = nil
	}
}

func (in *inbound) mintFor(a Address, unverified bool) {
	in.d.Guest = &store.Contact{
		ID: in.mail.NewContact, Kind: store.Guest, Name: a.Name, Unverified: unverified, CreatedAt: in.mail.Received,
		EmailAddresses: []store.EmailAddress{{Address: a.Address, From: in.mail.Received}},
	}
}

func (in *inbound) open(customer store.Contact) {
	c := store.Case{
		ID: in.mail.NewCase, Title: in.mail.Subject, State: store.Active, Origin: "Email",
		Customer: customer.ID, Ordinal: 1, CreatedAt: in.mail.Received, UpdatedAt: in.mail.Received,
	}
	if in.sender.single {
		c.Opener = in.sender.address.Address
	}
	if c.Title == "" {
		c.Title = "(no subject)"
	}
	for _, r := range in.mail.Recipients {
		if m, ok := in.settings.Own(r); ok {
			c.Queue, c.Mailbox = m.Queue, m.Address
			break
		}
	}
	if customer.Account != (store.ID{}) {
		c.Accounts = append(c.Accounts, customer.Account)
	}
	for _, a := range in.sender.holders.Accounts {
		c.Accounts = appendNew(c.Accounts, a.ID)
	}
	in.d.Action, in.d.Case, in.d.Customer, in.d.Ordinal = Open, c, customer, 1
	if in.settings.FloodHour > 0 || in.settings.FloodDay > 0 {
		in.d.Opened = in.mail.opener()
	}
}
