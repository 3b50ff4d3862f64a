package mailauth

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"slices"
)

const (
	minRSA  = 1024 // bits; RFC 8301 §3.2
	maxRSA  = 8192
	maxKeys = 4 // records of one selector
)

// publicKey is a key record (RFC 6376 §3.6.1, RFC 8463 §4).
type publicKey struct {
	key     crypto.PublicKey
	kind    string // rsa, ed25519
	strict  bool   // t=s: for the domain itself only
	testing bool   // t=y: counts as no signature
	why     string // it can't be used
}

// parseKey reads a key record.
func parseKey(record string) publicKey {
	t, ok := parseTags(record)
	if v, versioned := t["v"]; !ok || versioned && v != "DKIM1" {
		return publicKey{why: "the key record can't be read"}
	}
	k := publicKey{kind: t["k"]}
	if k.kind == "" {
		k.kind = "rsa"
	}
	p, given := t["p"]
	der, err := base64.StdEncoding.DecodeString(withoutSpace(p))
	switch {
	case !given || err != nil:
		k.why = "the key record can't be read"
	case len(der) == 0:
		k.why = "the key is revoked"
	case t["h"] != "" && !slices.Contains(t.list("h"), "sha256"):
		k.why = "the key is for another hash"
	case t["s"] != "" && !slices.Contains(t.list("s"), "*") && !slices.Contains(t.list("s"), "email"):
		k.why = "the key is not for mail"
	default:
		k.decode(der)
	}
	k.strict, k.testing = slices.Contains(t.list("t"), "s"), slices.Contains(t.list("t"), "y")
	return k
}

// decode reads an RSA key, of either form (RFC 6376 erratum 3017), or an
// Ed25519 key.
func (k *publicKey) decode(der []byte) {
	switch k.kind {
	case "rsa":
		parsed, err := x509.ParsePKIXPublicKey(der)
		if err != nil {
			parsed, err = x509.ParsePKCS1PublicKey(der)
		}
		key, ok := parsed.(*rsa.PublicKey)
		switch {
		case err != nil || !ok:
			k.why = "the key can't be read"
		case key.N.BitLen() < minRSA:
			k.why = "the key is shorter than 1024 bits"
		case key.N.BitLen() > maxRSA:
			k.why = "the key is longer than 8192 bits"
		default:
			k.key = key
		}
	case "ed25519":
		if len(der) != ed25519.PublicKeySize {
			k.why = "the key can't be read"
			return
		}
		k.key = ed25519.PublicKey(der)
	default:
		k.why = "the key is of an unknown kind"
	}
}

// verify checks a signature over a SHA-256 digest.
func (k publicKey) verify(digest, signature []byte) bool {
	switch key := k.key.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, digest, signature) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(key, digest, signature)
	}
	return false
}

// fetchKeys asks for the keys of a selector that are of a kind. More than one
// record is undefined (RFC 6376 §3.6.2.2); some publish one of each kind.
func fetchKeys(l *lookups, selector, domain, kind string) (keys []publicKey, found Result, why string) {
	records, err := l.ask(txt, selector+"._domainkey."+domain)
	switch err {
	case nil:
	case errTemporary:
		return nil, TempError, "the key can't be fetched"
	default:
		return nil, PermError, "there is no key"
	}
	why = "the key is of another kind"
	for _, record := range records[:min(len(records), maxKeys)] {
		k := parseKey(record)
		switch {
		case k.why != "":
			why = k.why
		case k.kind == kind:
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, PermError, why
	}
	return keys, "", ""
}
