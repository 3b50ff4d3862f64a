package gateway

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"

	"github.com/casegate/casegate/store"
)

// TLSMode says when a listener's connections are encrypted.
type TLSMode string

const (
	TLSNone     TLSMode = "none"     // never; the zero mode is the same
	TLSStart    TLSMode = "starttls" // from STARTTLS on (RFC 3207)
	TLSImplicit TLSMode = "implicit" // from the first byte on (RFC 8314)
)

// ServerTLS is what a listener needs for TLS. Its files are looked at again at
// each handshake, so that new certificates count without a restart.
type ServerTLS struct {
	config  *tls.Config
	pair    *watched[*tls.Certificate]
	clients *watched[*x509.CertPool] // nil: AUTH EXTERNAL is not offered
}

// LoadTLS reads a certificate with its chain, its private key, and, unless
// clientCA is empty, the authorities that sign clients' certificates; all are
// PEM files. An unreadable new file, or a pair that doesn't match, is logged
// once, and the last good one goes on.
func LoadTLS(cert, key, clientCA string, log *slog.Logger) (*ServerTLS, error) {
	t := &ServerTLS{}
	var err error
	t.pair, err = watch(log, func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(cert, key)
		return &pair, err
	}, cert, key)
	if err != nil {
		return nil, err
	}
	t.config = &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return t.pair.get(), nil },
	}
	if clientCA == "" {
		return t, nil
	}
	t.clients, err = watch(log, func() (*x509.CertPool, error) { return readPool(clientCA) }, clientCA)
	// Not tls.VerifyClientCertIfGiven: mail servers show certificates that are
	// nobody's business here. They are verified when AUTH EXTERNAL names them.
	t.config.ClientAuth = tls.RequestClientCert
	return t, err
}

// Certificate is the one that clients are shown now.
func (t *ServerTLS) Certificate() *x509.Certificate { return t.pair.get().Leaf }

func readPool(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return pool, nil
}

// verified is the e-mail addresses of a client's certificate, none unless it is
// signed by a configured authority, for clients, and valid now.
func (t *ServerTLS) verified(s tls.ConnectionState) []string {
	if t == nil || t.clients == nil || len(s.PeerCertificates) == 0 {
		return nil
	}
	cert := s.PeerCertificates[0]
	o := x509.VerifyOptions{
		Roots: t.clients.get(), Intermediates: x509.NewCertPool(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range s.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	if _, err := cert.Verify(o); err != nil {
		return nil
	}
	names := append([]string(nil), cert.EmailAddresses...)
	if p, err := ParsePath(cert.Subject.CommonName); err == nil && !p.IsNull() {
		names = append(names, cert.Subject.CommonName)
	}
	return names
}

// facts is what is recorded of a session: how it is secured, and whom the client's
// certificate names, if it showed one.
func (t *ServerTLS) facts(s tls.ConnectionState) *store.TLS {
	f := &store.TLS{Version: tls.VersionName(s.Version), Cipher: tls.CipherSuiteName(s.CipherSuite)}
	if len(s.PeerCertificates) == 0 {
		return f
	}
	cert := s.PeerCertificates[0]
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	f.Pin, f.Trust = hex.EncodeToString(sum[:]), "unverified"
	f.Peer = plainText(cmp.Or(append(cert.EmailAddresses, cert.Subject.CommonName)...), 255)
	if names := t.verified(s); len(names) > 0 {
		f.Peer, f.Trust = plainText(names[0], 255), "verified"
	}
	return f
}

// watched is what some files hold, read again when they change.
type watched[T any] struct {
	files []string
	read  func() (T, error)
	log   *slog.Logger

	mu    sync.Mutex
	seen  []fs.FileInfo
	value T
}

func watch[T any](log *slog.Logger, read func() (T, error), files ...string) (*watched[T], error) {
	w := &watched[T]{files: files, read: read, log: log}
	seen, err := w.look()
	if err != nil {
		return nil, err
	}
	w.seen = seen
	w.value, err = read()
	return w, err
}

// get is the last good value. Files that were read while they changed are read
// again next time: they are looked at before.
func (w *watched[T]) get() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	now, err := w.look()
	if err == nil && same(w.seen, now) || err != nil && w.seen == nil {
		return w.value
	}
	w.seen = now
	if err == nil {
		var value T
		if value, err = w.read(); err == nil {
			w.value = value
			w.log.Info("certificate read again", "files", w.files)
			return value
		}
	}
	w.log.Error("a changed certificate cannot be used, the old one goes on", "files", w.files, "error", err)
	return w.value
}

// look is nil with an error.
func (w *watched[T]) look() ([]fs.FileInfo, error) {
	list := make([]fs.FileInfo, len(w.files))
	var failed error
	for i, file := range w.files {
		info, err := os.Stat(file)
		list[i], failed = info, errors.Join(failed, err)
	}
	if failed != nil {
		return nil, failed
	}
	return list, nil
}

func same(a, b []fs.FileInfo) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !os.SameFile(a[i], b[i]) || a[i].Size() != b[i].Size() || !a[i].ModTime().Equal(b[i].ModTime()) {
			return false
		}
	}
	return true
}
