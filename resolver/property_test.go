package resolver

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/casegate/casegate/store"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var everyAddress = []string{"a@x.example", "b@x.example", "c@x.example", "D@x.example", "e@bücher.example", "agent@city.example", "311@city.example", "Parks+x@city.example"}

// anyWorld draws a directory where addresses are shared at random, three cases
// that may be merged into each other, and what is known of earlier mail.
func anyWorld(t *rapid.T) world {
	w := world{
		installation: boardKeys, cases: map[uint64]store.CaseFacts{}, messageIDs: map[string][]store.MessageRef{},
		holders: map[string]store.Holders{}, contacts: map[store.ID]store.Contact{}, tallies: map[store.TallyKey][]time.Time{},
		answered: map[store.CaseOrdinal]store.Message{{Case: 1042, Ordinal: 1}: boardSent},
	}
	var people []store.Contact
	for i := range rapid.IntRange(1, 5).Draw(t, "people") {
		kind := rapid.SampledFrom([]store.ContactKind{store.Registered, store.Guest}).Draw(t, "kind")
		c := contact(byte(i+1), kind, "", rapid.SliceOfDistinct(rapid.SampledFrom(everyAddress[:5]), rapid.ID[string]).Draw(t, "addresses")...)
		people, w.contacts[c.ID] = append(people, c), c
		for _, e := range c.EmailAddresses {
			h := w.holders[store.Key(e.Address)]
			h.Contacts = append(h.Contacts, c)
			w.holders[store.Key(e.Address)] = h
		}
	}
	w.holders["agent@city.example"] = store.Holders{Agents: []store.Agent{{ID: id(90)}}}
	if h := w.holders["a@x.example"]; rapid.Bool().Draw(t, "account") {
		h.Accounts = []store.Account{{ID: id(91)}}
		w.holders["a@x.example"] = h
	}
	for n := range uint64(3) {
		number, used := 1041+n, map[string]store.Usage{}
		for _, a := range rapid.SliceOf(rapid.SampledFrom(everyAddress)).Draw(t, "used") {
			used[store.Key(a)] = store.Usage{First: noon, Last: noon}
		}
		customer := rapid.SampledFrom(people).Draw(t, "customer")
		w.cases[number] = store.CaseFacts{Customer: customer, Used: used, Case: store.Case{
			ID: id(byte(200 + n)), Number: number, Customer: customer.ID, Ordinal: 3,
			State:      rapid.SampledFrom([]store.CaseState{store.Active, store.Resolved, store.Cancelled}).Draw(t, "state"),
			MergedInto: rapid.SampledFrom([]uint64{0, 0, 0, 1041, 1042, 1043, 77}).Draw(t, "merged into"),
			ResolvedAt: noon.Add(-time.Duration(rapid.IntRange(0, 60).Draw(t, "days")) * 24 * time.Hour),
		}}
	}
	for _, name := range []string{"seen@x.example", "new@x.example"} {
		for range rapid.IntRange(0, 2).Draw(t, "refs") {
			w.messageIDs[name] = append(w.messageIDs[name], store.MessageRef{
				ID: id(byte(60 + len(w.messageIDs[name]))), Case: rapid.Uint64Range(1040, 1044).Draw(t, "ref"), Own: rapid.Bool().Draw(t, "own"),
				Direction:   rapid.SampledFrom([]store.Direction{store.Incoming, store.Outgoing}).Draw(t, "direction"),
				ContentHash: rapid.SampledFrom([]string{"h", "other"}).Draw(t, "hash"), ReceivedAt: noon.Add(-time.Hour),
			})
		}
	}
	return w
}

// anyMail draws a message that names the addresses, cases and ids of anyWorld,
// or guesses them.
func anyMail(t *rapid.T) Mail {
	list := func(label string, most int) (list []Address) {
		for _, a := range rapid.SliceOfN(rapid.SampledFrom(everyAddress), 0, most).Draw(t, label) {
			list = append(list, Address{Name: "A", Address: a})
		}
		return list
	}
	token := func() string {
		return rapid.SampledFrom([]string{
			boardToken, boardMerged, boardLost, boardAlien, boardUnknown, boardGuess, boardSign(boardKeys, 1041, 2), boardConsult, "x",
		}).Draw(t, "token")
	}
	h := multi{}
	m := Mail{
		ID: id(100), NewCase: id(101), NewContact: id(102), Received: noon, Header: h, Subject: "[case 1042]",
		From: list("From", 2), To: list("To", 3), CC: list("Cc", 3), ContentHash: "h",
		EnvelopeFrom: rapid.SampledFrom([]string{"", "a@x.example", "no-reply@x.example", "agent@city.example"}).Draw(t, "reverse-path"),
		MessageID:    rapid.SampledFrom([]string{"", "new@x.example", MessageID(boardToken, "x")}).Draw(t, "Message-ID"),
		Recipients:   []string{rapid.SampledFrom([]string{"311@city.example", "parks@city.example", PlusAddress("311@city.example", token())}).Draw(t, "recipient")},
		Verdict:      Verdict{AlignedPass: rapid.Bool().Draw(t, "pass"), Forged: rapid.Bool().Draw(t, "forged")},
		Login:        rapid.SampledFrom([]string{"", "agent@city.example"}).Draw(t, "login"),
	}
	if len(m.From) == 1 {
		m.Author = &m.From[0]
	}
	for _, field := range [][]string{
		{"X-Case-Ref", token()}, {"X-Case-Number", "1042"}, {"X-Case-Customer", "guest", id(1).String(), id(80).String(), "?"},
		{"Auto-Submitted", "no", "auto-replied", "auto-generated"}, {"List-Id", "l"}, {"Precedence", "bulk"},
		{"Content-Type", "multipart/report; report-type=delivery-status", "multipart/report; report-type=feedback-report", "text/plain"},
	} {
		if rapid.IntRange(0, 3).Draw(t, field[0]) == 0 {
			h[field[0]] = []string{rapid.SampledFrom(field[1:]).Draw(t, "value")}
		}
	}
	switch rapid.IntRange(0, 3).Draw(t, "evidence") {
	case 0:
		m.InReplyTo = []string{MessageID(token(), "x")}
	case 1:
		m.References = []string{PseudoReference(token(), "x"), "seen@x.example"}
	case 2:
		m.InReplyTo = []string{"seen@x.example"}
	}
	m.TrustedForm, m.ControlHeaders = rapid.Bool().Draw(t, "form"), rapid.Bool().Draw(t, "control")
	m.Unparsable = rapid.SampledFrom([]string{"", "", "", "", "", "", "too long"}).Draw(t, "unparsable")
	m.DirectoryOut = rapid.SampledFrom([]string{"", "", "", "", "", "", "no answer"}).Draw(t, "directory")
	if m.Reports() {
		m.Notification = &Notification{
			Recipients: []ReportedRecipient{{Address: "ben@x.example", Action: "failed"}, {Address: "a@x.example", Action: "delayed"}},
			Returned:   &Returned{CaseRefs: []string{token()}},
		}
	}
	return m
}

var boardConsult = func() string {
	text, err := Token{Case: 1042, Ordinal: 2, Consult: true}.sign(boardKeys)
	if err != nil {
		panic(err)
	}
	return text
}()

// What holds for every mail, whatever the directory and the cases.
func TestInboundProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, m := anyWorld(t), anyMail(t)
		if rapid.IntRange(0, 3).Draw(t, "forwards") == 0 {
			inner := anyMail(t)
			inner.MessageID = "inner@x.example"
			m.Embedded = &inner
			clear(w.answered) // a report that is forwarded proves nothing, and nobody asks
		}
		s := newTown(store.Contact{}).settings
		s.Strict, s.OrphanCase, s.SubjectTag, s.Ack = rapid.Bool().Draw(t, "strict"), rapid.Bool().Draw(t, "orphans"), rapid.Bool().Draw(t, "tag"), true
		f := w.facts(Ask(m, s))
		d := Inbound(m, f, s)
		if again := Inbound(m, f, s); !reflect.DeepEqual(d, again) {
			t.Fatalf("the same input was decided differently:\n%+v\n%+v", d, again)
		}
		if diff := cmp.Diff(d, Inbound(m, w.everything(), s)); diff != "" {
			t.Fatalf("Ask does not ask for all that counts: %s", diff)
		}
		about := m
		if d.Embedded {
			about = *m.Embedded
			about.Recipients = m.Recipients
		}
		customerStays(t, d, w)
		fewParties(t, d, about, s)
		forgedTakesNoPart(t, d)
		onlySendersAreMinted(t, d, about, w)
		exceptionsHaveNoCase(t, d)
		consultStaysInside(t, d)
	})
}

// everything is what a store holds, unasked.
func (w world) everything() store.Facts {
	return store.Facts{
		Installation: w.installation, Cases: w.cases, MessageIDs: w.messageIDs, Holders: w.holders,
		Contacts: w.contacts, Answered: w.answered, Tallies: w.tallies,
	}
}

// Mail never changes the customer of a case that is there (invariant 8).
func customerStays(t *rapid.T, d InboundDecision, w world) {
	if c, exists := w.cases[d.Case.Number]; exists && (d.Case.Customer != c.Case.Customer || !reflect.DeepEqual(d.Customer, c.Customer)) {
		t.Fatalf("case %d had customer %s, now %s", d.Case.Number, c.Case.Customer, d.Case.Customer)
	}
	if d.Action == Open && d.Case.Customer != d.Customer.ID {
		t.Fatal("a new case without its customer")
	}
}

// One party per address, as sender and as recipient, however many match.
func fewParties(t *rapid.T, d InboundDecision, m Mail, s Settings) {
	distinct := map[seenParty]bool{}
	for _, a := range m.From {
		distinct[seenParty{true, a.Key()}] = true
	}
	for _, a := range slices.Concat(m.To, m.CC) {
		distinct[seenParty{false, a.Key()}] = true
	}
	for _, r := range m.Recipients {
		if _, own := s.Own(r); own {
			distinct[seenParty{false, store.Key(r)}] = true
		}
	}
	if len(d.Parties) > len(distinct) {
		t.Fatalf("%d parties of %d addresses: %+v", len(d.Parties), len(distinct), d.Parties)
	}
	for _, p := range d.Parties {
		as := seenParty{p.Role == store.RoleSender, store.Key(p.AddressUsed)}
		if !distinct[as] {
			t.Fatalf("party %+v stands nowhere in the mail, or twice", p)
		}
		delete(distinct, as)
	}
}

// A forged sender gets no further than a case of his own.
func forgedTakesNoPart(t *rapid.T, d InboundDecision) {
	if d.Identity != Forged {
		return
	}
	if slices.Contains(d.Rules, string(T2)) || d.Ack != "" {
		t.Fatalf("a forged sender counts: %v, ack %q", d.Rules, d.Ack)
	}
	if d.Guest != nil && (d.Action != Open || !d.Guest.Unverified) {
		t.Fatalf("a forged sender is a contact: %+v", d.Guest)
	}
}

// At most one guest is minted, and never from To or Cc, but for the one outsider
// whom an agent writes to (I12). Nobody else appears who was not there.
func onlySendersAreMinted(t *rapid.T, d InboundDecision, m Mail, w world) {
	known := func(c store.ID) bool {
		_, is := w.contacts[c]
		return is || d.Guest != nil && d.Guest.ID == m.NewContact && c == d.Guest.ID
	}
	for _, p := range d.Parties {
		if p.Party.Kind == store.PartyContact && !known(p.Party.ID) {
			t.Fatalf("party %+v is nobody we know", p)
		}
	}
	for _, c := range d.Linked {
		if !known(c.ID) {
			t.Fatalf("linked to %+v, whom nobody knows", c)
		}
	}
	if d.Guest == nil || d.Row == "I12" {
		return
	}
	if m.Author == nil && len(d.Guest.EmailAddresses) > 0 || m.Author != nil && d.Guest.EmailAddresses[0].Address != m.Author.Address {
		t.Fatalf("guest %+v is not the sender %+v", d.Guest, m.Author)
	}
}

func exceptionsHaveNoCase(t *rapid.T, d InboundDecision) {
	if d.Action != Except && d.Action != Refuse && d.Action != Duplicate {
		return
	}
	if !reflect.DeepEqual(d.Case, store.Case{}) || d.Guest != nil || d.Opened != "" || d.Ack != "" || d.Ordinal != 0 || len(d.Events) > 0 {
		t.Fatalf("%s has consequences: %+v", d.Action, d)
	}
	if (d.Exception != "") != (d.Action == Except) {
		t.Fatalf("%s with reason %q", d.Action, d.Exception)
	}
}

// A reply to a consult creates nobody and reopens nothing (rules §5).
func consultStaysInside(t *rapid.T, d InboundDecision) {
	if d.Internal && (d.Guest != nil || d.Action != Link) {
		t.Fatalf("internal, but %s and guest %+v", d.Action, d.Guest)
	}
}
