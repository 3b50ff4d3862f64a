package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/casegate/casegate/gateway/mailauth"
	"github.com/casegate/casegate/gateway/message"
)

// dnsServer is a real DNS server on loopback, over UDP, with TXT records only.
type dnsServer struct {
	address string

	mu      sync.Mutex
	records map[string]string // by name; of all others there are none
	silent  bool
	broken  bool // it answers SERVFAIL
	asked   int
}

func startDNS(t testing.TB) *dnsServer {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dnsServer{address: conn.LocalAddr().String(), records: map[string]string{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, peer, err := conn.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if answer := s.answer(buf[:n]); answer != nil {
				conn.WriteTo(answer, peer)
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return s
}

func (s *dnsServer) answer(question []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 || s.silent {
		return nil
	}
	q := m.Questions[0]
	a := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true}, Questions: m.Questions}
	record, known := s.records[strings.TrimSuffix(strings.ToLower(q.Name.String()), ".")]
	switch {
	case s.broken:
		a.RCode = dnsmessage.RCodeServerFailure
	case !known:
		a.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeTXT:
		txt := &dnsmessage.TXTResource{}
		for ; len(record) > 255; record = record[255:] {
			txt.TXT = append(txt.TXT, record[:255])
		}
		txt.TXT = append(txt.TXT, record)
		a.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}, Body: txt}}
	}
	packed, _ := a.Pack()
	return packed
}

func (s *dnsServer) set(name, record string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[strings.ToLower(name)] = record
}

func (s *dnsServer) questions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// How a scene tells of the DNS.

// dnsSays puts records in: a name, and what its TXT record says.
func (s *stage) dnsSays(_, block []string) error {
	for _, line := range block {
		name, record, ok := strings.Cut(line, " ")
		if !ok {
			return fmt.Errorf("%q is not a name and what it says", line)
		}
		s.dns.set(name, strings.TrimSpace(record))
	}
	return nil
}

func (s *stage) dnsIs(args, _ []string) error {
	s.dns.mu.Lock()
	defer s.dns.mu.Unlock()
	s.dns.silent, s.dns.broken = args[0] == "silent", args[0] == "out"
	return nil
}

// dnsAsked looks whether anything was asked since it last looked.
func (s *stage) dnsAsked(args, _ []string) error {
	n := s.dns.questions() - s.asked
	s.asked += n
	if (n == 0) != (args[0] == "nothing more") {
		return wrongf("it was asked %d questions", n)
	}
	return nil
}

// signer is one for a domain whose public key the DNS has.
func (s *stage) signer(domain string) (*mailauth.Signer, error) {
	if s.signers[domain] == nil {
		_, key, err := mailauth.KeyGen("ed25519", 0, domain, "scene")
		if err != nil {
			return nil, err
		}
		s.dns.set(key.RecordName(), strings.Join(key.Record(), ""))
		if s.signers[domain], err = mailauth.NewSigner(key); err != nil {
			return nil, err
		}
	}
	return s.signers[domain], nil
}

// signMail puts a DKIM signature of a domain on a mail.
func (s *stage) signMail(m *sentMail, domain string) error {
	return s.putOn(m, domain, (*mailauth.Signer).Sign)
}

// sealMail puts a first ARC set of a domain on a mail, as a mailing list does.
func (s *stage) sealMail(m *sentMail, domain string) error {
	return s.putOn(m, domain, func(signer *mailauth.Signer, header []byte, sum mailauth.BodyHash) ([]byte, error) {
		return signer.Seal(header, sum, mailauth.None, "mx."+domain+"; none")
	})
}

// putOn puts on top of a mail what the signer of a domain makes for it; without
// a domain nothing.
func (s *stage) putOn(m *sentMail, domain string, sign func(*mailauth.Signer, []byte, mailauth.BodyHash) ([]byte, error)) error {
	if domain == "" {
		return nil
	}
	signer, err := s.signer(domain)
	if err != nil {
		return err
	}
	header, body := inParts(m.eml)
	sum, err := mailauth.HashBody(s.t.Context(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	fields, err := sign(signer, header, sum)
	m.eml = append(fields, m.eml...)
	return err
}

// inParts cuts a mail behind its header.
func inParts(eml []byte) (header, body []byte) {
	header, body, _ = bytes.Cut(eml, []byte("\r\n\r\n"))
	return append(bytes.Clone(header), "\r\n\r\n"...), body
}

// makeKey makes a key for the gateway to sign with, and publishes its record.
func (s *stage) makeKey() {
	text, key, err := mailauth.KeyGen("ed25519", 0, "city.example", "scene")
	if err == nil {
		err = os.WriteFile(s.keyFile(), text, 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.dns.set(key.RecordName(), strings.Join(key.Record(), ""))
}

func (s *stage) keyFile() string { return filepath.Join(s.dir, "dkim.key") }

// found is what who gets a mail finds out of it.
func (s *stage) found(m eml, domain string) mailauth.Verdict {
	header, body := inParts(m.raw)
	checker := mailauth.Checker{Resolver: mailauth.NewResolver(s.dns.address)}
	return checker.Check(s.t.Context(), mailauth.CheckRequest{FromDomain: domain, Header: message.Parse(header), Body: bytes.NewReader(body), Chain: true})
}

// signedBy looks at the signature of a domain on a mail as who gets it does.
func (s *stage) signedBy(m eml, domain string) error {
	if v := s.found(m, domain); v.DKIM != mailauth.Pass || v.DKIMDomain != domain {
		return fmt.Errorf("no signature of %s verifies: %s", domain, v.Words)
	}
	return nil
}

// sealedBy looks at the ARC chain: all of it verifies, and the last seal is of a
// domain.
func (s *stage) sealedBy(m eml, domain string) error {
	if v := s.found(m, domain); v.ARC != mailauth.Pass || v.ARCDomain != domain {
		return fmt.Errorf("no seal of %s verifies: %s", domain, v.Words)
	}
	return nil
}
