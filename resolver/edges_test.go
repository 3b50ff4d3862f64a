package resolver

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casegate/casegate/store"
)

func party(d []store.Party, role store.Role) []store.Party {
	return slices.DeleteFunc(slices.Clone(d), func(p store.Party) bool { return p.Role != role })
}

// Several matches, an account among them or not, are settled by Case.Customer.
func TestSenderSharedWithAnAccount(t *testing.T) {
	cleo := contact(3, store.Registered, "Cleo", "cleo@x.example")
	tw := newTown(cleo)
	h := tw.facts.Holders["cleo@x.example"]
	h.Accounts = []store.Account{{ID: id(77)}}
	tw.facts.Holders["cleo@x.example"] = h
	d := Inbound(letter("cleo@x.example", nil), tw.facts, tw.settings)
	if p := party(d.Parties, store.RoleSender); d.Row != "I25" || len(p) != 1 || p[0].Party.ID != cleo.ID {
		t.Errorf("row %s sender %+v", d.Row, p)
	}
}

// Whom a trusted form vouches for is the sender, whoever has the address.
func TestAssertedContactOnCaseIsSender(t *testing.T) {
	ben := contact(2, store.Guest, "Ben", "fam@x.example")
	tw := newTown(ben).used("fam@x.example")
	cleo := contact(3, store.Registered, "Cleo")
	tw.facts.Contacts = map[store.ID]store.Contact{cleo.ID: cleo}
	for _, from := range []string{"portal@x.example", "fam@x.example"} {
		m := letter(from, fields{"X-Case-Customer": cleo.ID.String()})
		m.TrustedForm = true
		m.Recipients = []string{PlusAddress("311@city.example", tw.token())}
		d := Inbound(m, tw.facts, tw.settings)
		if p := party(d.Parties, store.RoleSender); d.Guest != nil || p[0].Party.ID != cleo.ID || d.Customer.ID != ben.ID {
			t.Errorf("%s: guest %v sender %+v", from, d.Guest, p)
		}
	}
}

// One row per address, also in From.
func TestOneFromAddressTwice(t *testing.T) {
	tw := newTown(contact(2, store.Guest, "Ben", "fam@x.example"))
	m := letter("fam@x.example", nil)
	m.From, m.Author = append(m.From, m.From[0]), nil
	d := Inbound(m, tw.facts, tw.settings)
	if p := party(d.Parties, store.RoleSender); len(p) != 1 {
		t.Errorf("%+v", p)
	}
}

// Of several addresses of Case.Customer one stays that the envelope has: he must
// not lose his copy (O3).
func TestCustomerDeliveredAddressWins(t *testing.T) {
	tw := newTown(contact(2, store.Guest, "Ben", "fam@x.example", "ben@work.example")).used("fam@x.example")
	sub := answer(tw, "To fam@x.example", "Cc ben@work.example")
	sub.Recipients = []string{"ben@work.example"}
	d := Outbound(sub, tw.facts, tw.settings)
	if d.Refusal != nil || !slices.Equal(d.Recipients(), []string{"ben@work.example"}) {
		t.Errorf("%+v %q", d.Refusal, d.Recipients())
	}
	if got := shownAs(d); !slices.Equal(got, []string{"To ben@work.example"}) {
		t.Error(got)
	}
}

// O6 is about contacts and accounts in To, and about nobody else.
func TestToPolicyIsAboutContactsInTo(t *testing.T) {
	cleo := contact(3, store.Registered, "Cleo", "cleo@x.example")
	tw := newTown(contact(2, store.Guest, "Ben", "fam@x.example"), cleo).used("fam@x.example")
	tw.facts.Holders["agent@city.example"] = store.Holders{Agents: []store.Agent{{ID: id(9)}}}
	tw.settings.ToPolicy = "drop"
	d := Outbound(answer(tw, "To fam@x.example", "To agent@city.example", "Cc cleo@x.example"), tw.facts, tw.settings)
	if got := shownAs(d); !slices.Equal(got, []string{"To fam@x.example", "To agent@city.example", "CC cleo@x.example"}) {
		t.Error(got)
	}
}

// However much of a thread is cut, the message answered stays (O13).
func TestReferencesKeepTheParent(t *testing.T) {
	tw := newTown(contact(1, store.Guest, "A", "a@x.example"))
	sub := answer(tw, "To a@x.example")
	parent := sub.InReplyTo[0]
	sub.References = []string{parent}
	for i := range 100 {
		sub.References = append(sub.References, fmt.Sprintf("%060d@x.example", i))
	}
	d := Outbound(sub, tw.facts, tw.settings)
	value := "<" + strings.Join(d.References, "> <") + ">"
	if !slices.Contains(d.References, parent) || len(value) > maxReferences || d.References[len(d.References)-1] != sub.References[100] {
		t.Errorf("%d %q", len(value), d.References)
	}
}

// There is one pseudo-reference per case: not added again when a relay changed
// its letters, the same after a new key or host name (rules §2).
func TestPseudoReferenceIsConstant(t *testing.T) {
	tw := newTown(contact(1, store.Guest, "A", "a@x.example"))
	sub := answer(tw, "To a@x.example")
	first := Outbound(sub, tw.facts, tw.settings).References[0]
	sub.References = []string{strings.ToUpper(first)}
	if d := Outbound(sub, tw.facts, tw.settings); len(d.References) != 2 {
		t.Errorf("upper case: %q", d.References)
	}
	sub.References = []string{first}
	tw.facts.Installation.Keys = append(tw.facts.Installation.Keys, store.SigningKey{ID: 9, Secret: []byte("another secret of 32 bytes, more")})
	tw.settings.Hostname = "new.city.example"
	if d := Outbound(sub, tw.facts, tw.settings); d.References[0] != first {
		t.Errorf("after a rotation: %q, was %q", d.References[0], first)
	}
}

// An address counts while it is held: until its last moment, and not after.
func TestValidityThatEndsLater(t *testing.T) {
	ben := contact(2, store.Guest, "Ben", "fam@x.example")
	ben.EmailAddresses[0].To = noon.Add(time.Hour)
	tw := newTown(ben)
	d := Outbound(answer(tw, "To fam@x.example"), tw.facts, tw.settings)
	if d.Mode != Reply {
		t.Errorf("mode %s: he holds the address until one o'clock", d.Mode)
	}
	m := letter("fam@x.example", nil)
	m.InReplyTo = []string{"theirs@x.example"}
	tw.facts.MessageIDs["theirs@x.example"] = []store.MessageRef{{ID: id(60), Case: 1042, Own: true}}
	if d := Inbound(m, tw.facts, tw.settings); d.Row != "I16" {
		t.Errorf("row %s", d.Row)
	}
	ben.EmailAddresses[0].To = noon.Add(-time.Hour)
	tw = newTown(ben)
	tw.facts.Holders = map[string]store.Holders{}
	if d := Outbound(answer(tw, "To 311@city.example"), tw.facts, tw.settings); d.Refusal == nil || d.Refusal.Enhanced != [3]int{5, 1, 0} {
		t.Errorf("closed: %+v %q", d.Refusal, d.Recipients())
	}
}

// An id leads to the case of the message that bears it before one that has only
// heard of it.
func TestMessageOfACaseBeatsItsMention(t *testing.T) {
	tw := newTown(contact(1, store.Guest, "A", "a@x.example")).used("a@x.example")
	tw.facts.Cases[7] = store.CaseFacts{Case: store.Case{Number: 7, State: store.Active}, Used: map[string]store.Usage{"a@x.example": {}}}
	tw.facts.MessageIDs["x@x.example"] = []store.MessageRef{{ID: id(60), Case: 7}, {ID: id(61), Case: 1042, Own: true}}
	sub := answer(tw, "To a@x.example")
	sub.InReplyTo = []string{"x@x.example"}
	if d := Outbound(sub, tw.facts, tw.settings); d.Case.Number != 1042 {
		t.Errorf("answer goes to case %d", d.Case.Number)
	}
	m := letter("a@x.example", nil)
	m.InReplyTo = []string{"x@x.example"}
	if d := Inbound(m, tw.facts, tw.settings); d.Case.Number != 1042 {
		t.Errorf("reply goes to case %d", d.Case.Number)
	}
}

// A resent mail is a duplicate also if its case was merged meanwhile (I1).
func TestDuplicateAfterAMerge(t *testing.T) {
	tw := newTown(contact(1, store.Guest, "A", "a@x.example"))
	tw.facts.Cases[7] = store.CaseFacts{Case: store.Case{Number: 7, State: store.Cancelled, MergedInto: 1042}}
	ref := store.MessageRef{ID: id(50), Case: 7, Own: true, Direction: store.Incoming, ContentHash: "h", ReceivedAt: noon.Add(-time.Hour)}
	tw.facts.MessageIDs["new@x.example"] = []store.MessageRef{ref}
	m := letter("a@x.example", nil)
	m.Recipients = []string{PlusAddress("311@city.example", tw.token())}
	if d := Inbound(m, tw.facts, tw.settings); d.Row != "I1" {
		t.Errorf("row %s", d.Row)
	}
}

type multi map[string][]string

func (f multi) Values(name string) []string { return f[name] }

// Delivered-To gathers values on the way; any of them tells (rules §3).
func TestAutoresponderBelowOtherDeliveries(t *testing.T) {
	m := letter("a@x.example", nil)
	m.Header = multi{"Delivered-To": {"311@city.example", "autoresponder"}}
	tw := newTown(contact(1, store.Guest, "A"))
	if d := Inbound(m, tw.facts, tw.settings); d.Class != AutoReply {
		t.Error(d.Class)
	}
}

// Everyone who may read the case may read reasons: they name no blind copy.
func TestReasonsNameNoBlindCopy(t *testing.T) {
	ana := contact(1, store.Guest, "Ana", "fam@x.example", "ana@work.example")
	ben := contact(2, store.Guest, "Ben", "fam@x.example")
	tw := newTown(ben, ana).used("fam@x.example")
	d := Outbound(answer(tw, "To fam@x.example", "Bcc ana@work.example", "Bcc parks@city.example"), tw.facts, tw.settings)
	if words := strings.Join(d.Reasons, "\n"); strings.Contains(words, "ana@work") || strings.Contains(words, "parks@") || !slices.Contains(d.Rules, "O5") {
		t.Error(words)
	}
}

// unresolved: drop holds in every field and mode (O0, O7, O8).
func TestUnresolvedDropInEveryField(t *testing.T) {
	tw := newTown(contact(2, store.Guest, "Ben", "fam@x.example"), contact(3, store.Guest, "C", "c@x.example")).used("fam@x.example")
	tw.settings.Unresolved = "drop"
	d := Outbound(answer(tw, "To c@x.example", "Cc new@x.example", "Bcc new2@x.example"), tw.facts, tw.settings)
	if got := shownAs(d); !slices.Equal(got, []string{"To c@x.example"}) {
		t.Error(got)
	}
}

// Who took part by an address of his own is more than linked (O5).
func TestPartyOfTheCaseIsNotOnlyLinked(t *testing.T) {
	ana := contact(1, store.Guest, "Ana", "fam@x.example", "ana@work.example")
	ben := contact(2, store.Guest, "Ben", "fam@x.example")
	cleo := contact(3, store.Registered, "Cleo", "cleo@x.example", "cleo@work.example")
	tw := newTown(ben, ana, cleo).used("fam@x.example", "cleo@x.example")
	d := Outbound(answer(tw, "To fam@x.example", "Cc cleo@work.example", "Cc ana@work.example"), tw.facts, tw.settings)
	if got := shownAs(d); !slices.Equal(got, []string{"To fam@x.example", "CC cleo@work.example"}) {
		t.Error(got)
	}
}

// The envelope is mailed as it was given, however the header writes it.
func TestEnvelopeBytesAreDelivered(t *testing.T) {
	tw := newTown(contact(2, store.Guest, "Ben", "fam@x.example")).used("fam@x.example")
	sub := answer(tw, "To fam@x.example", "Cc x@bücher.example", "Cc y@x.example.")
	sub.Recipients = []string{"FAM@x.example", "x@xn--bcher-kva.example", "y@x.example"}
	if d := Outbound(sub, tw.facts, tw.settings); !slices.Equal(d.Recipients(), sub.Recipients) {
		t.Errorf("%q", d.Recipients())
	}
}

// A reply to an internal consultation makes no guest and reopens nothing; the
// customer, who had a blind copy, answers as ever (rules §5).
func TestReplyToAConsultStaysInside(t *testing.T) {
	tw := newTown(contact(2, store.Guest, "Ben", "fam@x.example")).used("fam@x.example").state(store.Resolved, noon)
	sub := answer(tw, "To expert@x.example", "Bcc fam@x.example")
	asked := Outbound(sub, tw.facts, tw.settings)
	reply := func(from string) InboundDecision {
		m := letter(from, nil)
		m.Recipients = []string{PlusAddress("311@city.example", asked.Token)}
		return Inbound(m, tw.facts, tw.settings)
	}
	if d := reply("expert@x.example"); asked.Mode != Consult || !d.Internal || d.Guest != nil || d.Action != Link || d.Case.State != store.Resolved {
		t.Errorf("%+v", d)
	}
	if d := reply("fam@x.example"); d.Internal || d.Action != Reopen {
		t.Errorf("the customer's own reply: %+v", d)
	}
}
