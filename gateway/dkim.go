package gateway

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/casegate/casegate/gateway/mailauth"
	"github.com/casegate/casegate/gateway/message"
)

// sign puts our DKIM signature on top of a plan's header block, which is final
// but for that, and records it or why there is none (rule O13).
func (p pipeline) sign(n *plan, body func() (mailauth.BodyHash, error)) error {
	fields, why, err := sign(p.Signers, n.sent, body)
	if err != nil || why == "" {
		return err
	}
	n.say("O13: " + why)
	n.sent = message.OnTop(n.sent, fields)
	return nil
}

// SignReport signs a delivery report of ours: it returns the fields to put on
// top, and in words whose signature it is or why there is none.
func SignReport(signers *mailauth.Signers, header []byte, body io.WriterTo) (fields []byte, why string, err error) {
	return sign(signers, header, func() (mailauth.BodyHash, error) { return hashBody(body) })
}

// sign signs a header block. The domain of From decides whose signature it is,
// so that it is aligned (RFC 7489 §3.1). Where nobody signs anything, there are
// no words about it.
func sign(signers *mailauth.Signers, header []byte, body func() (mailauth.BodyHash, error)) (fields []byte, why string, err error) {
	if signers == nil {
		return nil, "", nil
	}
	from, n := message.From(message.Parse(header))
	if n != 1 {
		return nil, "not signed: From is not a single address", nil
	}
	domain := from.Address[strings.LastIndexByte(from.Address, '@')+1:]
	s := signers.For(domain)
	if s == nil {
		return nil, "not signed: dkim has no key for " + plainName(domain), nil
	}
	sum, err := body()
	if err != nil {
		return nil, "", err
	}
	fields, err = s.Sign(header, sum)
	if errors.Is(err, mailauth.ErrUnsignable) {
		return nil, err.Error(), nil
	}
	return fields, "signed by " + s.String(), err
}

func hashBody(body io.WriterTo) (mailauth.BodyHash, error) {
	h := mailauth.NewBodyHasher()
	_, err := body.WriteTo(h)
	return h.Sum(), err
}

// bodyHash is that of a body as it is sent.
func (s *spool) bodyHash(ctx context.Context, transforms []string) (mailauth.BodyHash, error) {
	if len(transforms) == 0 {
		return hashBody(s.body)
	}
	r, done := s.reader()
	defer done()
	return mailauth.HashBody(ctx, message.Apply(r, transforms))
}

// textHash is that of a text we write.
func textHash(text string) func() (mailauth.BodyHash, error) {
	return func() (mailauth.BodyHash, error) { return hashBody(strings.NewReader(text)) }
}
