package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/casegate/casegate/gateway/console"
	"github.com/casegate/casegate/gateway/mailauth"
)

// checkDKIM looks at all but the key files: they are read by who signs.
func (c *Config) checkDKIM() problems {
	var found problems
	for i, k := range c.DKIM {
		path := fmt.Sprintf("dkim[%d]", i)
		if k.Domain != "" && !console.IsDomain(k.Domain) {
			found = append(found, problem{path: path + ".domain", what: fmt.Sprintf("%q is not a domain", k.Domain), hint: "write what stands behind the @ of your addresses, such as city.example"})
		}
		if k.Selector != "" && !console.IsDomain(k.Selector) {
			found = append(found, problem{path: path + ".selector", what: fmt.Sprintf("%q is not a selector", k.Selector), hint: "write letters, digits and hyphens, such as casegate1"})
		}
		same := func(e DKIMKey) bool {
			return strings.EqualFold(e.Domain, k.Domain) && strings.EqualFold(e.Selector, k.Selector)
		}
		if first := slices.IndexFunc(c.DKIM, same); first < i && k.Selector != "" {
			found = append(found, problem{path: path + ".selector", what: fmt.Sprintf("%q of %s is dkim[%d] already", k.Selector, k.Domain, first), hint: "give each key a selector of its own"})
		}
	}
	return found
}

// signingKeys reads the key files of dkim. The problems have their places.
func (c *Config) signingKeys() ([]mailauth.SigningKey, problems) {
	var keys []mailauth.SigningKey
	var found problems
	add := func(path, what, hint string) {
		found = append(found, problem{place: c.places.find(path), path: path, what: what, hint: hint})
	}
	taken := map[[2]string]int{} // by domain and kind
	for i, k := range c.DKIM {
		path := fmt.Sprintf("dkim[%d]", i)
		key, err := mailauth.ReadSigningKey(k.Key, k.Domain, k.Selector)
		if told := (*mailauth.KeyError)(nil); errors.As(err, &told) {
			add(path+".key", told.Error(), told.Hint)
			continue
		}
		own := [2]string{key.Domain, key.Kind()}
		if first, twice := taken[own]; twice {
			add(path, fmt.Sprintf("dkim[%d] signs for %s with a key of type %s already", first, key.Domain, key.Kind()),
				"keep the one whose record is published; of each type one key signs")
			continue
		}
		taken[own] = i
		key.Subdomains = k.Subdomains
		keys = append(keys, key)
	}
	return keys, found
}

// signers sign as dkim says; nil where it says nothing. Its errors are problems
// with their places.
func (c *Config) signers() (*mailauth.Signers, error) {
	keys, found := c.signingKeys()
	if len(found) > 0 {
		return nil, found
	}
	if len(keys) == 0 {
		return nil, nil
	}
	return mailauth.NewSigners(keys...)
}
