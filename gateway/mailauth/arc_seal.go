package mailauth

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/casegate/casegate/gateway/message"
)

// sealedFields are covered by a seal (RFC 8617 §4.1.2) besides those of a
// signature.
var sealedFields = append([]string{"DKIM-Signature"}, signedFields...)

// ErrUnsealable: no seal over such a message would be of use.
var ErrUnsealable = errors.New("it can't be sealed")

// Seal returns the ARC set to prepend to a message that passes through (RFC
// 8617 §5.1): header is its final block, body that of its final body, chain what
// Check found of the chain that it came with, results what Results says of it,
// on one line. ErrUnsealable, with the reason.
func (s *Signer) Seal(header []byte, body BodyHash, chain Result, results string) ([]byte, error) {
	h := message.Parse(header)
	before := readChain(h)
	switch {
	case strings.ContainsAny(results, "\r\n"):
		return nil, errors.New("sealing: the results must be on one line")
	case h.TooLarge():
		return nil, fmt.Errorf("%w: its header is too large", ErrUnsealable)
	case chain != None && chain != Pass && chain != Fail:
		return nil, fmt.Errorf("%w: its ARC chain could not be judged", ErrUnsealable)
	case chain != Fail && (before.broken || (chain == None) != (len(before.sets) == 0)):
		return nil, fmt.Errorf("%w: its ARC chain is no longer the one that was checked", ErrUnsealable)
	case before.closed():
		return nil, fmt.Errorf("%w: its ARC chain is full, or says itself that it is broken", ErrUnsealable)
	}
	return s.seal(newPicker(h), before, chain, body, results)
}

// seal makes the three fields. The seal of a broken chain covers its own set
// only (§5.1.2).
func (s *Signer) seal(fields picker, before *arcChain, chain Result, sum BodyHash, results string) ([]byte, error) {
	k := s.sealingKey()
	number := strconv.Itoa(len(before.sets) + 1)
	aar := foldResults("ARC-Authentication-Results: i="+number+"; ", results)
	names := covered(fields, s.seals)
	ams, err := k.signMessage("ARC-Message-Signature", fields, names, []tag{
		{"a", k.kind + "-sha256"}, {"b", ""}, {"bh", string(sum)}, {"c", "relaxed/relaxed"}, {"d", k.Domain},
		{"h", strings.Join(names, ":")}, {"i", number}, {"s", k.Selector}, {"t", s.time()},
	})
	if err != nil {
		return nil, err
	}
	hash := sha256.New()
	if chain != Fail {
		for _, set := range before.sets {
			for _, raw := range []string{set.results.Raw(), set.message.field.Raw(), set.seal.field.Raw()} {
				io.WriteString(hash, relaxed.header(raw))
			}
		}
	}
	io.WriteString(hash, relaxed.header(aar))
	io.WriteString(hash, relaxed.header(string(ams)))
	as, err := k.signOver(hash, "ARC-Seal", []tag{
		{"a", k.kind + "-sha256"}, {"b", ""}, {"cv", string(chain)}, {"d", k.Domain},
		{"i", number}, {"s", k.Selector}, {"t", s.time()},
	})
	if err != nil {
		return nil, err
	}
	return append(append(as, ams...), aar...), nil
}

// closed reports that nothing can be added: the chain is full, says that it is
// broken, or has no set with a number to count on from.
func (c *arcChain) closed() bool {
	n := len(c.sets)
	if n == 0 {
		return c.broken
	}
	last := c.sets[n-1].seal
	return n == maxARC || last != nil && strings.EqualFold(last.tags["cv"], "fail")
}

// sealingKey is the RSA key, if there is one: few verify anything else here.
func (s *Signer) sealingKey() SigningKey {
	for _, k := range s.keys {
		if k.kind == "rsa" {
			return k
		}
	}
	return s.keys[0]
}

// foldResults writes the results on lines, one method each.
func foldResults(head, results string) string {
	return head + strings.ReplaceAll(results, "; ", ";\r\n\t") + "\r\n"
}
