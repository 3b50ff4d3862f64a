package relay

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/casegate/casegate/store"
)

// authority issues certificates for 127.0.0.1.
type authority struct {
	testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // in PEM
}

func newAuthority(t testing.TB) *authority {
	a := &authority{TB: t, file: filepath.Join(t.TempDir(), "ca.pem")}
	a.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(a.file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

// issue makes a certificate with a new key, and its pin.
func (a *authority) issue(edit func(*x509.Certificate)) (c tls.Certificate, pin string) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "mx.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if edit != nil {
		edit(leaf)
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.cert, key.Public(), a.key)
	if err != nil {
		a.Fatal(err)
	}
	spki, _ := x509.MarshalPKIXPublicKey(key.Public())
	sum := sha256.Sum256(spki)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, hex.EncodeToString(sum[:])
}

func serverTLS(c tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{c}} }

// tried sends one mail by a route and returns the row after the first attempt.
func tried(t *testing.T, rt Route) store.Delivery {
	t.Helper()
	m := newMemory()
	id := m.add(eml, time.Now(), "ana@x.example")
	rt.Role = "outbound"
	_, stop := run(t, m, Options{Routes: []Route{rt}})
	until(t, "it is tried", func() bool { return len(m.get(id).Attempts) > 0 })
	stop()
	return m.get(id)
}

func TestTLSModes(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	good, pin := ca.issue(nil)
	expired, expiredPin := ca.issue(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	elsewhere, _ := ca.issue(func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)} })
	for _, c := range []struct {
		name  string
		cert  tls.Certificate
		route Route
		trust string // "": in the clear
		err   string // "": delivered
	}{
		{"none", good, Route{TLS: TLSNone}, "", ""},
		{"opportunistic", good, Route{TLS: TLSOpportunistic}, "unverified", ""},
		{"require", expired, Route{TLS: TLSRequire}, "unverified", ""},
		{"verify", good, Route{TLS: TLSVerify, TLSCA: ca.file}, "verified", ""},
		{"verify, another CA", good, Route{TLS: TLSVerify, TLSCA: other.file}, "", "unknown authority"},
		{"verify, the system's CAs", good, Route{TLS: TLSVerify}, "", "unknown authority"},
		{"verify, expired", expired, Route{TLS: TLSVerify, TLSCA: ca.file}, "", "expired"},
		{"verify, made out to another", elsewhere, Route{TLS: TLSVerify, TLSCA: ca.file}, "", "not 127.0.0.1"},
		{"pin", good, Route{TLS: TLSPin, TLSPin: []string{expiredPin, strings.ToUpper(pin)}}, "pinned", ""},
		{"pin, expired all the same", expired, Route{TLS: TLSPin, TLSPin: []string{expiredPin}}, "pinned", ""},
		{"pin, another key", good, Route{TLS: TLSPin, TLSPin: []string{expiredPin}}, "", "its key is " + pin + ", which is not pinned"},
	} {
		for _, scheme := range []string{"smtp", "lmtp", "smtps"} {
			if scheme == "smtps" && (c.route.TLS == TLSNone || c.route.TLS == TLSOpportunistic) {
				continue
			}
			t.Run(c.name+" "+scheme, func(t *testing.T) {
				s := newSink(t, scheme, func(srv *smtp.Server) { srv.TLSConfig = serverTLS(c.cert) })
				rt := c.route
				rt.NextHop = s.nextHop
				d := tried(t, rt)
				a := d.Attempts[0]
				if c.err != "" {
					if d.State != store.Queued || !strings.HasPrefix(a.Reply, "4.4.1 TLS: the next hop's certificate is not the one expected: ") || !strings.Contains(a.Reply, c.err) || a.TLS != nil || len(s.from) > 0 {
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
		if d.State != state || state == store.Queued && (d.Attempts[0].Reply != "4.4.1 STARTTLS is not offered, and tls is "+mode || len(s.from) > 0) {
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
	if d.State != store.Queued || d.Attempts[0].Reply != "4.4.1 TLS: 14 octets came in the clear behind the answer to STARTTLS" {
		t.Errorf("%+v", d)
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
	if d.State != store.Queued || d.Attempts[0].Reply != "4.4.1 the answer to STARTTLS is 454 4.7.0 not now, and tls is require" {
		t.Errorf("%+v", d)
	}
	if got := fmt.Sprint(lines()); strings.Contains(got, "MAIL") {
		t.Error(got)
	}
}

// TestCertificateChanges: mail waits until somebody has looked, and goes when
// the new key is pinned.
func TestCertificateChanges(t *testing.T) {
	ca := newAuthority(t)
	old, oldPin := ca.issue(nil)
	renewed, newPin := ca.issue(nil)
	now := old
	s := newSink(t, "smtp", func(srv *smtp.Server) {
		srv.TLSConfig = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &now, nil }}
	})
	route := func(pins ...string) []Route {
		return []Route{{Role: "outbound", NextHop: s.nextHop, TLS: TLSPin, TLSPin: pins}}
	}
	m := newMemory()
	one := m.add(eml, time.Now(), "ana@x.example")
	r, stop := run(t, m, Options{Routes: route(oldPin), Idle: time.Millisecond, Retry: []time.Duration{50 * time.Millisecond}, Logger: slog.New(slog.DiscardHandler)})
	until(t, "the first is delivered", func() bool { return m.get(one).State == store.Delivered })
	time.Sleep(20 * time.Millisecond) // its session is ended
	now = renewed
	two := m.add(eml, time.Now(), "ana@x.example")
	r.Wake()
	until(t, "the second is tried", func() bool { return len(m.get(two).Attempts) > 0 })
	if a := m.get(two).Attempts[0]; a.Result != "deferred" || !strings.Contains(a.Reply, newPin) {
		t.Errorf("%+v", a)
	}
	if err := r.SetRoutes(route(oldPin, newPin)); err != nil {
		t.Fatal(err)
	}
	until(t, "the second is delivered", func() bool { return m.get(two).State == store.Delivered })
	stop()
	if a := m.get(two).Attempts; a[len(a)-1].TLS.Pin != newPin {
		t.Errorf("%+v", a)
	}
}
