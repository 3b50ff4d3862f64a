package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casegate/casegate/store"
)

// agents is an Authenticator that doesn't hash.
type agents map[string]string

var desk = agents{"kim@city.example": "correct horse", "ann@city.example": ""}

func (a agents) Password(_ context.Context, _ netip.Addr, login, password string) (string, error) {
	if known, ok := a[store.Key(login)]; !ok || known == "" || known != password {
		return "", errCredentials
	}
	return store.Key(login), nil
}

func (a agents) Agent(_ context.Context, login string) (string, error) {
	if _, ok := a[store.Key(login)]; !ok {
		return "", errCredentials
	}
	return store.Key(login), nil
}

func base64Of(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// plainFor is the PLAIN response of a login.
func plainFor(login, password string) string { return base64Of("\x00" + login + "\x00" + password) }

// hashed is a Lookup over hashes; what lies in broken fails.
func hashed(t testing.TB) Lookup {
	t.Helper()
	hash, err := HashPassword("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	return func(_ context.Context, login string) (string, string, error) {
		switch store.Key(login) {
		case "kim@city.example":
			return "Kim@city.example", hash, nil
		case "ann@city.example":
			return "ann@city.example", "", nil
		case "odd@city.example":
			return "odd@city.example", "$argon2id$v=19$m=99999999,t=99,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", nil
		case "broken@city.example":
			return "", "", errors.New("secret: the store is gone")
		}
		return "", "", nil
	}
}

// countedLogins counts how often passwords are hashed.
func countedLogins(t testing.TB) (*Logins, *atomic.Int64) {
	l, n := NewLogins(hashed(t)), new(atomic.Int64)
	hash := l.hash
	l.hash = func(p argon, password string) []byte {
		n.Add(1)
		if p.kib != argonKiB || p.passes != argonPasses {
			t.Errorf("hashed with m=%d, t=%d", p.kib, p.passes)
		}
		return hash(p, password)
	}
	return l, n
}

var peer7 = netip.MustParseAddr("192.0.2.7")

// TestEveryLoginHashesOnce: the time an answer takes tells nothing of who is an
// agent, and has a password.
func TestEveryLoginHashesOnce(t *testing.T) {
	l, hashes := countedLogins(t)
	for _, x := range []struct{ login, password string }{
		{"kim@city.example", "wrong horse"},
		{"kim@city.example", ""},
		{"ann@city.example", "correct horse"},
		{"odd@city.example", "correct horse"},
		{"nobody@city.example", "correct horse"},
		{"", ""},
		{strings.Repeat("x", 5000), "correct horse"},
	} {
		hashes.Store(0)
		_, err := l.Password(context.Background(), peer7, x.login, x.password)
		if err != errCredentials || hashes.Load() != 1 {
			t.Errorf("%.40q: %v after %d hashes", x.login, err, hashes.Load())
		}
	}
	hashes.Store(0)
	for _, login := range []string{"kim@city.example", "KIM@City.Example"} {
		if who, err := l.Password(context.Background(), peer7, login, "correct horse"); who != "Kim@city.example" || err != nil {
			t.Errorf("%q, %v", who, err)
		}
	}
	if hashes.Load() != 2 {
		t.Errorf("%d hashes", hashes.Load())
	}
}

// TestBackOff: who fails often waits, and is not even hashed for; another login
// from elsewhere doesn't.
func TestBackOff(t *testing.T) {
	l, hashes := countedLogins(t)
	now := time.Unix(1e9, 0)
	l.now = func() time.Time { return now }
	l.hash = func(p argon, _ string) []byte { hashes.Add(1); return nil }
	try := func(from, login string) error {
		_, err := l.Password(context.Background(), netip.MustParseAddr(from), login, "x")
		return err
	}
	for range l.logins.free + 1 {
		if err := try("192.0.2.1", "kim@city.example"); err != errCredentials {
			t.Fatal(err)
		}
	}
	hashes.Store(0)
	if err := try("192.0.2.2", "Kim@City.example"); err != errTooMany || hashes.Load() != 0 {
		t.Errorf("a login that failed too often: %v, %d hashes", err, hashes.Load())
	}
	if err := try("192.0.2.2", "ann@city.example"); err != errCredentials {
		t.Errorf("another login: %v", err)
	}
	now = now.Add(time.Second)
	if err := try("192.0.2.2", "kim@city.example"); err != errCredentials {
		t.Errorf("after a second: %v", err)
	}
	now = now.Add(time.Second)
	if err := try("192.0.2.2", "kim@city.example"); err != errTooMany {
		t.Errorf("a second is too short now: %v", err)
	}
	now = now.Add(time.Hour)
	for i := range l.peers.free + 1 {
		if err := try(fmt.Sprintf("2001:db8::%x", i), fmt.Sprintf("a%d@city.example", i)); err != errCredentials {
			t.Fatal(err)
		}
	}
	if err := try("2001:db8::ffff:1", "new@city.example"); err != errTooMany {
		t.Errorf("a neighbour in the same /64: %v", err)
	}
	if err := try("2001:db8:0:1::1", "new@city.example"); err != errCredentials {
		t.Errorf("another network: %v", err)
	}
}

// TestBackOffIsBounded: its memory doesn't grow with those who fail.
func TestBackOffIsBounded(t *testing.T) {
	b := backoff{free: 1, most: time.Minute}
	now := time.Unix(1e9, 0)
	for i := range backoffKeys + 500 {
		b.fail(fmt.Sprint(i), now)
	}
	if n := len(b.failed); n > backoffKeys {
		t.Errorf("%d keys", n)
	}
	b.fail("late", now.Add(backoffForget+time.Second))
	if n := len(b.failed); n != 1 {
		t.Errorf("%d keys, the old ones are no use", n)
	}
	for range 100 {
		b.fail("late", now)
	}
	if b.blocked("late", now.Add(b.most)) || !b.blocked("late", now.Add(b.most-1)) {
		t.Error("the wait is not the most")
	}
}

// TestHashersAreBounded: many logins at a time wait for each other, and those
// whose connection ends give up.
func TestHashersAreBounded(t *testing.T) {
	l, _ := countedLogins(t)
	var now, most atomic.Int64
	release := make(chan struct{})
	l.hash = func(argon, string) []byte {
		most.Store(max(most.Load(), now.Add(1)))
		<-release
		now.Add(-1)
		return nil
	}
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() { l.Password(context.Background(), peer7, fmt.Sprintf("a%d@city.example", i), "x") })
	}
	for now.Load() < hashers {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := l.Password(ctx, peer7, "late@city.example", "x"); err != errHashersBusy {
		t.Errorf("a connection that ended: %v", err)
	}
	close(release)
	all.Wait()
	if most.Load() > hashers {
		t.Errorf("%d at a time", most.Load())
	}
}

func TestHashPassword(t *testing.T) {
	for _, bad := range []string{"", "short", strings.Repeat("x", 1025), "new\r\nline", "bad utf-8 \xff"} {
		if _, err := HashPassword(bad); err == nil {
			t.Errorf("%.20q was taken", bad)
		}
	}
	one, _ := HashPassword("Zoe\u0308 correct") // e and a diaeresis
	two, _ := HashPassword("Zo\u00eb correct")
	if one == two {
		t.Error("no salt")
	}
	p, ok := parseArgon(one)
	if !ok || !p.equals(p.of("Zo\u00eb correct")) || p.equals(p.of("Zoe correct")) {
		t.Errorf("%s, %v", one, ok)
	}
	for _, bad := range []string{"", "$", "$2b$10$abc", strings.Replace(one, "argon2id", "argon2i", 1), strings.Replace(one, "v=19", "v=16", 1),
		strings.Replace(one, "p=1", "p=2", 1), strings.Replace(one, "p=1", "p=1x", 1), one + "=", one + "$", strings.Replace(one, "m=9216", "m=09216", 1),
		strings.Replace(one, "m=9216", "m=4294967296", 1), strings.Replace(one, "t=4", "t=0", 1), strings.Replace(one, "t=4", "t=11", 1)} {
		if _, ok := parseArgon(bad); ok {
			t.Errorf("%q was taken", bad)
		}
	}
}

// TestAuthOverTheWire is the real Authenticator behind a session: an error of
// the store's is no failure of the client's credentials, and shows nothing.
func TestAuthOverTheWire(t *testing.T) {
	logins, _ := countedLogins(t)
	h := &testHandler{}
	l := listen(t, h, func(o *ListenerOptions) { o.Authenticator, o.AuthWithoutTLS, o.Role = logins, true, RoleOutbound })
	c := greeted(t, l)
	if got := c.do("AUTH PLAIN "+plainFor("broken@city.example", "x"), "454 4.7.0 "); strings.Contains(got, "secret") {
		t.Errorf("said %q", got)
	}
	c.do("AUTH PLAIN "+plainFor("kim@city.example", "correct horse"), "235")
	c.begin()
	c.do("hi\r\n.", "250")
	if env := h.got()[0].env; env.Login != "Kim@city.example" || env.Protocol != "ESMTPA" {
		t.Errorf("%q %s", env.Login, env.Protocol)
	}
	c.do("RSET", "250")
	c.do("EHLO again.test", "250")
	c.begin()
	c.do("hi\r\n.", "250")
	if env := h.got()[1].env; env.Login != "Kim@city.example" {
		t.Errorf("a greeting signed %q out", env.Login)
	}
}

// TestNoAuthInTheClear: a client elsewhere needs TLS whatever is allowed here.
func TestNoAuthInTheClear(t *testing.T) {
	for _, x := range []struct {
		change func(*ListenerOptions)
		first  string
		want   string
	}{
		{func(o *ListenerOptions) {}, "", "538 5.7.11 "},
		{func(o *ListenerOptions) { o.AuthWithoutTLS = true }, "", "235"},
		{func(o *ListenerOptions) { o.AuthWithoutTLS, o.ProxyProtocol = true, true }, "PROXY TCP4 192.0.2.7 192.0.2.1 1 25\r\n", "538 5.7.11 "},
		{func(o *ListenerOptions) { o.AuthWithoutTLS, o.ProxyProtocol = true, true }, "PROXY TCP4 127.0.0.9 192.0.2.1 1 25\r\n", "235"},
	} {
		l := listen(t, &testHandler{}, func(o *ListenerOptions) { o.Authenticator = desk; x.change(o) })
		c := dial(t, l)
		c.send(x.first)
		c.expect("220")
		if got := c.do("EHLO client.test", "250"); strings.Contains(got, "AUTH") != (x.want == "235") {
			t.Errorf("offered %q", got)
		}
		c.do("AUTH PLAIN "+plainFor("kim@city.example", "correct horse"), x.want)
	}
	l := listen(t, &testHandler{}, func(o *ListenerOptions) { o.Authenticator, o.AuthWithoutTLS, o.XClient = desk, true, true })
	c := greeted(t, l)
	c.do("XCLIENT ADDR=[UNAVAILABLE]", "220")
	c.do("EHLO client.test", "250")
	c.do("AUTH PLAIN "+plainFor("kim@city.example", "correct horse"), "538 5.7.11 ")
}

// TestExternal: a certificate counts when a configured authority has signed it,
// for clients, and it names an agent.
func TestExternal(t *testing.T) {
	p, strangers := newTLS(t, quiet), newAuthority(t)
	h := &testHandler{}
	l := listen(t, h, func(o *ListenerOptions) { o.TLSMode, o.TLS, o.Authenticator = TLSStart, p.server, desk })
	for _, x := range []struct {
		name string
		pair tls.Certificate
		auth string
		want string
	}{
		{"by address", p.agent(nil), "=", "235"},
		{"named", p.agent(nil), base64Of("Kim@city.example"), "235"},
		{"common name", p.agent(func(c *x509.Certificate) {
			c.EmailAddresses, c.Subject = nil, pkix.Name{CommonName: "ann@city.example"}
		}), "=", "235"},
		{"second address", p.agent(func(c *x509.Certificate) { c.EmailAddresses = []string{"x@y.test", "ann@city.example"} }), "=", "235"},
		{"another's name", p.agent(nil), base64Of("ann@city.example"), "535"},
		{"no agent", p.agent(func(c *x509.Certificate) { c.EmailAddresses = []string{"x@y.test"} }), "=", "535"},
		{"a plain name", p.agent(func(c *x509.Certificate) { c.EmailAddresses, c.Subject = nil, pkix.Name{CommonName: "kim"} }), "=", "504"},
		{"expired", p.agent(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}), "=", "504"},
		{"for servers", p.agent(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), "=", "504"},
		{"a stranger's", strangers.agent(nil), "=", "504"},
	} {
		config := p.client()
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &x.pair, nil }
		c := secured(t, l, config)
		offered := c.do("EHLO client.test", "250")
		if strings.Contains(offered, "EXTERNAL") != (x.want != "504") {
			t.Errorf("%s: offered %q", x.name, offered)
		}
		c.send("AUTH EXTERNAL " + x.auth + "\r\n")
		if got, err := c.reply(); err != nil || !strings.HasPrefix(got, x.want) {
			t.Errorf("%s: %q, %v; want %s", x.name, got, err, x.want)
		}
		c.do("NOOP", "250")
	}
	c := secured(t, l, p.client())
	if got := c.do("EHLO client.test", "250"); strings.Contains(got, "EXTERNAL") {
		t.Errorf("without a certificate: %q", got)
	}
}

// TestTLSFacts: how a message's session was secured is told of it, and whom the
// client's certificate names; only one of ours is believed.
func TestTLSFacts(t *testing.T) {
	p, strangers := newTLS(t, quiet), newAuthority(t)
	h := &testHandler{}
	l := listen(t, h, func(o *ListenerOptions) { o.TLSMode, o.TLS, o.Authenticator = TLSStart, p.server, desk })
	ours, theirs := p.agent(nil), strangers.agent(nil)
	for i, x := range []struct {
		pair        *tls.Certificate
		name, trust string
	}{{nil, "", ""}, {&ours, "kim@city.example", "verified"}, {&theirs, "kim@city.example", "unverified"}} {
		config := p.client()
		if x.pair != nil {
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return x.pair, nil }
		}
		c := secured(t, l, config)
		c.do("EHLO client.test", "250")
		c.begin()
		c.send("x\r\n.\r\n")
		c.expect("250")
		f := h.got()[i].env.TLS
		if f == nil || f.Version != "TLS 1.3" || !strings.HasPrefix(f.Cipher, "TLS_") || f.Peer != x.name || f.Trust != x.trust || (len(f.Pin) == 64) != (x.pair != nil) {
			t.Errorf("%d: %+v", i, f)
		}
	}
}

// TestAuthDuringShutdown: who is asked for his password hears that we go.
func TestAuthDuringShutdown(t *testing.T) {
	l := listen(t, &testHandler{}, func(o *ListenerOptions) { o.Authenticator, o.AuthWithoutTLS = desk, true })
	c := greeted(t, l)
	c.do("AUTH LOGIN", "334")
	if err := l.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	c.expect("421 4.3.2")
	c.gone()
}

// TestLoginIsForgotten: STARTTLS forgets who signed in before it (RFC 3207 §4.2).
func TestLoginIsForgotten(t *testing.T) {
	p, h := testTLS(t), &testHandler{}
	l := listen(t, h, func(o *ListenerOptions) {
		o.TLSMode, o.TLS, o.Authenticator, o.AuthWithoutTLS, o.XForward = TLSStart, p.server, desk, true, true
	})
	c := greeted(t, l)
	c.do("AUTH PLAIN "+plainFor("kim@city.example", "correct horse"), "235")
	c.do("XFORWARD NAME=evil.test", "250")
	c.do("STARTTLS", "220")
	c = c.shakeHands(p.client())
	c.do("EHLO client.test", "250")
	c.begin()
	c.do("hi\r\n.", "250")
	if env := h.got()[0].env; env.Login != "" || env.Client != (Client{}) || env.Protocol != "ESMTPS" {
		t.Errorf("%+v", env)
	}
}
