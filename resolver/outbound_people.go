package resolver

import (
	"github.com/casegate/casegate/store"
)

// The rules about everybody else (O5-O8), in the order they apply.

// linkedOnly: a contact who is only linked, by an address that was never on
// the case, gets nothing (O5).
func (o *outbound) linkedOnly() *Refusal {
	if !o.cased {
		return nil
	}
	o.each(func(e *Entry) {
		key := e.Address.Key()
		_, byHand := linkedByHand(o.d.Case.HandLinks, key)
		if _, used := o.found.Used[key]; used || byHand || o.isCustomer(e.Address) {
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
// his alone, by the directory or because a person said so in this case; so
// nobody can say it was he.
func (o *outbound) onlyLinked(c store.Contact) bool {
	linked := false
	for _, e := range c.EmailAddresses {
		key := store.Key(e.Address)
		if _, used := o.found.Used[key]; !used {
			continue
		}
		if o.isAlone(c, key) {
			return false
		}
		linked = true
	}
	return linked
}

// isAlone: in this case the address stands for the contact and nobody else.
func (o *outbound) isAlone(c store.Contact, key string) bool {
	if link, ok := linkedByHand(o.d.Case.HandLinks, key); ok {
		return link.Contact == c.ID
	}
	h := o.facts.Holders[key]
	return matches(h) == 1 && len(h.Contacts) == 1 && h.Contacts[0].ID == c.ID
}

// others: everyone else by what a person said in this case, or the directory
// says (O6, O7, O8).
func (o *outbound) others() *Refusal {
	if !o.cased {
		return nil
	}
	o.each(func(e *Entry) {
		h := o.facts.Holders[e.Address.Key()]
		_, byHand := linkedByHand(o.d.Case.HandLinks, e.Address.Key())
		switch n := matches(h); {
		case o.isCustomer(e.Address):
		case byHand:
			o.otherContact(e)
		case n == 1 && len(h.Agents) == 1:
		case o.unasked:
			o.asText(e, "O7", "the directory cannot be asked about %s", e.called())
		case n == 1:
			o.otherContact(e)
		case n > 1:
			o.unresolved(e, "O7", "%s is shared by several contacts", e.called())
		default:
			o.unresolved(e, "O8", "no contact has %s", e.called())
			o.newcomer(e)
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
		o.rule("O6", "%s is not Case.Customer: kept in To (to_policy)", e.Address.Address)
	default:
		e.Field = store.RoleCC
		o.rule("O6", "%s is not Case.Customer: moved to Cc", e.Address.Address)
	}
}

// unresolved: an address that is nobody's for certain (O7, O8).
func (o *outbound) unresolved(e *Entry, rule, format string, args ...any) {
	if o.settings.Unresolved == "drop" {
		o.drop(e, rule, format+": dropped (unresolved)", args...)
		return
	}
	o.asText(e, rule, format, args...)
}

// asText shows an address without a name, in a reply in Cc; a blind copy stays
// blind.
func (o *outbound) asText(e *Entry, rule, format string, args ...any) {
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

// newcomer: the first time that an address nobody has stands on the case is
// recorded, and may wait for a person (O8, new_recipients).
func (o *outbound) newcomer(e *Entry) {
	if _, used := o.found.Used[e.Address.Key()]; used || e.dropped() {
		return
	}
	o.flag("new-recipient")
	if o.settings.NewRecipients != "hold" || !e.Deliver {
		o.note("%s is on the case for the first time", e.called())
		return
	}
	o.rule("O8", "%s is on the case for the first time: held", e.called())
	o.hold(e.called() + " is on the case for the first time (new_recipients: hold)")
}
