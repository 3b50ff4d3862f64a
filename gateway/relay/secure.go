package relay

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/casegate/casegate/store"
)

// The ways to secure a next hop. A STARTTLS that is not offered, or not the
// next hop's own, defers the mail with all but the first two: it may have been
// stripped on the way (RFC 3207 §6).
const (
	TLSNone          = "none"          // in the clear
	TLSOpportunistic = "opportunistic" // with TLS if the next hop can, whoever it is; else in the clear (RFC 7435)
	TLSRequire       = "require"       // with TLS, whoever it is
	TLSVerify        = "verify"        // with TLS, and a certificate that vouches for the host's name
	TLSPin           = "pin"           // with TLS, and the very key named
)

// security is how sessions with a next hop are protected, and how we sign in.
type security struct {
	mode  string
	pins  [][sha256.Size]byte
	roots *x509.CertPool // nil: the system's
	auth  *credentials   // nil: we don't sign in
	key   string         // tells two of them apart
}

// secure reads what a route says of TLS and of signing in; load reads the files
// that it names.
func (rt *Route) secure(local bool) (*security, error) {
	s := &security{mode: rt.TLS}
	if s.mode == "" {
		if s.mode = TLSVerify; local {
			s.mode = TLSNone
		}
	}
	switch s.mode {
	case TLSNone, TLSOpportunistic, TLSRequire, TLSVerify, TLSPin:
	default:
		return nil, fmt.Errorf("tls %q is none of none, opportunistic, require, verify, pin", rt.TLS)
	}
	if (s.mode == TLSPin) != (len(rt.TLSPin) > 0) {
		return nil, errors.New("tls pin and the pins themselves go together")
	}
	for _, text := range rt.TLSPin {
		pin, err := parsePin(text)
		if err != nil {
			return nil, err
		}
		s.pins = append(s.pins, pin)
	}
	if rt.TLSCA != "" && s.mode != TLSVerify {
		return nil, errors.New("a CA file is for tls verify")
	}
	if rt.Auth == nil {
		return s, nil
	}
	if s.mode != TLSVerify && s.mode != TLSPin {
		return nil, fmt.Errorf("signing in needs tls verify or pin, not %s: credentials are for the next hop alone", s.mode)
	}
	var err error
	s.auth, err = newCredentials(*rt.Auth)
	return s, err
}

// load reads what a route's files hold. Passwords are read again at each use.
func (s *security) load(rt *Route) error {
	ca, err := s.readCA(rt.TLSCA)
	if err != nil {
		return err
	}
	auth := ""
	if s.auth != nil {
		if _, err := readSecret(cmp.Or(rt.Auth.PasswordFile, rt.Auth.SecretFile)); err != nil {
			return err
		}
		auth = fmt.Sprintf("%+v", *rt.Auth)
	}
	s.key = fmt.Sprintf("%s %x %x %s", s.mode, s.pins, sha256.Sum256(ca), auth)
	return nil
}

func (s *security) readCA(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("the CA file: %w", err)
	}
	s.roots = x509.NewCertPool()
	if !s.roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("the CA file %s holds no certificate in PEM", file)
	}
	return pem, nil
}

// parsePin reads the SHA-256 of a public key: in hex, with or without colons,
// or in base64 (RFC 7469 §2.4).
func parsePin(text string) (pin [sha256.Size]byte, err error) {
	b, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
	if err != nil {
		b, err = base64.StdEncoding.DecodeString(strings.TrimPrefix(text, "sha256/"))
	}
	if err != nil || len(b) != len(pin) {
		return pin, fmt.Errorf("%q is not the SHA-256 of a public key: write 64 hex digits", text)
	}
	copy(pin[:], b)
	return pin, nil
}

// errNotOurs: who answers is not the one the mail is for.
var errNotOurs = errors.New("the next hop's certificate is not the one expected")

// config is the client's side of a handshake. What it checks is here alone, so
// that facts are kept of who is not asked for his certificate too. note is told
// of each handshake that is good enough.
func (r *Relay) config(s *security, host string, note func(*store.TLS)) *tls.Config {
	return &tls.Config{
		ServerName: host, MinVersion: tls.VersionTLS12,
		InsecureSkipVerify: true, // VerifyConnection verifies
		VerifyConnection: func(cs tls.ConnectionState) error {
			facts, err := r.judge(s, host, cs)
			if err == nil {
				note(facts)
			}
			return err
		},
	}
}

// judge says whom a handshake was with, and whether that will do.
func (r *Relay) judge(s *security, host string, cs tls.ConnectionState) (*store.TLS, error) {
	if len(cs.PeerCertificates) == 0 {
		return nil, fmt.Errorf("%w: there is none", errNotOurs)
	}
	leaf := cs.PeerCertificates[0]
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	f := &store.TLS{
		Version: tls.VersionName(cs.Version), Cipher: tls.CipherSuiteName(cs.CipherSuite),
		Peer: peerName(leaf), Pin: hex.EncodeToString(sum[:]), Trust: "unverified",
	}
	chain := x509.VerifyOptions{Roots: s.roots, DNSName: host, Intermediates: x509.NewCertPool(), CurrentTime: r.now()}
	for _, c := range cs.PeerCertificates[1:] {
		chain.Intermediates.AddCert(c)
	}
	_, wrong := leaf.Verify(chain)
	if wrong == nil {
		f.Trust = "verified"
	}
	switch {
	case s.mode == TLSVerify && wrong != nil:
		return f, fmt.Errorf("%w: %w (its key is %s)", errNotOurs, brief{wrong, maxReplyText / 4}, f.Pin)
	case s.mode != TLSPin:
		return f, nil
	}
	for _, pin := range s.pins {
		if pin == sum {
			f.Trust = "pinned"
			return f, nil
		}
	}
	return f, fmt.Errorf("%w: its key is %s, which is not pinned", errNotOurs, f.Pin)
}

// peerName is what a certificate is made out to.
func peerName(c *x509.Certificate) string {
	name := c.Subject.CommonName
	if len(c.DNSNames) > 0 {
		name = c.DNSNames[0]
	} else if len(c.IPAddresses) > 0 {
		name = c.IPAddresses[0].String()
	}
	return clean([]byte(name[:min(len(name), 255)]))
}

// handshake turns the connection into a TLS one.
func (c *conn) handshake(ctx context.Context, r *Relay, s *security, e endpoint) error {
	host, _, err := net.SplitHostPort(e.address)
	if err != nil {
		host = "localhost" // a UNIX socket
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeouts.Greeting)
	defer cancel()
	t := tls.Client(c.Conn, r.config(s, host, func(f *store.TLS) { c.tls = f }))
	if err := t.HandshakeContext(ctx); err != nil {
		c.tls = nil
		return fmt.Errorf("%w: %w", errTLS, brief{err, maxReplyText / 2})
	}
	c.Conn = t
	c.r.Reset(t)
	return nil
}

// errTLS: the handshake failed.
var errTLS = errors.New("TLS")

// without is the error of a next hop that does not do what a route asks for.
type without struct{ error }

func (w without) Unwrap() error { return w.error }

// brief is an error in the words of a stranger, perhaps: a certificate may have
// any number of names. It shows so many octets of them, and nothing that does
// harm.
type brief struct {
	error
	most int
}

func (b brief) Error() string {
	text := b.error.Error()
	text = clean([]byte(text[:min(len(text), b.most)]))
	return strings.ToValidUTF8(text[:min(len(text), b.most)], "")
}

func (b brief) Unwrap() error { return b.error }

// startTLS asks for TLS on a session in the clear (RFC 3207 §4). Whatever came
// behind the answer was put there by somebody else, and whatever was offered
// before counts no more.
func (c *conn) startTLS(ctx context.Context, r *Relay, s *security, e endpoint) error {
	must := s.mode != TLSOpportunistic
	if !c.ext.startTLS {
		if must {
			return without{fmt.Errorf("STARTTLS is not offered, and tls is %s", s.mode)}
		}
		return nil
	}
	c.out = append(c.out[:0], "STARTTLS\r\n"...)
	if err := c.flush(c.timeouts.Mail); err != nil {
		return fmt.Errorf("saying STARTTLS: %w", err)
	}
	rep, err := c.reply(c.timeouts.Mail)
	switch {
	case err != nil:
		return fmt.Errorf("saying STARTTLS: %w", err)
	case rep.code == 421:
		return fmt.Errorf("%w: %s", errClosing, rep)
	case rep.code != 220 && must:
		return without{fmt.Errorf("the answer to STARTTLS is %s, and tls is %s", rep, s.mode)}
	case rep.code != 220:
		return nil
	case c.r.Buffered() > 0:
		return fmt.Errorf("%w: %d octets came in the clear behind the answer to STARTTLS", errTLS, c.r.Buffered())
	}
	if err := c.handshake(ctx, r, s, e); err != nil {
		return err
	}
	c.ext = extensions{}
	return c.meet(r.opts.Hostname)
}
