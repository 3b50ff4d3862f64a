package resolver

import (
	"slices"
	"strings"
	"testing"

	"github.com/casegate/casegate/store"
)

// answer is a reply on case 1042 to the addresses given as "field address".
func answer(tw *town, to ...string) Submission {
	m := letter("311@city.example", nil)
	m.To, m.Recipients, m.InReplyTo = nil, nil, []string{MessageID(tw.token(), "gw.city.example")}
	for _, s := range to {
		field, address, _ := strings.Cut(s, " ")
		switch field {
		case "To":
			m.To = append(m.To, Address{Name: "Shown Name", Address: address})
		case "Cc":
			m.CC = append(m.CC, Address{Name: "Shown Name", Address: address})
		}
		m.Recipients = append(m.Recipients, address)
	}
	m.SubmitHash = "s"
	return Submission{Mail: m, Setting: "listeners[2].send_as"}
}

// shownAs lists the outcome as "field address", with ! where only the bare
// address is shown.
func shownAs(d OutboundDecision) []string {
	var list []string
	for _, e := range d.Entries {
		if e.Field == "" {
			continue
		}
		s := string(e.Field) + " " + e.Address.Address
		if e.Bare {
			s += "!"
		}
		list = append(list, s)
	}
	return list
}

func TestOutboundParties(t *testing.T) {
	ana := contact(1, store.Guest, "Ana", "fam@x.example", "ana@work.example")
	ben := contact(2, store.Guest, "Ben", "fam@x.example")
	cleo := contact(3, store.Registered, "Cleo", "cleo@x.example")
	dora := contact(4, store.Registered, "Dora", "two@x.example")
	emil := contact(5, store.Registered, "Emil", "two@x.example")
	silent := contact(2, store.Guest, "Ben", "fam@x.example")
	silent.DoNotEmail = true
	for _, c := range []struct {
		name     string
		given    []string
		change   func(*town, *Submission)
		want     []string
		mailed   string // the envelope, when it matters
		rules    string
		refusal  string
		customer *store.Contact
	}{
		{name: "the family's address is Case.Customer", given: []string{"To fam@x.example"}, want: []string{"To fam@x.example"}, rules: "O0 O3 O13"},
		{name: "own addresses go", given: []string{"To fam@x.example", "Cc 311@city.example", "Cc parks+x@city.example"}, want: []string{"To fam@x.example"}, rules: "O1"},
		{name: "twice is once", given: []string{"To fam@x.example", "Cc FAM@x.example"}, want: []string{"To fam@x.example"}, rules: "O2"},
		{name: "the customer in Cc moves to To", given: []string{"To cleo@x.example", "Cc fam@x.example"}, want: []string{"CC cleo@x.example", "To fam@x.example"}, rules: "O3 O6"},
		{name: "nobody left: the customer is added", given: []string{"To 311@city.example"}, want: []string{"To fam@x.example"}, rules: "O0 O4"},
		{name: "a linked contact's other address is dropped", given: []string{"To fam@x.example", "Cc ana@work.example"}, want: []string{"To fam@x.example"}, rules: "O5"},
		{name: "a blind copy to a linked contact's other address too", given: []string{"To fam@x.example", "Bcc ana@work.example"}, want: []string{"To fam@x.example"}, rules: "O5"},
		{name: "to_policy keep", given: []string{"To fam@x.example", "To cleo@x.example"}, change: func(tw *town, _ *Submission) { tw.settings.ToPolicy = "keep" }, want: []string{"To fam@x.example", "To cleo@x.example"}},
		{name: "to_policy drop", given: []string{"To fam@x.example", "To cleo@x.example"}, change: func(tw *town, _ *Submission) { tw.settings.ToPolicy = "drop" }, want: []string{"To fam@x.example"}, rules: "O6"},
		{name: "ambiguous is text in Cc", given: []string{"To fam@x.example", "To two@x.example"}, want: []string{"To fam@x.example", "CC two@x.example!"}, rules: "O7"},
		{name: "unknown is text in Cc", given: []string{"To fam@x.example", "Cc new@x.example"}, want: []string{"To fam@x.example", "CC new@x.example!"}, rules: "O8"},
		{name: "unresolved: drop", given: []string{"To fam@x.example", "To two@x.example"}, change: func(tw *town, _ *Submission) { tw.settings.Unresolved = "drop" }, want: []string{"To fam@x.example"}, rules: "O7"},
		{name: "blind copies stay blind", given: []string{"To fam@x.example", "Bcc cleo@x.example", "Bcc two@x.example", "Bcc new@x.example"}, want: []string{"To fam@x.example", "BCC cleo@x.example", "BCC two@x.example", "BCC new@x.example"}, rules: "O10"},
		{name: "the customer in Bcc stays there", given: []string{"Bcc fam@x.example"}, want: []string{"BCC fam@x.example"}, rules: "O0 O10"},
		{name: "an internal forward does not pull the customer in", given: []string{"To cleo@x.example"}, want: []string{"To cleo@x.example"}, rules: "O0"},
		{name: "do_not_email", given: []string{"To 311@city.example"}, customer: &silent, refusal: "does not want e-mail"},
		{name: "the customer shown and left out of the envelope is served", given: []string{"To fam@x.example", "Cc cleo@x.example"}, change: func(_ *town, s *Submission) { s.Recipients = s.Recipients[1:] }, want: []string{"To fam@x.example", "CC cleo@x.example"}, mailed: "fam@x.example cleo@x.example", rules: "O3 O4"},
		{name: "but not against his wish", given: []string{"To fam@x.example", "Cc cleo@x.example"}, customer: &silent, change: func(_ *town, s *Submission) { s.Recipients = s.Recipients[1:] }, want: []string{"To fam@x.example", "CC cleo@x.example"}, mailed: "cleo@x.example", rules: "O3 O4"},
		{name: "a wish does not refuse what is addressed to him", given: []string{"To fam@x.example"}, customer: &silent, want: []string{"To fam@x.example"}, mailed: "fam@x.example"},
		{name: "nobody in the envelope of a consult", given: []string{"To cleo@x.example"}, change: func(_ *town, s *Submission) { s.Recipients = nil }, refusal: "no recipient is left"},
		{name: "shown but not in the envelope gets no copy", given: []string{"To fam@x.example", "Cc cleo@x.example"}, change: func(_ *town, s *Submission) { s.Recipients = s.Recipients[:1] }, want: []string{"To fam@x.example", "CC cleo@x.example"}},
		{name: "send-as refused", given: []string{"To fam@x.example"}, change: func(_ *town, s *Submission) { s.Author.Address = "mayor@city.example" }, refusal: "unable to send as mayor@city.example: listeners[2].send_as allows 311@city.example, parks@city.example"},
		{name: "send-as listed", given: []string{"To fam@x.example"}, change: func(_ *town, s *Submission) {
			s.Author.Address, s.SendAs = "mayor@city.example", []string{"Mayor@city.example"}
		}, want: []string{"To fam@x.example"}},
		{name: "uncased passes", given: []string{"To cleo@x.example", "Cc 311@city.example"}, change: func(_ *town, s *Submission) { s.InReplyTo = nil }, want: []string{"To cleo@x.example", "CC 311@city.example"}},
		{name: "uncased refused", given: []string{"To cleo@x.example"}, change: func(tw *town, s *Submission) { s.InReplyTo, tw.settings.Uncased = nil, "reject" }, refusal: "outbound.uncased is reject"},
		{name: "the parent's unresolved come back only if asked", given: []string{"To fam@x.example"}, change: func(tw *town, s *Submission) {
			tw.settings.UnresolvedOriginals = "cc"
			s.InReplyTo = append(s.InReplyTo, "theirs@x.example")
			tw.facts.MessageIDs["theirs@x.example"] = []store.MessageRef{{ID: id(60), Case: 1042, Own: true}}
			tw.facts.Parents[id(60)] = store.Message{Parties: []store.Party{{Role: store.RoleCC, AddressUsed: "two@x.example"}}}
		}, want: []string{"To fam@x.example", "CC two@x.example!"}, rules: "O9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			customer := ben
			if c.customer != nil {
				customer = *c.customer
			}
			tw := newTown(customer, ana, cleo, dora, emil).used("fam@x.example")
			sub := answer(tw, c.given...)
			if c.change != nil {
				c.change(tw, &sub)
			}
			d := Outbound(sub, tw.facts, tw.settings)
			if c.refusal != "" {
				if d.Refusal == nil || !strings.Contains(d.Refusal.Text, c.refusal) {
					t.Fatalf("refusal %+v, want %q", d.Refusal, c.refusal)
				}
				return
			}
			if d.Refusal != nil {
				t.Fatalf("refused: %+v", d.Refusal)
			}
			if got := shownAs(d); !slices.Equal(got, c.want) {
				t.Errorf("shown %q, want %q\n%s", got, c.want, strings.Join(d.Reasons, "\n"))
			}
			if got := strings.Join(d.Recipients(), " "); c.mailed != "" && got != c.mailed {
				t.Errorf("mailed to %q, want %q", got, c.mailed)
			}
			for _, r := range strings.Fields(c.rules) {
				if !slices.Contains(d.Rules, r) {
					t.Errorf("rule %s did not fire: %v", r, d.Rules)
				}
			}
		})
	}
}

func TestReferencesStayShort(t *testing.T) {
	tw := newTown(contact(1, store.Guest, "A", "a@x.example"))
	sub := answer(tw, "To a@x.example")
	for i := range 100 {
		sub.References = append(sub.References, strings.Repeat("x", 60)+string(rune('a'+i%26))+"@x.example")
	}
	sub.References = append(sub.References, "newest@x.example")
	d := Outbound(sub, tw.facts, tw.settings)
	value := "<" + strings.Join(d.References, "> <") + ">"
	if len(value) > maxReferences {
		t.Errorf("%d bytes", len(value))
	}
	if d.References[0] != PseudoReference(d.CaseToken, "gw.city.example") || !slices.Contains(d.References, "newest@x.example") {
		t.Errorf("references %q", d.References)
	}
	sub.References = d.References
	if again := Outbound(sub, tw.facts, tw.settings); strings.Count(strings.Join(again.References, " "), "case.") != 1 {
		t.Errorf("the pseudo-reference stands twice: %q", again.References)
	}
}

// What our own smarthost sent and a next hop hands back is a loop: answering 250
// would end it in silence.
func TestSmarthostLoopIsRefused(t *testing.T) {
	tw := newTown(contact(2, store.Guest, "Ben", "fam@x.example")).used("fam@x.example")
	sub := answer(tw, "To fam@x.example")
	sub.Header = fields{"Received": "from a by " + tw.settings.Hostname + " " + SentMark + " with ESMTP id 1; x"}
	if d := Outbound(sub, tw.facts, tw.settings); d.Refusal == nil || d.Refusal.Enhanced != [3]int{5, 4, 6} {
		t.Errorf("%+v", d.Refusal)
	}
}
