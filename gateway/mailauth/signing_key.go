package mailauth

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

const (
	minSigningRSA = 2048 // bits
	maxKeyFile    = 64 << 10
)

// SigningKey is a private key and where its public half is published.
type SigningKey struct {
	Domain     string // tag d, as A-label
	Selector   string // tag s
	Subdomains bool   // signs mail from what is below Domain, too

	key   crypto.Signer
	kind  string // rsa, ed25519
	lines int    // how long those of a signature are; 0: 72
}

// KeyError is why a signing key can't be used, and what to do about it.
type KeyError struct {
	Path    string
	Problem string
	Hint    string
}

func (e *KeyError) Error() string { return "DKIM key " + e.Path + ": " + e.Problem }

// ReadSigningKey reads a key file: PEM, PKCS#8 or PKCS#1, RSA of at least 2048
// bits or Ed25519, for nobody else to read. Its errors are *KeyError.
func ReadSigningKey(path, domain, selector string) (SigningKey, error) {
	fail := func(problem, hint string) (SigningKey, error) {
		return SigningKey{}, &KeyError{path, problem, hint}
	}
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail("there is no such file", "make one with: casegate dkim keygen")
	case errors.Is(err, fs.ErrPermission):
		return fail("this user may not read it", "give it to the user that casegate runs as: chown")
	case err != nil:
		return fail(err.Error(), "name a file with a private key in PEM")
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil || !info.Mode().IsRegular():
		return fail("it is no file", "name a file with a private key in PEM")
	case info.Mode().Perm()&0o027 != 0:
		return fail(fmt.Sprintf("others may read or change it (mode %04o)", info.Mode().Perm()), "chmod 600 "+path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return fail(err.Error(), "check the disk")
	}
	k, err := ParseSigningKey(text, domain, selector)
	if e := (*KeyError)(nil); errors.As(err, &e) {
		e.Path = path
	}
	return k, err
}

// ParseSigningKey reads a key as ReadSigningKey does.
func ParseSigningKey(text []byte, domain, selector string) (SigningKey, error) {
	k := SigningKey{Domain: domainKey(domain), Selector: strings.ToLower(selector)}
	switch {
	case k.Domain == "":
		return k, &KeyError{Problem: fmt.Sprintf("%q is no domain", domain), Hint: "set the domain that signs, such as city.example"}
	case domainKey(k.Selector) == "":
		return k, &KeyError{Problem: fmt.Sprintf("%q is no selector", selector), Hint: "set a selector of letters, digits and hyphens"}
	}
	key, err := decodeKey(text)
	if err != nil {
		return k, err
	}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		k.key, k.kind = key, "rsa"
		if n := key.N.BitLen(); n < minSigningRSA || n > maxRSA {
			return k, &KeyError{Problem: fmt.Sprintf("an RSA key of %d bits: it must have 2048 to 8192", n), Hint: "make one with: casegate dkim keygen"}
		}
	case ed25519.PrivateKey:
		k.key, k.kind = key, "ed25519"
	default:
		return k, &KeyError{Problem: fmt.Sprintf("a key of type %T", key), Hint: "DKIM knows RSA and Ed25519: casegate dkim keygen"}
	}
	return k, nil
}

// decodeKey finds the private key in PEM text.
func decodeKey(text []byte) (any, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, &KeyError{Problem: "it holds no PEM block", Hint: "it must begin with -----BEGIN PRIVATE KEY-----"}
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		if block.Headers["Proc-Type"] != "" {
			return nil, &KeyError{Problem: "it is encrypted", Hint: "openssl pkey -in OLD -out NEW writes it without a passphrase"}
		}
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return nil, &KeyError{Problem: "it is encrypted", Hint: "openssl pkey -in OLD -out NEW writes it without a passphrase"}
	case "PUBLIC KEY", "RSA PUBLIC KEY":
		return nil, &KeyError{Problem: "it is the public half", Hint: "name the file with the private key; the public half belongs in the DNS"}
	default:
		return nil, &KeyError{Problem: fmt.Sprintf("it holds a %.40q", block.Type), Hint: "name a file with a private key, RSA or Ed25519"}
	}
	if err != nil {
		return nil, &KeyError{Problem: "the key is damaged: " + err.Error(), Hint: "make a new one with: casegate dkim keygen"}
	}
	return key, nil
}

// Kind is that of the key: rsa or ed25519.
func (k SigningKey) Kind() string { return k.kind }

// String names a key without its domain, such as "s1 (rsa, 2048 bits)".
func (k SigningKey) String() string {
	if key, ok := k.key.(*rsa.PrivateKey); ok {
		return fmt.Sprintf("%s (rsa, %d bits)", k.Selector, key.N.BitLen())
	}
	return fmt.Sprintf("%s (%s)", k.Selector, k.kind)
}

// sign signs a SHA-256 digest (RFC 6376 §3.3.1, RFC 8463 §3).
func (k SigningKey) sign(digest []byte) ([]byte, error) {
	if k.kind == "ed25519" {
		return k.key.Sign(rand.Reader, digest, crypto.Hash(0))
	}
	return k.key.Sign(rand.Reader, digest, crypto.SHA256)
}

// Record is the TXT record to publish under RecordName, cut into strings as
// the DNS has them: of 255 octets at most (RFC 6376 §3.6.1).
func (k SigningKey) Record() []string {
	var public []byte
	switch key := k.key.Public().(type) {
	case *rsa.PublicKey:
		public, _ = x509.MarshalPKIXPublicKey(key)
	case ed25519.PublicKey:
		public = key
	}
	text := "v=DKIM1; k=" + k.kind + "; p=" + base64.StdEncoding.EncodeToString(public)
	var list []string
	for ; len(text) > 255; text = text[255:] {
		list = append(list, text[:255])
	}
	return append(list, text)
}

// RecordName is where the public half is looked for.
func (k SigningKey) RecordName() string { return k.Selector + "._domainkey." + k.Domain }

// ZoneLine is the record as a line of a zone file.
func (k SigningKey) ZoneLine() string {
	return k.RecordName() + `. IN TXT "` + strings.Join(k.Record(), `" "`) + `"`
}

// KeyGen makes a key of a kind, rsa (2048 bits unless said otherwise) or
// ed25519: the text of its file, in PKCS#8, and the key to publish.
func KeyGen(kind string, bits int, domain, selector string) (text []byte, k SigningKey, err error) {
	var key crypto.Signer
	switch {
	case kind == "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case kind != "rsa":
		return nil, k, fmt.Errorf("a key of kind %q: DKIM knows rsa and ed25519", kind)
	case bits != 0 && (bits < minSigningRSA || bits > 4096):
		return nil, k, fmt.Errorf("an RSA key of %d bits: 2048 to 4096 are of use", bits)
	default:
		key, err = rsa.GenerateKey(rand.Reader, max(bits, minSigningRSA))
	}
	if err != nil {
		return nil, k, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, k, err
	}
	text = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	k, err = ParseSigningKey(text, domain, selector)
	return text, k, err
}
