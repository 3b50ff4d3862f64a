package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/casegate/casegate/gateway/testbed"
)

// plainHop answers as a small mail server without TLS, and refuses a domain.
func plainHop(t *testing.T) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "220 mx.example\r\n")
			for s := bufio.NewScanner(c); s.Scan(); {
				switch line := s.Text(); {
				case strings.HasPrefix(line, "EHLO"):
					io.WriteString(c, "250-mx.example\r\n250 8BITMIME\r\n")
				case strings.Contains(line, "@refused.example>"):
					io.WriteString(c, "550 5.7.1 relaying denied\r\n")
				default:
					io.WriteString(c, "250 ok\r\n")
				}
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// TestCheckProbesRoutes: each next hop is met as an attempt would meet it.
func TestCheckProbesRoutes(t *testing.T) {
	p, out, _ := testProgram(t)
	hop := plainHop(t)
	cfg, err := parseConfig("x", fmt.Appendf(nil, `
hostname: gw.city.example
listeners: []
mailboxes: [{address: 311@city.example}]
routes:
  - {role: outbound, recipient_domain: refused.example, next_hop: smtp://%[1]s}
  - {role: outbound, recipient_domain: secure.example, next_hop: smtp://%[1]s, tls: require}
  - {role: outbound, recipient_domain: maybe.example, next_hop: smtp://%[1]s, tls: opportunistic}
  - {role: outbound, next_hops: [smtp://127.0.0.1:1, smtp://%[1]s]}
  - {role: inbound, next_hop: none}
`, hop), nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &checker{p: p, cfg: cfg}
	c.hops(t.Context())
	c.routes()
	if err := c.print(true); err != nil {
		t.Fatal(err)
	}
	var found []finding
	if err := json.Unmarshal(out.Bytes(), &found); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range found {
		lines = append(lines, strings.ReplaceAll(f.ID+" "+f.Level+" "+f.What, hop, "HOP"))
	}
	all := strings.Join(lines, "\n")
	for _, want := range []string{
		"CG0405 warning next hop smtp://HOP does not take mail for postmaster@refused.example: the answer to RCPT is 550 5.7.1 relaying denied",
		"CG0403 error next hop smtp://HOP: STARTTLS is not offered, and tls is require",
		"CG0403 warning next hop smtp://HOP has no TLS: mail for it goes in the clear",
		"CG0405 ok next hop smtp://HOP takes mail for postmaster@maybe.example",
		"CG0401 warning next hop smtp://127.0.0.1:1: connecting: ",
		"CG0405 ok next hop smtp://HOP takes mail for postmaster@example.com",
		"CG0406 warning next hop smtp://HOP does not offer SMTPUTF8",
		"CG0402 ok outbound mail for someone@example.net goes to smtp://127.0.0.1:1, then smtp://HOP",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("it lacks %q:\n%s", want, all)
		}
	}
}

// TestCheckTellsWhoseMailGoesWhere: where routes go by sender or mailbox the
// examples do too, and a next hop is asked to take mail for its own mailbox.
func TestCheckTellsWhoseMailGoesWhere(t *testing.T) {
	p, out, _ := testProgram(t)
	hop := plainHop(t)
	cfg, err := parseConfig("x", fmt.Appendf(nil, `
hostname: gw.city.example
listeners: []
mailboxes: [{address: 311@city.example}, {address: parks@city.example}]
routes:
  - {role: inbound, mailbox: parks@city.example, next_hop: smtp://%[1]s}
  - {role: inbound, sender: <>, next_hop: none}
  - {role: inbound, next_hop: smtp://%[1]s}
  - {role: outbound, sender: <>, next_hop: smtp://127.0.0.1:1}
  - {role: outbound, mailbox: parks@city.example, recipient_domain: near.example, next_hop: smtp://127.0.0.1:2}
  - {role: outbound, sender: .city.example, next_hop: smtp://127.0.0.1:3}
  - {role: outbound, next_hop: smtp://%[1]s}
`, hop), nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &checker{p: p, cfg: cfg}
	c.hops(t.Context())
	c.routes()
	if err := c.print(false); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(strings.ReplaceAll(out.String(), hop, "HOP")) {
		if id, what, _ := strings.Cut(line, "  ok       "); id == "CG0402" || id == "CG0405" {
			got = append(got, strings.TrimSpace(what))
		}
	}
	want := []string{
		"next hop smtp://HOP takes mail for parks@city.example",
		"next hop smtp://HOP takes mail for 311@city.example",
		"next hop smtp://HOP takes mail for postmaster@example.com",
		"inbound mail from someone@example.net for 311@city.example goes to smtp://HOP",
		"inbound mail from someone@example.net for parks@city.example goes to smtp://HOP",
		"outbound mail from 311@city.example for someone@example.net goes to smtp://HOP",
		"outbound mail from parks@city.example for someone@example.net goes to smtp://HOP",
		"inbound mail from <> for 311@city.example stays on its case",
		"outbound mail from <> for someone@example.net goes to smtp://127.0.0.1:1",
		"outbound mail from parks@city.example for someone@near.example goes to smtp://127.0.0.1:2",
		"outbound mail from someone@mail.city.example for someone@example.net goes to smtp://127.0.0.1:3",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want - got +\n%s", diff)
	}
}

// TestCheckListeners: what a daemon that runs has, and what it would need a
// restart for.
func TestCheckListeners(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free := testbed.Free(t, 1)[0]
	for _, c := range []struct {
		alive bool
		want  string
	}{
		{true, "ok listener a: TAKEN belongs to the running daemon\nwarning listener b: nobody listens on FREE\nok listener c: unix:/run/x belongs to the running daemon\n"},
		{false, "error listener a: listen tcp TAKEN: bind: address already in use\nok listener b: FREE is free\nok listener c: unix:/run/x is made at the start\n"},
	} {
		p, _, _ := testProgram(t)
		cfg, err := parseConfig("x", fmt.Appendf(nil, `
listeners:
  - {name: a, role: inbound, protocol: smtp, address: %q, peers: [127.0.0.1]}
  - {name: b, role: inbound, protocol: smtp, address: %q, peers: [127.0.0.1]}
  - {name: c, role: inbound, protocol: lmtp, address: unix:/run/x}
`, taken.Addr(), free), nil)
		if err != nil {
			t.Fatal(err)
		}
		ch := &checker{p: p, cfg: cfg, alive: c.alive}
		ch.listeners()
		got := ""
		for _, f := range ch.found {
			got += f.Level + " " + f.What + "\n"
		}
		want := strings.NewReplacer("TAKEN", taken.Addr().String(), "FREE", free).Replace(c.want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("alive %v: want - got +\n%s", c.alive, diff)
		}
	}
}
