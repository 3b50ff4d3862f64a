package mailauth_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/casegate/casegate/gateway/mailauth"
)

// A result that claims our id must be recognised however it is written.
func TestServIDRecognisesOurs(t *testing.T) {
	b, err := os.ReadFile("../../../shared/corpus/own/authres-spoof-cases.json")
	switch {
	case err != nil && os.Getenv("CI") != "":
		t.Fatal(err)
	case err != nil:
		t.Skip("the corpus is not beside this checkout: ", err)
	}
	var suite struct {
		Cases []struct {
			Value, Why string
			OurID      string `json:"our_id"`
			Strip      bool   `json:"must_strip_on_ingest"`
		}
	}
	if err := json.Unmarshal(b, &suite); err != nil {
		t.Fatal(err)
	}
	for _, c := range suite.Cases {
		if got := mailauth.ServID(c.Value) == c.OurID; got != c.Strip {
			t.Errorf("%q (%s): recognised as ours: %v, want %v", c.Value, c.Why, got, c.Strip)
		}
	}
}
