package mailauth_test

import (
	"testing"

	"github.com/casegate/casegate/gateway/mailauth"
	"github.com/casegate/casegate/gateway/message"
)

// A result that claims our id must be recognised however it is written.
func TestServIDRecognisesOurs(t *testing.T) {
	for _, c := range spoofs(t) {
		if got := mailauth.ServID(c.Value) == c.OurID; got != c.Strip {
			t.Errorf("%q (%s): recognised as ours: %v, want %v", c.Value, c.Why, got, c.Strip)
		}
		if got := mailauth.Claims(c.Value, c.OurID); got != c.Strip {
			t.Errorf("%q (%s): claims ours: %v, want %v", c.Value, c.Why, got, c.Strip)
		}
	}
}

// No trap says anything where another peer is pinned, nor does one below the
// peer's own field, nor to those who believe in quoted semicolons.
func TestSpoofsGiveNoVerdict(t *testing.T) {
	for _, c := range spoofs(t) {
		trap := "Authentication-Results: " + c.Value + "\r\n"
		for _, pin := range []string{"mx.peer.example", "", mailauth.NoServID, "x"} {
			v := mailauth.Upstream(message.Parse([]byte(trap)), pin, "victim.test")
			if v.AlignedPass || v.Forged || v.SPF+v.DKIM+v.DMARC != "" {
				t.Errorf("%q pinned: %q (%s) gives %+v", pin, c.Value, c.Why, v)
			}
		}
		own := "Authentication-Results: " + c.OurID + "; dmarc=fail (p=reject)\r\n"
		v := mailauth.Upstream(message.Parse([]byte(own+trap)), c.OurID, "victim.test")
		if v.AlignedPass || !v.Forged {
			t.Errorf("%q (%s) below a true fail gives %+v", c.Value, c.Why, v)
		}
		v = mailauth.Upstream(message.Parse([]byte(trap)), "other.test", "victim.test")
		if v.AlignedPass || v.DMARC != "" {
			t.Errorf("%q (%s) from a peer gives %+v", c.Value, c.Why, v)
		}
	}
}
