package mailauth

import (
	"bytes"
	"crypto/sha256"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/casegate/casegate/gateway/message"
)

// signature is a DKIM-Signature (RFC 6376 §3.5), an ARC-Message-Signature or,
// without a body, an ARC-Seal (RFC 8617 §4.1).
type signature struct {
	field    message.Field
	tags     tags
	domain   string // d, in lower case, as A-label
	selector string
	kind     string // of the key: rsa, ed25519
	head     canon
	body     canon
	names    []string // h
	user     string   // DKIM: the domain of i, if given
	keys     []publicKey

	result Result // empty: not decided yet
	why    string // not a pass; ours, no word of a stranger
}

func (s *signature) end(found Result, why string) { s.result, s.why = found, why }

// parseSignature reads what all three kinds have in common, and decides about
// those that need no key to be refused. c is what counts without a tag c.
func parseSignature(f message.Field, c canon) *signature {
	s := &signature{field: f, head: c, body: c}
	var ok bool
	if s.tags, ok = parseTags(f.Value()); !ok {
		s.end(PermError, "the signature can't be read")
		return s
	}
	s.domain, s.selector = domainKey(s.tags.plain("d")), strings.ToLower(s.tags.plain("s"))
	kind, digest, _ := strings.Cut(s.tags.plain("a"), "-")
	s.kind = kind
	switch {
	case s.domain == "" || !isName(s.selector) || s.tags.binary("b") == nil:
		s.end(PermError, "the signature can't be read")
	case digest == "sha1":
		s.end(PermError, "SHA-1 proves nothing")
	case digest != "sha256" || kind != "rsa" && kind != "ed25519":
		s.end(PermError, "the algorithm is unknown")
	}
	return s
}

// readMessage reads what a signature of a message has besides.
func (s *signature) readMessage() {
	if s.result != "" {
		return
	}
	s.names = s.tags.list("h")
	if _, given := s.tags["c"]; given {
		head, body, both := strings.Cut(s.tags.plain("c"), "/")
		s.head, s.body = canon(head), simple
		if both {
			s.body = canon(body)
		}
	}
	switch {
	case s.head != simple && s.head != relaxed || s.body != simple && s.body != relaxed:
		s.end(PermError, "the canonicalisation is unknown")
	case s.tags.binary("bh") == nil:
		s.end(PermError, "the signature does not cover the body")
	}
}

// parseDKIM reads a DKIM-Signature field. A signature over a part of the body
// only (tag l) counts as none: anything may follow.
func parseDKIM(f message.Field, now time.Time) *signature {
	s := parseSignature(f, simple)
	s.readMessage()
	if s.result != "" {
		return s
	}
	_, below := s.tags["i"]
	if user := s.tags.plain("i"); strings.Contains(user, "@") {
		s.user = addressDomain(user)
	}
	methods := s.tags.list("q")
	_, partial := s.tags["l"]
	isFrom := func(name string) bool { return strings.EqualFold(name, "from") }
	switch {
	case !slices.ContainsFunc(s.names, isFrom):
		s.end(PermError, "the signature does not cover From")
	case s.tags["v"] != "1":
		s.end(PermError, "the version is unknown")
	case below && !isBelow(s.user, s.domain):
		s.end(PermError, "the signature is for another domain")
	case methods != nil && !slices.Contains(methods, "dns/txt"):
		s.end(PermError, "the key is not in the DNS")
	case partial:
		s.end(Neutral, "the signature covers only a part of the body")
	case s.expired(now):
		s.end(Fail, "the signature has expired")
	}
	return s
}

// expired reads the tag x; one that is no time ends nothing.
func (s *signature) expired(now time.Time) bool {
	x, err := strconv.ParseInt(s.tags.plain("x"), 10, 64)
	return err == nil && now.Unix() > x
}

// fetch asks for the key of a signature that isn't decided.
func (s *signature) fetch(l *lookups) {
	if s.result != "" {
		return
	}
	keys, found, why := fetchKeys(l, s.selector, s.domain, s.kind)
	if s.keys = keys; found != "" {
		s.end(found, why)
	}
	if s.user == "" || s.user == s.domain || s.result != "" {
		return
	}
	s.keys = slices.DeleteFunc(s.keys, func(k publicKey) bool { return k.strict })
	if len(s.keys) == 0 {
		s.end(PermError, "the key is not for subdomains")
	}
}

// verify decides about a signature of a message.
func (s *signature) verify(fields picker, bodies map[canon][]byte) {
	if s.result != "" {
		return
	}
	if !bytes.Equal(bodies[s.body], s.tags.binary("bh")) {
		s.end(Fail, "the body was changed")
		return
	}
	h := sha256.New()
	fields.write(h, s.head, s.names)
	io.WriteString(h, strings.TrimRight(s.head.header(withoutSignature(s.field.Raw())), "\r\n"))
	s.decide(h.Sum(nil))
}

// decide compares with the keys. One that is only tried out makes no pass
// (RFC 6376 §3.6.1, t=y).
func (s *signature) decide(digest []byte) {
	i := slices.IndexFunc(s.keys, func(k publicKey) bool { return k.verify(digest, s.tags.binary("b")) })
	switch {
	case i < 0:
		s.end(Fail, "the signature does not verify")
	case s.keys[i].testing:
		s.end(Neutral, "the key is only tried out")
	default:
		s.end(Pass, "")
	}
}

// signatures reads the DKIM signatures of a header, at most so many; those
// aligned with From are preferred, and come first.
func signatures(h message.Header, from string, most int, now time.Time) []*signature {
	var aligned, others []*signature
	for _, f := range h.Named("DKIM-Signature") {
		if len(aligned) == most {
			break
		}
		s := parseDKIM(f, now)
		switch {
		case Aligned(s.domain, from):
			aligned = append(aligned, s)
		case len(others) < most:
			others = append(others, s)
		}
	}
	list := append(aligned, others...)
	return list[:min(len(list), most)]
}
