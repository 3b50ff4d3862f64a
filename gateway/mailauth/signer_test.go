package mailauth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"
	"pgregory.net/rapid"

	"github.com/casegate/casegate/gateway/message"
)

// Another implementation verifies what we sign, and we what it signs, in all
// canonicalisations, whatever the message.
func TestSignaturesInterwork(t *testing.T) {
	z := city("", nil)
	lookup := func(name string) ([]string, error) { return z.LookupTXT(t.Context(), name) }
	line := rapid.StringMatching(`[ \ta-z.]{0,12}`)
	rapid.Check(t, func(r *rapid.T) {
		body := strings.Join(rapid.SliceOfN(line, 0, 8).Draw(r, "body"), "\r\n")
		header := "Subject:" + strings.Join(rapid.SliceOfN(rapid.StringMatching(`[ \ta-z]{0,9}x`), 1, 4).Draw(r, "subject"), "\r\n ") + "\r\n" +
			rapid.SampledFrom([]string{"From: a@city.example", "from \t:  a@city.example \t", "FROM:a@city.example"}).Draw(r, "from") + "\r\nTo: b@x.example\r\nTo: c@x.example\r\n\r\n"
		s, err := NewSigner(testRSA(), testKey())
		if err != nil {
			r.Fatal(err)
		}
		sum, err := HashBody(t.Context(), strings.NewReader(body))
		if err != nil {
			r.Fatal(err)
		}
		fields, err := s.Sign([]byte(header), sum)
		if err != nil {
			r.Fatal(err)
		}
		found, err := dkim.VerifyWithOptions(strings.NewReader(string(fields)+header+body), &dkim.VerifyOptions{LookupTXT: lookup})
		if err != nil || len(found) != 2 || found[0].Err != nil || found[1].Err != nil {
			r.Fatalf("%v %+v\n%s", err, found, fields)
		}
		var other strings.Builder
		o := dkim.SignOptions{Domain: "city.example", Selector: "s1", Signer: testKey().key, HeaderKeys: []string{"from", "subject", "to", "to", "from"},
			HeaderCanonicalization: rapid.SampledFrom([]dkim.Canonicalization{"simple", "relaxed"}).Draw(r, "header"),
			BodyCanonicalization:   rapid.SampledFrom([]dkim.Canonicalization{"simple", "relaxed"}).Draw(r, "canon")}
		if err := dkim.Sign(&other, strings.NewReader(header+body), &o); err != nil {
			r.Fatal(err)
		}
		head, rest, _ := strings.Cut(other.String(), "\r\n\r\n")
		checker := Checker{Resolver: z}
		v := checker.Check(t.Context(), ask{from: "city.example", header: head + "\r\n\r\n", body: rest}.request())
		if v.DKIM != Pass && rest != "" { // ask has a body for an empty one
			r.Fatalf("%+v\n%q", v, other.String())
		}
	})
}

// Whatever stands in a header and a body, what is signed verifies.
func TestUglyHeadersAreSigned(t *testing.T) {
	s, err := NewSigner(testRSA(), testKey())
	if err != nil {
		t.Fatal(err)
	}
	var checkers []*Checker // each knows one of the keys
	for _, k := range s.Keys() {
		z := city("", nil)
		delete(z.records, "txt "+k.RecordName())
		checkers = append(checkers, &Checker{Resolver: z})
	}
	piece := rapid.SampledFrom([]string{
		"From: a@city.example\r\n", "To: b\r\n", "to :c\r\n", "Subject:\r\n \r\n x\r\n", " x\r\n", "\t:\r\n", "no field\r\n", "From\r\n : z@x.example\r\n",
		"From a Mon\r\n", ":\r\n", "Date: \x00\xff\r\n", "Sender:a\n", "\nX: y\r\n", "References: " + strings.Repeat("<a@b>\r\n\t", 99) + "\r\n", "DKIM-Signature: v=1\r\n", "Reply-To", "\r", " ",
	})
	rapid.Check(t, func(r *rapid.T) {
		block := strings.Join(rapid.SliceOfN(piece, 0, 8).Draw(r, "before"), "") + "From: a@city.example\r\n" + strings.Join(rapid.SliceOfN(piece, 0, 8).Draw(r, "behind"), "") + "\r\n"
		block = string(message.NewEditor(message.Parse([]byte(block))).Bytes())
		body := rapid.StringMatching(`(?s)([ \t.a]|\r\n){0,20}`).Draw(r, "body")
		sum, err := HashBody(t.Context(), strings.NewReader(body))
		if err != nil {
			r.Fatal(err)
		}
		fields, err := s.Sign([]byte(block), sum)
		if errors.Is(err, ErrUnsignable) {
			return
		}
		if err != nil {
			r.Fatal(err)
		}
		for _, c := range checkers {
			q := CheckRequest{FromDomain: "city.example", Header: message.Parse(message.OnTop([]byte(block), fields)), Body: strings.NewReader(body)}
			if v := c.Check(t.Context(), q); v.DKIM != Pass {
				r.Fatalf("%s\n%q", v.Words, message.OnTop([]byte(block), fields))
			}
		}
	})
}

func TestSignForm(t *testing.T) {
	s, err := NewSigner(testRSA(), testKey())
	if err != nil {
		t.Fatal(err)
	}
	empty, err := HashBody(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Sign([]byte(testHeader), empty)
	if err != nil {
		t.Fatal(err)
	}
	text := string(out)
	if strings.Count(text, "DKIM-Signature:") != 2 || !strings.HasSuffix(text, "\r\n") || strings.Contains(strings.ReplaceAll(text, "\r\n", ""), "\n") {
		t.Errorf("%q", text)
	}
	for line := range strings.SplitSeq(text, "\r\n") {
		if len(line) > 78 {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
	if !strings.Contains(text, "h=From:To:Subject:Date:Message-ID:From;") || !strings.Contains(text, "c=relaxed/relaxed") {
		t.Error(text)
	}
	for name, header := range map[string]string{
		"no From":   "To: a@b\r\n\r\n",
		"two From":  "From: a@b\r\nfrom : a@c\r\n\r\n",
		"too large": "From: a@b\r\n" + strings.Repeat("X: y\r\n", 20_000) + "\r\n",
	} {
		if _, err := s.Sign([]byte(header), empty); !errors.Is(err, ErrUnsignable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := HashBody(t.Context(), io.MultiReader(strings.NewReader("x"), failing{})); err == nil {
		t.Error("hashed what can't be read")
	}
	for _, keys := range [][]SigningKey{{}, {testKey(), testKey()}, {testKey(), {Domain: "x.example"}}, {{}}, {testKey(), testRSA(), testRSA()}} {
		if _, err := NewSigner(keys...); err == nil {
			t.Error("a signer of", len(keys), "keys")
		}
	}
}

// Who signs for which domain.
func TestSigners(t *testing.T) {
	key := func(kind, domain, selector string, below bool) SigningKey {
		_, k, err := KeyGen(kind, 0, domain, selector)
		if err != nil {
			t.Fatal(err)
		}
		k.Subdomains = below
		return k
	}
	s, err := NewSigners(
		key("ed25519", "city.example", "e", false), key("rsa", "city.example", "r", true),
		key("ed25519", "parks.city.example", "p", false), key("ed25519", "xn--mnchen-3ya.example", "m", false),
	)
	if err != nil {
		t.Fatal(err)
	}
	for domain, want := range map[string]string{
		"city.example": "city.example e r", "CITY.example.": "city.example e r",
		"gw.city.example": "city.example r", "a.b.city.example": "city.example r",
		"parks.city.example": "parks.city.example p", "x.parks.city.example": "city.example r",
		"München.example": "xn--mnchen-3ya.example m", "xn--mnchen-3ya.example": "xn--mnchen-3ya.example m",
		"example": "", "other.example": "", "notcity.example": "", "": "", ".": "", "city example": "",
	} {
		got := ""
		if one := s.For(domain); one != nil {
			got = one.Domain()
			for _, k := range one.Keys() {
				got += " " + k.Selector
			}
		}
		if got != want {
			t.Errorf("%q is signed by %q, want %q", domain, got, want)
		}
	}
	if (*Signers)(nil).For("city.example") != nil {
		t.Error("no signers sign")
	}
	if _, err := NewSigners(key("ed25519", "city.example", "a", false), key("ed25519", "city.example", "b", false)); err == nil {
		t.Error("two keys of a kind")
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the disk is gone") }

// A sealed message verifies, hop after hop; a broken one is sealed as broken,
// once.
func TestSealHops(t *testing.T) {
	s, err := NewSigner(testKey(), testRSA())
	if err != nil {
		t.Fatal(err)
	}
	checker := Checker{Resolver: city("", nil)}
	header, found := testHeader, None
	hop := func(body string) {
		t.Helper()
		q := ask{from: "city.example", header: header, body: body}.request()
		q.Chain = true
		v := checker.Check(t.Context(), q)
		if v.ARC != found {
			t.Fatalf("the chain is %s, want %s", v.ARC, found)
		}
		sum, err := HashBody(t.Context(), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		set, err := s.Seal([]byte(header), sum, v.ARC, Results("gw.example", v))
		if err != nil && !errors.Is(err, ErrUnsealable) {
			t.Fatal(err)
		}
		header = string(set) + "Received: by gw.example\r\n" + header
	}
	for range 4 {
		hop(testBody)
		found = Pass
	}
	found = Fail
	hop("changed")
	if !strings.Contains(header, "cv=fail") || strings.Count(header, "ARC-Seal") != 5 {
		t.Error(header)
	}
	hop("changed")
	if strings.Count(header, "ARC-Seal") != 5 {
		t.Error("sealed again")
	}
	for _, chain := range []Result{None, Pass} {
		if out, err := s.Seal([]byte("ARC-Seal: i=1\r\n"+testHeader), "", chain, "gw.example; none"); !errors.Is(err, ErrUnsealable) {
			t.Errorf("sealed as %s: %s", chain, out)
		}
	}
	for _, chain := range []Result{TempError, ""} {
		if out, err := s.Seal([]byte(testHeader), "", chain, "gw.example; none"); !errors.Is(err, ErrUnsealable) || out != nil {
			t.Errorf("%s %v", out, err)
		}
	}
	if _, err := s.Seal([]byte(testHeader), "", None, "gw.example;\r\nBcc: x"); err == nil || errors.Is(err, ErrUnsealable) {
		t.Error("a line end in the results")
	}
}

func TestSigningKeyFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, mode os.FileMode, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	block := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	text, k, err := KeyGen("rsa", 0, "city.example", "s1")
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := x509.MarshalPKCS8PrivateKey(curve)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(k.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		write("pkcs8", 0o600, text), write("group", 0o640, text),
		write("pkcs1", 0o400, block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k.key.(*rsa.PrivateKey)))),
	} {
		got, err := ReadSigningKey(path, "City.example.", "S1")
		if err != nil || got.ZoneLine() != k.ZoneLine() {
			t.Errorf("%s: %v", path, err)
		}
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "absent"):   "no such file",
		dir:                            "no file",
		write("open", 0o644, text):     "mode 0644",
		write("writable", 0o660, text): "mode 0660",
		write("empty", 0o600, nil):     "no PEM",
		write("public", 0o600, block("PUBLIC KEY", public)):                                 "public half",
		write("encrypted", 0o600, block("ENCRYPTED PRIVATE KEY", public)):                   "encrypted",
		write("certificate", 0o600, block("CERTIFICATE", public)):                           "CERTIFICATE",
		write("damaged", 0o600, block("PRIVATE KEY", public)):                               "damaged",
		write("curve", 0o600, block("PRIVATE KEY", ec)):                                     "ecdsa",
		write("small", 0o600, block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(small))): "1024 bits",
	} {
		_, err := ReadSigningKey(path, "city.example", "s1")
		var e *KeyError
		if !errors.As(err, &e) || e.Hint == "" || e.Path != path || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, c := range [][2]string{{"", "s"}, {"city.example", ""}, {"a b", "s"}, {"city.example", "s._domainkey\r\n"}} {
		if _, err := ParseSigningKey(text, c[0], c[1]); err == nil {
			t.Errorf("%q", c)
		}
	}
}

func TestKeyGen(t *testing.T) {
	for _, c := range []struct {
		kind string
		bits int
		ok   bool
	}{{"rsa", 0, true}, {"rsa", 3072, true}, {"ed25519", 0, true}, {"rsa", 1024, false}, {"rsa", 100000, false}, {"dsa", 0, false}, {"", 0, false}} {
		text, k, err := KeyGen(c.kind, c.bits, "city.example", "s1")
		if (err == nil) != c.ok {
			t.Errorf("%v: %v", c, err)
		}
		if err != nil {
			continue
		}
		for _, s := range k.Record() {
			if len(s) > 255 {
				t.Errorf("%v: a string of %d octets", c, len(s))
			}
		}
		if p := parseKey(strings.Join(k.Record(), "")); p.why != "" || p.kind != c.kind {
			t.Errorf("%v: %+v", c, p)
		}
		if again, err := ParseSigningKey(text, "city.example", "s1"); err != nil || again.ZoneLine() != k.ZoneLine() {
			t.Errorf("%v: %v", c, err)
		}
	}
}
