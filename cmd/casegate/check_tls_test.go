package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCheckCertificates: check says of a listener's certificate what serve, or a
// client, would stumble over.
func TestCheckCertificates(t *testing.T) {
	for _, x := range []struct {
		hostname, key string
		life          time.Duration
		want          string
	}{
		{"gw.city.example", "gw.key", 90 * 24 * time.Hour, "CG0303 ok listener desk: TLS with a certificate for gw.city.example until "},
		{"mx.city.example", "gw.key", 90 * 24 * time.Hour, "CG0303 warning listener desk: the certificate is for gw.city.example, not for mx.city.example"},
		{"gw.city.example", "gw.key", 24 * time.Hour, "CG0303 warning listener desk: the certificate for gw.city.example ends "},
		{"gw.city.example", "gw.key", -time.Minute, "CG0303 error listener desk: the certificate for gw.city.example ended "},
		{"gw.city.example", "other.key", time.Hour, "CG0303 error listener desk: tls: private key does not match public key"},
		{"gw.city.example", "none.key", time.Hour, "CG0303 error listener desk: stat "},
	} {
		dir, other := t.TempDir(), t.TempDir()
		certify(t, dir, x.life)
		certify(t, other, x.life)
		if err := os.Rename(filepath.Join(other, "gw.key"), filepath.Join(dir, "other.key")); err != nil {
			t.Fatal(err)
		}
		cfg, err := parseConfig("x", fmt.Appendf(nil, `
hostname: %s
listeners:
  - {name: clear, role: inbound, protocol: smtp, address: 127.0.0.1:0}
  - {name: desk, role: outbound, protocol: smtp, address: 127.0.0.1:0, tls: starttls, tls_cert: %[2]s/gw.pem, tls_key: %[2]s/%s}
`, x.hostname, dir, x.key), nil)
		if err != nil {
			t.Fatal(err)
		}
		c := &checker{cfg: cfg}
		c.certificates()
		if len(c.found) != 1 || !strings.HasPrefix(c.found[0].ID+" "+c.found[0].Level+" "+c.found[0].What, x.want) {
			t.Errorf("want %q, found %+v", x.want, c.found)
		}
	}
}
