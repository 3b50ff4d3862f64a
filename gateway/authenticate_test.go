package gateway_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/gateway/mailauth"
	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/resolver"
)

// handAs gives a message to a listener that checks, as come from an address.
func handAs(t testing.TB, o gateway.Options, in gateway.Intake, client, from, eml string, facts gateway.BodyFacts) (gateway.Receipt, error) {
	t.Helper()
	in.Check = true
	h := gateway.NewInbound(o, in)
	env := &gateway.Envelope{Listener: "test", Role: gateway.RoleInbound, Protocol: "ESMTP", Helo: "client.example",
		Recipients: []gateway.Recipient{{Path: path(t, "311@city.example")}}, Body: facts}
	env.Client.Addr, _ = netip.ParseAddr(client)
	if from != "" {
		env.From = path(t, from)
	}
	env.Body.Size = int64(len(eml))
	sink, err := h.Spool(context.Background(), env)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Discard()
	if _, err := io.WriteString(sink, eml); err != nil {
		t.Fatal(err)
	}
	return h.Accept(context.Background(), env, sink)
}

// signerOf has one key for each domain, and publishes it.
func signerOf(t testing.TB, records published, domain string) *mailauth.Signer {
	t.Helper()
	seed := sha256.Sum256([]byte(domain))
	der, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	k, err := mailauth.ParseSigningKey(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), domain, "s")
	if err != nil {
		t.Fatal(err)
	}
	records[k.RecordName()] = strings.Join(k.Record(), "")
	s, err := mailauth.NewSigner(k)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// signedBy puts a signature on a mail, of a key of a domain that is published.
func signedBy(t testing.TB, records published, domain, eml string) string {
	t.Helper()
	s := signerOf(t, records, domain)
	header, body, _ := strings.Cut(eml, "\r\n\r\n")
	sum, err := mailauth.HashBody(t.Context(), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	field, err := s.Sign([]byte(header+"\r\n\r\n"), sum)
	if err != nil {
		t.Fatal(err)
	}
	return string(field) + eml
}

// sealedBy puts an ARC set on a mail, of a key of a domain that is published.
func sealedBy(t testing.TB, records published, domain, eml string) string {
	t.Helper()
	s := signerOf(t, records, domain)
	header, body, _ := strings.Cut(eml, "\r\n\r\n")
	sum, err := mailauth.HashBody(t.Context(), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	v := verifiedChain(t, records, eml)
	set, err := s.Seal([]byte(header+"\r\n\r\n"), sum, v.ARC, mailauth.Results(domain, v))
	if err != nil {
		t.Fatal(err)
	}
	return string(set) + eml
}

// letter is a mail from ann@x.example, signed by her domain.
func letter(t testing.TB, records published, id, body string) string {
	eml := fmt.Sprintf("From: ann@x.example\r\nTo: 311@city.example\r\nSubject: light\r\nMessage-ID: <%s@x.example>\r\n\r\n%s", id, body)
	return signedBy(t, records, "x.example", eml)
}

func cityOf(t testing.TB) (gateway.Options, published) {
	records := published{"x.example": "v=spf1 ip4:192.0.2.1 -all", "_dmarc.x.example": "v=DMARC1; p=reject"}
	return desk(t, func(o *gateway.Options) { o.Checker = &mailauth.Checker{Resolver: records} }), records
}

// What is found is told and recorded, whatever the body is like; a large one is
// read again out of the store.
func TestCheckInbound(t *testing.T) {
	o, records := cityOf(t)
	n := 0
	for name, body := range map[string]string{
		"plain": "out\r\n", "empty": "", "dots": ".\r\n..\r\n", "8-bit": "gr\xfc\xdf \x00\r\n", "no line end": "out",
		"large": strings.Repeat("A line of a large message, of which there are many.\r\n", 30_000),
	} {
		for _, c := range []struct{ client, body, says string }{
			{"192.0.2.1", body, "our check says dmarc=pass, spf=pass (x.example), dkim=pass (x.example): an aligned pass for x.example"},
			{"198.51.100.7", body, "our check says dmarc=pass, spf=fail (x.example), dkim=pass (x.example): an aligned pass for x.example"},
			{"", body, "our check says dmarc=pass, dkim=pass (x.example): an aligned pass for x.example"},
			{"198.51.100.7", "changed" + body, "our check says dmarc=fail, spf=fail (x.example), dkim=fail (x.example): forged: the policy of the domain is reject; DKIM: the body was changed"},
		} {
			n++
			eml := strings.TrimSuffix(letter(t, records, fmt.Sprint(n), body), body) + c.body
			r, err := handAs(t, o, gateway.Intake{}, c.client, "ann@x.example", eml, gateway.BodyFacts{NoFinalCRLF: !strings.HasSuffix(eml, "\n")})
			if err != nil {
				t.Fatal(name, err)
			}
			k := keptOf(t, o, r)
			a := k.message.Authentication
			if !k.says("authentication: "+c.says) || a == nil || a.Words != c.says || a.Forged == a.AlignedPass || a.Forged != (k.kase.Queue == "unverified") {
				t.Errorf("%s from %q: %+v in %s\n%q", name, c.client, a, k.kase.Queue, k.message.Decision.Reasons)
			}
			var stamped []string
			for _, v := range fieldOf(k.sent, "Authentication-Results") {
				stamped = append(stamped, strings.Fields(v)[1])
			}
			if want := []string{"dmarc=" + a.DMARC}; !slices.Equal(stamped, want) {
				t.Errorf("%s: stamped %q, want %q", name, stamped, want)
			}
		}
	}
	sound(t, o)
}

// mute is a DNS that never answers.
type mute struct{}

func (mute) wait(ctx context.Context) error {
	<-ctx.Done()
	return &net.DNSError{Err: ctx.Err().Error(), IsTimeout: true}
}
func (d mute) LookupTXT(ctx context.Context, _ string) ([]string, error) { return nil, d.wait(ctx) }
func (d mute) LookupMX(ctx context.Context, _ string) ([]*net.MX, error) { return nil, d.wait(ctx) }
func (d mute) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	return nil, d.wait(ctx)
}
func (d mute) LookupAddr(ctx context.Context, _ string) ([]string, error) { return nil, d.wait(ctx) }

// While the DNS is silent mail is taken, by many sessions at once, each within
// the deadline; nobody is forged by that, and nobody waits while a transaction
// runs. Once look-ups rest, nobody waits at all.
func TestSilentDNSRefusesNothing(t *testing.T) {
	const deadline = 200 * time.Millisecond
	rests := make(chan time.Time, 10)
	o := desk(t, func(o *gateway.Options) {
		o.Checker = &mailauth.Checker{Resolver: mute{}, Budget: mailauth.Budget{Time: deadline}, Rests: func(until time.Time) { rests <- until }}
	})
	send := func(id string) (took time.Duration) {
		start := time.Now()
		r, err := handAs(t, o, gateway.Intake{}, "198.51.100.7", "ann@x.example", letter(t, published{}, id, "out\r\n"), gateway.BodyFacts{})
		took = time.Since(start)
		if err != nil {
			t.Error(err)
			return took
		}
		if k := keptOf(t, o, r); k.message.Authentication.DMARC != "temperror" || k.message.Identity == "forged" || k.kase.Queue != "general" {
			t.Errorf("%s: %+v", k.message.Identity, k.message.Authentication)
		}
		return took
	}
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			if took := send(fmt.Sprint(i)); took > deadline+10*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
	all.Wait()
	if len(rests) != 1 {
		t.Errorf("it was told %d times that look-ups rest", len(rests))
	}
	if took := send("resting"); took > deadline {
		t.Errorf("look-ups rest, and it took %v", took)
	}
	sound(t, o)
}

// verifiedChain checks the ARC chain of what was handed on.
func verifiedChain(t testing.TB, r mailauth.Resolver, eml string) mailauth.Verdict {
	t.Helper()
	header, body, _ := strings.Cut(eml, "\r\n\r\n")
	c := mailauth.Checker{Resolver: r}
	return c.Check(t.Context(), mailauth.CheckRequest{FromDomain: "x.example", Header: message.Parse([]byte(header + "\r\n\r\n")), Body: strings.NewReader(body), Chain: true})
}

// What we checked and hand on is sealed with the key of the mailbox's domain, on
// top of the chain that it came with.
func TestInboundIsSealed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*gateway.Options)
		intake gateway.Intake
		eml    func(eml string, records published) string
		chain  mailauth.Result // in what is handed on
		sets   int
		says   string
	}{
		"a first seal": {chain: mailauth.Pass, sets: 1, says: "handed on with an ARC seal of city.example"},
		"on a chain":   {eml: func(eml string, records published) string { return sealedBy(t, records, "lists.example", eml) }, chain: mailauth.Pass, sets: 2, says: "arc=pass (lists.example)"},
		"on a broken chain": {eml: func(eml string, records published) string {
			return strings.Replace(sealedBy(t, records, "lists.example", eml), "Subject: light", "Subject: changed", 1)
		}, chain: mailauth.Fail, sets: 2, says: "handed on with an ARC seal of city.example"},
		"on one that says so itself": {eml: func(eml string, records published) string {
			eml = strings.Replace(sealedBy(t, records, "lists.example", eml), "Subject: light", "Subject: changed", 1)
			return sealedBy(t, records, "lists2.example", eml)
		}, chain: mailauth.Fail, sets: 2, says: "handed on without an ARC seal: it can't be sealed: its ARC chain is full, or says itself that it is broken"},
		"on one with results of ours, which go": {eml: func(eml string, records published) string {
			return sealedBy(t, records, "gw.city.example", eml)
		}, chain: mailauth.Fail, sets: 1, says: "handed on without an ARC seal: it can't be sealed: its ARC chain is no longer the one that was checked"},
		"no route":             {change: func(o *gateway.Options) { o.Route = func(gateway.Role, string, string) bool { return false } }, chain: mailauth.None},
		"no key":               {change: func(o *gateway.Options) { o.Signers = nil }, chain: mailauth.None},
		"what is only watched": {intake: gateway.Intake{Observe: true}, chain: mailauth.None},
	} {
		t.Run(name, func(t *testing.T) {
			o, records := cityOf(t)
			var ours published
			o.Signers, ours = signing(t)
			for name, record := range ours {
				records[name] = record
			}
			if c.change != nil {
				c.change(&o)
			}
			eml := letter(t, records, "1", "out\r\n")
			if c.eml != nil {
				eml = c.eml(eml, records)
			}
			r, err := handAs(t, o, c.intake, "192.0.2.1", "ann@x.example", eml, gateway.BodyFacts{})
			if err != nil {
				t.Fatal(err)
			}
			k := keptOf(t, o, r)
			v := verifiedChain(t, records, k.sent)
			if v.ARC != c.chain || strings.Count(k.sent, "ARC-Seal:") != c.sets || !k.says(c.says) {
				t.Errorf("the chain is %s, of %d sets\n%q\n%s", v.ARC, strings.Count(k.sent, "ARC-Seal:"), k.message.Decision.Reasons, k.sent)
			}
			if c.sets > 0 && c.chain == mailauth.Pass && (v.DKIM != mailauth.Pass || v.ARCDomain != "city.example") {
				t.Errorf("%+v", v)
			}
			if len(k.sent) != int(k.message.Archived.SentSize) {
				t.Errorf("%d bytes, recorded as %d", len(k.sent), k.message.Archived.SentSize)
			}
			sound(t, o)
		})
	}
}

// A foreign signature stays where it stands; where our stamps break it, the
// decision says so. What it means by a name counts from the bottom, so that a
// field on top breaks only what signs that there is none.
func TestStampsBreakSignatures(t *testing.T) {
	const top = "Received: from a by b; Mon, 23 Nov 2026 09:30:00 +0000\r\n"
	for covers, broken := range map[string]string{
		"from:subject":                       "",
		"from:from:subject":                  "",
		"from:received":                      "",
		"from:received:received":             "received",
		"from:X-Case-Ref":                    "x-case-ref",
		"from:x-case-mode":                   "x-case-mode", // removed
		"from:authentication-results":        "authentication-results",
		"from:authentication-results:x-mine": "authentication-results",
		"from:x-mine:x-mine":                 "",
	} {
		for _, route := range []bool{true, false} {
			o := desk(t, func(o *gateway.Options) { o.Route = func(gateway.Role, string, string) bool { return route } })
			eml := "DKIM-Signature: v=1; a=rsa-sha256; d=crm.example;\r\n\th=" + covers + "; bh=x; b=y\r\n" + top +
				"Authentication-Results: gw.city.example; dmarc=pass\r\nX-Case-Mode: reply\r\nX-Mine: a\r\nFrom: ann@x.example\r\nTo: 311@city.example\r\nSubject: light\r\n\r\nout\r\n"
			r, err := hand(t, gateway.NewInbound(o, gateway.Intake{}), gateway.RoleInbound, "ann@x.example", eml, "311@city.example")
			if err != nil {
				t.Fatal(err)
			}
			k := keptOf(t, o, r)
			want := "the DKIM-Signature of crm.example does not hold for what is handed on: it covers " + broken + ", which our stamps change"
			if said := k.says("does not hold"); said != (broken != "" && route) || said && !k.says(want) {
				t.Errorf("h=%s, route %v: %q", covers, route, k.message.Decision.Reasons)
			}
			if !strings.Contains(k.sent, "d=crm.example") {
				t.Errorf("h=%s: it is gone:\n%s", covers, k.sent)
			}
		}
	}
}

// A message that a person takes from the exceptions list is what it was worth
// when it came: nobody is asked again, and what is handed on says so and is sealed.
func TestAssignedAsChecked(t *testing.T) {
	o, records := cityOf(t)
	var ours published
	o.Signers, ours = signing(t)
	eml := strings.Replace(letter(t, records, "1", "away\r\n"), "\r\nSubject: light", "\r\nAuto-Submitted: auto-replied\r\nSubject: light", 1)
	r, err := handAs(t, o, gateway.Intake{}, "192.0.2.1", "ann@x.example", eml, gateway.BodyFacts{})
	if err != nil {
		t.Fatal(err)
	}
	m := stored(t, o, r)
	if m.Exception != "orphan-auto-reply" || m.Authentication == nil {
		t.Fatalf("%+v", m)
	}
	found := *m.Authentication
	o.Checker = &mailauth.Checker{Resolver: published{}} // all records are gone
	book := gateway.Rulebook{Intakes: map[string]gateway.Intake{"test": {Check: true}}}
	if _, err := gateway.Assign(t.Context(), o, book, m.ID, resolver.ByHand{By: "kim"}); err != nil {
		t.Fatal(err)
	}
	k := keptOf(t, o, r)
	if k.message.Case == 0 || *k.message.Authentication != found || !found.AlignedPass {
		t.Errorf("%+v, %+v", k.message, k.message.Authentication)
	}
	if got := fieldOf(k.sent, "Authentication-Results"); len(got) != 1 || !strings.Contains(got[0], "dmarc=pass") {
		t.Errorf("stamped %q", got)
	}
	for name, record := range ours {
		records[name] = record
	}
	if v := verifiedChain(t, records, k.sent); v.ARC != mailauth.Pass || v.DKIM != mailauth.Pass {
		t.Errorf("%s\n%s", v.Words, k.sent)
	}
	// Where nothing was checked when it came, nothing is known later.
	r, err = hand(t, gateway.NewInbound(o, gateway.Intake{}), gateway.RoleInbound, "ann@x.example", strings.Replace(eml, "<1@", "<2@", 1), "311@city.example")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gateway.Assign(t.Context(), o, book, stored(t, o, r).ID, resolver.ByHand{By: "kim"}); err != nil {
		t.Fatal(err)
	}
	k = keptOf(t, o, r)
	if got := fieldOf(k.sent, "Authentication-Results"); len(got) != 1 || got[0] != "gw.city.example; none" || !k.says("nobody is asked afterwards") {
		t.Errorf("stamped %q, %q", got, k.message.Decision.Reasons)
	}
	sound(t, o)
}

// Who signs a thousand times does not make the decision long.
func TestManyBrokenSignatures(t *testing.T) {
	o := desk(t, nil)
	eml := strings.Repeat("DKIM-Signature: v=1; d=crm.example; h=from:x-case-ref; bh=x; b=y\r\n", 2000) + "From: ann@x.example\r\nTo: 311@city.example\r\n\r\nout\r\n"
	r, err := hand(t, gateway.NewInbound(o, gateway.Intake{}), gateway.RoleInbound, "ann@x.example", eml, "311@city.example")
	if err != nil {
		t.Fatal(err)
	}
	if k := keptOf(t, o, r); strings.Count(strings.Join(k.message.Decision.Reasons, "\n"), "crm.example") != 8 || !k.says("1992 more signatures do not hold") {
		t.Errorf("%q", k.message.Decision.Reasons)
	}
}
