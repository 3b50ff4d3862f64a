package gateway

import (
	"net/netip"
	"testing"
)

// Whose address SPF is about: the sender's own server where it is known, and
// never a machine of ours.
func TestClientOfSPF(t *testing.T) {
	const theirs, relay = "198.51.100.7", "203.0.113.9"
	at := netip.MustParseAddr
	for name, c := range map[string]struct {
		intake Intake
		env    Envelope
		addr   string // empty: not known
		helo   string
	}{
		"a border":                          {Intake{Border: true}, Envelope{Peer: at(theirs), Helo: "mail.x"}, theirs, "mail.x"},
		"a border, IPv6":                    {Intake{Border: true}, Envelope{Peer: at("2001:db8::7"), Helo: "mail.x"}, "2001:db8::7", "mail.x"},
		"a border, mapped":                  {Intake{Border: true}, Envelope{Peer: at("::ffff:" + theirs), Helo: "mail.x"}, theirs, "mail.x"},
		"a relay that tells nothing":        {Intake{}, Envelope{Peer: at(relay), Helo: "relay"}, "", "relay"},
		"a relay that tells (XFORWARD)":     {Intake{}, Envelope{Peer: at(relay), Helo: "relay", Client: Client{Addr: at(theirs), Helo: "mail.x"}}, theirs, "mail.x"},
		"XFORWARD without an address":       {Intake{}, Envelope{Peer: at(relay), Helo: "relay", Client: Client{Source: "LOCAL"}}, "", "relay"},
		"the same, from whom XCLIENT names": {Intake{}, Envelope{Peer: at(relay), PeerNamed: true, Helo: "relay", Client: Client{Source: "LOCAL"}}, "", "relay"},
		"PROXY or XCLIENT":                  {Intake{}, Envelope{Peer: at(theirs), PeerNamed: true, Helo: "mail.x"}, theirs, "mail.x"},
		"XCLIENT does not know":             {Intake{}, Envelope{PeerNamed: true, Helo: "mail.x"}, "", "mail.x"},
		"a UNIX socket":                     {Intake{Border: true}, Envelope{Helo: "relay"}, "", "relay"},
		"behind NAT, 10.x":                  {Intake{Border: true}, Envelope{Peer: at("10.1.2.3"), Helo: "mail.x"}, "", "mail.x"},
		"behind NAT, fd00::":                {Intake{Border: true}, Envelope{Peer: at("fd00::7"), Helo: "mail.x"}, "", "mail.x"},
		"loopback":                          {Intake{Border: true}, Envelope{Peer: at("127.0.0.1"), Helo: "mail.x"}, "", "mail.x"},
		"a relay's word about itself":       {Intake{}, Envelope{Peer: at(relay), Helo: "relay", Client: Client{Addr: at("127.0.0.1"), Helo: "localhost"}}, "", "localhost"},
	} {
		addr, helo := (&inbound{Intake: c.intake}).client(&c.env)
		if want, _ := netip.ParseAddr(c.addr); addr != want || helo != c.helo {
			t.Errorf("%s: %v %q, want %q %q", name, addr, helo, c.addr, c.helo)
		}
	}
}
