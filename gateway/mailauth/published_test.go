package mailauth

import "testing"

func TestPublished(t *testing.T) {
	k, other := testKey(), func() SigningKey {
		_, k, err := KeyGen("ed25519", 0, "city.example", "s1")
		if err != nil {
			t.Fatal(err)
		}
		return k
	}()
	good := k.Record()[0]
	for _, c := range []struct {
		records []string
		found   Result
		why     string
	}{
		{[]string{good}, Pass, ""},
		{[]string{other.Record()[0], good}, Pass, ""},
		{[]string{good + "; t=s"}, Pass, ""}, // our signatures are the domain's own
		{[]string{good + "; t=y"}, Neutral, "the record has t=y: the key is only tried out"},
		{[]string{other.Record()[0]}, PermError, "the record is of another key"},
		{testRSA().Record(), PermError, "the key record can't be read"}, // cut off after 255 octets
		{[]string{"v=DKIM1; k=ed25519; p="}, PermError, "the key is revoked"},
		{nil, PermError, "there is no key"},
		{[]string{"!timeout"}, TempError, "the key can't be fetched"},
	} {
		z := newZone(map[string][]string{"txt s1._domainkey.city.example": c.records})
		if found, why := k.Published(t.Context(), z); found != c.found || why != c.why {
			t.Errorf("%q: %s, %q, want %s, %q", c.records, found, why, c.found, c.why)
		}
	}
}
