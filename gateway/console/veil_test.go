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
