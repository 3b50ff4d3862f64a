package relay

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/casegate/casegate/gateway/testbed"
	"github.com/casegate/casegate/store"
)

// tried is attempt for some mail.
func tried(t *testing.T, rt Route) store.Delivery {
	t.Helper()
	return attempt(t, rt, eml, nil, "ana@x.example")
}

func TestTLSModes(t *testing.T) {
	ca, other := testbed.NewAuthority(t), testbed.NewAuthority(t)
	good := ca.Issue(nil)
	expired := ca.Issue(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	elsewhere := ca.Issue(func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)} })
	for _, c := range []struct {
		name  string
		cert  *testbed.Certificate
		route Route
		trust string // "": in the clear
		err   string // "": delivered
	}{
		{"none", good, Route{TLS: TLSNone}, "", ""},
		{"opportunistic", good, Route{TLS: TLSOpportunistic}, "unverified", ""},
		{"require", expired, Route{TLS: TLSRequire}, "unverified", ""},
		{"verify", good, Route{TLS: TLSVerify, TLSCA: ca.File}, "verified", ""},
		{"verify, another CA", good, Route{TLS: TLSVerify, TLSCA: other.File}, "", "unknown authority"},
		{"verify, the system's CAs", good, Route{TLS: TLSVerify}, "", "unknown authority"},
		{"verify, expired", expired, Route{TLS: TLSVerify, TLSCA: ca.File}, "", "expired"},
		{"verify, made out to another", elsewhere, Route{TLS: TLSVerify, TLSCA: ca.File}, "", "not 127.0.0.1"},
		{"pin", good, Route{TLS: TLSPin, TLSPin: []string{expired.Pin, strings.ToUpper(good.Pin)}}, "pinned", ""},
		{"pin, expired all the same", expired, Route{TLS: TLSPin, TLSPin: []string{expired.Pin}}, "pinned", ""},
		{"pin, another key", good, Route{TLS: TLSPin, TLSPin: []string{expired.Pin}}, "", "its key is " + good.Pin + ", which is not pinned"},
	} {
		for _, scheme := range []string{"smtp", "lmtp", "smtps"} {
			if scheme == "smtps" && (c.route.TLS == TLSNone || c.route.TLS == TLSOpportunistic) {
				continue
			}
			t.Run(c.name+" "+scheme, func(t *testing.T) {
				s := newSink(t, scheme, func(srv *smtp.Server) { srv.TLSConfig = c.cert.Server() })
				rt := c.route
				rt.NextHop = s.nextHop
				d := tried(t, rt)
				a := d.Attempts[0]
				if c.err != "" {
					if d.State != store.Queued || !strings.HasPrefix(a.Reply, "4.7.5 TLS: the next hop's certificate is not the one expected: ") || !strings.Contains(a.Reply, c.err) || a.TLS != nil || len(s.from) > 0 {
						t.Errorf("%+v", d)
					}
					return
				}
				if d.State != store.Delivered || len(s.got("ana@x.example")) != 1 {
					t.Errorf("%+v", d)
				}
				if (a.TLS == nil) != (c.trust == "") || a.TLS != nil && (a.TLS.Trust != c.trust || a.TLS.Version != "TLS 1.3" || a.TLS.Peer != "127.0.0.1" || len(a.TLS.Pin) != 64) {
					t.Errorf("%+v", a.TLS)
				}
			})
		}
	}
}

// TestStrippedSTARTTLS: a next hop that says it has no TLS may not be the next
// hop.
func TestStrippedSTARTTLS(t *testing.T) {
	for mode, state := range map[string]store.DeliveryState{
		TLSOpportunistic: store.Delivered, TLSRequire: store.Queued, TLSVerify: store.Queued, TLSPin: store.Queued,
	} {
		s := newSink(t, "smtp", nil)
		rt := Route{NextHop: s.nextHop, TLS: mode}
		if mode == TLSPin {
			rt.TLSPin = []string{strings.Repeat("ab", 32)}
		}
		d := tried(t, rt)
		if d.State != state || state == store.Queued && (d.Attempts[0].Reply != "4.7.4 STARTTLS is not offered, and tls is "+mode || len(s.from) > 0) {
			t.Errorf("%s: %+v", mode, d)
		}
	}
}

// scripted answers each line with the next text, on every connection.
func scripted(t *testing.T, greeting string, texts ...string) (nextHop string, lines func() []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got, done := make(chan string, 1000), make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, greeting+"\r\n")
			r := bufio.NewReader(c)
			for _, text := range texts {
				line, err := r.ReadString('\n')
				if err != nil {
					break
				}
				got <- strings.TrimSpace(line)
				io.WriteString(c, text+"\r\n")
			}
			c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			rest, _ := io.ReadAll(r)
			got <- fmt.Sprintf("%.3q", rest)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return "smtp://" + l.Addr().String(), func() (list []string) {
		for {
			select {
			case line := <-got:
				list = append(list, line)
			default:
				return list
			}
		}
	}
}

// TestSTARTTLSInjection (security, Wire 5): what comes in the clear behind the
// answer to STARTTLS is never taken for the next hop's.
func TestSTARTTLSInjection(t *testing.T) {
	nextHop, _ := scripted(t, "220 hi", "250-mx\r\n250 STARTTLS", "220 go\r\n250 injected")
	d := tried(t, Route{NextHop: nextHop, TLS: TLSRequire})
	if d.State != store.Queued || d.Attempts[0].Reply != "4.7.5 TLS: 14 octets came in the clear behind the answer to STARTTLS" {
		t.Errorf("%+v", d)
	}
}

// TestCertificateOfManyNames: what a certificate that will not do is made out to
// is a stranger's word: little of it is kept, and none of its controls; the key,
// which somebody may want to pin, is kept whole.
func TestCertificateOfManyNames(t *testing.T) {
	ca := testbed.NewAuthority(t)
	cert := ca.Issue(func(c *x509.Certificate) {
		c.DNSNames = append([]string{strings.Repeat("\r\nX-Evil: 1\x1b", 50)}, slices.Repeat([]string{strings.Repeat("x", 2000)}, 50)...)
	})
	s := newSink(t, "smtp", func(srv *smtp.Server) { srv.TLSConfig = cert.Server() })
	a := tried(t, Route{NextHop: strings.Replace(s.nextHop, "127.0.0.1", "localhost", 1), TLS: TLSVerify, TLSCA: ca.File}).Attempts[0]
	if a.Result != "deferred" || len(a.Reply) > maxReplyText || !strings.Contains(a.Reply, `: x509: certificate is valid for \x0d\x0aX-Evil: 1\x1b`) || !strings.HasSuffix(a.Reply, " (its key is "+cert.Pin+")") {
		t.Errorf("%d octets: %.300q", len(a.Reply), a.Reply)
	}
}

// TestOpportunisticFallsBack: TLS that doesn't work is no reason to keep mail
// for which none was asked.
func TestOpportunisticFallsBack(t *testing.T) {
	s := newSink(t, "smtp", func(srv *smtp.Server) {
		srv.TLSConfig = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, io.EOF }}
	})
	if d := tried(t, Route{NextHop: s.nextHop, TLS: TLSOpportunistic}); d.State != store.Delivered || d.Attempts[0].TLS != nil {
		t.Errorf("%+v", d)
	}
	if d := tried(t, Route{NextHop: s.nextHop, TLS: TLSRequire}); d.State != store.Queued {
		t.Errorf("%+v", d)
	}
}

// TestSTARTTLSRefused: 454, as a next hop says that is out of order.
func TestSTARTTLSRefused(t *testing.T) {
	nextHop, lines := scripted(t, "220 hi", "250-mx\r\n250 STARTTLS", "454 4.7.0 not now")
	d := tried(t, Route{NextHop: nextHop, TLS: TLSRequire})
	if d.State != store.Queued || d.Attempts[0].Reply != "4.7.4 the answer to STARTTLS is 454 4.7.0 not now, and tls is require" {
		t.Errorf("%+v", d)
	}
	if got := fmt.Sprint(lines()); strings.Contains(got, "MAIL") {
		t.Error(got)
	}
}

// TestCertificateChanges: mail waits until somebody has looked, and goes when
// the new key is pinned.
func TestCertificateChanges(t *testing.T) {
	ca := testbed.NewAuthority(t)
	old, renewed := ca.Issue(nil), ca.Issue(nil)
	now := old
	s := newSink(t, "smtp", func(srv *smtp.Server) {
		srv.TLSConfig = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &now.Certificate, nil }}
	})
	route := func(pins ...string) []Route {
		return []Route{{Role: "outbound", NextHop: s.nextHop, TLS: TLSPin, TLSPin: pins}}
	}
	m := newMemory()
	one := m.add(eml, time.Now(), "ana@x.example")
	r, stop := run(t, m, Options{Routes: route(old.Pin), Idle: time.Millisecond, Retry: []time.Duration{50 * time.Millisecond}, Logger: slog.New(slog.DiscardHandler)})
	testbed.Until(t, "the first is delivered", func() bool { return m.get(one).State == store.Delivered })
	time.Sleep(20 * time.Millisecond) // its session is ended
	now = renewed
	two := m.add(eml, time.Now(), "ana@x.example")
	r.Wake()
	testbed.Until(t, "the second is tried", func() bool { return len(m.get(two).Attempts) > 0 })
	if a := m.get(two).Attempts[0]; a.Result != "deferred" || !strings.Contains(a.Reply, renewed.Pin) {
		t.Errorf("%+v", a)
	}
	if err := r.SetRoutes(route(old.Pin, renewed.Pin)); err != nil {
		t.Fatal(err)
	}
	testbed.Until(t, "the second is delivered", func() bool { return m.get(two).State == store.Delivered })
	stop()
	if a := m.get(two).Attempts; a[len(a)-1].TLS.Pin != renewed.Pin {
		t.Errorf("%+v", a)
	}
}
