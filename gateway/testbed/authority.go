package testbed

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// Authority vouches for certificates. All have the same name and are strangers
// to each other.
type Authority struct {
	Own  *Certificate
	File string // its certificate, in PEM
	t    testing.TB
}

// Certificate is one with its key, a *ecdsa.PrivateKey.
type Certificate struct {
	tls.Certificate
	Pin string // SHA-256 of the public key, in hex
}

// NewAuthority makes one that lives for an hour.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{t: t, File: filepath.Join(t.TempDir(), "ca.pem")}
	a.Own = a.Issue(func(c *x509.Certificate) {
		*c = x509.Certificate{Subject: pkix.Name{CommonName: "the test's authority"}, NotBefore: c.NotBefore, NotAfter: c.NotAfter,
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	})
	Write(t, a.File, a.Own.CertPEM())
	return a
}

// Issue makes a certificate with a new key: for 127.0.0.1 and an hour, unless
// edit makes it another.
func (a *Authority) Issue(edit func(*x509.Certificate)) *Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	now := time.Now()
	leaf := &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	if edit != nil {
		edit(leaf)
	}
	leaf.SerialNumber, _ = rand.Int(rand.Reader, big.NewInt(1<<62))
	parent, signer := leaf, key // of itself
	if a.Own != nil {
		parent, signer = a.Own.Leaf, a.Own.PrivateKey.(*ecdsa.PrivateKey)
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	pin := sha256.Sum256(made.RawSubjectPublicKeyInfo)
	return &Certificate{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: made}, hex.EncodeToString(pin[:])}
}

// Roots is a pool of this authority alone.
func (a *Authority) Roots() *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AddCert(a.Own.Leaf)
	return roots
}

// CertPEM is the certificate alone.
func (c *Certificate) CertPEM() string { return inPEM("CERTIFICATE", c.Certificate.Certificate[0]) }

// KeyPEM is the key alone.
func (c *Certificate) KeyPEM() string {
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		panic(err) // of a key that we made
	}
	return inPEM("PRIVATE KEY", der)
}

// PEM is both, for one file.
func (c *Certificate) PEM() string { return c.KeyPEM() + c.CertPEM() }

// Server is a configuration of TLS with this certificate alone.
func (c *Certificate) Server() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{c.Certificate}}
}

func inPEM(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
