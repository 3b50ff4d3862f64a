package resolver

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/casegate/casegate/store"
)

// The rules about copies, and about what cannot be delivered (O9-O12), in the
// order they apply.

// originals: nobody of an older message comes back by himself (O9); a site may
// ask for the unresolved recipients of the message answered.
func (o *outbound) originals() *Refusal {
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
		_, byHand := linkedByHand(o.d.Case.HandLinks, a.Key())
		recipient := p.Role == store.RoleTo || p.Role == store.RoleCC
		if !recipient || own || byHand || p.Party.Kind != store.Unresolved || o.stands(a) {
			continue
		}
		o.d.Entries = append(o.d.Entries, Entry{Field: field, Bare: true, Address: a, Path: mailable(a.Address), Deliver: true})
		o.rule("O9", "%s was an unresolved recipient of the message answered: added to %s (unresolved_originals)", a.Address, field)
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
	if !o.settings.BccCurrentUser {
		return nil
	}
	from, _ := o.sub.Sender()
	if o.d.From != "" && o.settings.Sender != "mailbox" {
		from = Address{Address: o.d.From}
	}
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

// bounces: an address that takes no mail for good is kept and flagged; if it is
// the only To, a person looks at it first (O11).
func (o *outbound) bounces() *Refusal {
	if !o.cased {
		return nil
	}
	to, dead := 0, ""
	o.each(func(e *Entry) {
		if e.Field == store.RoleTo {
			to++
		}
		if !o.bounced(e.Address.Key()) {
			return
		}
		o.flag("bounced-recipient")
		o.rule("O11", "mail to %s came back for good: kept and flagged", e.called())
		if e.Field == store.RoleTo {
			dead = e.Address.Address
		}
	})
	if to == 1 && dead != "" {
		o.rule("O11", "%s is the only To: held", dead)
		o.hold("mail to " + dead + ", the only To, came back for good (rule O11)")
	}
	return nil
}

// bounced: the last that is known of the address on this case is a permanent
// failure. Who writes after it has a mailbox again.
func (o *outbound) bounced(key string) bool {
	var last time.Time
	failed := false
	heard := func(at time.Time, bad bool) {
		switch {
		case at.After(last):
			last, failed = at, bad
		case at.Equal(last):
			failed = failed || bad
		}
	}
	for _, m := range o.known() {
		for _, e := range m.Events {
			if store.Key(e.Recipient) != key {
				continue
			}
			switch e.Action {
			case "failed":
				heard(e.At, !strings.HasPrefix(e.Status, "4"))
			case "delivered":
				heard(e.At, false)
			}
		}
		if m.Direction == store.Incoming && m.Identity != string(Forged) && store.Key(m.From) == key {
			heard(m.ReceivedAt, false)
		}
	}
	return failed
}

// known lists the messages of this case that the decision knows whole.
func (o *outbound) known() (list []store.Message) {
	for _, m := range o.facts.Parents {
		if o.onThisCase(m.Case) {
			list = append(list, m)
		}
	}
	for at, m := range o.facts.Answered {
		if o.onThisCase(at.Case) {
			list = append(list, m)
		}
	}
	return list
}

// maxLooked is how many activities of a case are looked at for bounces.
const maxLooked = 50

// AskFurther names what the first answer shows to be needed too: by which
// addresses others took part in a case (O5), who signed in, and the latest
// activities of a case where mail came back (O11).
func AskFurther(sub Submission, f store.Facts) store.Query {
	q := store.Query{Addresses: AskMore(f), At: sub.Received}
	if sub.Login != "" {
		q.Addresses = append(q.Addresses, store.Key(sub.Login))
	}
	for n, c := range f.Cases {
		bounced := slices.ContainsFunc(c.Case.Flags, func(flag string) bool { return strings.HasSuffix(flag, "-bounced") })
		for i := c.Case.Ordinal; bounced && i > 0 && c.Case.Ordinal-i < maxLooked; i-- {
			q.Ordinals = append(q.Ordinals, store.CaseOrdinal{Case: n, Ordinal: i})
		}
	}
	slices.Sort(q.Addresses)
	slices.SortFunc(q.Ordinals, func(a, b store.CaseOrdinal) int {
		return cmp.Or(cmp.Compare(a.Case, b.Case), cmp.Compare(a.Ordinal, b.Ordinal))
	})
	return q
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
