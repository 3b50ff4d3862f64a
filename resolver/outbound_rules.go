package resolver

import (
	"cmp"
	"slices"

	"github.com/casegate/casegate/store"
)

// The rules O0-O12, in the order they apply. Each walks the entries that are
// still there.

func (o *outbound) each(f func(e *Entry)) {
	for i := range o.d.Entries {
		if e := &o.d.Entries[i]; !e.dropped() {
			f(e)
		}
	}
}

func (o *outbound) drop(e *Entry, rule, format string, args ...any) {
	e.Field, e.Deliver = "", false
	o.rule(rule, format, args...)
}

// ownAddresses: one of our own addresses is removed (O1).
func (o *outbound) ownAddresses() *Refusal {
	if !o.cased {
		return nil
	}
	o.each(func(e *Entry) {
		if _, own := o.settings.Own(e.Address.Address); own {
			o.drop(e, "O1", "%s is our own mailbox: removed from %s", e.called(), e.Given)
		}
	})
	return nil
}

// mode: a reply, or an internal consultation (O0).
func (o *outbound) mode() *Refusal {
	if !o.cased {
		return nil
	}
	o.d.Mode = Consult
	left := 0
	o.each(func(e *Entry) {
		left++
		if e.Given != store.RoleBCC && o.isCustomer(e.Address) {
			o.d.Mode = Reply
		}
	})
	switch {
	case o.d.Mode == Reply:
		o.rule("O0", "reply: Case.Customer is among the visible recipients")
	case left == 0:
		o.d.Mode = Reply
		o.rule("O0", "reply: nobody but ourselves was addressed")
	default:
		o.rule("O0", "consult: Case.Customer is not addressed, so he is not added")
	}
	return nil
}

func (o *outbound) isCustomer(a Address) bool {
	key := a.Key()
	return key == o.inserted || o.d.Customer.HeldAt(key, o.sub.Received)
}

// duplicates: the same canonical address more than once stays once, in the
// strongest field (O2).
func (o *outbound) duplicates() *Refusal {
	if !o.cased {
		return nil
	}
	seen := map[string]bool{}
	o.each(func(e *Entry) {
		if seen[e.Address.Key()] {
			o.drop(e, "O2", "%s stands more than once: removed from %s", e.called(), e.Given)
			return
		}
		seen[e.Address.Key()] = true
	})
	return nil
}

// customer: an address of Case.Customer in To or Cc is exactly one To (O3).
func (o *outbound) customer() *Refusal {
	if !o.cased || o.d.Mode != Reply {
		return nil
	}
	shown := o.shownCustomer()
	o.each(func(e *Entry) {
		switch {
		case !o.isCustomer(e.Address) || e.Field == store.RoleBCC:
		case e != shown:
			o.drop(e, "O3", "%s is a further address of Case.Customer: removed", e.Address.Address)
		default:
			e.Field = store.RoleTo
			if n := o.d.Customer.Name; n != "" && n != e.Address.Name {
				e.Name = n
			}
			o.rule("O3", "%s is Case.Customer: shown in To", e.Address.Address)
		}
	})
	return nil
}

// shownCustomer is the entry that Case.Customer is shown by: the first that
// the envelope has too, so that what is shown is what he gets.
func (o *outbound) shownCustomer() (shown *Entry) {
	o.each(func(e *Entry) {
		if o.isCustomer(e.Address) && e.Field != store.RoleBCC && (shown == nil || e.Deliver && !shown.Deliver) {
			shown = e
		}
	})
	return shown
}

// insertCustomer: a reply reaches Case.Customer, the only addition ever (O4).
func (o *outbound) insertCustomer() *Refusal {
	if !o.cased || o.d.Mode != Reply || o.customerIsIn() {
		return nil
	}
	address := o.customerAddress()
	switch {
	case o.d.Customer.DoNotEmail:
		o.rule("O4", "refused: Case.Customer does not want e-mail")
		return &Refusal{550, [3]int{5, 7, 1}, "the customer of the case does not want e-mail (do_not_email)"}
	case address == "":
		o.rule("O4", "refused: no address of Case.Customer is known")
		return &Refusal{550, [3]int{5, 1, 0}, "the customer of the case has no e-mail address: add one to the contact"}
	}
	o.d.Entries = append(o.d.Entries, Entry{
		Field: store.RoleTo, Name: o.d.Customer.Name, Deliver: true,
		Address: Address{Name: o.d.Customer.Name, Address: address}, Path: mailable(address),
	})
	o.inserted = store.Key(address)
	o.rule("O4", "Case.Customer was not addressed: %s is added to To", address)
	return nil
}

// mailable is an address that no envelope gave, with the domain as DNS has it.
func mailable(address string) string {
	local, _, ok := cutLast(address, "@")
	if !ok {
		return address
	}
	_, domain, _ := cutLast(store.Key(address), "@")
	return local + "@" + domain
}

func (o *outbound) customerIsIn() bool {
	return slices.ContainsFunc(o.d.Entries, func(e Entry) bool {
		return !e.dropped() && o.isCustomer(e.Address)
	})
}

// customerAddress is his last address used on the case, else his first, else
// that of who opened the case, unless it was once his and is no longer.
func (o *outbound) customerAddress() string {
	var best string
	var last store.Usage
	opener := o.d.Case.Opener
	for _, e := range o.d.Customer.EmailAddresses {
		key := store.Key(e.Address)
		if !o.d.Customer.HeldAt(key, o.sub.Received) {
			if key == store.Key(opener) {
				opener = ""
			}
			continue
		}
		use, used := o.found.Used[key]
		if best == "" || used && use.Last.After(last.Last) {
			best, last = e.Address, use
		}
	}
	return cmp.Or(best, opener)
}

// linkedOnly: a contact who is only linked, by an address that was never on
// the case, gets nothing (O5).
func (o *outbound) linkedOnly() *Refusal {
	if !o.cased {
		return nil
	}
	o.each(func(e *Entry) {
		key := e.Address.Key()
		if _, used := o.found.Used[key]; used || o.isCustomer(e.Address) {
			return
		}
		for _, c := range o.facts.Holders[key].Contacts {
			if o.onlyLinked(c) {
				o.drop(e, "O5", "%s belongs to a contact who is only linked to the case: dropped", e.called())
				return
			}
		}
	})
	return nil
}

// onlyLinked: addresses of the contact were used on the case, but none that is
// his alone, so that nobody can say it was he.
func (o *outbound) onlyLinked(c store.Contact) bool {
	linked := false
	for _, e := range c.EmailAddresses {
		key := store.Key(e.Address)
		if _, used := o.found.Used[key]; !used {
			continue
		}
		if h := o.facts.Holders[key]; matches(h) == 1 && len(h.Contacts) == 1 && h.Contacts[0].ID == c.ID {
			return false
		}
		linked = true
	}
	return linked
}

// others: everyone else by what the directory says (O6, O7, O8).
func (o *outbound) others() *Refusal {
	if !o.cased {
		return nil
	}
	o.each(func(e *Entry) {
		h := o.facts.Holders[e.Address.Key()]
		switch n := matches(h); {
		case o.isCustomer(e.Address), len(h.Agents) == 1 && n == 1:
		case n == 1:
			o.otherContact(e)
		case n > 1:
			o.unresolved(e, "O7", "%s is shared by several contacts", e.called())
		default:
			o.unresolved(e, "O8", "no contact has %s", e.called())
			if _, used := o.found.Used[e.Address.Key()]; !used {
				o.d.Flags = appendNew(o.d.Flags, "new-recipient")
			}
		}
	})
	return nil
}

// otherContact: someone else, known for certain (O6).
func (o *outbound) otherContact(e *Entry) {
	if o.d.Mode != Reply || e.Field != store.RoleTo {
		return
	}
	switch o.settings.ToPolicy {
	case "drop":
		o.drop(e, "O6", "%s is not Case.Customer: dropped (to_policy)", e.Address.Address)
	case "keep":
	default:
		e.Field = store.RoleCC
		o.rule("O6", "%s is not Case.Customer: moved to Cc", e.Address.Address)
	}
}

// unresolved: an address that is nobody's for certain is shown as text (O7, O8).
func (o *outbound) unresolved(e *Entry, rule, format string, args ...any) {
	if o.settings.Unresolved == "drop" {
		o.drop(e, rule, format+": dropped (unresolved)", args...)
		return
	}
	if e.Field == store.RoleBCC {
		return
	}
	if e.Address.Name != "" {
		e.Bare = true
	}
	if o.d.Mode == Reply && e.Field != store.RoleCC {
		e.Field, e.Bare = store.RoleCC, true
	}
	if e.Changed() {
		o.rule(rule, format+": shown as the bare address in %s", append(args, e.Field)...)
	}
}

// originals: nobody of an older message comes back by himself (O9); a site may
// ask for the unresolved recipients of the message answered.
func (o *outbound) originals() *Refusal {
	o.d.Parent = o.parent()
	policy := o.settings.UnresolvedOriginals
	if !o.cased || o.d.Mode != Reply || o.d.Parent == nil || policy == "" || policy == "off" {
		return nil
	}
	field := store.RoleCC
	if policy == "bcc" {
		field = store.RoleBCC
	}
	for _, p := range o.d.Parent.Parties {
		a := Address{Address: p.AddressUsed}
		_, own := o.settings.Own(a.Address)
		recipient := p.Role == store.RoleTo || p.Role == store.RoleCC
		if !recipient || own || p.Party.Kind != store.Unresolved || o.stands(a) {
			continue
		}
		o.d.Entries = append(o.d.Entries, Entry{Field: field, Bare: true, Address: a, Path: mailable(a.Address), Deliver: true})
		o.rule("O9", "%s was an unresolved recipient of the message answered: added to %s (unresolved_originals)", a.Address, field)
	}
	return nil
}

// stands: the address is in the list already, or a rule took it out.
func (o *outbound) stands(a Address) bool {
	return slices.ContainsFunc(o.d.Entries, func(e Entry) bool { return e.Address.Key() == a.Key() })
}

// parent is the message answered: the newest of those In-Reply-To and
// References name that is on the case.
func (o *outbound) parent() *store.Message {
	ids := append(slices.Clone(o.sub.InReplyTo), backwards(o.sub.References)...)
	for _, id := range ids {
		for _, ref := range o.facts.MessageIDs[id] {
			c, onCase := followMerges(o.facts, ref.Case)
			if p, ok := o.facts.Parents[ref.ID]; ok && ref.Own && onCase && c.Case.Number == o.d.Case.Number {
				return &p
			}
		}
	}
	return nil
}

// bcc: never moved to a visible field; the header goes (O10).
func (o *outbound) bcc() *Refusal {
	hidden := len(headerValues(o.sub.Mail, "Bcc")) > 0
	o.each(func(e *Entry) { hidden = hidden || e.Field == store.RoleBCC })
	if hidden {
		o.rule("O10", "blind copies are delivered and shown nowhere")
	}
	if !o.settings.BccCurrentUser || !o.cased {
		return nil
	}
	from, _ := o.sub.Sender()
	if len(o.facts.Holders[from.Key()].Agents) != 1 {
		o.rule("O10", "bcc_current_user is on, but no agent has %s: not applied", from.Address)
		return nil
	}
	if !o.stands(from) {
		o.d.Entries = append(o.d.Entries, Entry{Field: store.RoleBCC, Address: from, Path: mailable(from.Address), Deliver: true})
		o.rule("O10", "bcc_current_user adds %s", from.Address)
	}
	return nil
}

// nobody: no recipient is left (O12).
func (o *outbound) nobody() *Refusal {
	if len(o.d.Recipients()) > 0 {
		return nil
	}
	o.rule("O12", "no recipient is left: nothing is sent")
	return &Refusal{554, [3]int{5, 5, 0}, "no recipient is left after the rules were applied: " + o.lastDrop()}
}

func (o *outbound) lastDrop() string {
	for i := len(o.Rules) - 2; i >= 0; i-- {
		if r := o.Rules[i]; r != "O0" && r != "O12" {
			return "see rule " + r
		}
	}
	return "no address of the envelope stands in it"
}

// finish fills in the parties and links of what is really sent.
func (o *outbound) finish() {
	p := &partyList{facts: o.facts, settings: o.settings}
	if from, ok := o.sub.Sender(); ok {
		p.add(p.recipient(store.RoleSender, from))
	}
	o.each(func(e *Entry) {
		role := e.Field
		e.Party = p.recipient(role, e.Address)
		if o.cased && o.isCustomer(e.Address) {
			e.Party.Party, e.Party.Candidates, e.Party.Why = contactRef(o.d.Customer), nil, "Case.Customer"
		}
		if e.Bare {
			e.Party.Name = ""
		}
		p.add(e.Party)
	})
	o.d.Parties = p.rows
	o.d.Links, _ = links(p.rows, o.facts, o.settings, nil)
	o.d.Decision = o.Decision
}
