package mailauth

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/casegate/casegate/gateway/message"
)

// Whatever a record says, it is one of three policies or none.
func FuzzDMARC(f *testing.F) {
	for _, record := range []string{
		"v=DMARC1; p=reject; sp=none; aspf=s; adkim=r; pct=5; rua=mailto:a@b", "V=dmarc1;P=Quarantine", "v=DMARC1;;p=none;p=reject", "v=DMARC1", "v=DMARC1; p=x; rua=mailto:a@b",
		" v = DMARC1 ; p = none ; sp = bad", "v=DMARC1; p", "p=reject; v=DMARC1", "",
	} {
		f.Add(record, true)
		f.Add(record, false)
	}
	f.Fuzz(func(t *testing.T, record string, sub bool) {
		p, ok := parseDMARC(record, sub)
		if ok && severity(p.policy) == 0 {
			t.Fatalf("policy %q", p.policy)
		}
		again, okAgain := parseDMARC(strings.ToUpper(record), sub)
		if isASCII(record) && (p != again || ok != okAgain) {
			t.Fatalf("%+v, in capitals %+v", p, again)
		}
		if isDMARC(record) && !strings.Contains(strings.ToLower(record), "dmarc1") {
			t.Fatal("no DMARC record")
		}
	})
}

// Whatever the header and the records are: a verdict that contradicts neither
// itself nor its rules, in words of our own; and nothing passes unsigned.
func FuzzCheck(f *testing.F) {
	record := strings.Join(testRSA().Record(), "")
	for _, header := range []string{
		testHeader, signed(f, testRSA(), ""), signed(f, testKey(), ""), "DKIM-Signature: v=1; a=rsa-sha256; d=ü.example; s=s; h=from; bh=; b=\r\n" + testHeader,
		"ARC-Seal: i=1; cv=none\r\nARC-Message-Signature: i=1\r\nARC-Authentication-Results: i=1; x\r\n" + testHeader, "From\r\n\r\n",
	} {
		f.Add([]byte(header), []byte(testBody), "a@city.example", "city.example", "v=spf1 include:city.example a:%{ir}.%{v}.%{d} -all", "v=DMARC1; p=reject", record)
	}
	f.Fuzz(func(t *testing.T, header, body []byte, mailFrom, helo, spf, dmarc, key string) {
		z := newZone(map[string][]string{"txt city.example": {spf}, "txt _dmarc.city.example": {dmarc}, "txt s1._domainkey.city.example": {key}, "txt s2._domainkey.city.example": {key}, "a city.example": {ours}, "mx city.example": {"city.example"}, "ptr 1.2.0.192.in-addr.arpa": {"city.example"}})
		c := Checker{Resolver: z}
		q := CheckRequest{ClientIP: netip.MustParseAddr(ours), Helo: helo, MailFrom: mailFrom, FromDomain: "city.example", Header: message.Parse(header), Body: bytes.NewReader(body), Chain: true}
		v := c.Check(t.Context(), q)
		if v.AlignedPass && v.Forged || v.Forged && v.DMARC != Fail || result(string(v.DKIM)) == "" || result(string(v.SPF)) == "" || result(string(v.ARC)) == "" {
			t.Fatalf("%+v", v)
		}
		if !bytes.Contains(bytes.ToLower(header), []byte("dkim-signature")) && v.DKIM != None {
			t.Fatalf("%+v", v)
		}
		if strings.ContainsFunc(v.Words+Results("gw.example", v), func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune("\"\\<>@", r) }) {
			t.Fatalf("%q holds what isn't ours", v.Words)
		}
		if len(z.asked) > 60 {
			t.Fatalf("%d questions", len(z.asked))
		}
	})
}
