package mailauth

import "strings"

// Signers sign for the domains that they have keys of; nil signs for none.
type Signers struct {
	exact map[string]*Signer
	below map[string]*Signer // for subdomains too
}

// NewSigners takes the keys of several domains, for each as NewSigner does.
func NewSigners(keys ...SigningKey) (*Signers, error) {
	s := &Signers{}
	var err error
	if s.exact, err = byDomain(keys); err != nil {
		return nil, err
	}
	var wide []SigningKey
	for _, k := range keys {
		if k.Subdomains {
			wide = append(wide, k)
		}
	}
	s.below, err = byDomain(wide)
	return s, err
}

func byDomain(keys []SigningKey) (map[string]*Signer, error) {
	list := map[string][]SigningKey{}
	for _, k := range keys {
		list[k.Domain] = append(list[k.Domain], k)
	}
	signers := map[string]*Signer{}
	for domain, keys := range list {
		s, err := NewSigner(keys...)
		if err != nil {
			return nil, err
		}
		signers[domain] = s
	}
	return signers, nil
}

// For is who signs mail from a domain: with the domain's own keys, else with
// those of the nearest domain above it that are for subdomains too. nil: nobody.
func (s *Signers) For(domain string) *Signer {
	if s == nil {
		return nil
	}
	if domain = domainKey(domain); s.exact[domain] != nil {
		return s.exact[domain]
	}
	for {
		_, above, ok := strings.Cut(domain, ".")
		if !ok || s.below[above] != nil {
			return s.below[above]
		}
		domain = above
	}
}
