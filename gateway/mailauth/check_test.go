package mailauth

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/casegate/casegate/gateway/message"
)

const (
	ours   = "192.0.2.1"    // may send for city.example
	theirs = "198.51.100.7" // may not
)

// testKey is the key of RFC 8463 appendix A.2.
var testKey = sync.OnceValue(func() SigningKey {
	k, err := ParseSigningKey([]byte(ed25519Key), "city.example", "s1")
	if err != nil {
		panic(err)
	}
	return k
})

const ed25519Key = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n"

var testRSA = sync.OnceValue(func() SigningKey {
	_, k, err := KeyGen("rsa", 2048, "city.example", "s2")
	if err != nil {
		panic(err)
	}
	return k
})

const testHeader = "From: Ann <ann@city.example>\r\nTo: 311@gw.example\r\nSubject: light\r\n\tout\r\nDate: Mon, 2 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@city.example>\r\n\r\n"

const testBody = "The light is out. \r\n\r\n  Ann\t \r\n\r\n\r\n"

// signed is the test message with a signature of a key, under other names if
// said so.
func signed(t testing.TB, k SigningKey, domain string) string {
	t.Helper()
	if domain != "" {
		k.Domain = domain
	}
	return signedOver(t, testBody, k)
}

// city is the zone of the tests, with a DMARC record.
func city(dmarc string, more map[string][]string) *zone {
	key := testKey().Record()[0]
	records := map[string][]string{
		"txt city.example":                   {"v=spf1 ip4:192.0.2.1 -all"},
		"txt evil.test":                      {"v=spf1 +all"},
		"txt s1._domainkey.city.example":     {key},
		"txt s1._domainkey.sub.city.example": {key},
		"txt s1._domainkey.evil.test":        {key},
		"txt s2._domainkey.city.example":     {strings.Join(testRSA().Record(), "")},
	}
	if dmarc != "" {
		records["txt _dmarc.city.example"] = []string{dmarc}
	}
	maps.Copy(records, more)
	return newZone(records)
}

type ask struct {
	ip, mailFrom, helo, from string
	header                   string
	body                     string
}

func (q ask) request() CheckRequest {
	if q.header == "" {
		q.header = testHeader
	}
	if q.body == "" {
		q.body = testBody
	}
	r := CheckRequest{Helo: q.helo, MailFrom: q.mailFrom, FromDomain: q.from, Header: message.Parse([]byte(q.header)), Body: strings.NewReader(q.body)}
	if q.ip != "" {
		r.ClientIP = netip.MustParseAddr(q.ip)
	}
	return r
}

// What the rules ask for (rules §4): forged only by a fail under a published
// policy; an aligned pass; else unverified.
func TestCheckVerdicts(t *testing.T) {
	const reject, none = "v=DMARC1; p=reject", "v=DMARC1; p=none"
	good := signed(t, testKey(), "")
	foreign := signed(t, testKey(), "evil.test")
	below := signed(t, testKey(), "sub.city.example")
	spoof := ask{ip: theirs, mailFrom: "x@evil.test", from: "city.example"}
	for _, c := range []struct {
		name          string
		dmarc         string
		more          map[string][]string
		ask           ask
		found         Result // DMARC
		pass, forged  bool
		policy, words string
	}{
		{"SPF and DKIM pass", reject, nil, ask{ip: ours, mailFrom: "ann@city.example", from: "city.example", header: good}, Pass, true, false, "reject", "an aligned pass for city.example"},
		{"SPF alone", reject, nil, ask{ip: ours, mailFrom: "ann@city.example", from: "city.example"}, Pass, true, false, "reject", ""},
		{"DKIM alone", reject, nil, ask{ip: theirs, mailFrom: "list@evil.test", from: "city.example", header: good}, Pass, true, false, "reject", ""},
		{"DKIM, client unknown", reject, nil, ask{mailFrom: "ann@city.example", from: "city.example", header: good}, Pass, true, false, "reject", ""},
		{"spoofed under reject", reject, nil, spoof, Fail, false, true, "reject", "forged: the policy of the domain is reject"},
		{"spoofed under quarantine", "v=DMARC1; p=quarantine", nil, spoof, Fail, false, true, "quarantine", "forged"},
		{"spoofed under none", none, nil, spoof, Fail, false, false, "none", "unverified"},
		{"no record", "", nil, spoof, None, false, false, "", "no aligned pass"},
		{"no record, SPF pass", "", nil, ask{ip: ours, mailFrom: "ann@city.example", from: "city.example"}, None, true, false, "", ""},
		{"no record, DKIM pass", "", nil, ask{ip: theirs, mailFrom: "x@evil.test", from: "city.example", header: good}, None, true, false, "", ""},
		{"no record, SPF fail", "", nil, ask{ip: theirs, mailFrom: "ann@city.example", from: "city.example"}, None, false, false, "", ""},
		{"record: temperror", "", map[string][]string{"txt _dmarc.city.example": {"!servfail"}}, spoof, TempError, false, false, "", ""},
		{"aligned SPF: temperror", reject, map[string][]string{"txt city.example": {"!timeout"}}, ask{ip: ours, mailFrom: "a@city.example", from: "city.example"}, TempError, false, false, "reject", ""},
		{"aligned key: temperror", reject, map[string][]string{"txt s1._domainkey.city.example": {"!timeout"}}, ask{ip: theirs, mailFrom: "x@evil.test", from: "city.example", header: good}, TempError, false, false, "reject", "the key can't be fetched"},
		{"a stranger's temperror saves nobody", reject, map[string][]string{"txt evil.test": {"!timeout"}, "txt s1._domainkey.evil.test": {"!timeout"}},
			ask{ip: theirs, mailFrom: "x@evil.test", from: "city.example", header: foreign}, Fail, false, true, "reject", ""},
		{"a stranger's pass helps nobody", reject, nil, ask{ip: theirs, mailFrom: "x@evil.test", from: "city.example", header: foreign}, Fail, false, true, "reject", ""},
		{"the body was changed", reject, nil, ask{ip: theirs, mailFrom: "x@evil.test", from: "city.example", header: good, body: "else"}, Fail, false, true, "reject", "the body was changed"},
		{"the header was changed", reject, nil, ask{ip: theirs, mailFrom: "x@evil.test", from: "city.example", header: strings.Replace(good, "light", "dark", 1)}, Fail, false, true, "reject", ""},
		{"a From was added", reject, nil, ask{ip: theirs, mailFrom: "x@evil.test", from: "city.example", header: "From: b@city.example\r\n" + good}, Fail, false, true, "reject", ""},
		{"client unknown, SPF might pass", reject, nil, ask{mailFrom: "ann@city.example", from: "city.example"}, "", false, false, "reject", "its address is not known"},
		{"client unknown, null sender", reject, nil, ask{from: "city.example"}, "", false, false, "reject", ""},
		{"client unknown, another's envelope", reject, nil, ask{mailFrom: "x@evil.test", from: "city.example"}, Fail, false, true, "reject", ""},
		{"null sender, HELO passes", reject, nil, ask{ip: ours, helo: "city.example", from: "city.example"}, Pass, true, false, "reject", ""},
		{"a signature of a subdomain, relaxed", reject, nil, ask{ip: theirs, mailFrom: "x@evil.test", from: "city.example", header: below}, Pass, true, false, "reject", ""},
		{"a signature of a subdomain, strict", reject + "; adkim=s", nil, ask{ip: theirs, mailFrom: "x@evil.test", from: "city.example", header: below}, Fail, false, true, "reject", ""},
		{"an envelope of the parent, relaxed", reject, nil, ask{ip: ours, mailFrom: "a@city.example", from: "sub.city.example"}, Pass, true, false, "reject", ""},
		{"an envelope of the parent, strict", reject + "; aspf=S", nil, ask{ip: ours, mailFrom: "a@city.example", from: "sub.city.example"}, Fail, false, true, "reject", ""},
		{"a subdomain under sp", "v=DMARC1; p=reject; sp=none", nil, ask{ip: theirs, mailFrom: "x@evil.test", from: "sub.city.example"}, Fail, false, false, "none", ""},
		{"a subdomain without sp", reject, nil, ask{ip: theirs, mailFrom: "x@evil.test", from: "a.b.city.example"}, Fail, false, true, "reject", ""},
		{"a subdomain's own record", reject, map[string][]string{"txt _dmarc.sub.city.example": {"v=DMARC1;p=none;sp=reject"}}, ask{ip: theirs, mailFrom: "x@evil.test", from: "sub.city.example"}, Fail, false, false, "none", ""},
		{"pct is no matter of chance", "v=DMARC1; p=reject; pct=0", nil, spoof, Fail, false, true, "reject", ""},
		{"no single From", reject, nil, ask{ip: ours, mailFrom: "ann@city.example", header: good}, None, false, false, "", ""},
		{"two records", "", map[string][]string{"txt _dmarc.city.example": {reject, none}}, spoof, None, false, false, "", ""},
		{"records of others beside", "", map[string][]string{"txt _dmarc.city.example": {"hello", "v=spf1 -all", reject}}, spoof, Fail, false, true, "reject", ""},
		{"SPF softfail", reject, map[string][]string{"txt city.example": {"v=spf1 ~all"}}, ask{ip: theirs, mailFrom: "a@city.example", from: "city.example"}, Fail, false, true, "reject", "spf=softfail"},
	} {
		checker := Checker{Resolver: city(c.dmarc, c.more)}
		v := checker.Check(t.Context(), c.ask.request())
		if v.DMARC != c.found || v.AlignedPass != c.pass || v.Forged != c.forged || v.Policy != c.policy || !strings.Contains(v.Words, c.words) {
			t.Errorf("%s: %+v", c.name, v)
		}
		if v.AlignedPass && v.Forged || v.Source != "check" || !strings.HasPrefix(v.Words, "our check says ") {
			t.Errorf("%s: %+v", c.name, v)
		}
		if _, err := ParseAuthRes(Results("gw.example", v)); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// What counts as a signature, and what doesn't.
func TestCheckDKIM(t *testing.T) {
	good := signed(t, testKey(), "")
	record := testKey().Record()[0]
	const name = "txt s1._domainkey.city.example"
	t.Setenv("GODEBUG", "rsa1024min=0") // Go itself refuses such a key
	short := testRSA()
	short.Selector = "s9"
	var err error
	if short.key, err = rsa.GenerateKey(rand.Reader, 512); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		header string
		more   map[string][]string
		found  Result
		words  string
	}{
		{"Ed25519", good, nil, Pass, ""},
		{"RSA", signed(t, testRSA(), ""), nil, Pass, ""},
		{"no signature", testHeader, nil, None, ""},
		{"512 bits", signed(t, short, ""), map[string][]string{"txt s9._domainkey.city.example": short.Record()}, PermError, "shorter than 1024"},
		{"SHA-1", strings.Replace(good, "ed25519-sha256", "rsa-sha1", 1), nil, PermError, "SHA-1"},
		{"part of the body", strings.Replace(good, "v=1;", "v=1; l=5;", 1), nil, Neutral, "only a part of the body"},
		{"From not covered", strings.Replace(good, "h=From:", "h=", 1), nil, Fail, ""},
		{"expired", strings.Replace(good, "v=1;", "v=1; x=12345;", 1), nil, Fail, "expired"},
		{"for another domain", strings.Replace(good, "v=1;", "v=1; i=a@evil.test;", 1), nil, PermError, "another domain"},
		{"version 2", strings.Replace(good, "v=1;", "v=2;", 1), nil, PermError, "version"},
		{"unreadable", "DKIM-Signature: v=1; v=1\r\n" + testHeader, nil, PermError, ""},
		{"no key", good, map[string][]string{name: {}}, PermError, "there is no key"},
		{"revoked", good, map[string][]string{name: {"v=DKIM1; k=ed25519; p="}}, PermError, "revoked"},
		{"another kind", good, map[string][]string{name: {strings.Join(testRSA().Record(), "")}}, PermError, "another kind"},
		{"both kinds", good, map[string][]string{name: {strings.Join(testRSA().Record(), ""), record}}, Pass, ""},
		{"tried out", good, map[string][]string{name: {record + "; t=y:s"}}, Neutral, "tried out"},
		{"not for mail", good, map[string][]string{name: {record + "; s=tlsrpt"}}, PermError, "not for mail"},
		{"for SHA-1 only", good, map[string][]string{name: {record + "; h=sha1"}}, PermError, "another hash"},
		{"for all services", good, map[string][]string{name: {record + "; s=*; h=sha1:sha256;;"}}, Pass, ""},
	} {
		checker := Checker{Resolver: city("", c.more)}
		v := checker.Check(t.Context(), ask{from: "city.example", header: c.header}.request())
		if v.DKIM != c.found || !strings.Contains(v.Words, c.words) || (v.DKIM == Pass) != v.AlignedPass {
			t.Errorf("%s: %+v", c.name, v)
		}
	}
}

func TestSignaturesPreferAligned(t *testing.T) {
	junk := strings.Repeat("DKIM-Signature: v=1; a=rsa-sha256; d=evil.test; s=s; h=from; bh=AA==; b=AA==\r\n", 1000)
	z := city("v=DMARC1; p=reject", nil)
	checker := Checker{Resolver: z}
	for _, header := range []string{junk + signed(t, testKey(), ""), signed(t, testKey(), "") + ""} {
		v := checker.Check(t.Context(), ask{ip: theirs, mailFrom: "x@evil.test", from: "city.example", header: header}.request())
		if !v.AlignedPass || v.DKIMDomain != "city.example" {
			t.Errorf("%+v", v)
		}
	}
	keys := 0
	for _, q := range z.asked {
		if strings.Contains(q, "_domainkey") {
			keys++
		}
	}
	if keys > 8 {
		t.Errorf("%d keys were asked for", keys)
	}
}

// One checker serves all sessions.
func TestCheckConcurrently(t *testing.T) {
	checker := &Checker{Resolver: city("v=DMARC1; p=reject", map[string][]string{"any silent.test": {"!timeout"}})}
	header := signed(t, testKey(), "")
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			q := ask{ip: theirs, mailFrom: "x@evil.test", from: "city.example", header: header}
			if i%2 == 0 {
				q.mailFrom = "x@silent.test"
			}
			if v := checker.Check(t.Context(), q.request()); !v.AlignedPass {
				t.Errorf("%+v", v)
			}
		})
	}
	wg.Wait()
}

func ExampleSigningKey_ZoneLine() {
	k, err := ParseSigningKey([]byte(ed25519Key), "football.example.com", "brisbane")
	fmt.Println(k.ZoneLine(), err)
	// Output: brisbane._domainkey.football.example.com. IN TXT "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=" <nil>
}
