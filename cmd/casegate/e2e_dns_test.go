package main

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway/console"
)

// TestCorpusWithoutDNS sends the corpus to a listener that checks senders while
// its DNS server says nothing, is not there, or knows nobody: nothing is put off
// for that or takes long, and nobody is forged.
func TestCorpusWithoutDNS(t *testing.T) {
	mails := corpusWay{}.prepare(corpus(t))
	mute, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mute.Close() })
	for name, server := range map[string]string{"silent": mute.LocalAddr().String(), "not there": "127.0.0.1:1", "empty": startDNS(t).address} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, rigOptions{listeners: fmt.Sprintf(`  - {name: check, role: inbound, protocol: smtp, address: 127.0.0.1:0, peers: [127.0.0.0/8], trust: [xforward], authentication: check}
dns: {servers: ["%s"], timeout: 300ms}
`, server)})
			r.start()
			c, err := dialWire(r.at("check"), false)
			if err != nil {
				t.Fatal(err)
			}
			defer c.conn.Close()
			refused, slowest := 0, time.Duration(0)
			for _, name := range (&corpusRun{mails: mails}).names() {
				c.conn.SetDeadline(time.Now().Add(time.Minute))
				began := time.Now()
				reply, err := c.say("XFORWARD ADDR=198.51.100.7 HELO=mail.example.net")
				if err == nil && strings.HasPrefix(reply, "250") {
					reply, err = (&sender{conn: c}).deliver("client@example.net", rigMailbox, mails[name])
				}
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				slowest = max(slowest, time.Since(began))
				switch reply[0] {
				case '2':
				case '5':
					refused++
				default:
					t.Errorf("%s: %s", name, reply)
				}
			}
			t.Logf("%d mails, %d refused, the slowest took %v", len(mails), refused, slowest)
			if 100*refused > len(mails) {
				t.Errorf("%d were refused", refused)
			}
			if slowest > 10*time.Second { // 300 ms, a second to see whether the DNS is out, and a busy machine
				t.Errorf("the slowest took %v", slowest)
			}
			if list := rows[console.Case](r, "/cases", url.Values{"queue": {"unverified"}}); len(list) > 0 {
				t.Errorf("%d senders were forged", len(list))
			}
			r.verify()
		})
	}
}
