package console

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/casegate/casegate/store"
)

// both are the rows of an address on the case: "message number, party, by hand,
// candidates, why".
func (d *desk) rows(t *testing.T, address string) (list []string) {
	t.Helper()
	c := read[CaseDetail](t, d.handler(Operator), "GET", "/api/v1/cases/1?bcc=1", "", 200)
	for i, act := range c.Timeline {
		for _, p := range act.Parties {
			if p.AddressUsed != address {
				continue
			}
			who := "nobody"
			if p.Party != nil {
				who = p.Party.Name
			}
			list = append(list, fmt.Sprintf("%d %s %v %d: %s", i, who, p.ByHand, len(p.Candidates), p.Why))
		}
	}
	return list
}

func (d *desk) saysRows(t *testing.T, address string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, d.rows(t, address)); diff != "" {
		t.Error(diff)
	}
}

// second puts a later message with the shared address on case 1.
func (d *desk) second(t *testing.T) store.ID {
	m := d.firstMail()
	m.ID, m.MessageID, m.Ordinal, m.Archived = id(14), "d@x.example", 3, store.Archived{}
	d.update(t, func(tx store.Tx) error { return tx.PutMessage(m) })
	return m.ID
}

func link(address string, contact store.ID, rest string) string {
	return fmt.Sprintf(`{"address":%q,"contact":%q%s}`, address, contact, rest)
}

// TestLinkInMessage: in that message, and in no other.
func TestLinkInMessage(t *testing.T) {
	d := newDesk(t)
	second := d.second(t).String()
	in := `,"message":"` + d.first.String() + `"`
	d.play(t,
		step{"/cases/1/link", link("both@x.example", d.ben, in), "409 Ben (registered) never had the address both@x.example | add --force if you know that it is theirs"},
		step{"/cases/1/link", link("Both@X.example", d.ben, in+`,"force":true`), "Both@X.example linked by hand to Ben (registered) " + d.ben.String() + " in message " + d.first.String()},
		step{"/cases/1/link", link("both@x.example", d.ben, in+`,"force":true`), "already: both@x.example is linked to Ben (registered) in message " + d.first.String() + " already"},
		step{"/cases/1/link", link("both@x.example", d.ana, in+`,"force":true`),
			"409 both@x.example is linked by hand to Ben (registered) | casegate case unlink 1 --address both@x.example --message " + d.first.String() + " comes first"},
		step{"/cases/1/link", link("ana@x.example", d.ben, in), "409 ana@x.example is resolved in message " + d.first.String() + " by the rules | casegate unresolved list shows what a person can link"},
		step{"/cases/1/link", link("eva@x.example", d.ben, in+`,"force":true`), "404 message " + d.first.String() + " has no eva@x.example | casegate message show " + d.first.String() + " shows who took part"},
		step{"/cases/1/link", link("both@x.example", d.ben, `,"force":true,"message":"`+d.odd.String()+`"`), "404 message " + d.odd.String() + " is not on case 1 | casegate message list --case 1 shows the ids"},
		step{"/cases/1/link", link("both@x.example", d.ben, `,"force":true,"message":"x"`), `404 "x" is not the id of a message | casegate message list shows the ids`},
	)
	d.saysRows(t, "both@x.example", "0 Ben true 0: linked by hand in this message by kim", "2 nobody false 2: shared by several contacts")
	if c := d.numbered(t, 1); c.HandLinks != nil {
		t.Errorf("%+v", c.HandLinks)
	}
	d.play(t,
		step{"/cases/1/unlink", `{"address":"both@x.example","message":"` + second + `"}`, "already: both@x.example is not linked by hand in message " + second},
		step{"/cases/1/unlink", `{"address":"both@x.example"` + in + `}`, "both@x.example no longer linked by hand in message " + d.first.String()},
		step{"/cases/1/unlink", `{"address":"both@x.example"` + in + `}`, "already: both@x.example is not linked by hand in message " + d.first.String()},
		step{"/cases/1/unlink", `{"address":"eva@x.example"` + in + `}`, "404 message " + d.first.String() + " has no eva@x.example | casegate message show " + d.first.String() + " shows who took part"},
	)
	d.saysRows(t, "both@x.example", "0 nobody false 0: unlinked by hand by kim; no contact has the address", "2 nobody false 2: shared by several contacts")
	want := []string{
		"Case changed, kim: Both@X.example linked by hand to Ben (registered) " + d.ben.String() + " in message " + d.first.String(),
		"Case changed, kim: both@x.example no longer linked by hand in message " + d.first.String(),
	}
	if diff := cmp.Diff(want, d.logged(t, 1)); diff != "" {
		t.Error(diff)
	}
}

// TestLinkInCase: in all messages of the case where the address is unresolved,
// and as a hand link for later ones; in no other case.
func TestLinkInCase(t *testing.T) {
	d := newDesk(t)
	d.more(t)
	d.second(t)
	other := d.firstMail()
	other.ID, other.MessageID, other.Case, other.Archived = id(15), "e@x.example", 2, store.Archived{}
	d.update(t, func(tx store.Tx) error { return tx.PutMessage(other) })
	ben := d.ben.String()
	d.play(t,
		step{"/cases/1/link", link("both@x.example", d.ben, ""), "409 Ben (registered) never had the address both@x.example | add --force if you know that it is theirs"},
		step{"/cases/1/link", link("nobody@x.example", d.ben, `,"force":true`), "404 case 1 has no message of or to nobody@x.example | casegate case show 1 shows who took part"},
		step{"/cases/1/link", link("ana@x.example", d.ben, ""), "409 ana@x.example is resolved in case 1 by the rules | casegate unresolved list shows what a person can link"},
		step{"/cases/1/link", link("Both@x.example", d.ben, `,"force":true`), "Both@x.example linked by hand to Ben (registered) " + ben + " in case 1: 2 messages, and later mail"},
		step{"/cases/1/link", link("both@x.example", d.ben, `,"force":true`), "already: both@x.example is linked to Ben (registered) in case 1 already"},
		step{"/cases/1/link", link("both@x.example", d.ana, `,"force":true`), "409 both@x.example is linked by hand to Ben (registered) | casegate case unlink 1 --address both@x.example comes first"},
	)
	d.saysRows(t, "both@x.example", "0 Ben true 0: linked by hand in this case by kim", "2 Ben true 0: linked by hand in this case by kim")
	want := []store.HandLink{{Address: "both@x.example", Contact: d.ben, By: "kim", At: later}}
	if diff := cmp.Diff(want, d.numbered(t, 1).HandLinks); diff != "" {
		t.Error(diff)
	}
	c := read[CaseDetail](t, d.handler(Reader), "GET", "/api/v1/cases/1", "", 200)
	if diff := cmp.Diff([]HandLink{{"both@x.example", Person{d.ben, "registered", "Ben"}, "kim", later}}, c.HandLinks); diff != "" {
		t.Error(diff)
	}
	d.view(t, func(rd store.Reader) error {
		m, err := rd.Message(other.ID)
		if c := d.numbered(t, 2); len(c.HandLinks) != 0 || m.Parties[2].ByHand {
			t.Error("another case was touched")
		}
		return err
	})
	d.play(t,
		step{"/cases/1/unlink", `{"address":"both@x.example","message":"` + d.first.String() + `"}`, "both@x.example no longer linked by hand in message " + d.first.String() + "; later mail on the case still is"},
		step{"/cases/1/link", link("both@x.example", d.ben, `,"force":true`), "both@x.example linked by hand to Ben (registered) " + ben + " in case 1: 1 message, and later mail"},
		step{"/cases/1/unlink", `{"address":"both@x.example"}`, "both@x.example no longer linked by hand in case 1: 2 messages"},
		step{"/cases/1/unlink", `{"address":"both@x.example"}`, "already: both@x.example is not linked by hand in case 1"},
		step{"/cases/1/unlink", `{"address":"nobody@x.example"}`, "404 case 1 has no message of or to nobody@x.example | casegate case show 1 shows who took part"},
	)
	if links := d.numbered(t, 1).HandLinks; len(links) != 0 {
		t.Error(links)
	}
	if n := len(d.logged(t, 1)); n != 4 {
		t.Error(n, "rows")
	}
}

// TestUnlinkKnowsToday: the candidates are those of now, not those of then.
func TestUnlinkKnowsToday(t *testing.T) {
	d := newDesk(t)
	for _, c := range []store.Contact{{ID: id(61), Name: "Eva"}, {ID: id(62), Name: "Fay"}, {ID: id(63), Name: "Gus"}} {
		c.Kind, c.CreatedAt, c.EmailAddresses = store.Registered, before, []store.EmailAddress{{Address: "both@x.example", From: before}}
		d.update(t, func(tx store.Tx) error { return tx.PutContact(c) })
	}
	d.play(t,
		step{"/cases/1/link", link("both@x.example", id(61), ""), "both@x.example linked by hand to Eva (registered) " + id(61).String() + " in case 1: 1 message, and later mail"},
		step{"/cases/1/unlink", `{"address":"both@x.example"}`, "both@x.example no longer linked by hand in case 1: 1 message"},
	)
	d.saysRows(t, "both@x.example", "0 nobody false 3: unlinked by hand by kim; 3 contacts have the address")
}

// TestLinkMerged: later mail of a merged case goes elsewhere, so only its own
// messages can be linked.
func TestLinkMerged(t *testing.T) {
	d := newDesk(t)
	d.more(t)
	d.play(t,
		step{"/cases/1/merge", `{"into":3}`, "case 1 is merged into case 3"},
		step{"/cases/1/link", link("both@x.example", d.ben, `,"force":true`), "409 case 1 was merged into case 3 | it goes on there: casegate case show 3"},
		step{"/cases/1/link", link("both@x.example", d.ben, `,"force":true,"message":"`+d.first.String()+`"`),
			"both@x.example linked by hand to Ben (registered) " + d.ben.String() + " in message " + d.first.String()},
	)
}

// TestLinkBCC: what is said by hand about a blind recipient stays behind the
// veil: list, case, log.
func TestLinkBCC(t *testing.T) {
	d := newDesk(t)
	rows := read[[]UnresolvedParty](t, d.handler(Reader), "GET", "/api/v1/unresolved", "", 200)
	if len(rows) != 1 || rows[0].AddressUsed != "both@x.example" {
		t.Errorf("%+v", rows)
	}
	rows = read[[]UnresolvedParty](t, d.handler(Operator), "GET", "/api/v1/unresolved?bcc=1", "", 200)
	if len(rows) != 2 || rows[0].AddressUsed != canary {
		t.Errorf("%+v", rows)
	}
	if w := ask(d.handler(Reader), "GET", "/api/v1/unresolved?bcc=1", ""); w.Code != 403 {
		t.Error(w.Code)
	}
	if said := d.does(t, "POST", "/cases/1/link", link(canary, d.ben, `,"force":true`)); !strings.HasSuffix(said, "in case 1: 1 message, and later mail") {
		t.Error(said)
	}
	for _, path := range []string{"/api/v1/cases/1", "/api/v1/messages/" + d.answer.String(), "/api/v1/unresolved"} {
		if w := ask(d.handler(Reader), "GET", path, ""); w.Code != 200 || strings.Contains(w.Body.String(), "canary") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if w := ask(d.handler(Operator), "GET", "/api/v1/cases/1?bcc=1", ""); strings.Count(w.Body.String(), canary) < 4 {
		t.Error(w.Body)
	}
}

func TestUnresolved(t *testing.T) {
	d := newDesk(t)
	d.second(t)
	want := UnresolvedParty{
		AddressUsed: "both@x.example", Role: store.RoleCC, Name: "Both", Why: "shared by several contacts", Message: d.first, Case: 1, Subject: "light", ReceivedAt: monday,
		Candidates: []Person{{d.ana, "guest", "Ana"}, {d.ben, "registered", "Ben"}},
	}
	later := want
	later.Message = id(14)
	rows := read[[]UnresolvedParty](t, d.handler(Reader), "GET", "/api/v1/unresolved", "", 200)
	if diff := cmp.Diff([]UnresolvedParty{later, want}, rows); diff != "" {
		t.Error(diff)
	}
	rows = read[[]UnresolvedParty](t, d.handler(Reader), "GET", "/api/v1/unresolved?case=1", "", 200)
	if diff := cmp.Diff([]UnresolvedParty{want, later}, rows); diff != "" {
		t.Error("oldest first of one case:", diff)
	}
	if w := ask(d.handler(Reader), "GET", "/api/v1/unresolved?limit=1", ""); !strings.Contains(w.Header().Get("Link"), "after=") {
		t.Error(w.Header())
	}
	d.play(t, step{"/cases/1/link", link("both@x.example", d.ben, `,"force":true`), "both@x.example linked by hand to Ben (registered) " + d.ben.String() + " in case 1: 2 messages, and later mail"})
	if got := ask(d.handler(Reader), "GET", "/api/v1/unresolved", "").Body.String(); got != "[]\n" {
		t.Error(got)
	}
}

// TestLinkTouchesNoOther: a row that the rules resolved stays as it is beside
// an unresolved one of the same address, and taking one address back leaves the
// others.
func TestLinkTouchesNoOther(t *testing.T) {
	d := newDesk(t)
	m := d.firstMail()
	m.ID, m.MessageID, m.Archived = id(14), "d@x.example", store.Archived{}
	m.Parties = append(m.Parties, store.Party{Role: store.RoleTo, AddressUsed: "ana@x.example", Why: "shared"})
	d.update(t, func(tx store.Tx) error { return tx.PutMessage(m) })
	d.play(t,
		step{"/cases/1/link", link("ana@x.example", d.ben, ""), "ana@x.example linked by hand to Ben (registered) " + d.ben.String() + " in case 1: 1 message, and later mail"},
		step{"/cases/1/link", link("both@x.example", d.ben, `,"force":true`), "both@x.example linked by hand to Ben (registered) " + d.ben.String() + " in case 1: 2 messages, and later mail"},
		step{"/cases/1/unlink", `{"address":"both@x.example"}`, "both@x.example no longer linked by hand in case 1: 2 messages"},
	)
	d.saysRows(t, "ana@x.example", "0 Ana false 0: the customer's address", "1 Ana false 0: O3", "2 Ana false 0: the customer's address", "2 Ben true 0: linked by hand in this case by kim")
	if links := d.numbered(t, 1).HandLinks; len(links) != 1 || links[0].Address != "ana@x.example" {
		t.Errorf("%+v", links)
	}
}
