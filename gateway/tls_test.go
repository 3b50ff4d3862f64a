package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway/testbed"
)

// authority signs certificates for tests, and keeps them in files.
type authority struct {
	*testbed.Authority
	t   testing.TB
	dir string
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	return &authority{testbed.NewAuthority(t), t, t.TempDir()}
}

// sign writes name.crt and name.key.
func (a *authority) sign(name string, edit func(*x509.Certificate)) *testbed.Certificate {
	a.t.Helper()
	c := a.Issue(edit)
	testbed.Write(a.t, a.file(name+".crt"), c.CertPEM())
	testbed.Write(a.t, a.file(name+".key"), c.KeyPEM())
	return c
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// server makes a pair for the listener.
func (a *authority) server() {
	a.sign("server", func(c *x509.Certificate) { c.DNSNames = []string{"gw.test"} })
}

// agent makes a pair that names an agent.
func (a *authority) agent(change func(*x509.Certificate)) tls.Certificate {
	return a.sign("agent", func(c *x509.Certificate) {
		c.EmailAddresses, c.ExtKeyUsage = []string{"kim@city.example"}, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		if change != nil {
			change(c)
		}
	}).Certificate
}

// tlsPair is both sides of TLS in a test.
type tlsPair struct {
	*authority
	server *ServerTLS
}

func (p tlsPair) client() *tls.Config {
	return &tls.Config{ServerName: "gw.test", RootCAs: p.Roots()}
}

var shared struct {
	sync.Once
	tlsPair
}

// testTLS is one pair for all tests that don't change it.
func testTLS(t testing.TB) tlsPair {
	shared.Do(func() {
		shared.tlsPair = newTLS(t, quiet)
		shared.authority.dir = "" // it goes with the first test
	})
	return shared.tlsPair
}

func newTLS(t testing.TB, log *slog.Logger) tlsPair {
	t.Helper()
	a := newAuthority(t)
	a.server()
	server, err := LoadTLS(a.file("server.crt"), a.file("server.key"), a.File, log)
	if err != nil {
		t.Fatal(err)
	}
	return tlsPair{a, server}
}

// secured is a client under TLS that hasn't greeted; implicit or by STARTTLS, as
// the listener has it.
func secured(t testing.TB, l *Listener, config *tls.Config) *client {
	t.Helper()
	c := dial(t, l)
	if l.opts.TLSMode == TLSStart {
		c.expect("220")
		c.do("STARTTLS", "220")
	}
	return c.shakeHands(config)
}

func (c *client) shakeHands(config *tls.Config) *client {
	c.t.Helper()
	conn := tls.Client(c.Conn, config)
	if err := conn.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	return &client{c.t, conn, bufio.NewReader(conn)}
}

func TestTLSMail(t *testing.T) {
	body := strings.Repeat("0123456789abcdef0123456789abcdef\r\n", 30_000) // a MB, over many records
	for _, mode := range []TLSMode{TLSStart, TLSImplicit} {
		h := &testHandler{}
		p := testTLS(t)
		l := listen(t, h, func(o *ListenerOptions) { o.TLSMode, o.TLS = mode, p.server })
		c := secured(t, l, p.client())
		if mode == TLSImplicit {
			c.expect("220")
		}
		c.do("EHLO client.test", "250")
		c.begin()
		c.send(body + ".\r\n")
		c.expect("250")
		c.do("QUIT", "221")
		c.gone()
		m := h.got()[0]
		if m.env.Protocol != "ESMTPS" || !bytes.Equal(m.body, []byte(body)) {
			t.Errorf("%s: protocol %s, %d bytes", mode, m.env.Protocol, len(m.body))
		}
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	p := testTLS(t)
	l := listen(t, &testHandler{}, func(o *ListenerOptions) { o.TLSMode, o.TLS = TLSImplicit, p.server })
	config := p.client()
	config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if err := tls.Client(dial(t, l), config).Handshake(); err == nil {
		t.Error("TLS 1.1 was taken")
	}
	config.MaxVersion = tls.VersionTLS12
	if err := tls.Client(dial(t, l), config).Handshake(); err != nil {
		t.Error("TLS 1.2:", err)
	}
}

// TestHandshakeEnds: a client that doesn't come to an end with its handshake is
// dropped in time, and at once on shutdown.
func TestHandshakeEnds(t *testing.T) {
	p := testTLS(t)
	short := 60 * time.Millisecond
	l := listen(t, &testHandler{}, func(o *ListenerOptions) {
		o.TLSMode, o.TLS, o.HandshakeTimeout = TLSStart, p.server, short
	})
	c := dial(t, l)
	c.expect("220")
	start := time.Now()
	c.do("STARTTLS", "220")
	c.send("\x16\x03\x01")
	c.gone()
	if d := time.Since(start); d < short || d > 20*short {
		t.Errorf("dropped after %v", d)
	}

	l = listen(t, &testHandler{}, func(o *ListenerOptions) { o.TLSMode, o.TLS = TLSImplicit, p.server })
	c = dial(t, l)
	c.send("\x16")
	time.Sleep(20 * time.Millisecond)
	if err := l.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	c.gone()
}

func TestShutdownUnderTLS(t *testing.T) {
	p := testTLS(t)
	l := listen(t, &testHandler{}, func(o *ListenerOptions) { o.TLSMode, o.TLS, o.IdleTimeout = TLSStart, p.server, time.Minute })
	c := secured(t, l, p.client())
	c.do("EHLO client.test", "250")
	if err := l.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	c.expect("421 4.3.2")
	c.gone()
}

// TestIdleUnderTLS: a deadline that passes leaves TLS usable for the last word.
func TestIdleUnderTLS(t *testing.T) {
	p := testTLS(t)
	l := listen(t, &testHandler{}, func(o *ListenerOptions) { o.TLSMode, o.TLS, o.IdleTimeout = TLSImplicit, p.server, 50*time.Millisecond })
	c := secured(t, l, p.client())
	c.expect("220")
	c.expect("421 4.4.2")
	c.gone()
}

// TestEarlyTalkerUnderTLS: the banner is waited for there, too.
func TestEarlyTalkerUnderTLS(t *testing.T) {
	p := testTLS(t)
	l := listen(t, &testHandler{}, func(o *ListenerOptions) {
		o.TLSMode, o.TLS, o.BannerPause = TLSImplicit, p.server, time.Second
	})
	c := secured(t, l, p.client())
	c.send("EHLO client.test\r\n")
	c.expect("554 5.5.0 ")
	c.gone()
}

// TestCertificateRenewed: new files count at the next handshake; a pair that
// doesn't match leaves the old one in use and is logged once.
func TestCertificateRenewed(t *testing.T) {
	var log testbed.Buffer
	p := newTLS(t, slog.New(slog.NewTextHandler(&log, nil)))
	l := listen(t, &testHandler{}, func(o *ListenerOptions) { o.TLSMode, o.TLS = TLSImplicit, p.server })
	serial := func() *big.Int {
		conn := tls.Client(dial(t, l), p.client())
		if err := conn.Handshake(); err != nil {
			t.Fatal(err)
		}
		return conn.ConnectionState().PeerCertificates[0].SerialNumber
	}
	first := serial()
	p.authority.server()
	second := serial()
	if second.Cmp(first) == 0 {
		t.Error("the old certificate is still in use")
	}
	good, _ := os.ReadFile(p.file("server.key"))
	p.agent(nil)
	other, _ := os.ReadFile(p.file("agent.key"))
	os.WriteFile(p.file("server.key"), other, 0o600)
	for range 3 {
		if serial().Cmp(second) != 0 {
			t.Error("the last good certificate is gone")
		}
	}
	if n := strings.Count(log.String(), "cannot be used"); n != 1 {
		t.Errorf("logged %d times: %s", n, &log)
	}
	os.Remove(p.file("server.key"))
	for range 2 {
		if serial().Cmp(second) != 0 {
			t.Error("the last good certificate is gone with its file")
		}
	}
	if n := strings.Count(log.String(), "cannot be used"); n != 2 {
		t.Errorf("logged %d times: %s", n, &log)
	}
	os.WriteFile(p.file("server.key"), good, 0o600)
	if serial().Cmp(second) != 0 {
		t.Error("not read again")
	}
	if strings.Contains(log.String(), "PRIVATE KEY") {
		t.Error("the key is in the log")
	}
}

func TestLoadTLSFails(t *testing.T) {
	p := newTLS(t, quiet)
	p.agent(nil)
	os.WriteFile(p.file("empty"), nil, 0o600)
	for _, files := range [][3]string{
		{p.file("none"), p.file("server.key"), ""},
		{p.file("server.crt"), p.file("none"), ""},
		{p.file("server.crt"), p.file("agent.key"), ""},
		{p.file("server.crt"), p.file("server.key"), p.file("none")},
		{p.file("server.crt"), p.file("server.key"), p.file("empty")},
	} {
		if _, err := LoadTLS(files[0], files[1], files[2], quiet); err == nil {
			t.Errorf("%v was taken", files)
		}
	}
}

// TestOpenSSL and TestSwaks are clients that others wrote.
func TestOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	p := newTLS(t, quiet)
	l := listen(t, &testHandler{}, func(o *ListenerOptions) { o.TLSMode, o.TLS = TLSStart, p.server })
	cmd := exec.Command("openssl", "s_client", "-starttls", "smtp", "-connect", l.Addr().String(), "-servername", "gw.test",
		"-verify_hostname", "gw.test", "-verify_return_error", "-CAfile", p.File, "-crlf", "-quiet")
	cmd.Stdin = strings.NewReader("QUIT\n")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "221 2.0.0 Bye") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestSwaks(t *testing.T) {
	testbed.Need(t, "swaks")
	p := newTLS(t, quiet)
	for _, x := range []struct {
		mode TLSMode
		args []string
	}{
		{TLSStart, []string{"-tls", "-a", "PLAIN"}},
		{TLSStart, []string{"-tls", "-a", "LOGIN"}},
		{TLSImplicit, []string{"--tls-on-connect", "-a", "PLAIN"}},
	} {
		h := &testHandler{}
		l := listen(t, h, func(o *ListenerOptions) {
			o.TLSMode, o.TLS, o.RequireTLS, o.Authenticator, o.Auth = x.mode, p.server, true, desk, AuthRequire
		})
		host, port, _ := net.SplitHostPort(l.Addr().String())
		args := append(x.args, "-s", host, "-p", port, "-f", "a@b.test", "-t", "c@d.test", "-au", "kim@city.example", "-ap", "correct horse")
		if out, err := exec.Command("swaks", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", x.args, err, out)
		}
		if env := h.got()[0].env; env.Protocol != "ESMTPSA" || env.Login != "kim@city.example" {
			t.Errorf("%s as %q", env.Protocol, env.Login)
		}
	}
}
