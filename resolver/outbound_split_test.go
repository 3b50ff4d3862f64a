package resolver

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casegate/casegate/store"
	"pgregory.net/rapid"
)

// outbox plays the store behind a desk: what it accepts is known to the next
// decision, and every copy that leaves is counted.
type outbox struct {
	*desk
	n      int
	copies map[string]int
}

// submit hands in a transaction for some of the recipients.
func (b *outbox) submit(recipients ...string) OutboundDecision {
	sub := b.sub
	sub.Recipients, sub.SubmitHash = recipients, strings.Join(recipients, " ")
	d := Outbound(sub, b.facts, b.settings)
	if d.Refusal != nil || d.Duplicate != nil {
		return d
	}
	if b.copies == nil {
		b.copies = map[string]int{}
	}
	for _, to := range d.Recipients() {
		b.copies[store.Key(to)]++
	}
	b.keep(sub, d)
	return d
}

func (b *outbox) keep(sub Submission, d OutboundDecision) {
	m := d.Part
	if m == nil {
		b.n++
		m = &store.Message{ID: id(byte(150 + b.n)), MessageID: sub.MessageID, Direction: store.Outgoing, Case: d.Case.Number, Ordinal: d.Ordinal,
			Internal: d.Mode == Consult, Parties: d.Parties, Links: d.Links, Flags: d.Flags, Decision: d.Decision, ReceivedAt: sub.Received,
			SubmitHash: sub.SubmitHash, Envelope: store.Envelope{Listener: sub.Listener, Peer: sub.Peer, Recipients: sub.Recipients}}
		ref := store.MessageRef{ID: m.ID, Case: m.Case, Own: true, Direction: store.Outgoing, ContentHash: sub.ContentHash, SubmitHash: sub.SubmitHash, ReceivedAt: sub.Received}
		b.facts.MessageIDs[sub.MessageID] = append(b.facts.MessageIDs[sub.MessageID], ref)
		if m.Case != 0 {
			b.editCase(func(c *store.Case) { c.Ordinal = d.Ordinal })
		}
	}
	b.facts.Parents[m.ID] = *m
	for _, p := range m.Parties {
		if m.Case != 0 {
			b.used(store.Key(p.AddressUsed))
		}
	}
}

func TestSplitSubmission(t *testing.T) {
	for _, c := range []struct {
		name   string
		header []string
		parts  [][]string
		want   string // who got how many copies
		change func(*desk)
	}{
		{"three transactions, the customer first", []string{"To fam@x.example", "Cc cleo@x.example", "Cc kim@city.example"},
			[][]string{{"fam@x.example"}, {"cleo@x.example"}, {"kim@city.example"}}, "cleo@x.example fam@x.example kim@city.example", nil},
		{"the customer in the envelope of the second only", []string{"To fam@x.example", "Cc cleo@x.example"},
			[][]string{{"cleo@x.example"}, {"fam@x.example"}}, "cleo@x.example fam@x.example", nil},
		{"the customer in none", []string{"To fam@x.example", "Cc cleo@x.example", "Cc kim@city.example"},
			[][]string{{"cleo@x.example"}, {"kim@city.example"}}, "cleo@x.example fam@x.example kim@city.example", nil},
		{"ourselves first", []string{"To fam@x.example", "Cc 311@city.example"},
			[][]string{{"311@city.example"}, {"fam@x.example"}}, "fam@x.example", nil},
		{"O4 inserts once", []string{"To 311@city.example"},
			[][]string{{"311@city.example"}, {"cleo@x.example"}, {"fam@x.example"}}, "cleo@x.example fam@x.example", nil},
		{"O4 inserted him, a later part has another address of his", []string{"To 311@city.example"},
			[][]string{{"311@city.example"}, {"ben@work.example"}}, "fam@x.example", nil},
		{"two addresses of his are shown", []string{"To fam@x.example", "Cc ben@work.example", "Cc cleo@x.example"},
			[][]string{{"cleo@x.example"}, {"ben@work.example"}, {"fam@x.example"}}, "cleo@x.example fam@x.example", nil},
		{"blind copies", []string{"To fam@x.example"},
			[][]string{{"fam@x.example"}, {"cleo@x.example", "two@x.example"}, {"two@x.example", "new@x.example"}}, "cleo@x.example fam@x.example new@x.example two@x.example", nil},
		{"who is only linked", []string{"To fam@x.example", "Cc ana@work.example"},
			[][]string{{"fam@x.example"}, {"ana@work.example"}}, "fam@x.example", nil},
		{"who is only linked, blind", []string{"To fam@x.example"},
			[][]string{{"fam@x.example"}, {"ana@work.example"}}, "fam@x.example", nil},
		{"what a setting drops", []string{"To fam@x.example", "To cleo@x.example"},
			[][]string{{"fam@x.example"}, {"cleo@x.example"}, {"two@x.example"}}, "fam@x.example", func(d *desk) { d.settings.ToPolicy, d.settings.Unresolved = "drop", "drop" }},
		{"a consult", []string{"To cleo@x.example", "Cc kim@city.example"},
			[][]string{{"cleo@x.example"}, {"kim@city.example"}}, "cleo@x.example kim@city.example", nil},
		{"uncased", []string{"To cleo@x.example", "Cc 311@city.example"},
			[][]string{{"cleo@x.example"}, {"311@city.example", "cleo@x.example"}}, "311@city.example cleo@x.example", func(d *desk) { d.sub.InReplyTo = nil }},
		{"without a Message-ID", []string{"To fam@x.example", "Cc cleo@x.example"},
			[][]string{{"fam@x.example"}, {"cleo@x.example"}}, "cleo@x.example fam@x.example", func(d *desk) { d.sub.MessageID, d.sub.DerivedID = "", "derived" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &outbox{desk: newDesk(c.header...)}
			if c.change != nil {
				c.change(b.desk)
			}
			if b.sub.MessageID == "" {
				b.sub.MessageID = b.sub.DerivedID
			}
			for i, p := range c.parts {
				d := b.submit(p...)
				if d.Refusal != nil || (d.Part != nil) != (i > 0) {
					t.Fatalf("part %d: a part %v, %+v\n%s", i, d.Part != nil, d.Refusal, strings.Join(d.Reasons, "\n"))
				}
				if again := b.submit(p...); again.Duplicate == nil {
					t.Errorf("part %d sent again is no duplicate: %s", i, again.Reasons)
				}
			}
			if got := copies(b.copies); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if b.n != 1 {
				t.Errorf("%d activities", b.n)
			}
		})
	}
}

// copies lists who got one, and loudly who got more.
func copies(n map[string]int) string {
	var list []string
	for a, k := range n {
		if k > 1 {
			a += fmt.Sprintf(" %d TIMES", k)
		}
		list = append(list, a)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func TestPartIsRecorded(t *testing.T) {
	b := &outbox{desk: newDesk("To fam@x.example", "Cc cleo@x.example")}
	b.submit("fam@x.example")
	d := b.submit("cleo@x.example", "two@x.example")
	var rows []string
	for _, p := range d.Part.Parties {
		rows = append(rows, fmt.Sprintf("%s %s %v", p.Role, p.AddressUsed, p.Sent))
	}
	want := []string{"Sender 311@city.example false", "To fam@x.example true", "CC cleo@x.example true", "BCC two@x.example true"}
	if !slices.Equal(rows, want) {
		t.Errorf("parties %q, want %q", rows, want)
	}
	tells(t, d, "part 2 of the submission")
	if !slices.Contains(d.Part.Envelope.Recipients, "two@x.example") || len(d.Part.PartHashes) != 1 {
		t.Errorf("%+v %q", d.Part.Envelope, d.Part.PartHashes)
	}
	if d.Token == "" || d.Mailbox != "311@city.example" {
		t.Errorf("token %q of %q", d.Token, d.Mailbox)
	}
	if tok, _ := readToken(d.Token); tok.Ordinal != d.Part.Ordinal || tok.Case != 1042 {
		t.Errorf("token %+v", tok)
	}
}

// What only looks like a part is a submission of its own.
func TestNoPart(t *testing.T) {
	for name, change := range map[string]func(*outbox){
		"another listener": func(b *outbox) { b.sub.Listener = "other" },
		"another peer":     func(b *outbox) { b.sub.Peer = "192.0.2.9" },
		"other content":    func(b *outbox) { b.sub.ContentHash = "other" },
		"too late":         func(b *outbox) { b.sub.Received = b.sub.Received.Add(25 * time.Hour) },
		"another id":       func(b *outbox) { b.sub.MessageID = "another@x.example" },
		"observed": func(b *outbox) {
			for id, m := range b.facts.Parents {
				m.Observed = true
				b.facts.Parents[id] = m
			}
		},
	} {
		b := &outbox{desk: newDesk("To fam@x.example", "Cc cleo@x.example")}
		b.submit("fam@x.example")
		change(b)
		if d := b.submit("cleo@x.example"); d.Part != nil || d.Duplicate != nil || d.Refusal != nil {
			t.Errorf("%s: part %v, duplicate %v, %+v", name, d.Part != nil, d.Duplicate != nil, d.Refusal)
		}
	}
}

// A part of what was held is held too; parts do not come without end.
func TestPartsOfAHeldMessageAndTooMany(t *testing.T) {
	b := &outbox{desk: newDesk("To fam@x.example", "Cc new@x.example")}
	b.settings.NewRecipients = "hold"
	b.submit("new@x.example")
	if d := b.submit("cleo@x.example"); d.Part == nil || d.Hold == "" {
		t.Errorf("part %v held %q", d.Part != nil, d.Hold)
	}
	b = &outbox{desk: newDesk("To fam@x.example")}
	b.submit("fam@x.example")
	for id, m := range b.facts.Parents {
		m.PartHashes = slices.Repeat([]string{"h"}, maxParts-1)
		b.facts.Parents[id] = m
	}
	refuses(t, b.submit("cleo@x.example"), 550, "in 1000 parts already")
}

// anyDesk is a desk with any directory, people linked by hand, and settings.
func anyDesk(rt *rapid.T, addresses []string) *outbox {
	some := func(label string, least int) []string {
		return rapid.SliceOfNDistinct(rapid.SampledFrom(addresses), least, 3, rapid.ID[string]).Draw(rt, label)
	}
	var people []store.Contact
	for i := range rapid.IntRange(1, 4).Draw(rt, "people") {
		people = append(people, contact(byte(i+1), store.Guest, "", some("addresses", 1)...))
	}
	people[0].DoNotEmail = rapid.IntRange(0, 5).Draw(rt, "do_not_email") == 0
	tw := newTown(people[0], people[1:]...).used(some("used", 0)...)
	if h := tw.facts.Holders["kim@city.example"]; true {
		h.Agents = []store.Agent{{ID: id(9), EmailAddresses: []string{"kim@city.example"}}}
		tw.facts.Holders["kim@city.example"] = h
	}
	s := &tw.settings
	s.ToPolicy = rapid.SampledFrom([]string{"cc", "keep", "drop"}).Draw(rt, "to_policy")
	s.Unresolved = rapid.SampledFrom([]string{"text", "drop"}).Draw(rt, "unresolved")
	s.UnresolvedOriginals = rapid.SampledFrom([]string{"off", "cc", "bcc"}).Draw(rt, "unresolved_originals")
	s.NewRecipients = rapid.SampledFrom([]string{"allow", "hold"}).Draw(rt, "new_recipients")
	s.OnUnknown = rapid.SampledFrom([]string{"text", "pass"}).Draw(rt, "on_unknown")
	s.BccCurrentUser = rapid.Bool().Draw(rt, "bcc_current_user")
	fields := rapid.SliceOfN(rapid.SampledFrom([]string{"To", "Cc", "Bcc"}), 1, 6).Draw(rt, "fields")
	var given []string
	for _, f := range fields {
		given = append(given, f+" "+rapid.SampledFrom(append(addresses, "311@city.example", "kim@city.example")).Draw(rt, "given"))
	}
	b := &outbox{desk: &desk{tw, answer(tw, given...), people[0]}}
	b.editCase(func(c *store.Case) {
		for range rapid.IntRange(0, 2).Draw(rt, "hand links") {
			c.HandLinks = append(c.HandLinks, store.HandLink{
				Address: rapid.SampledFrom(addresses).Draw(rt, "linked address"),
				Contact: people[rapid.IntRange(0, len(people)-1).Draw(rt, "linked to")].ID,
			})
		}
	})
	if rapid.Bool().Draw(rt, "from kim") {
		b.sub.Author.Address = "kim@city.example"
	}
	if rapid.IntRange(0, 3).Draw(rt, "directory out") == 0 {
		b.sub.DirectoryOut = "the directory does not answer"
	}
	b.sub.InReplyTo = append(b.sub.InReplyTo, "theirs@x.example")
	b.facts.MessageIDs["theirs@x.example"] = []store.MessageRef{{ID: id(60), Case: 1042, Own: true}}
	parent := store.Message{ID: id(60), Case: 1042, Direction: store.Incoming, ReplyTo: some("reply-to", 0), Parties: []store.Party{
		{Role: store.RoleSender, Party: contactRef(people[0])}}}
	for _, a := range some("originals", 0) {
		parent.Parties = append(parent.Parties, store.Party{Role: store.RoleCC, AddressUsed: a})
		b.used(a) // they were on the case
	}
	b.facts.Parents[id(60)] = parent
	return b
}

// Invariant 6 and promise P6, whatever the directory, what people said in the
// case, the settings and the submission look like, in one transaction or in
// many: nobody receives who was not given, but Case.Customer and whom the
// configuration adds; nobody is shown who was not shown; no address of a contact
// who is only linked is shown or mailed; and nobody gets two copies.
func TestNobodyLinkedIsEverAddressed(t *testing.T) {
	addresses := []string{"a@x.example", "b@x.example", "c@x.example", "d@x.example", "e@x.example"}
	rapid.Check(t, func(rt *rapid.T) {
		b := anyDesk(rt, addresses)
		before := map[string]bool{}
		for a := range b.facts.Cases[1042].Used {
			before[a] = true
		}
		o := oracle{b.desk, before}
		all := b.sub.Recipients
		accepted := 0
		for len(all) > 0 {
			n := rapid.IntRange(1, len(all)).Draw(rt, "recipients of a part")
			part := all[:n]
			all = all[n:]
			d := b.submit(part...)
			o.check(rt, part, d)
			if d.Refusal == nil && d.Duplicate == nil {
				accepted++
				if again := b.submit(part...); again.Duplicate == nil {
					rt.Fatal("the same part again is not the same")
				}
			}
		}
		for a, n := range b.copies {
			if n > 1 {
				rt.Fatalf("%s got %d copies", a, n)
			}
		}
		if b.n > 1 {
			rt.Fatalf("%d activities of %d parts", b.n, accepted)
		}
	})
}

// oracle says by itself what may be, from the records as they were before.
type oracle struct {
	*desk
	used map[string]bool
}

func (o oracle) check(rt *rapid.T, given []string, d OutboundDecision) {
	if d.Refusal != nil {
		return
	}
	shown := map[string]bool{}
	for _, a := range slices.Concat(o.sub.To, o.sub.CC) {
		shown[a.Key()] = true
	}
	for _, e := range d.Entries {
		key := e.Address.Key()
		if e.Field == "" {
			if e.Deliver {
				rt.Fatalf("%s is dropped and mailed", key)
			}
			continue
		}
		extra := o.customers(key) || o.configured(key)
		if e.Deliver && !hasKey(given, key) && !extra {
			rt.Fatalf("%s receives, and was never given", key)
		}
		if e.Field != store.RoleBCC && !shown[key] && !extra {
			rt.Fatalf("%s is shown, and was not", key)
		}
		if e.Given == store.RoleBCC && e.Field != store.RoleBCC {
			rt.Fatalf("%s was blind and is shown", key)
		}
		if o.merelyLinked(key) {
			rt.Fatalf("%s is addressed, and its contact is only linked\n%s", key, strings.Join(d.Reasons, "\n"))
		}
	}
	if again := Outbound(o.sub, o.facts, o.settings); !slices.Equal(again.Reasons, Outbound(o.sub, o.facts, o.settings).Reasons) {
		rt.Fatal("the same input was decided differently")
	}
}

// customers: the address is Case.Customer's, by record or by what was said.
func (o oracle) customers(key string) bool {
	return o.ben.HeldAt(key, noon) || o.saidOf(key) == o.ben.ID
}

func (o oracle) saidOf(key string) store.ID {
	for _, l := range o.facts.Cases[1042].Case.HandLinks {
		if l.Address == key {
			return l.Contact
		}
	}
	return store.ID{}
}

// configured: unresolved_originals or bcc_current_user add it.
func (o oracle) configured(key string) bool {
	if o.settings.BccCurrentUser && key == "kim@city.example" {
		return true
	}
	return o.settings.UnresolvedOriginals != "off" && slices.ContainsFunc(o.facts.Parents[id(60)].Parties, func(p store.Party) bool {
		return p.Role == store.RoleCC && p.AddressUsed == key
	})
}

// merelyLinked: the address was never on the case, nobody said whose it is, and
// one of those who have it is on the case by addresses that others share.
func (o oracle) merelyLinked(key string) bool {
	if o.used[key] || o.customers(key) || o.saidOf(key) != (store.ID{}) {
		return false
	}
	for _, c := range o.facts.Holders[key].Contacts {
		shared, alone := false, false
		for _, e := range c.EmailAddresses {
			if !o.used[e.Address] {
				continue
			}
			whose := o.saidOf(e.Address)
			sole := whose == c.ID || whose == (store.ID{}) && len(o.facts.Holders[e.Address].Contacts) == 1
			alone, shared = alone || sole, shared || !sole
		}
		if shared && !alone {
			return true
		}
	}
	return false
}
