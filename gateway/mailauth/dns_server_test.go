package mailauth

import (
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// serveDNS answers TXT questions on loopback by the first label of a name.
func serveDNS(t *testing.T) (address string) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, peer, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			label, _, _ := strings.Cut(q.Name.String(), ".")
			a := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true}, Questions: m.Questions}
			head := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}
			switch label {
			case "silent":
				continue
			case "nowhere":
				a.RCode = dnsmessage.RCodeNameError
			case "servfail":
				a.RCode = dnsmessage.RCodeServerFailure
			case "refused":
				a.RCode = dnsmessage.RCodeRefused
			case "alias":
				head.Type = dnsmessage.TypeCNAME
				a.Answers = []dnsmessage.Resource{{Header: head, Body: &dnsmessage.CNAMEResource{CNAME: q.Name}}}
			case "parts":
				a.Answers = []dnsmessage.Resource{{Header: head, Body: &dnsmessage.TXTResource{TXT: []string{"one", "two"}}}}
			}
			packed, err := a.Pack()
			if err == nil {
				conn.WriteTo(packed, peer)
			}
		}
	}()
	return conn.LocalAddr().String()
}

// A real resolver at a configured address, with its real errors.
func TestResolverAtServer(t *testing.T) {
	l := &lookups{ctx: t.Context(), resolver: NewResolver(serveDNS(t)), now: time.Now, shared: &dns{}, left: 100}
	for name, want := range map[string]error{
		"parts.city.example": nil, "nowhere.city.example": errVoid, "empty.city.example": errVoid, "alias.city.example": errVoid,
		"servfail.city.example": errTemporary, "refused.city.example": errPermanent, "a..b": errVoid, "": errVoid,
	} {
		records, err := l.ask(txt, name)
		if err != want && (want != errPermanent || err != errTemporary) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		if err == nil && (len(records) != 1 || records[0] != "onetwo") {
			t.Errorf("%s: %q", name, records)
		}
	}
	checker := &Checker{Resolver: l.resolver, Budget: Budget{Time: 200 * time.Millisecond}}
	v, took := run(t, checker, ask{ip: theirs, mailFrom: "a@silent.city.example", from: "city.example"})
	if v.SPF != TempError || took > 2*time.Second {
		t.Errorf("%v %+v", took, v)
	}
}
