package resolver

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	mathrand "math/rand/v2"
	"strings"
	"testing"

	"github.com/casegate/casegate/store"
)

const tokenLetters = "abcdefghijklmnopqrstuvwxyz234567"

// freshInstallation has random keys, as a store makes them.
func freshInstallation(tb testing.TB, keys ...byte) store.Installation {
	tb.Helper()
	in := store.Installation{ID: store.NewID()}
	for _, id := range keys {
		in.Keys = append(in.Keys, store.SigningKey{ID: id, Secret: make([]byte, 32)})
		rand.Read(in.Keys[len(in.Keys)-1].Secret)
	}
	return in
}

// Of 1 000 random tokens, each with each of its 176 bits flipped and each of its
// 36 characters changed to each other letter and to what is no letter of ours,
// none is accepted, but where it is the same letter in the other case.
func TestTokenNoChangeIsAccepted(t *testing.T) {
	t.Parallel()
	in := freshInstallation(t, 1, 2, 3)
	others := tokenLetters + strings.ToUpper(tokenLetters) + "0189=+-/ \r\x00\x80\xff"
	for range 1000 {
		in := store.Installation{ID: in.ID, Keys: in.Keys[:1+mathrand.IntN(3)]}
		text, err := Token{Case: mathrand.Uint64N(maxCase + 1), Ordinal: mathrand.Uint32N(maxOrdinal + 1), Consult: mathrand.IntN(2) == 1}.sign(in)
		if err != nil || verifyToken(in, text) != nil || verifyToken(in, strings.ToUpper(text)) != nil {
			t.Fatalf("%s is not accepted as it is: %v", text, err)
		}
		b, _ := tokenText(text)
		for bit := range tokenBytes * 8 {
			c := bytes.Clone(b)
			c[bit/8] ^= 1 << (bit % 8)
			if verifyToken(in, tokenEncoding.EncodeToString(c)) == nil {
				t.Fatalf("%s is accepted with bit %d flipped", text, bit)
			}
		}
		for i := range text {
			changed := []byte(text)
			for _, other := range []byte(others) {
				changed[i] = other
				same := other|0x20 == text[i]|0x20 && strings.IndexByte(tokenLetters, other|0x20) >= 0
				if (verifyToken(in, string(changed)) == nil) != same {
					t.Fatalf("%s with byte %d at %d: accepted %v", text, other, i, !same)
				}
			}
		}
	}
}

// A million guesses that have everything right but the signature: version, key,
// a case that exists.
func TestTokenNoGuessIsAccepted(t *testing.T) {
	t.Parallel()
	in := freshInstallation(t, 1)
	real, _ := Sign(in, 1042, 1)
	b, _ := tokenText(real)
	guesses := mathrand.New(mathrand.NewChaCha8([32]byte{1}))
	for i := range 1_000_000 {
		binary.BigEndian.PutUint64(b[signedBytes:], guesses.Uint64())
		binary.BigEndian.PutUint32(b[signedBytes+8:], guesses.Uint32())
		b[6], b[9] = byte(i), byte(i>>8) // neighbouring cases and activities
		if verifyToken(in, tokenEncoding.EncodeToString(b)) == nil {
			t.Fatalf("guess %x is accepted", b)
		}
	}
}

// After a rotation the old key still verifies and the new one signs; a key that
// was taken away, or is another's under the same number, verifies nothing.
func TestTokenAfterRotation(t *testing.T) {
	in := freshInstallation(t, 1)
	old, _ := Sign(in, 5, 1)
	in.Keys = append(in.Keys, freshInstallation(t, 2).Keys...)
	current, _ := Sign(in, 5, 1)
	if verifyToken(in, old) != nil || verifyToken(in, current) != nil || old == current {
		t.Errorf("after a rotation: %v %v", verifyToken(in, old), verifyToken(in, current))
	}
	in.Keys = in.Keys[1:]
	if verifyToken(in, old) != errTokenKey || verifyToken(in, current) != nil {
		t.Errorf("after the old key went: %v %v", verifyToken(in, old), verifyToken(in, current))
	}
	in.Keys = freshInstallation(t, 2).Keys
	if verifyToken(in, current) != errTokenMAC {
		t.Error("another key of the same number:", verifyToken(in, current))
	}
	if verifyToken(store.Installation{ID: in.ID}, current) != errTokenKey {
		t.Error("no key at all")
	}
}

// A token is worth nothing at another installation, neither with keys of its own
// nor with the very same ones (a copied configuration).
func TestTokenOfAnotherInstallation(t *testing.T) {
	for range 1000 {
		ours, theirs := freshInstallation(t, 1), freshInstallation(t, 1)
		text, _ := Sign(theirs, 1042, 1)
		copied := store.Installation{ID: ours.ID, Keys: theirs.Keys}
		if verifyToken(ours, text) == nil || verifyToken(copied, text) == nil {
			t.Fatalf("%s of another installation is accepted", text)
		}
	}
}

// A decision on a guessed token says so and opens a case like any other mail
// (rules §9).
func TestGuessedTokenOpensANewCase(t *testing.T) {
	tw := newTown(contact(2, store.Guest, "Ben", "fam@x.example"))
	real := tw.token()
	for name, m := range map[string]Mail{
		"envelope":    {Recipients: []string{PlusAddress("311@city.example", swapLast(real))}},
		"X-Case-Ref":  {Header: multi{"X-Case-Ref": {swapLast(real)}}},
		"In-Reply-To": {InReplyTo: []string{MessageID(swapLast(real), "gw.city.example")}},
		"References":  {References: []string{PseudoReference(swapLast(real), "gw.city.example")}},
	} {
		guess := letter("new@x.example", nil)
		if m.Recipients != nil {
			guess.Recipients = m.Recipients
		}
		if m.Header != nil {
			guess.Header = m.Header
		}
		guess.InReplyTo, guess.References = m.InReplyTo, m.References
		d := Inbound(guess, tw.facts, tw.settings)
		if d.Row != "I26" || d.Rules[0] != "T4" || !strings.Contains(strings.Join(d.Reasons, "\n"), "its signature is wrong") {
			t.Errorf("%s: %v\n%s", name, d.Rules, strings.Join(d.Reasons, "\n"))
		}
	}
}

// swapLast changes the one to last character of a token, whose bits all count.
func swapLast(token string) string {
	i := strings.IndexByte(tokenLetters, token[TokenLength-2])
	return token[:TokenLength-2] + tokenLetters[(i+1)%32:][:1] + token[TokenLength-1:]
}
