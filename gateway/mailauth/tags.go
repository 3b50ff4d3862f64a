package mailauth

import (
	"encoding/base64"
	"strings"
)

// tags is a tag=value list (RFC 6376 §3.2).
type tags map[string]string

// parseTags reads a list; a name that comes twice makes it unusable.
func parseTags(s string) (t tags, ok bool) {
	t = tags{}
	for tag := range strings.SplitSeq(s, ";") {
		name, value, ok := strings.Cut(tag, "=")
		name = strings.Trim(name, " \t\r\n")
		if !ok {
			if name == "" {
				continue
			}
			return nil, false
		}
		if _, twice := t[name]; twice || !isTagName(name) {
			return nil, false
		}
		t[name] = strings.Trim(value, " \t\r\n")
	}
	return t, true
}

func isTagName(s string) bool {
	for i := range len(s) {
		if !isAlnum(s[i]) && s[i] != '_' {
			return false
		}
	}
	return s != "" && isLetter(s[0])
}

// plain is a value without any white space.
func (t tags) plain(name string) string { return withoutSpace(t[name]) }

func withoutSpace(s string) string {
	if !strings.ContainsAny(s, " \t\r\n") {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r == ' ' || r == '\t' || r == '\r' || r == '\n' {
			return -1
		}
		return r
	}, s)
}

// list is a value of several, separated by colons.
func (t tags) list(name string) []string {
	if t.plain(name) == "" {
		return nil
	}
	return strings.Split(t.plain(name), ":")
}

// binary is a value in base64; nil if it is none.
func (t tags) binary(name string) []byte {
	b, err := base64.StdEncoding.DecodeString(t.plain(name))
	if err != nil {
		return nil
	}
	return b
}

// withoutSignature is a raw signature field with the value of its tag b empty:
// what the signer hashed (RFC 6376 §3.7).
func withoutSignature(raw string) string {
	head, value, _ := strings.Cut(raw, ":")
	list := strings.Split(value, ";")
	for i, tag := range list {
		if name, _, ok := strings.Cut(tag, "="); ok && strings.Trim(name, " \t\r\n") == "b" {
			list[i] = name + "="
		}
	}
	return head + ":" + strings.Join(list, ";")
}
