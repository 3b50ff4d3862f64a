package mailauth

import (
	"crypto/sha256"
	"io"
	"strconv"
	"strings"

	"github.com/casegate/casegate/gateway/message"
)

// maxARC is how many times a message may be sealed (RFC 8617 §4.2.1).
const maxARC = 50

// arcSet is what one system added (RFC 8617 §4.1).
type arcSet struct {
	results message.Field // ARC-Authentication-Results
	message *signature    // ARC-Message-Signature
	seal    *signature    // ARC-Seal
	fields  int
}

// arcChain is the ARC sets of a message, the first one first.
type arcChain struct {
	sets   []arcSet
	broken bool // decided: it fails
}

// readChain collects the sets (RFC 8617 §5.2 step 1 to 3).
func readChain(h message.Header) *arcChain {
	c := &arcChain{}
	for _, f := range h.Fields() {
		switch strings.ToLower(f.Name) {
		case "arc-authentication-results":
			if set := c.at(instance(firstTag(f))); set != nil {
				set.results = f
				set.fields++
			}
			continue
		case "arc-message-signature", "arc-seal":
			s := parseSignature(f, relaxed)
			if gap(f.Value()) {
				s.end(PermError, "the signature can't be read")
			}
			set := c.at(instance(s.tags["i"]))
			if set == nil {
				continue
			}
			set.fields++
			if strings.EqualFold(f.Name, "ARC-Seal") {
				set.seal = s
			} else {
				s.readMessage()
				set.message = s
			}
		}
	}
	for i, set := range c.sets {
		c.broken = c.broken || !set.complete(i)
	}
	return c
}

// at is the set of an instance; a number that none has breaks the chain.
func (c *arcChain) at(i int) *arcSet {
	if i < 1 || i > maxARC {
		c.broken = true
		return nil
	}
	for len(c.sets) < i {
		c.sets = append(c.sets, arcSet{})
	}
	return &c.sets[i-1]
}

// complete reports that a set, by its number from 0, has one of each field,
// and seals the chain below it as good.
func (s *arcSet) complete(i int) bool {
	if s.fields != 3 || s.message == nil || s.seal == nil || s.results.Name == "" {
		return false
	}
	if s.message.result != "" || s.seal.result != "" {
		return false
	}
	for _, name := range s.message.names {
		if strings.EqualFold(name, "arc-seal") { // §4.1.2
			return false
		}
	}
	_, covers := s.seal.tags["h"] // §4.1.3
	_, body := s.seal.tags["bh"]
	before := map[bool]string{true: "none", false: "pass"}[i == 0]
	return !covers && !body && strings.EqualFold(s.seal.tags["cv"], before)
}

// gap reports an empty tag that isn't the last one: strict here, since what is
// sealed is nobody's handwriting (RFC 6376 §3.2).
func gap(list string) bool {
	all := strings.Split(list, ";")
	for _, tag := range all[:len(all)-1] {
		if strings.Trim(tag, " \t\r\n") == "" {
			return true
		}
	}
	return false
}

// firstTag is the value of the tag i that an ARC-Authentication-Results begins
// with.
func firstTag(f message.Field) string {
	tag, _, _ := strings.Cut(f.Text(), ";")
	name, value, _ := strings.Cut(tag, "=")
	if strings.TrimSpace(name) != "i" {
		return ""
	}
	return strings.TrimSpace(value)
}

func instance(text string) int {
	i, err := strconv.Atoi(text)
	if err != nil || !isDigits(text) {
		return 0
	}
	return i
}

// message is the signature that must hold now: the last one. None if the chain
// is decided already.
func (c *arcChain) message() *signature {
	if c.broken || len(c.sets) == 0 {
		return nil
	}
	return c.sets[len(c.sets)-1].message
}

// fetch asks for the keys: of the last signature and of all seals.
func (c *arcChain) fetch(l *lookups) {
	if c.broken || len(c.sets) == 0 {
		return
	}
	c.message().fetch(l)
	for i := len(c.sets) - 1; i >= 0; i-- {
		c.sets[i].seal.fetch(l)
	}
}

// verdict is the chain validation status (RFC 8617 §4.4): none, pass or fail,
// or temperror when the DNS gave no key.
func (c *arcChain) verdict() Result {
	switch {
	case c.broken:
		return Fail
	case len(c.sets) == 0:
		return None
	}
	if m := c.message(); m.result != Pass {
		return failed(m)
	}
	for i := len(c.sets) - 1; i >= 0; i-- {
		seal := c.sets[i].seal
		if seal.result == "" {
			seal.decide(c.digest(i))
		}
		if seal.result != Pass {
			return failed(seal)
		}
	}
	return Pass
}

// sealer is the domain of the last seal, or empty.
func (c *arcChain) sealer() string {
	if c.broken || len(c.sets) == 0 {
		return ""
	}
	return c.sets[len(c.sets)-1].seal.domain
}

func failed(s *signature) Result {
	if s.result == TempError {
		return TempError
	}
	return Fail
}

// digest is what the seal of an instance, from 0, signs (RFC 8617 §5.1.1): all
// sets up to it in order, its own signature empty.
func (c *arcChain) digest(i int) []byte {
	h := sha256.New()
	for n, set := range c.sets[:i+1] {
		io.WriteString(h, relaxed.header(set.results.Raw()))
		io.WriteString(h, relaxed.header(set.message.field.Raw()))
		if n < i {
			io.WriteString(h, relaxed.header(set.seal.field.Raw()))
		} else {
			io.WriteString(h, strings.TrimSuffix(relaxed.header(withoutSignature(set.seal.field.Raw())), "\r\n"))
		}
	}
	return h.Sum(nil)
}
