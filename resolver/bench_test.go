package resolver

import (
	"testing"
	"time"

	"github.com/casegate/casegate/store"
)

// One decision on prepared facts, and the query before it: what the rules cost,
// without store and network.
func BenchmarkInbound(b *testing.B) {
	stranger := letter("new@x.example", nil)
	stranger.Header = multi{"Received": {"from a by b; x", "from c by d; x"}, "Content-Type": {"text/plain"}}
	tw := newTown(contact(2, store.Guest, "Ben", "ben@x.example")).used("ben@x.example")
	tw.settings.FloodHour, tw.settings.FloodDay = 100, 500
	tw.facts.Holders["agent@city.example"] = store.Holders{Agents: []store.Agent{{ID: id(9)}}}

	reply := letter("ben@x.example", nil)
	reply.Header = stranger.Header
	reply.InReplyTo = []string{MessageID(tw.token(), "gw.city.example")}
	reply.References = []string{PseudoReference(tw.token(), "gw.city.example"), "a@x.example", "b@x.example", "c@x.example", "d@x.example"}
	reply.Recipients = []string{PlusAddress("311@city.example", tw.token())}

	forward := letter("agent@city.example", nil)
	forward.Header = stranger.Header
	forward.Login, forward.Embedded = "agent@city.example", &stranger

	for _, c := range []struct {
		name, row string
		mail      Mail
	}{
		{"new sender", "I26", stranger},
		{"reply with 5 references", "I16", reply},
		{"agent forwards", "I26", forward},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				Ask(c.mail, tw.settings)
				if d := Inbound(c.mail, tw.facts, tw.settings); d.Row != c.row {
					b.Fatalf("row %s: %v", d.Row, d.Reasons)
				}
			}
		})
	}
}

// A decision takes microseconds, whatever a mail names.
func TestDecisionIsQuick(t *testing.T) {
	tw := newTown(contact(2, store.Guest, "Ben", "ben@x.example"))
	m := letter("new@x.example", nil)
	for range 1000 {
		m.References = append(m.References, MessageID(tw.token(), "gw.city.example")+"x")
		m.To = append(m.To, Address{Address: PlusAddress("311@city.example", boardGuess)})
	}
	start := time.Now()
	Inbound(m, tw.facts, tw.settings)
	if took := time.Since(start); took > 100*time.Millisecond {
		t.Errorf("%s for a mail with 1000 guessed tokens", took)
	}
}
