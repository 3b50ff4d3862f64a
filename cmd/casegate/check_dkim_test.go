package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/casegate/casegate/gateway/mailauth"
)

// TestCheckTellsOfSignatures: which signature mail of each mailbox will bear,
// and whether what is published fits.
func TestCheckTellsOfSignatures(t *testing.T) {
	p, _, _ := testProgram(t)
	dns := startDNS(t)
	good, other, absent := makeKey(t, "rsa", "city.example", "good"), makeKey(t, "ed25519", "city.example", "other"), makeKey(t, "rsa", "town.example", "absent")
	open := makeKey(t, "rsa", "village.example", "open")
	if err := os.Chmod(open, 0o604); err != nil {
		t.Fatal(err)
	}
	cfg, err := parseConfig("x", fmt.Appendf(nil, `
hostname: gw.city.example
listeners:
  - {name: desk, role: outbound, protocol: smtp, address: 127.0.0.1:1, send_as: [311@city.example, mayor@Town.example, clerk@village.example]}
mailboxes: [{address: 311@city.example}, {address: parks@city.example}]
dns: {servers: ["%s"]}
dkim:
  - {domain: city.example, selector: good, key: %s, subdomains: true}
  - {domain: city.example, selector: other, key: %s}
  - {domain: town.example, selector: absent, key: %s}
  - {domain: village.example, selector: open, key: %s}
`, dns.address, good, other, absent, open), nil)
	if err != nil {
		t.Fatal(err)
	}
	k, err := mailauth.ReadSigningKey(good, "city.example", "good")
	if err != nil {
		t.Fatal(err)
	}
	dns.set(k.RecordName(), strings.Join(k.Record(), ""))
	dns.set("other._domainkey.city.example", "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
	look := func() (lines []string, hints string) {
		c := &checker{p: p, cfg: cfg}
		c.signing(t.Context())
		for _, f := range c.found {
			lines, hints = append(lines, f.ID+" "+f.Level+" "+f.What), hints+f.Hint+"\n"
		}
		return lines, hints
	}
	lines, hints := look()
	signs := []string{
		"CG0603 error x:11:52: dkim[3].key: DKIM key " + open + ": others may read or change it (mode 0604)",
		"CG0601 ok mail from 311@city.example is signed by city.example: good (rsa, 2048 bits) and other (ed25519)",
		"CG0601 ok mail from parks@city.example is signed by city.example: good (rsa, 2048 bits) and other (ed25519)",
		"CG0601 ok mail from mayor@Town.example is signed by town.example: absent (rsa, 2048 bits)",
		"CG0601 warning mail from clerk@village.example is not signed",
		"CG0601 ok delivery reports, from mailer-daemon@gw.city.example, are signed by city.example: good (rsa, 2048 bits)",
	}
	same(t, "findings", lines, append(signs[:len(signs):len(signs)],
		"CG0602 ok the record good._domainkey.city.example fits its key",
		"CG0602 error the record other._domainkey.city.example: the record is of another key; signatures made with it are broken to those who verify",
		"CG0602 error the record absent._domainkey.town.example: there is no key; signatures made with it are broken to those who verify"))
	if !strings.Contains(hints, `publish: absent._domainkey.town.example. IN TXT "v=DKIM1; k=rsa; p=`) {
		t.Error(hints)
	}
	dns.mu.Lock()
	dns.broken = true
	dns.mu.Unlock()
	lines, _ = look()
	same(t, "findings without the DNS", lines[len(signs):], []string{
		"CG0602 warning the record good._domainkey.city.example cannot be read: the DNS does not answer",
		"CG0602 warning the record other._domainkey.city.example cannot be read: the DNS does not answer",
		"CG0602 warning the record absent._domainkey.town.example cannot be read: the DNS does not answer",
	})
	cfg.DKIM = cfg.DKIM[1:2]
	lines, _ = look()
	same(t, "findings without subdomains", lines[4], "CG0601 ok delivery reports, from mailer-daemon@gw.city.example, are not signed")
	cfg.DKIM = nil
	lines, _ = look()
	same(t, "findings without keys", lines, []string{"CG0601 ok outgoing mail is not signed here: there is no dkim"})
}
