package store

import (
	"testing"
	"time"
)

func TestKey(t *testing.T) {
	for in, want := range map[string]string{
		"ana@x.example":                   "ana@x.example",
		"Ana@X.Example":                   "ana@x.example",
		"ana@x.example.":                  "ana@x.example",
		"ana+tag@x.example":               "ana+tag@x.example", // no plus folding
		"a.n.a@x.example":                 "a.n.a@x.example",   // no dot folding
		"jo\u0308rg@B\u00dcCHER.example":  "j\u00f6rg@xn--bcher-kva.example",
		"j\u00f6rg@xn--BCHER-kva.example": "j\u00f6rg@xn--bcher-kva.example",
		`"A b"@x.example`:                 `"a b"@x.example`,
		"a@[192.0.2.1]":                   "a@[192.0.2.1]",
		"Postmaster":                      "postmaster",
		"":                                "",
	} {
		if got := Key(in); got != want {
			t.Errorf("Key(%q) = %q, want %q", in, got, want)
		}
		if again := Key(Key(in)); again != Key(in) {
			t.Errorf("Key(%q) is not its own key: %q", Key(in), again)
		}
	}
}

// An address that moves to another contact leaves the old mail where it was.
func TestHeldAt(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
	c := Contact{EmailAddresses: []EmailAddress{{Address: "Ana@X.example", From: day(2), To: day(5)}}}
	for n, want := range map[int]bool{1: false, 2: true, 4: true, 5: false} {
		if got := c.HeldAt("ana@x.example", day(n)); got != want {
			t.Errorf("on day %d: %v", n, got)
		}
	}
	if c.HeldAt("other@x.example", day(3)) {
		t.Error("another address is held")
	}
}
