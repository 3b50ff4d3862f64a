package mailauth

import (
	"context"
	"crypto/ed25519"
	"crypto/rsa"
	"time"
)

// Published asks the DNS for a key's record. Pass: it is there and fits. Else
// why tells what is wrong: TempError, the DNS does not say; Neutral, the record
// asks to count the signature as none (t=y); PermError, all else.
func (k SigningKey) Published(ctx context.Context, r Resolver) (found Result, why string) {
	ctx, cancel := context.WithTimeout(ctx, publishedTime)
	defer cancel()
	l := &lookups{ctx: ctx, resolver: r, now: time.Now, shared: &dns{}, left: 1}
	keys, found, why := fetchKeys(l, k.Selector, k.Domain, k.kind)
	if found != "" {
		return found, why
	}
	for _, p := range keys {
		switch {
		case !k.pairs(p):
		case p.testing:
			return Neutral, "the record has t=y: the key is only tried out"
		default:
			return Pass, ""
		}
	}
	return PermError, "the record is of another key"
}

const publishedTime = 5 * time.Second

// pairs reports whether a public key is the other half.
func (k SigningKey) pairs(p publicKey) bool {
	switch own := k.key.Public().(type) {
	case *rsa.PublicKey:
		return own.Equal(p.key)
	case ed25519.PublicKey:
		return own.Equal(p.key)
	}
	return false
}
