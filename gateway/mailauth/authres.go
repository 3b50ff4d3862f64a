// Package mailauth reads and gives verdicts about who sent a message: SPF, DKIM,
// DMARC on the way in, a DKIM signature or an ARC seal on the way out. It knows
// no cases.
//
//	Upstream(header, servID, from)   what a trusted peer found out
//	Checker.Check(ctx, request)      what we find out ourselves, within a Budget
//	Results(servID, verdict)         either, as Authentication-Results
//	Signer.Sign, Signer.Seal         fields to prepend
//
// SPF, DKIM and ARC are read here and not by libraries: those at hand take
// minutes for a hostile header, hold what a hostile body is made of, and don't
// pass the public suites (make conformance).
package mailauth

import (
	"errors"
	"fmt"
	"strings"

	"github.com/casegate/casegate/gateway/message"
)

// AuthRes is the value of an Authentication-Results field (RFC 8601 §2.2).
type AuthRes struct {
	ServID  string    // authserv-id as ServID gives it; empty: the writer names none (Exchange Online)
	Version int       // 1 unless stated
	Results []ResInfo // in order; none for "none"
}

// ResInfo is one result with all that is said about it. Method, Result and the
// names of properties are in lower case.
type ResInfo struct {
	Method     string // spf, dkim, dmarc …
	Version    int    // of the method, 1 unless stated
	Result     string
	Reason     string // free text
	Properties []Property
	Comments   []string // what stands in parentheses, in order; nested ones stay in theirs
}

// Property is ptype.property=value. The quotes of a value are undone; its text
// is that of strangers.
type Property struct {
	Type  string // smtp, header, body, policy; empty: written without one (action=none)
	Name  string
	Value string
}

// ErrAuthRes is why a value can't be used.
var ErrAuthRes = errors.New("unusable Authentication-Results")

// ParseAuthRes reads an Authentication-Results value, folded or not (RFC 8601
// §2.2). What it can't read makes the whole value unusable: a quote or comment
// that is never closed, a result that is none, a control character. In such
// debris nobody can tell the writer's words from those of a sender whose
// address it quotes. The error wraps ErrAuthRes.
//
// Beyond the grammar it takes what respectable writers write: empty results,
// values of other bytes than a token's (base64, VERP, UTF-8), empty values,
// properties without a type, and no authserv-id at all.
func ParseAuthRes(value string) (AuthRes, error) {
	l, ok := newLexer(value)
	if !ok {
		return AuthRes{}, fmt.Errorf("%w: a control character or broken fold", ErrAuthRes)
	}
	a, ok := l.authRes()
	if !ok {
		return AuthRes{}, fmt.Errorf("%w: unreadable at byte %d", ErrAuthRes, l.i)
	}
	return a, nil
}

// ServID returns the authserv-id of an Authentication-Results value (RFC 8601
// §2.5) in lower case, as A-label, without comments, quotes, version and the
// dot at its end; empty when there is none. It is lenient where ParseAuthRes
// gives up; whether a value must be taken for that of a certain id is for
// Claims to say.
func ServID(value string) string {
	l, ok := newLexer(value)
	if !ok {
		l = &lexer{s: message.Unfold(value)}
	}
	if !l.cfws() {
		return ""
	}
	id, quoted, ok := l.servID()
	if !ok { // a quote that is never closed
		id, _, _ = strings.Cut(l.s[l.i+1:], ";")
	} else if l.cfws(); !quoted && l.peek() == '=' {
		return ""
	}
	return servKey(id)
}

// authRes reads a whole value (RFC 8601 §2.2, authres-payload).
func (l *lexer) authRes() (a AuthRes, ok bool) {
	if a, ok = l.payload(); !ok {
		return AuthRes{}, false
	}
	if l.peek() == '=' { // that was a method, not an authserv-id
		a, l.i, l.comments = AuthRes{Version: 1}, 0, nil
		r, ok := l.resInfo()
		if !ok {
			return AuthRes{}, false
		}
		a.Results = append(a.Results, r)
	}
	for l.i < len(l.s) {
		l.i++ // the semicolon
		l.comments = nil
		if !l.cfws() {
			return AuthRes{}, false
		}
		if c := l.peek(); c == ';' || c == 0 {
			continue
		}
		if len(a.Results) == 0 && l.none() {
			return a, true
		}
		r, ok := l.resInfo()
		if !ok || len(a.Results) == maxResults {
			return AuthRes{}, false
		}
		a.Results = append(a.Results, r)
	}
	return a, true
}

// maxResults bounds what one value may cost: its results, and the properties and
// comments of one of them. A value with more can't be used.
const maxResults = 1000

// payload reads the authserv-id and the version, up to a semicolon, the end,
// or the equal sign that tells that it was none.
func (l *lexer) payload() (a AuthRes, ok bool) {
	a.Version = 1
	if !l.cfws() {
		return a, false
	}
	id, quoted, ok := l.servID()
	if a.ServID = servKey(id); !ok || a.ServID == "" {
		return a, false
	}
	start := l.i
	if !l.cfws() {
		return a, false
	}
	if c := l.peek(); l.i > start && '0' <= c && c <= '9' {
		if a.Version, ok = l.number(); !ok || !l.cfws() {
			return a, false
		}
		return a, l.atEnd()
	}
	return a, l.atEnd() || !quoted && l.peek() == '='
}

// none reads the word none (RFC 8601 §2.2, no-result) if all ends behind it.
func (l *lexer) none() bool {
	back := *l
	if l.keyword() == "none" && l.cfws() {
		for l.peek() == ';' {
			if l.i++; !l.cfws() {
				break
			}
		}
		if l.i == len(l.s) {
			return true
		}
	}
	work := l.work
	*l = back
	l.work = work
	return false
}

// resInfo reads one result, up to a semicolon or the end.
func (l *lexer) resInfo() (r ResInfo, ok bool) {
	if r.Version, ok = 1, l.cfws(); !ok {
		return r, false
	}
	if r.Method = l.keyword(); r.Method == "" || !l.cfws() {
		return r, false
	}
	if l.accept('/') {
		if !l.cfws() {
			return r, false
		}
		if r.Version, ok = l.number(); !ok || !l.cfws() {
			return r, false
		}
	}
	if !l.accept('=') || !l.cfws() {
		return r, false
	}
	if r.Result = l.keyword(); r.Result == "" {
		return r, false
	}
	for {
		start := l.i
		if !l.cfws() {
			return r, false
		}
		if l.atEnd() {
			r.Comments = l.comments
			return r, true
		}
		if l.i == start || !l.property(&r) {
			return r, false
		}
	}
}

// property reads a reason or a property into r. What looks like a result where
// a property is due is neither.
func (l *lexer) property(r *ResInfo) (ok bool) {
	p := Property{Name: l.keyword()}
	if p.Name == "" || !l.cfws() {
		return false
	}
	if l.accept('.') {
		if !l.cfws() {
			return false
		}
		if p.Type, p.Name = p.Name, l.keyword(); p.Name == "" || !l.cfws() {
			return false
		}
	}
	if !l.accept('=') || !l.cfws() {
		return false
	}
	if p.Value, ok = l.value(); !ok {
		return false
	}
	switch {
	case p.Type != "":
	case p.Name == "spf", p.Name == "dkim", p.Name == "dmarc":
		return false
	case p.Name == "reason":
		if r.Reason != "" {
			return false
		}
		r.Reason = p.Value
		return true
	}
	r.Properties = append(r.Properties, p)
	return len(r.Properties) <= maxResults
}

// property returns the value of a property that is given exactly once.
func (r ResInfo) property(ptype, name string) (value string, ok bool) {
	for _, p := range r.Properties {
		if p.Type == ptype && p.Name == name {
			if ok {
				return "", false
			}
			value, ok = p.Value, true
		}
	}
	return value, ok
}

// has reports whether a property is given, however often.
func (r ResInfo) has(ptype, name string) bool {
	for _, p := range r.Properties {
		if p.Type == ptype && p.Name == name {
			return true
		}
	}
	return false
}
