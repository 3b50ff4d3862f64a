package resolver

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"strings"

	"github.com/casegate/casegate/store"
)

// A token is 22 bytes, written as 36 characters of lower-case base32 and read
// in any case:
//
//	1 version | 1 key id | 5 case number | 3 ordinal | 12 HMAC-SHA-256
//
// The highest bit of the ordinal marks a consult (rule O0). The HMAC covers the
// ten bytes before it and the installation's id.
const (
	TokenLength  = 36
	tokenVersion = 1
	tokenBytes   = 22
	signedBytes  = 10
	maxCase      = 1<<40 - 1
	maxOrdinal   = 1<<23 - 1
	consultBit   = 1 << 23
)

var tokenEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Token names a case and an activity on it; ordinal 0 is the case itself. A
// verified token proves the right to append to the case and nothing else
// (rules §2).
type Token struct {
	Key     byte
	Case    uint64
	Ordinal uint32
	Consult bool // the activity is internal (rule O0)
}

// Reasons why a token is not accepted (outcome T4).
var (
	errTokenKey = errors.New("it was signed with a key that this installation doesn't have")
	errTokenMAC = errors.New("its signature is wrong (altered, guessed, or of another installation)")
	errOrdinal  = errors.New("the case has more activities than a token can count")
)

// Sign returns the token of an activity, signed with the newest key.
func Sign(in store.Installation, number uint64, ordinal uint32) (string, error) {
	return Token{Case: number, Ordinal: ordinal}.sign(in)
}

func (t Token) sign(in store.Installation) (string, error) {
	if t.Case > maxCase || t.Ordinal > maxOrdinal {
		return "", errOrdinal
	}
	ordinal := t.Ordinal
	if t.Consult {
		ordinal |= consultBit
	}
	key := in.Keys[len(in.Keys)-1]
	var b [tokenBytes]byte
	b[0], b[1] = tokenVersion, key.ID
	var wide [8]byte
	binary.BigEndian.PutUint64(wide[:], t.Case)
	copy(b[2:7], wide[3:])
	binary.BigEndian.PutUint32(wide[:4], ordinal)
	copy(b[7:10], wide[1:4])
	copy(b[signedBytes:], mac(in, key, b[:signedBytes]))
	return tokenEncoding.EncodeToString(b[:]), nil
}

// readToken decodes the shape of a token without believing it; ok is false
// when the text is no token at all.
func readToken(text string) (Token, bool) {
	b, ok := tokenText(text)
	if !ok {
		return Token{}, false
	}
	var wide [8]byte
	copy(wide[3:], b[2:7])
	t := Token{Key: b[1], Case: binary.BigEndian.Uint64(wide[:])}
	ordinal := uint32(b[7])<<16 | uint32(b[8])<<8 | uint32(b[9])
	t.Ordinal, t.Consult = ordinal&maxOrdinal, ordinal&consultBit != 0
	return t, true
}

// verifyToken checks a token's signature against the keyring.
func verifyToken(in store.Installation, text string) error {
	b, ok := tokenText(text)
	if !ok {
		return errTokenMAC
	}
	for _, key := range in.Keys {
		if key.ID == b[1] {
			if hmac.Equal(mac(in, key, b[:signedBytes]), b[signedBytes:]) {
				return nil
			}
			return errTokenMAC
		}
	}
	return errTokenKey
}

// tokenText decodes base32 strictly: one text per token, case aside.
func tokenText(text string) ([]byte, bool) {
	if len(text) != TokenLength {
		return nil, false
	}
	text = strings.ToLower(text)
	b, err := tokenEncoding.DecodeString(text)
	if err != nil || len(b) != tokenBytes { // base32 passes over line ends
		return nil, false
	}
	return b, b[0] == tokenVersion && tokenEncoding.EncodeToString(b) == text
}

func mac(in store.Installation, key store.SigningKey, signed []byte) []byte {
	h := hmac.New(sha256.New, key.Secret)
	h.Write(signed)
	h.Write(in.ID[:])
	return h.Sum(nil)[:tokenBytes-signedBytes]
}

// MessageID is the Message-ID we give to an activity with this token, without
// angle brackets.
func MessageID(token, hostname string) string { return "m." + token + "@" + hostname }

// PseudoReference is the id that stands first in References of all mail of a
// case; token is that of the case itself (ordinal 0).
func PseudoReference(token, hostname string) string { return "case." + token + "@" + hostname }

// idToken finds the token in a Message-ID of ours. The domain is not compared:
// the signature says enough, and hostnames change.
func idToken(id string) (string, bool) {
	left, _, _ := strings.Cut(id, "@")
	_, text, found := strings.Cut(left, ".")
	if !found {
		return "", false
	}
	_, ok := tokenText(text)
	return text, ok
}

// PlusAddress is mailbox+token, the form a token takes in Reply-To and MAIL
// FROM.
func PlusAddress(mailbox, token string) string {
	local, domain, _ := cutLast(mailbox, "@")
	return local + "+" + token + "@" + domain
}
