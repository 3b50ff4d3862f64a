package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/casegate/casegate/gateway/mailauth"
	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/store"
)

// sign puts our DKIM signature on top of a plan's header block, which is final
// but for that, and records it or why there is none (rule O13). The domain of
// From decides whose it is, so that it is aligned (RFC 7489 §3.1).
func (p pipeline) sign(n *plan, body func() (mailauth.BodyHash, error)) error {
	if p.Signers == nil {
		return nil
	}
	fields, why, err := p.signature(n.sent, body)
	if err != nil {
		return err
	}
	n.message.Decision = withReason(n.message.Decision, why)
	n.sent = append(fields, n.sent...)
	return nil
}

// signature is what signs a header block; none, and why not.
func (p pipeline) signature(header []byte, body func() (mailauth.BodyHash, error)) (fields []byte, why string, err error) {
	from, n := message.From(message.Parse(header))
	if n != 1 {
		return nil, "O13: not signed: From is not a single address", nil
	}
	domain := from.Address[strings.LastIndexByte(from.Address, '@')+1:]
	s := p.Signers.For(domain)
	if s == nil {
		return nil, "O13: not signed: dkim has no key for " + plainName(domain), nil
	}
	sum, err := body()
	if err != nil {
		return nil, "", err
	}
	fields, err = s.Sign(header, sum)
	if errors.Is(err, mailauth.ErrUnsignable) {
		return nil, "O13: " + err.Error(), nil
	}
	return fields, fmt.Sprintf("O13: signed by %s: %s", s.Domain(), keyNames(s)), err
}

// keyNames names the keys of a signer by their selectors.
func keyNames(s *mailauth.Signer) string {
	var names []string
	for _, k := range s.Keys() {
		names = append(names, k.String())
	}
	return strings.Join(names, " and ")
}

func withReason(d store.Decision, why string) store.Decision {
	d.Reasons = append(slices.Clone(d.Reasons), why)
	return d
}

// bodyHash is that of a body as it is sent.
func (s *spool) bodyHash(ctx context.Context, transforms []string) (mailauth.BodyHash, error) {
	r, done := s.reader()
	defer done()
	return mailauth.HashBody(ctx, message.Apply(r, transforms))
}

// textHash is that of a text we write.
func textHash(ctx context.Context, text string) func() (mailauth.BodyHash, error) {
	return func() (mailauth.BodyHash, error) { return mailauth.HashBody(ctx, strings.NewReader(text)) }
}
