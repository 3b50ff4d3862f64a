package resolver

import (
	"cmp"
	"slices"
	"strings"

	"github.com/casegate/casegate/store"
)

// The rules about Case.Customer and about ourselves (O0-O4), in the order they
// apply.

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
	left, visible := 0, false
	o.each(func(e *Entry) {
		left++
		visible = visible || e.Given != store.RoleBCC && o.isCustomer(e.Address)
	})
	asked := o.askedMode()
	o.d.Mode = Reply
	switch {
	case visible:
		o.rule("O0", "reply: Case.Customer is among the visible recipients")
	case asked == Reply:
		o.rule("O0", "reply: a trusted application says so in X-Case-Mode")
	case asked == Consult:
		o.d.Mode = Consult
		o.rule("O0", "consult: a trusted application says so in X-Case-Mode")
	case left == 0:
		o.rule("O0", "reply: nobody but ourselves was addressed")
	case o.answersReplyTo():
		o.rule("O0", "reply: it goes to the Reply-To of the message it answers, which is Case.Customer's")
	default:
		o.d.Mode = Consult
		o.rule("O0", "consult: Case.Customer is not addressed, so he is not added")
	}
	return nil
}

// askedMode is what a trusted application wants.
func (o *outbound) askedMode() Mode {
	if !o.sub.ControlHeaders {
		return ""
	}
	return Mode(strings.ToLower(strings.TrimSpace(first(o.sub.Header, "X-Case-Mode"))))
}

// answersReplyTo: the message answered is Case.Customer's own, it asked for
// answers at another address, and there they go. That address stays what the
// directory says of it: it is no proof of who reads there.
func (o *outbound) answersReplyTo() bool {
	p := o.d.Parent
	if p == nil || p.Direction != store.Incoming || p.Identity == string(Forged) || !sentBy(*p, o.d.Customer.ID) {
		return false
	}
	return slices.ContainsFunc(o.d.Entries, func(e Entry) bool {
		return !e.dropped() && e.Given != store.RoleBCC && hasKey(p.ReplyTo, e.Address.Key())
	})
}

func sentBy(m store.Message, contact store.ID) bool {
	return slices.ContainsFunc(m.Parties, func(p store.Party) bool {
		return p.Role == store.RoleSender && p.Party.Kind == store.PartyContact && p.Party.ID == contact
	})
}

// isCustomer: the address is Case.Customer's, by his record, by what a person
// said in this case, or because O4 added it.
func (o *outbound) isCustomer(a Address) bool {
	key := a.Key()
	if link, ok := linkedByHand(o.d.Case.HandLinks, key); ok && link.Contact == o.d.Customer.ID {
		return true
	}
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
	if !o.cased || o.d.Mode != Reply || o.customerIsServed() {
		return nil
	}
	if shown := o.shownCustomer(); shown != nil {
		o.serveShown(shown)
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

// serveShown: the header shows Case.Customer, and the envelope has him at no
// address. It may be one part of a submission that a client splits; a part that
// brings him later finds him served.
func (o *outbound) serveShown(shown *Entry) {
	if o.d.Customer.DoNotEmail {
		o.rule("O4", "Case.Customer is shown and not in the envelope; he does not want e-mail, so he gets no copy")
		return
	}
	shown.Deliver, shown.Path = true, mailable(shown.Address.Address)
	o.rule("O4", "Case.Customer is shown and not in the envelope: %s is added to it", shown.Address.Address)
}

func (o *outbound) customerIsServed() bool {
	return slices.ContainsFunc(o.d.Entries, func(e Entry) bool {
		return !e.dropped() && e.Deliver && o.isCustomer(e.Address)
	})
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
