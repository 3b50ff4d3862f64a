package gateway

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"
)

// argon is a password's hash by Argon2id (RFC 9106) with what it was made with.
type argon struct {
	kib, passes uint32
	salt, sum   []byte
}

// What new hashes are made with: little memory, because many may log in at once.
const (
	argonKiB    = 9 << 10
	argonPasses = 4
	argonSalt   = 16
	argonSum    = 32

	passwordMin = 8
	passwordMax = 1 << 10
)

func newArgon() argon {
	p := argon{kib: argonKiB, passes: argonPasses, salt: make([]byte, argonSalt), sum: make([]byte, argonSum)}
	rand.Read(p.salt)
	return p
}

// HashPassword is what a store keeps of a password, in the PHC string format:
// $argon2id$v=19$m=9216,t=4,p=1$salt$hash.
func HashPassword(password string) (string, error) {
	switch {
	case len(password) < passwordMin:
		return "", fmt.Errorf("a password needs at least %d bytes", passwordMin)
	case len(password) > passwordMax:
		return "", fmt.Errorf("a password has at most %d bytes", passwordMax)
	case !printable(password):
		return "", errors.New("a password has no control characters and is valid UTF-8")
	}
	p := newArgon()
	p.sum = p.of(password)
	return p.String(), nil
}

// of hashes a password as p was made. The same password typed on two systems is
// the same, however they compose its letters.
func (p argon) of(password string) []byte {
	text := []byte(norm.NFC.String(password))
	return argon2.IDKey(text, p.salt, p.passes, p.kib, 1, uint32(len(p.sum)))
}

func (p argon) equals(sum []byte) bool { return subtle.ConstantTimeCompare(p.sum, sum) == 1 }

func (p argon) String() string {
	b := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=1$%s$%s", argon2.Version, p.kib, p.passes, b.EncodeToString(p.salt), b.EncodeToString(p.sum))
}

// parseArgon reads a hash; what would cost too much to check is none.
func parseArgon(s string) (argon, bool) {
	var p argon
	f := strings.Split(s, "$")
	if len(f) != 6 || f[0] != "" || f[1] != "argon2id" || f[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return p, false
	}
	if n, err := fmt.Sscanf(f[3], "m=%d,t=%d,p=1", &p.kib, &p.passes); n != 2 || err != nil {
		return p, false
	}
	var err, bad error
	p.salt, err = base64.RawStdEncoding.Strict().DecodeString(f[4])
	p.sum, bad = base64.RawStdEncoding.Strict().DecodeString(f[5])
	ok := err == nil && bad == nil && p.String() == s && len(p.salt) >= 8 && len(p.sum) >= 16 && len(p.sum) <= 64
	return p, ok && p.kib >= 8 && p.kib <= 64<<10 && p.passes >= 1 && p.passes <= 10
}
