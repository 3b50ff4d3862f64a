package mailauth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/casegate/casegate/gateway/message"
)

// signedFields are covered where they are there (RFC 6376 §5.4.1); From once
// more, so that none can be added.
var signedFields = []string{
	"From", "Sender", "Reply-To", "To", "Cc", "Subject", "Date", "Message-ID", "In-Reply-To", "References",
	"MIME-Version", "Content-Type", "Content-Transfer-Encoding", "Auto-Submitted",
	"List-Id", "List-Unsubscribe", "List-Unsubscribe-Post",
}

// Signer signs what leaves (RFC 6376) and seals what passes through (RFC 8617).
type Signer struct {
	Now func() time.Time // nil: time.Now

	keys  []SigningKey
	signs []string // names of fields
	seals []string
}

// NewSigner signs with one key, or with two: an RSA key that all can verify,
// and an Ed25519 key of the same domain (RFC 8463).
func NewSigner(keys ...SigningKey) (*Signer, error) {
	switch {
	case len(keys) == 0 || len(keys) > 2:
		return nil, errors.New("DKIM signs with one key or two")
	case len(keys) == 2 && keys[0].kind == keys[1].kind:
		return nil, fmt.Errorf("two DKIM keys must be one RSA and one Ed25519 key, not two of %s", keys[0].kind)
	case len(keys) == 2 && keys[0].Domain != keys[1].Domain:
		return nil, fmt.Errorf("two DKIM keys must be of one domain, not of %s and %s", keys[0].Domain, keys[1].Domain)
	case len(keys) == 2 && keys[0].Selector == keys[1].Selector:
		return nil, fmt.Errorf("two DKIM keys need two selectors, not twice %s", keys[0].Selector)
	}
	for _, k := range keys {
		if k.key == nil {
			return nil, errors.New("a DKIM key must come from ReadSigningKey")
		}
	}
	return &Signer{keys: keys, signs: signedFields, seals: sealedFields}, nil
}

// Domain is whose signature it is: it is aligned with From addresses in it, or
// in the same organisation.
func (s *Signer) Domain() string { return s.keys[0].Domain }

// Keys are those it signs with.
func (s *Signer) Keys() []SigningKey { return s.keys }

// String is whose signature it is and by which keys, such as "city.example: s1
// (rsa, 2048 bits) and s2 (ed25519)".
func (s *Signer) String() string {
	var names []string
	for _, k := range s.keys {
		names = append(names, k.String())
	}
	return s.Domain() + ": " + strings.Join(names, " and ")
}

// BodyHash is what a signature says of a body (RFC 6376 §3.5, tag bh): relaxed,
// in base64.
type BodyHash string

// HashBody reads a body once, as it will be sent; nil is an empty one.
func HashBody(ctx context.Context, body io.Reader) (BodyHash, error) {
	sums, err := hashBody(ctx, body, map[canon]bool{relaxed: true})
	if err != nil {
		return "", fmt.Errorf("signing: the body can't be read: %w", err)
	}
	return BodyHash(base64.StdEncoding.EncodeToString(sums[relaxed])), nil
}

// BodyHasher hashes a body that is written to it as it will be sent.
type BodyHasher struct{ w *bodyWriter }

func NewBodyHasher() BodyHasher { return BodyHasher{newBodyWriter(relaxed)} }

func (h BodyHasher) Write(p []byte) (int, error) { return h.w.Write(p) }

// Sum ends the body.
func (h BodyHasher) Sum() BodyHash {
	return BodyHash(base64.StdEncoding.EncodeToString(h.w.sum()))
}

// ErrUnsignable: no signature over such a header would be of use.
var ErrUnsignable = errors.New("it can't be signed")

// Sign returns the DKIM-Signature fields to prepend to a message: header is its
// final block, body that of its final body. ErrUnsignable, with the reason.
func (s *Signer) Sign(header []byte, body BodyHash) ([]byte, error) {
	h := message.Parse(header)
	fields := newPicker(h)
	switch {
	case h.TooLarge():
		return nil, fmt.Errorf("%w: its header is too large", ErrUnsignable)
	case len(fields["from"]) != 1:
		return nil, fmt.Errorf("%w: it has %d From fields", ErrUnsignable, len(fields["from"]))
	}
	names := append(covered(fields, s.signs), "From")
	var out []byte
	for _, k := range s.keys {
		field, err := k.signMessage("DKIM-Signature", fields, names, []tag{
			{"v", "1"}, {"a", k.kind + "-sha256"}, {"c", "relaxed/relaxed"}, {"d", k.Domain}, {"s", k.Selector},
			{"t", s.time()}, {"h", strings.Join(names, ":")}, {"bh", string(body)}, {"b", ""},
		})
		if err != nil {
			return nil, err
		}
		out = append(out, field...)
	}
	return out, nil
}

func (s *Signer) time() string {
	now := time.Now
	if s.Now != nil {
		now = s.Now
	}
	return strconv.FormatInt(now().Unix(), 10)
}

// covered names the fields that are there, as often as they are.
func covered(fields picker, names []string) (list []string) {
	for _, name := range names {
		for range fields[strings.ToLower(name)] {
			list = append(list, name)
		}
	}
	return list
}

type tag struct{ name, value string }

// signMessage writes a signature over fields, and over itself with an empty
// tag b.
func (k SigningKey) signMessage(name string, fields picker, names []string, list []tag) ([]byte, error) {
	h := sha256.New()
	fields.write(h, relaxed, names)
	return k.signOver(h, name, list)
}

// signOver ends what is hashed with the signature's own field.
func (k SigningKey) signOver(h hash.Hash, name string, list []tag) ([]byte, error) {
	own := relaxed.header(writeTags(name, list, k.width()))
	io.WriteString(h, strings.TrimSuffix(own, "\r\n"))
	b, err := k.sign(h.Sum(nil))
	if err != nil {
		return nil, fmt.Errorf("signing for %s: %w", k.Domain, err)
	}
	for i := range list {
		if list[i].name == "b" {
			list[i].value = base64.StdEncoding.EncodeToString(b)
		}
	}
	return []byte(writeTags(name, list, k.width())), nil
}

// width is how long lines are.
func (k SigningKey) width() int {
	if k.lines > 0 {
		return k.lines
	}
	return 72
}

// writeTags writes a field, folded between tags, and in long ones where that
// changes nothing: in lists, and in base64.
func writeTags(name string, list []tag, width int) string {
	var b strings.Builder
	b.WriteString(name + ":")
	column := len(name) + 1
	for i, t := range list {
		text := t.name + "=" + t.value
		if i < len(list)-1 {
			text += ";"
		}
		if column+1+len(text) > width {
			b.WriteString("\r\n")
			column = 0
		}
		for b.WriteString(" "); len(text) > width; {
			n := width
			if t.name == "h" {
				n = strings.LastIndexByte(text[:n], ':') + 1
			}
			if n == 0 || t.name != "h" && t.name != "b" {
				break
			}
			b.WriteString(text[:n] + "\r\n ")
			text, column = text[n:], 0
		}
		b.WriteString(text)
		column += 1 + len(text)
	}
	return b.String() + "\r\n"
}
