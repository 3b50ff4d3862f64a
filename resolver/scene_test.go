package resolver

import (
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casegate/casegate/store"
)

// fields is a header for tests.
type fields map[string]string

func (f fields) Values(name string) []string {
	for k, v := range f {
		if textproto.CanonicalMIMEHeaderKey(k) == textproto.CanonicalMIMEHeaderKey(name) {
			return []string{v}
		}
	}
	return nil
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func id(n byte) store.ID { return store.ID{15: n} }

func contact(n byte, kind store.ContactKind, name string, addresses ...string) store.Contact {
	c := store.Contact{ID: id(n), Kind: kind, Name: name}
	for _, a := range addresses {
		c.EmailAddresses = append(c.EmailAddresses, store.EmailAddress{Address: a})
	}
	return c
}

// town is a directory, one case (1042) and the settings of a test.
type town struct {
	facts    store.Facts
	settings Settings
}

func newTown(customer store.Contact, others ...store.Contact) *town {
	t := &town{settings: Settings{
		Hostname: "gw.city.example", DedupeWindow: 5 * 24 * time.Hour, SubmitWindow: 24 * time.Hour,
		ReopenWindow: 30 * 24 * time.Hour, ReopenPerDay: 3, ToPolicy: "cc", Unresolved: "text", Uncased: "pass",
		Mailboxes: []Mailbox{{Address: "311@city.example", Queue: "general"}, {Address: "parks@city.example", Queue: "parks"}},
	}}
	t.facts = store.Facts{
		Installation: installation(1),
		Cases:        map[uint64]store.CaseFacts{},
		MessageIDs:   map[string][]store.MessageRef{},
		Holders:      map[string]store.Holders{},
		Parents:      map[store.ID]store.Message{},
	}
	for _, c := range append([]store.Contact{customer}, others...) {
		for _, e := range c.EmailAddresses {
			h := t.facts.Holders[e.Address]
			h.Contacts = append(h.Contacts, c)
			t.facts.Holders[e.Address] = h
		}
	}
	t.facts.Cases[1042] = store.CaseFacts{
		Case:     store.Case{ID: id(200), Number: 1042, State: store.Active, Customer: customer.ID, Mailbox: "311@city.example", Ordinal: 1},
		Customer: customer, Used: map[string]store.Usage{},
	}
	return t
}

func (t *town) used(addresses ...string) *town {
	for _, a := range addresses {
		t.facts.Cases[1042].Used[a] = store.Usage{First: noon, Last: noon}
	}
	return t
}

func (t *town) state(s store.CaseState, resolved time.Time) *town {
	c := t.facts.Cases[1042]
	c.Case.State, c.Case.ResolvedAt = s, resolved
	t.facts.Cases[1042] = c
	return t
}

func (t *town) token() string {
	text, err := Sign(t.facts.Installation, 1042, 1)
	if err != nil {
		panic(err)
	}
	return text
}

func letter(from string, h fields) Mail {
	if h == nil {
		h = fields{}
	}
	author := Address{Name: "Someone", Address: from}
	return Mail{
		Author: &author, ID: id(100), NewCase: id(101), NewContact: id(102), Received: noon,
		EnvelopeFrom: from, Recipients: []string{"311@city.example"}, Header: h,
		From: []Address{author}, To: []Address{{Address: "311@city.example"}},
		Subject: "street light", MessageID: "new@x.example", ContentHash: "h",
	}
}

func TestInboundRows(t *testing.T) {
	ana := contact(1, store.Guest, "Ana", "fam@x.example")
	ben := contact(2, store.Guest, "Ben", "fam@x.example")
	cleo := contact(3, store.Registered, "Cleo", "cleo@x.example")
	dora := contact(4, store.Registered, "Dora", "two@x.example")
	emil := contact(5, store.Registered, "Emil", "two@x.example")
	fresh := func() *town { return newTown(ben, ana, cleo, dora, emil).used("fam@x.example") }
	onCase := func(m Mail, tw *town) Mail {
		m.Recipients = []string{PlusAddress("311@city.example", tw.token())}
		return m
	}
	for _, c := range []struct {
		name     string
		mail     func(*town) Mail
		town     func(*town)
		row      string
		action   Action
		customer string
		sender   string // resolved Sender party, "-" unresolved
		says     string
	}{
		{"a stranger", func(*town) Mail { return letter("new@x.example", nil) }, nil, "I26", Open, "guest", "guest", "nobody else has the address"},
		{"the family", func(*town) Mail { return letter("fam@x.example", nil) }, nil, "I26", Open, "guest", "guest", "other contacts that share the address are linked"},
		{"a registered contact", func(*town) Mail { return letter("cleo@x.example", nil) }, nil, "I25", Open, "Cleo", "Cleo", "exactly one registered contact has cleo@x.example (unverified)"},
		{"a registered contact on a strict site", func(*town) Mail { return letter("cleo@x.example", nil) }, func(tw *town) { tw.settings.Strict = true }, "I25", Open, "guest", "guest", "identity.on_unverified is guest"},
		{"two registered contacts", func(*town) Mail { return letter("two@x.example", nil) }, nil, "I26", Open, "guest", "guest", "2 registered contacts share"},
		{"our own mailbox as sender", func(*town) Mail { return letter("311@city.example", nil) }, nil, "I2", Except, "", "", "sender own"},
		{"a loop", func(tw *town) Mail {
			m := letter("x@x.example", nil)
			m.MessageID = MessageID(tw.token(), "old.host")
			return m
		}, nil, "I2", Except, "", "", "one that this gateway gave"},
		{"no header", func(*town) Mail { m := letter("x@x.example", nil); m.Unparsable = "it has no header field"; return m }, nil, "I4", Except, "", "", "no header field"},
		{"a reply with a token", func(tw *town) Mail { return onCase(letter("fam@x.example", nil), tw) }, nil, "I16", Link, "Ben", "Ben", "T1: the signed token in the plus-address leads to case 1042"},
		{"a third party with a token", func(tw *town) Mail { return onCase(letter("cleo@x.example", nil), tw) }, nil, "I16", Link, "Ben", "Cleo", "a third party"},
		{"a newcomer with a token", func(tw *town) Mail { return onCase(letter("new@x.example", nil), tw) }, nil, "I16", Link, "Ben", "guest", "new guest new@x.example"},
		{"a reply in time on a resolved case", func(tw *town) Mail { return onCase(letter("fam@x.example", nil), tw) }, func(tw *town) { tw.state(store.Resolved, noon.Add(-24*time.Hour)) }, "I17", Reopen, "Ben", "Ben", "active again"},
		{"a late reply on a resolved case", func(tw *town) Mail { return onCase(letter("fam@x.example", nil), tw) }, func(tw *town) { tw.state(store.Resolved, noon.Add(-31*24*time.Hour)) }, "I18", Link, "Ben", "Ben", "stays Resolved"},
		{"a reply on a cancelled case", func(tw *town) Mail { return onCase(letter("fam@x.example", nil), tw) }, func(tw *town) { tw.state(store.Cancelled, noon) }, "I19", Link, "Ben", "Ben", "stays Cancelled"},
		{"an out-of-office on a resolved case", func(tw *town) Mail {
			return onCase(letter("fam@x.example", fields{"Auto-Submitted": "auto-replied (vacation)"}), tw)
		}, func(tw *town) { tw.state(store.Resolved, noon) }, "I14", Link, "Ben", "Ben", "stays Resolved"},
		{"an automatic reply about nothing", func(*town) Mail { return letter("x@x.example", fields{"X-Autoreply": "yes"}) }, nil, "I15", Except, "", "", "X-Autoreply"},
		{"a delivery report about nothing", func(*town) Mail {
			return letter("x@x.example", fields{"Content-Type": `multipart/report; report-type="delivery-status"; boundary=b`})
		}, nil, "I6", Except, "", "", "RFC 3464"},
		{"a delivery report on a case", func(tw *town) Mail {
			return onCase(letter("x@x.example", fields{"Content-Type": `multipart/report; report-type=delivery-status`}), tw)
		}, nil, "I5", Link, "Ben", "", "nothing is changed by this report"},
		{"a guessed token", func(tw *town) Mail {
			guess := "a" + strings.Repeat("e", TokenLength-1)
			m := letter("new@x.example", nil)
			m.Recipients = []string{PlusAddress("311@city.example", guess)}
			return m
		}, nil, "I26", Open, "guest", "guest", ""},
		{"a mailing list", func(*town) Mail { return letter("new@x.example", fields{"List-Id": "<l.x.example>"}) }, nil, "I26", Open, "guest", "guest", "class list"},
		{"several From addresses", func(*town) Mail {
			m := letter("cleo@x.example", nil)
			m.From, m.Author = append(m.From, Address{Address: "b@x.example"}), nil
			return m
		}, nil, "I26", Open, "guest", "", "(2 can be read), so it is no identity"},
		{"an agent's address", func(*town) Mail { return letter("agent@city.example", nil) }, func(tw *town) {
			tw.facts.Holders["agent@city.example"] = store.Holders{Agents: []store.Agent{{ID: id(9)}}}
		}, "I22", Open, "guest", "guest", "sender forged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tw := fresh()
			if c.town != nil {
				c.town(tw)
			}
			d := Inbound(c.mail(tw), tw.facts, tw.settings)
			if d.Row != c.row || d.Action != c.action {
				t.Errorf("row %s %s, want %s %s", d.Row, d.Action, c.row, c.action)
			}
			if got := called(d.Customer, d.Guest); c.customer != "" && got != c.customer {
				t.Errorf("customer %s, want %s", got, c.customer)
			}
			if got := senderOf(d, tw); c.sender != "" && got != c.sender {
				t.Errorf("sender %s, want %s", got, c.sender)
			}
			if words := strings.Join(d.Reasons, "\n"); !strings.Contains(words, c.says) {
				t.Errorf("reasons do not say %q:\n%s", c.says, words)
			}
			if slices.Contains(d.Rules, "I27") || len(d.Rules) == 0 {
				t.Error("rules:", d.Rules)
			}
		})
	}
}

func called(c store.Contact, guest *store.Contact) string {
	if guest != nil && c.ID == guest.ID {
		return "guest"
	}
	return c.Name
}

func senderOf(d InboundDecision, tw *town) string {
	for _, p := range d.Parties {
		if p.Role != store.RoleSender {
			continue
		}
		if p.Party.Kind == store.Unresolved {
			return "-"
		}
		if d.Guest != nil && p.Party.ID == d.Guest.ID {
			return "guest"
		}
		for _, h := range tw.facts.Holders {
			for _, c := range h.Contacts {
				if c.ID == p.Party.ID {
					return c.Name
				}
			}
		}
	}
	return ""
}

// The family: a fourth guest becomes the customer, all four are linked.
func TestFamilyIsLinkedNeverMerged(t *testing.T) {
	tw := newTown(contact(1, store.Guest, "A", "fam@x.example"), contact(2, store.Guest, "B", "fam@x.example"), contact(3, store.Guest, "C", "fam@x.example"))
	d := Inbound(letter("fam@x.example", nil), tw.facts, tw.settings)
	if len(d.Linked) != 4 || d.Linked[3].ID != id(102) || d.Customer.ID != id(102) {
		t.Errorf("linked %v, customer %v", d.Linked, d.Customer.ID)
	}
}

func TestDuplicate(t *testing.T) {
	tw := newTown(contact(1, store.Guest, "A", "a@x.example"))
	ref := store.MessageRef{ID: id(50), Case: 7, Own: true, Direction: store.Incoming, ContentHash: "h", ReceivedAt: noon.Add(-time.Hour)}
	tw.facts.MessageIDs["new@x.example"] = []store.MessageRef{ref}
	m := letter("a@x.example", nil)
	if d := Inbound(m, tw.facts, tw.settings); d.Row != "I1" || d.Original.ID != ref.ID {
		t.Errorf("row %s", d.Row)
	}
	m.ContentHash = "other"
	if d := Inbound(m, tw.facts, tw.settings); d.Row != "I26" {
		t.Errorf("other content under the same Message-ID: row %s", d.Row)
	}
	m.ContentHash = "h"
	m.Received = noon.Add(6 * 24 * time.Hour)
	if d := Inbound(m, tw.facts, tw.settings); d.Row != "I26" {
		t.Errorf("outside the window: row %s", d.Row)
	}
	m = letter("a@x.example", nil)
	m.Recipients = []string{PlusAddress("311@city.example", tw.token())}
	if d := Inbound(m, tw.facts, tw.settings); d.Row != "I16" || d.Case.Number != 1042 {
		t.Errorf("the same mail to another case: row %s", d.Row)
	}
}

// Two merged cases that point at each other end the search.
func TestMergeChainAndCycle(t *testing.T) {
	tw := newTown(contact(1, store.Guest, "A", "a@x.example"))
	put := func(n, into uint64) {
		tw.facts.Cases[n] = store.CaseFacts{Case: store.Case{Number: n, State: store.Active, MergedInto: into}}
	}
	put(1, 2)
	put(2, 3)
	put(3, 0)
	if c, ok := followMerges(tw.facts, 1); !ok || c.Case.Number != 3 {
		t.Error("chain ends at", c.Case.Number)
	}
	put(3, 1)
	if c, ok := followMerges(tw.facts, 2); !ok || c.Case.Number != 2 {
		t.Error("cycle ends at", c.Case.Number)
	}
}
