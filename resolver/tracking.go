package resolver

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/casegate/casegate/store"
)

// Outcome is what the tracking evidence of a message amounts to (rules §2).
type Outcome string

// The outcomes.
const (
	T0 Outcome = "T0" // no evidence
	T1 Outcome = "T1" // signed, case found
	T2 Outcome = "T2" // unsigned match, the sender is a participant
	T3 Outcome = "T3" // unsigned match, the sender is no participant
	T4 Outcome = "T4" // present but unusable
)

// Correlation methods: the carrier that led to the case.
const (
	byEnvelope       = "envelope"     // known as plus_address outside
	byPlusAddress    = "plus_address" // of a header
	byTrackingHeader = "tracking_header"
	byInReplyTo      = "in_reply_to"
	byReferences     = "references"
	byForeignID      = "foreign_message_id"
	byReturned       = "returned_message"
	bySubject        = "subject_token"
	byNothing        = "none"
	maxCandidates    = 100 // ids read per message; more is noise
	maxMergeSteps    = 100
)

// candidate is one piece of evidence: a token in a carrier; or, unsigned, a
// Message-ID that our index may know, or the bare number of a case.
type candidate struct {
	method string
	token  string
	id     string
	number uint64
}

// tracking is the outcome with what it rests on.
type tracking struct {
	outcome    Outcome
	method     string
	found      store.CaseFacts
	named      Token    // by T1: the case and activity that the token names
	alsoOn     []uint64 // further cases whose token is an envelope recipient too
	related    []uint64
	thirdParty bool
}

// said is the method as records name it.
func (t tracking) said() string {
	if t.method == byEnvelope {
		return byPlusAddress
	}
	return t.method
}

func (t *tracking) onCase() bool { return t.outcome == T1 || t.outcome == T2 }

// signed lists the tokens of a message in the order of rules §2.
func signed(m Mail, s Settings) []candidate {
	var c []candidate
	c = plusTokens(c, byEnvelope, m.Recipients, s)
	c = refTokens(c, byTrackingHeader, headerValues(m, "X-Case-Ref"))
	c = idTokens(c, byInReplyTo, m.InReplyTo)
	c = idTokens(c, byReferences, backwards(m.References))
	if r := m.returned(); r != nil {
		c = refTokens(c, byReturned, r.CaseRefs)
		c = idTokens(c, byReturned, r.ids())
		c = plusTokens(c, byReturned, []string{r.ReturnPath}, s)
	}
	for _, list := range [][]Address{m.To, m.CC} {
		for _, a := range list {
			c = plusTokens(c, byPlusAddress, []string{a.Address}, s)
		}
	}
	return firstN(c)
}

// unsigned lists what may lead to a case by what we have seen before, or by a
// number that anybody can guess.
func unsigned(m Mail, s Settings) []candidate {
	var c []candidate
	if m.ControlHeaders {
		if n, err := strconv.ParseUint(strings.TrimSpace(first(m.Header, "X-Case-Number")), 10, 64); err == nil && n > 0 {
			c = append(c, candidate{method: byTrackingHeader, number: n})
		}
	}
	c = ids(c, byForeignID, m.InReplyTo)
	c = ids(c, byForeignID, backwards(m.References))
	if r := m.returned(); r != nil {
		c = ids(c, byReturned, r.ids())
	}
	if n, ok := taggedCase(m.Subject); ok && s.SubjectTag {
		c = append(c, candidate{method: bySubject, number: n})
	}
	return c
}

func ids(c []candidate, method string, list []string) []candidate {
	for _, id := range list {
		if len(c) == maxCandidates {
			break
		}
		c = append(c, candidate{method: method, id: id})
	}
	return c
}

// returned is the evidence in a message that a report gives back.
func (m Mail) returned() *Returned {
	if m.Notification == nil {
		return nil
	}
	return m.Notification.Returned
}

// ids are those that the returned message bears and names.
func (r *Returned) ids() []string {
	return slices.Concat([]string{r.MessageID}, r.InReplyTo, backwards(r.References))
}

func refTokens(c []candidate, method string, values []string) []candidate {
	for _, v := range values {
		if _, ok := tokenText(v); ok && len(c) < maxCandidates {
			c = append(c, candidate{method: method, token: v})
		}
	}
	return c
}

func plusTokens(c []candidate, method string, addresses []string, s Settings) []candidate {
	for _, a := range addresses {
		if _, plus, ok := s.mailbox(a); ok {
			if _, ok := tokenText(plus); ok {
				c = append(c, candidate{method: method, token: plus})
			}
		}
	}
	return c
}

func idTokens(c []candidate, method string, ids []string) []candidate {
	for _, id := range ids {
		if text, ok := idToken(id); ok && len(c) < maxCandidates {
			c = append(c, candidate{method: method, token: text})
		}
	}
	return c
}

func headerValues(m Mail, name string) []string {
	if m.Header == nil {
		return nil
	}
	return m.Header.Values(name)
}

func backwards(ids []string) []string {
	ids = slices.Clone(ids)
	slices.Reverse(ids)
	return ids
}

func firstN(c []candidate) []candidate { return c[:min(len(c), maxCandidates)] }

// track reads all evidence, signed before unsigned, and says what it amounts
// to. participant is the sender's canonical address when it may take part,
// else empty.
func track(m Mail, f store.Facts, s Settings, participant string, t *trace) tracking {
	tr, bad := trackSigned(signed(m, s), f, t)
	if tr.outcome != T1 {
		tr = trackUnsigned(unsigned(m, s), f, participant, m.Received)
	}
	if tr.outcome == T0 && bad {
		tr.outcome = T4
	}
	tr.thirdParty = tr.outcome == T1 && !isParticipant(tr.found, participant, m.Received)
	explainTracking(tr, participant, t)
	return tr
}

// trackSigned takes the first token that verifies and names a case; a later
// one that names another case is recorded as a conflict.
func trackSigned(cs []candidate, f store.Facts, t *trace) (tr tracking, bad bool) {
	tr = tracking{outcome: T0, method: byNothing}
	for _, c := range cs {
		tok, _ := readToken(c.token)
		if err := verifyToken(f.Installation, c.token); err != nil {
			t.note("the token in %s is not accepted: %v", carrierWords(c.method), err)
			bad = true
			continue
		}
		found, ok := followMerges(f, tok.Case)
		switch {
		case !ok:
			t.note("the token in %s names case %d, which doesn't exist", carrierWords(c.method), tok.Case)
			bad = true
		case tr.outcome != T1:
			tr = tracking{outcome: T1, method: c.method, found: found, named: tok}
		case tr.found.Case.Number == found.Case.Number:
			tr.named.Consult = tr.named.Consult || tok.Consult
		case tr.method == byEnvelope && c.method == byEnvelope:
			t.note("it is addressed to case %d too, and shown there", found.Case.Number)
			tr.alsoOn = appendNew(tr.alsoOn, found.Case.Number)
		default:
			t.note("conflict: the token in %s names case %d; the first evidence wins", carrierWords(c.method), found.Case.Number)
			tr.related = appendNew(tr.related, found.Case.Number)
		}
	}
	return tr, bad
}

// trackUnsigned takes the first id known to lead to a case where the sender
// takes part (T2); failing that, the first that leads to any case (T3).
func trackUnsigned(cs []candidate, f store.Facts, participant string, now time.Time) tracking {
	third := tracking{outcome: T0, method: byNothing}
	for _, c := range cs {
		for _, n := range c.leads(f) {
			found, ok := followMerges(f, n)
			if !ok {
				continue
			}
			if isParticipant(found, participant, now) || isParticipant(f.Cases[n], participant, now) {
				return tracking{outcome: T2, method: c.method, found: found}
			}
			if third.outcome == T0 {
				third.outcome, third.method = T3, c.method
			}
			third.related = appendNew(third.related, found.Case.Number)
		}
	}
	return third
}

// leads lists the cases that a candidate leads to: those of the messages that
// bear an id before those that only name it.
func (c candidate) leads(f store.Facts) []uint64 {
	if c.number != 0 {
		return []uint64{c.number}
	}
	var own, naming []uint64
	for _, ref := range f.MessageIDs[c.id] {
		if ref.Own {
			own = append(own, ref.Case)
		} else {
			naming = append(naming, ref.Case)
		}
	}
	return slices.Concat(own, naming)
}

// isParticipant: an address used on the case, or one of its customer's (§1).
func isParticipant(c store.CaseFacts, address string, now time.Time) bool {
	if address == "" {
		return false
	}
	if _, used := c.Used[address]; used {
		return true
	}
	return c.Customer.HeldAt(address, now)
}

// followMerges returns the case that a number leads to in the end. A circle
// of merges ends at the case it was entered by.
func followMerges(f store.Facts, number uint64) (store.CaseFacts, bool) {
	start, ok := f.Cases[number]
	if !ok || number == 0 {
		return store.CaseFacts{}, false
	}
	at, seen := start, map[uint64]bool{}
	for at.Case.MergedInto != 0 {
		seen[at.Case.Number] = true
		next, ok := f.Cases[at.Case.MergedInto]
		if !ok || seen[next.Case.Number] || len(seen) > maxMergeSteps {
			return start, true
		}
		at = next
	}
	return at, true
}

func explainTracking(tr tracking, participant string, t *trace) {
	n := tr.found.Case.Number
	switch tr.outcome {
	case T0:
		t.rule("T0", "nothing in the message leads to a case")
	case T1:
		t.rule("T1", "the signed token in %s leads to case %d", carrierWords(tr.method), n)
		if tr.thirdParty {
			t.note("the sender has not taken part in case %d before: a third party", n)
		}
	case T2:
		t.rule("T2", "%s leads to case %d, and the sender takes part in that case", carrierWords(tr.method), n)
	case T3:
		t.rule("T3", "%s leads to case %d, but %s takes no part in it: no proof, only related", carrierWords(tr.method), tr.related[0], orNobody(participant))
	case T4:
		t.rule("T4", "it carries a token, but none that can be used")
	}
}

func orNobody(address string) string {
	if address == "" {
		return "the sender (no single, unforged From address)"
	}
	return address
}

func carrierWords(method string) string {
	switch method {
	case byEnvelope, byPlusAddress:
		return "the plus-address"
	case byTrackingHeader:
		return "X-Case-Ref"
	case byInReplyTo:
		return "In-Reply-To"
	case byReferences:
		return "References"
	case byReturned:
		return "the returned message"
	case byForeignID:
		return "a Message-ID it answers"
	case bySubject:
		return "the number in the subject"
	}
	return "the message"
}

func appendNew[T comparable](list []T, v T) []T {
	if slices.Contains(list, v) {
		return list
	}
	return append(list, v)
}
