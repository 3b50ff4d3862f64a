package mailauth

import (
	"fmt"
	"strings"
	"testing"

	"github.com/casegate/casegate/gateway/message"
)

// BenchmarkCheck is what a message costs while the cache has all answers: by the
// signature that it bears and the size of its body. The header is parsed already,
// as it is in a pipeline.
func BenchmarkCheck(b *testing.B) {
	list := testKey()
	for _, size := range []int{2 << 10, 50 << 10} {
		line := "A line of a mail that somebody has written to the city.\r\n"
		body := strings.Repeat(line, size/len(line))
		ed, rsa := signedOver(b, body, testKey()), signedOver(b, body, testRSA())
		for _, c := range []struct {
			name, header string
			dkim, arc    Result
		}{
			{"unsigned", testHeader, None, None},
			{"ed25519", ed, Pass, None},
			{"rsa2048", rsa, Pass, None},
			{"rsa2048+arc", sealedOver(b, body, list, rsa), Pass, Pass},
		} {
			b.Run(fmt.Sprintf("%s/%dKiB", c.name, size>>10), func(b *testing.B) {
				checker := Checker{Resolver: city("v=DMARC1; p=reject", nil)}
				q := ask{ip: ours, mailFrom: "ann@city.example", from: "city.example", header: c.header}.request()
				q.Chain = true
				b.ReportAllocs()
				for b.Loop() {
					q.Body = strings.NewReader(body)
					if v := checker.Check(b.Context(), q); v.DMARC != Pass || v.SPF != Pass || v.DKIM != c.dkim || v.ARC != c.arc {
						b.Fatalf("%+v", v)
					}
				}
			})
		}
	}
}

// signedOver is the test message with another body, signed.
func signedOver(t testing.TB, body string, k SigningKey) string {
	t.Helper()
	s, err := NewSigner(k)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := HashBody(t.Context(), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	field, err := s.Sign([]byte(testHeader), sum)
	if err != nil {
		t.Fatal(err)
	}
	return string(field) + testHeader
}

// sealedOver seals a message once.
func sealedOver(t testing.TB, body string, k SigningKey, header string) string {
	t.Helper()
	s, err := NewSigner(k)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := HashBody(t.Context(), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	set, err := s.Seal(message.Parse([]byte(header)).Bytes(), sum, None, "gw.example; none")
	if err != nil {
		t.Fatal(err)
	}
	return string(set) + header
}

// BenchmarkSeal is what an ARC set costs, the hash of the body left out.
func BenchmarkSeal(b *testing.B) {
	for name, k := range map[string]SigningKey{"ed25519": testKey(), "rsa2048": testRSA()} {
		b.Run(name, func(b *testing.B) {
			s, err := NewSigner(k)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := s.Seal([]byte(testHeader), "", None, "gw.example; none"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
