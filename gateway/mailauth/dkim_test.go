package mailauth_test

import (
	"slices"
	"testing"

	"github.com/casegate/casegate/gateway/mailauth"
)

func TestSignedFields(t *testing.T) {
	for value, want := range map[string][]string{
		"v=1; h=From:To; b=x":                {"from", "to"},
		"v=1;\th = From :\tReply-To ;bh=h=x": {"from", "reply-to"},
		"bh=x; d=h=y":                        nil,
		"":                                   nil,
	} {
		if got := mailauth.SignedFields(value); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}
