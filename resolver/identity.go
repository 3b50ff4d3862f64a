package resolver

import (
	"slices"
	"strings"

	"github.com/casegate/casegate/store"
)

// Identity is who the sender is taken for (rules §4).
type Identity string

// The identities; the first that fits, in this order.
const (
	Own        Identity = "own"
	Asserted   Identity = "asserted"
	Agent      Identity = "agent"
	Forged     Identity = "forged"
	Registered Identity = "registered"
	Ambiguous  Identity = "ambiguous"
	KnownGuest Identity = "known guest"
	Unknown    Identity = "unknown"
)

// sender is the identity with the contact it rests on.
type sender struct {
	identity Identity
	address  Address
	single   bool          // exactly one From address
	verified bool          // the From domain is proven
	contact  store.Contact // asserted or registered; zero: an asserted guest
	holders  store.Holders
}

// participant is the address that may count as a participant's: never that of
// a forged sender, never a guess among several.
func (s sender) participant() string {
	if !s.single || s.identity == Forged {
		return ""
	}
	return s.address.Key()
}

// AssertedBy returns what a trusted form says of its sender: the word guest, a
// contact's id, or nothing.
func AssertedBy(m Mail) string {
	if !m.TrustedForm {
		return ""
	}
	return strings.TrimSpace(first(m.Header, "X-Case-Customer"))
}

// identify names the sender by the single From address; never by Reply-To.
func identify(m Mail, f store.Facts, s Settings, t *trace) sender {
	a, ok := m.Sender()
	if asserted := AssertedBy(m); asserted != "" {
		if _, own := s.Own(a.Address); !own {
			return assertedSender(a, ok, asserted, f, t)
		}
	}
	if !ok {
		t.note("sender unknown: From is not one plain address (%d can be read), so it is no identity", len(m.From))
		return sender{identity: Unknown}
	}
	w := sender{address: a, single: true, verified: m.Verdict.AlignedPass, holders: f.Holders[a.Key()]}
	if m.Verdict.Words != "" {
		t.note("authentication: %s", m.Verdict.Words)
	}
	registered := ofKind(w.holders.Contacts, store.Registered)
	guests := ofKind(w.holders.Contacts, store.Guest)
	own, isOwn := s.Own(a.Address)
	switch {
	case isOwn:
		w.identity = Own
		t.note("sender own: %s is our mailbox %s", a.Address, own.Address)
	case len(w.holders.Agents) > 0 && store.Key(m.Login) == a.Key():
		w.identity = Agent
		t.note("sender agent: %s signed in", a.Address)
	case len(w.holders.Agents) > 0 && w.verified:
		w.identity = Agent
		t.note("sender agent: %s is an agent's address, with an aligned pass", a.Address)
	case m.Verdict.Forged:
		w.identity = Forged
		t.note("sender forged: DMARC fails for %s under a policy of quarantine or reject", a.Address)
	case len(w.holders.Agents) > 0:
		w.identity = Forged
		t.note("sender forged: %s is an agent's address, and nothing proves that the agent sent it", a.Address)
	case len(registered) == 1:
		w.identity, w.contact = Registered, registered[0]
		t.note("sender registered: exactly one registered contact has %s (%s)", a.Address, map[bool]string{true: "verified", false: "unverified"}[w.verified])
	case len(registered) > 1:
		w.identity = Ambiguous
		t.note("sender ambiguous: %d registered contacts share %s", len(registered), a.Address)
	case len(guests) > 0:
		w.identity = KnownGuest
		t.note("sender known guest: only guests (%d) have %s", len(guests), a.Address)
	default:
		w.identity = Unknown
		t.note("sender unknown: no contact has %s", a.Address)
	}
	return w
}

// assertedSender believes a trusted form (rule I23). That a named contact
// exists was asked before the message was accepted.
func assertedSender(a Address, single bool, asserted string, f store.Facts, t *trace) sender {
	w := sender{identity: Asserted, address: a, single: single, holders: f.Holders[a.Key()]}
	if id, err := store.ParseID(asserted); err == nil {
		w.contact = f.Contacts[id]
		t.note("sender asserted: the form vouches for contact %s", id)
		return w
	}
	t.note("sender asserted: the form says guest")
	return w
}

func ofKind(contacts []store.Contact, kind store.ContactKind) []store.Contact {
	return slices.DeleteFunc(slices.Clone(contacts), func(c store.Contact) bool { return c.Kind != kind })
}
