package resolver

import (
	"cmp"

	"github.com/casegate/casegate/store"
)

// ByHand is what a person decides about a message on the exceptions list.
type ByHand struct {
	By      string   // who
	Case    uint64   // it belongs to; 0: to a new case
	Contact store.ID // customer of the new case; zero: a new guest
}

// AskByHand is Ask with what the person names.
func AskByHand(m Mail, s Settings, h ByHand) store.Query {
	q := Ask(m, s)
	if h.Case != 0 {
		q.Cases = append(q.Cases, h.Case)
	}
	if h.Contact != (store.ID{}) {
		q.Contacts = append(q.Contacts, h.Contact)
	}
	return q
}

// InboundByHand is the decision that a person takes in the table's place. ok is
// false when the case or contact does not exist.
func InboundByHand(m Mail, f store.Facts, s Settings, h ByHand) (d InboundDecision, ok bool) {
	in := weigh(m, f, s)
	in.d.Row = "by hand"
	customer := f.Contacts[h.Contact]
	switch {
	case h.Case != 0:
		found, exists := followMerges(f, h.Case)
		if !exists {
			return d, false
		}
		in.tracking.found = found
		in.rule("by hand", "%s put it on case %d", cmp.Or(h.By, "a person"), found.Case.Number)
		in.linkOnly()
	case h.Contact != (store.ID{}):
		if customer.ID == (store.ID{}) {
			return d, false
		}
		in.rule("by hand", "%s opened a case for contact %s", cmp.Or(h.By, "a person"), customer.ID)
		in.open(customer)
	default:
		in.rule("by hand", "%s opened a case for it", cmp.Or(h.By, "a person"))
		if in.from(Own) {
			in.sender.single = false // our own mailbox is nobody's address
		}
		in.openGuest()
	}
	if in.d.Opened = ""; in.from(Agent) {
		in.d.Direction = store.Outgoing
	}
	in.people()
	in.d.Decision = in.Decision
	return in.d, true
}

// ResolvedLater are the people of a message that joined a case while the
// directory could not be asked, now that it can (rule I20).
func ResolvedLater(m Mail, f store.Facts, s Settings, number uint64) InboundDecision {
	in := weigh(m, f, s)
	in.d.Row = "I20"
	if found, ok := followMerges(f, number); ok {
		in.tracking.found = found
		in.d.Case, in.d.Customer = found.Case, found.Customer
	}
	in.rule("I20", "the directory answers now")
	in.newcomer()
	in.people()
	in.d.Decision = in.Decision
	return in.d
}
