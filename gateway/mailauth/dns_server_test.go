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

// Of two servers the one that answers is asked, and goes on to be asked first.
func TestResolverFailsOver(t *testing.T) {
	t.Parallel()
	mute, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	r := NewResolver(mute.LocalAddr().String(), serveDNS(t))
	for i, most := range []time.Duration{patience + time.Second, patience / 2} {
		start := time.Now()
		records, err := r.LookupTXT(t.Context(), "parts.city.example.")
		if took := time.Since(start); err != nil || len(records) != 1 || took > most {
			t.Errorf("question %d: %q, %v after %v", i+1, records, err, took)
		}
	}
	if !Answers(t.Context(), r, "nowhere.city.example") || !Answers(t.Context(), r, "empty.city.example.") {
		t.Error("no such name is an answer")
	}
	if Answers(t.Context(), NewResolver("127.0.0.1:1"), "parts.city.example") {
		t.Error("nobody is there")
	}
}

// The system's servers are not waited for as long as resolv.conf says.
func TestSystemResolverIsHasty(t *testing.T) {
	t.Parallel()
	mute, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	c, err := systemResolver().(*net.Resolver).Dial(t.Context(), "udp", mute.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, ok := c.(net.PacketConn); !ok {
		t.Fatalf("%T would be spoken to as over TCP", c)
	}
	c.SetDeadline(time.Now().Add(time.Hour))
	start := time.Now()
	if _, err := c.Read(make([]byte, 1)); err == nil || time.Since(start) > 2*patience {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}
