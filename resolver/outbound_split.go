package resolver

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/casegate/casegate/store"
)

// maxParts is how many transactions one submission may come in.
const maxParts = 1000

// repeated finds the submission whose 250 was lost (invariant 3), and the one
// that this is a further part of: a client may split one message over several
// transactions.
func (o *outbound) repeated() *Refusal {
	for _, ref := range o.facts.MessageIDs[cmp.Or(o.sub.MessageID, o.sub.DerivedID)] {
		if !ref.Own || ref.Direction != store.Outgoing || o.sub.Received.Sub(ref.ReceivedAt) > o.settings.SubmitWindow {
			continue
		}
		m := o.facts.Parents[ref.ID]
		if ref.SubmitHash == o.sub.SubmitHash || slices.Contains(m.PartHashes, o.sub.SubmitHash) {
			o.d.Duplicate = &ref
			o.note("the same submission as message %s: its reply was lost, nothing is sent twice", ref.ID)
			return nil
		}
		if o.part == nil && o.isPartOf(ref, m) {
			o.part = &m
		}
	}
	if o.part == nil {
		return nil
	}
	if len(o.part.PartHashes) >= maxParts-1 {
		o.note("refused: message %s has come in %d parts already", o.part.ID, maxParts)
		return &Refusal{550, [3]int{5, 5, 3}, fmt.Sprintf("the message has come in %d parts already: send more recipients at a time", maxParts)}
	}
	return nil
}

// isPartOf: same Message-ID, content (which covers From) and identity.
func (o *outbound) isPartOf(ref store.MessageRef, m store.Message) bool {
	return m.ID == ref.ID && !m.Observed && ref.ContentHash == o.sub.ContentHash &&
		m.Envelope.Listener == o.sub.Listener && m.Envelope.Peer == o.sub.Peer && m.Envelope.Login == o.sub.Login
}

// join makes this a part of the earlier submission: its case, its mode, its
// place on the case.
func (o *outbound) join() *Refusal {
	m := o.part
	o.note("part %d of the submission that is message %s: only its envelope is new", len(m.PartHashes)+2, m.ID)
	o.d.Method, o.d.Ordinal = m.CorrelationMethod, m.Ordinal
	found, ok := followMerges(o.facts, m.Case)
	if m.Case == 0 || !ok {
		return nil
	}
	o.cased, o.found = true, found
	o.d.Case, o.d.Customer, o.d.Mode = found.Case, found.Customer, Reply
	if m.Internal {
		o.d.Mode = Consult
	}
	if slices.Contains(m.Flags, "held") {
		o.hold("the first part of it was held")
	}
	var err error
	if o.d.Token, err = (Token{Case: m.Case, Ordinal: m.Ordinal, Consult: m.Internal}).sign(o.facts.Installation); err != nil {
		return &Refusal{554, [3]int{5, 3, 0}, "the case can take no more messages: open a new one"}
	}
	if o.d.Mailbox = o.caseMailbox(); o.d.Mailbox == "" {
		return errNoMailbox()
	}
	return nil
}

// unserved leaves those of this part's recipients whom no earlier part has
// served, for the rules to look at. The header is sent already: whom it names
// and the rules took out of it gets no copy.
func (o *outbound) unserved() *Refusal {
	sent, shown, served := map[string]bool{}, map[string]bool{}, false
	for _, p := range o.part.Parties {
		key := store.Key(p.AddressUsed)
		sent[key] = sent[key] || p.Sent && p.Role != store.RoleSender
		shown[key] = shown[key] || p.Role == store.RoleTo || p.Role == store.RoleCC
		served = served || p.Sent && o.cased && o.isCustomer(Address{Address: p.AddressUsed})
	}
	served = served && slices.Contains(o.part.Decision.Rules, "O4")
	o.d.Entries = slices.DeleteFunc(o.d.Entries, func(e Entry) bool {
		key := e.Address.Key()
		switch {
		case !e.Deliver:
			return true
		case sent[key]:
			o.note("%s is served already", e.called())
			return true
		case e.Given != store.RoleBCC && o.cased && !shown[key]:
			o.note("%s was taken out of the header: not served", e.called())
			return true
		case served && o.isCustomer(e.Address):
			o.rule("O4", "Case.Customer is served already, at another address")
			return true
		}
		return false
	})
	return nil
}

// finishPart is the earlier message with this part in it.
func (o *outbound) finishPart() {
	o.d.Decision = o.Decision
	if o.d.Refusal != nil {
		return
	}
	m, p := *o.part, o.partyList()
	m.Parties = slices.Clone(m.Parties)
	o.each(func(e *Entry) {
		e.Party = o.partyOf(p, *e)
		p.add(e.Party)
		i := slices.IndexFunc(m.Parties, func(row store.Party) bool {
			return row.Role != store.RoleSender && store.Key(row.AddressUsed) == e.Address.Key()
		})
		if i < 0 {
			m.Parties = append(m.Parties, e.Party)
		} else {
			m.Parties[i].Sent = true
		}
	})
	if o.d.Hold != "" {
		o.flag("held")
		o.note("held until a person releases it: %s", o.d.Hold)
	}
	more, _ := links(p.rows, o.facts, o.settings, nil)
	m.Links = union(m.Links, more)
	m.Flags = union(m.Flags, o.d.Flags)
	m.Envelope.Recipients = union(m.Envelope.Recipients, o.sub.Recipients)
	m.Decision.Rules, m.Decision.Reasons = union(m.Decision.Rules, o.Rules), union(m.Decision.Reasons, o.Reasons)
	m.PartHashes = append(slices.Clone(m.PartHashes), o.sub.SubmitHash)
	o.d.Decision, o.d.Part, o.d.Parties, o.d.Links = o.Decision, &m, m.Parties, m.Links
}

// union is a list with what another has more; neither is changed.
func union[T comparable](list, more []T) []T { return unique(slices.Concat(list, more)) }
