package console

import (
	"testing"

	"github.com/casegate/casegate/store"
)

// A blind recipient whom a rule dropped has no party row; the envelope that
// was given still names him.
func TestVeilHidesDroppedBlindRecipients(t *testing.T) {
	m := store.Message{
		Direction: store.Outgoing,
		Parties:   []store.Party{{Role: store.RoleTo, AddressUsed: "ana@x.example"}},
		Envelope:  store.Envelope{Recipients: []string{"ana@x.example", "Blind@x.example"}},
	}
	v := veilFor(false, m)
	if !v.hides("blind@x.example") || v.hides("ana@x.example") {
		t.Error("hidden:", v.secret)
	}
	if got := v.text("refused for blind@x.example and ana@x.example"); got != "refused for [bcc] and ana@x.example" {
		t.Error(got)
	}
	if v := veilFor(true, m); v.hides("blind@x.example") {
		t.Error("hidden from one who may see it")
	}
}

// What a report says of a blind recipient, or of an address that he forwards to,
// is nobody else's to read.
func TestVeilHidesReportsOnBlindRecipients(t *testing.T) {
	m := store.Message{
		Direction: store.Outgoing,
		Parties:   []store.Party{{Role: store.RoleTo, AddressUsed: "Ana@x.example"}, {Role: store.RoleBCC, AddressUsed: "blind@x.example"}},
		Envelope:  store.Envelope{Recipients: []string{"ana@x.example", "blind@x.example"}},
		Events: []store.DeliveryEvent{
			{Recipient: "blind@x.example", Action: "failed"},
			{Recipient: "forwarded@y.example", Action: "failed", Diagnostic: "550 5.1.1 no such user"},
			{Action: "failed"},
			{Recipient: "ana@x.example", Action: "delayed", Diagnostic: "452 4.3.1 behind blind@x.example"},
		},
	}
	got := veilFor(false, m).events(m)
	if len(got) != 1 || got[0].Action != "delayed" || got[0].Diagnostic != "452 4.3.1 behind [bcc]" {
		t.Errorf("shown: %+v", got)
	}
	if m.Events[3].Diagnostic != "452 4.3.1 behind blind@x.example" {
		t.Error("the record itself was changed")
	}
	if got := veilFor(true, m).events(m); len(got) != 4 {
		t.Errorf("shown to one who may see it: %+v", got)
	}
	m.Parties, m.Envelope.Recipients = m.Parties[:1], m.Envelope.Recipients[:1]
	if got := veilFor(false, m).events(m); len(got) != 4 {
		t.Errorf("shown where nobody is blind: %+v", got)
	}
}
