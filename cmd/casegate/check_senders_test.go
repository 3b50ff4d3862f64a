package main

import (
	"fmt"
	"net"
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
