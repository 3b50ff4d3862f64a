package resolver

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/casegate/casegate/store"
)

func installation(keys ...byte) store.Installation {
	in := store.Installation{ID: store.ID{1, 2, 3}}
	for _, id := range keys {
		in.Keys = append(in.Keys, store.SigningKey{ID: id, Secret: []byte{id, 9, 9, 9}, CreatedAt: time.Unix(int64(id), 0)})
	}
	return in
}

func TestTokenRoundTrip(t *testing.T) {
	in := installation(1)
	for _, n := range []uint64{1, 1042, maxCase} {
		for _, ord := range []uint32{0, 1, maxOrdinal} {
			text, err := Sign(in, n, ord)
			if err != nil || len(text) != TokenLength {
				t.Fatalf("Sign(%d, %d) = %q, %v", n, ord, text, err)
			}
			for _, as := range []string{text, strings.ToUpper(text)} {
				tok, ok := readToken(as)
				if err := verifyToken(in, as); err != nil || !ok || tok.Case != n || tok.Ordinal != ord {
					t.Errorf("%s: %+v %v %v", as, tok, ok, err)
				}
			}
		}
	}
	if _, err := Sign(in, maxCase+1, 0); err == nil {
		t.Error("a case number that does not fit is signed")
	}
}

func TestMailboxWithTokenFits64Octets(t *testing.T) {
	if n := 27 + 1 + TokenLength; n > 64 {
		t.Fatalf("%d octets", n)
	}
}

// No bit of a token may change, and each token has one spelling but for case.
func TestTokenFlippedBits(t *testing.T) {
	in := installation(1, 2)
	for n := range uint64(1000) {
		text, _ := Sign(in, n*7+1, uint32(n))
		b, _ := tokenText(text)
		for bit := range len(b) * 8 {
			c := append([]byte{}, b...)
			c[bit/8] ^= 1 << (bit % 8)
			if verifyToken(in, tokenEncoding.EncodeToString(c)) == nil {
				t.Fatalf("token %s accepted with bit %d flipped", text, bit)
			}
		}
		last := strings.IndexByte("abcdefghijklmnopqrstuvwxyz234567", text[35])
		for other := range 32 {
			if other != last && verifyToken(in, text[:35]+"abcdefghijklmnopqrstuvwxyz234567"[other:other+1]) == nil {
				t.Fatalf("%s has a second spelling", text)
			}
		}
	}
}

func TestTokenGuesses(t *testing.T) {
	in := installation(1)
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, tokenBytes)
	for range 1_000_000 {
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		b[0], b[1] = tokenVersion, 1
		if verifyToken(in, tokenEncoding.EncodeToString(b)) == nil {
			t.Fatal("a guess was accepted")
		}
	}
}

func TestTokenKeys(t *testing.T) {
	old, _ := Sign(installation(1), 5, 1)
	if err := verifyToken(installation(1, 2), old); err != nil {
		t.Error("an old key no longer verifies:", err)
	}
	if err := verifyToken(installation(2), old); err != errTokenKey {
		t.Error("unknown key:", err)
	}
	foreign := installation(1)
	foreign.ID[0]++
	if err := verifyToken(foreign, old); err != errTokenMAC {
		t.Error("other installation:", err)
	}
	newest, _ := Sign(installation(1, 2), 5, 1)
	if tok, _ := readToken(newest); tok.Key != 2 {
		t.Error("the newest key does not sign")
	}
}

// Each carrier gives the token back.
func TestTokenCarriers(t *testing.T) {
	text, _ := Sign(installation(1), 7, 3)
	for _, id := range []string{MessageID(text, "gw.example"), PseudoReference(text, "gw.example"), "m." + strings.ToUpper(text) + "@elsewhere"} {
		if got, ok := idToken(id); !ok || !strings.EqualFold(got, text) {
			t.Errorf("%s: %q %v", id, got, ok)
		}
	}
	s := Settings{Mailboxes: []Mailbox{{Address: "311@city.example"}}}
	m, plus, ok := s.mailbox(PlusAddress("311@city.example", text))
	if !ok || plus != text || m.Address != "311@city.example" {
		t.Error("plus-address:", m, plus, ok)
	}
}
