package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestCheckTellsOfSenders: what each listener finds out of who sent a message,
// and whether the DNS servers answer.
func TestCheckTellsOfSenders(t *testing.T) {
	p, _, _ := testProgram(t)
	mute, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	good, bad := startDNS(t).address, mute.LocalAddr().String()
	cfg, err := parseConfig("x", fmt.Appendf(nil, `
listeners:
  - {name: off,      role: inbound, protocol: smtp, address: 127.0.0.1:1}
  - {name: form,     role: inbound, protocol: smtp, address: 127.0.0.1:2, trusted_form: true}
  - {name: upstream, role: inbound, protocol: smtp, address: 127.0.0.1:3, trust: [authres], authentication: upstream, authserv_id: mx.example}
  - {name: border,   role: inbound, protocol: smtp, address: 192.0.2.1:25, authentication: check}
  - {name: relayed,  role: inbound, protocol: lmtp, address: 127.0.0.1:4, authentication: check}
  - {name: told,     role: inbound, protocol: lmtp, address: 127.0.0.1:5, trust: [xforward], authentication: check}
  - {name: proxied,  role: inbound, protocol: smtp, address: 127.0.0.1:6, proxy_protocol: true, authentication: check}
dns: {servers: ["%s", "%s"], timeout: 200ms, queries: 40}
`, good, bad), nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &checker{p: p, cfg: cfg}
	c.senders(t.Context())
	var lines []string
	for _, f := range c.found {
		lines = append(lines, strings.NewReplacer(good, "GOOD", bad, "BAD").Replace(f.ID+" "+f.Level+" "+f.What))
	}
	want := []string{
		"CG0302 ok listener off: senders are not authenticated",
		"CG0302 ok listener form: the form says who sent a message",
		"CG0302 ok listener upstream: senders are authenticated as mx.example says",
		"CG0302 ok listener border: senders are checked by SPF, DKIM and DMARC; the client is the peer itself",
		"CG0302 warning listener relayed: senders are checked by DKIM and DMARC alone: its peers are relays that do not tell whom they have the mail from, and SPF needs that",
		"CG0302 ok listener told: senders are checked by SPF, DKIM and DMARC; the client is whom the peer names",
		"CG0302 ok listener proxied: senders are checked by SPF, DKIM and DMARC; the client is whom PROXY names",
		"CG0501 ok the DNS server GOOD answers; a message may cost 40 queries and 200ms",
		"CG0501 warning the DNS server BAD does not answer about city.example",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

// TestExplainWithoutDaemon: the command line alone asks the DNS for a file, also
// while a route is of no use.
func TestExplainWithoutDaemon(t *testing.T) {
	p, out, said := testProgram(t)
	dns, dir := startDNS(t), t.TempDir()
	dns.set("bank.example", "v=spf1 -all")
	dns.set("_dmarc.bank.example", "v=DMARC1; p=reject")
	config, mail := filepath.Join(dir, "casegate.yaml"), filepath.Join(dir, "mail.eml")
	files := map[string]string{
		mail: "From: ann@bank.example\r\nTo: 311@city.example\r\n\r\nout\r\n",
		config: fmt.Sprintf(`
data_dir: %s/data
listeners:
  - {name: check, role: inbound, protocol: smtp, address: 127.0.0.1:1, authentication: check}
mailboxes: [{address: 311@city.example}]
routes: [{role: inbound, next_hop: "smtp://mx.example", tls: verify, tls_ca: /nowhere}]
dns: {servers: ["%s"]}
`, dir, dns.address),
	}
	for path, text := range files {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.environ = append(p.environ, "CASEGATE_ALLOW_VOLATILE=1")
	for _, args := range [][]string{
		{"contact", "add", "--name", "Ann", "--email", "ann@bank.example", "--kind", "registered"},
		{"explain", mail, "--from", "x@spoof.example"},
	} {
		if code := p.run(t.Context(), append(args, "--config", config)); code != exitOK {
			t.Fatal(args, said.String())
		}
	}
	if !strings.Contains(out.String(), "our check says dmarc=fail, dkim=none: forged: the policy of the domain is reject") {
		t.Error(out.String())
	}
}
