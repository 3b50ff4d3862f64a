package resolver

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/casegate/casegate/store"
)

// bind finds the case (rules §6), or says what becomes of mail about none. Who
// sends is ours, so what is unsigned binds too, whoever takes part.
func (o *outbound) bind() *Refusal {
	t, refusal := o.track()
	switch {
	case refusal != nil:
		return refusal
	case t.onCase():
		o.onCase(t)
		return nil
	case o.settings.Uncased == "create":
		return o.create()
	case o.settings.Uncased == "reject":
		o.note("refused: it is about no case, and outbound.uncased is reject")
		return &Refusal{550, [3]int{5, 7, 1}, "the message is about no case: answer a message of the case, or send its X-Case-Ref (outbound.uncased is reject)"}
	}
	o.note("uncased: nothing in the message leads to a case; only rule O10 applies")
	return nil
}

// onCase joins the case, whose state stays: what the desk sends reopens nothing.
func (o *outbound) onCase(t tracking) {
	c := t.found.Case
	c.Ordinal++
	c.UpdatedAt = o.sub.Received
	o.cased, o.found, o.d.Method = true, t.found, t.method
	o.d.Case, o.d.Customer, o.d.Ordinal = c, t.found.Customer, c.Ordinal
	o.d.Parent = o.parent()
	switch c.State {
	case store.Resolved:
		o.note("case %d is resolved and stays so", c.Number)
	case store.Cancelled:
		o.flag("case-cancelled")
		o.note("case %d is cancelled and stays so", c.Number)
	}
}

// track takes the first evidence that leads to a case: X-Case-Number of a
// trusted application or a signed X-Case-Ref, In-Reply-To and References, a
// token in To, the tag in the subject.
func (o *outbound) track() (tracking, *Refusal) {
	if t, refusal := o.numbered(); refusal != nil || t.onCase() {
		return t, refusal
	}
	var ids []candidate
	ids = idTokens(ids, byInReplyTo, o.sub.InReplyTo)
	ids = idTokens(ids, byReferences, backwards(o.sub.References))
	if t := o.signed(slices.Concat(o.caseRefs(), ids)); t.onCase() {
		return t, nil
	}
	if t := o.unsigned(); t.onCase() {
		return t, nil
	}
	var to []candidate
	for _, a := range o.sub.To {
		to = plusTokens(to, byPlusAddress, []string{a.Address}, o.settings)
	}
	if t := o.signed(to); t.onCase() {
		return t, nil
	}
	if n, ok := taggedCase(o.sub.Subject); ok && o.settings.SubjectTag {
		return o.leads(n, bySubject, carrierWords(bySubject)), nil
	}
	return tracking{outcome: T0, method: byNothing}, nil
}

// numbered is the case that a trusted application names outright. That it does
// not exist is an error it should hear of.
func (o *outbound) numbered() (tracking, *Refusal) {
	given := strings.TrimSpace(first(o.sub.Header, "X-Case-Number"))
	if !o.sub.ControlHeaders || given == "" {
		return tracking{}, nil
	}
	n, err := strconv.ParseUint(given, 10, 64)
	if err != nil {
		o.note("X-Case-Number is no number: not looked at")
		return tracking{}, nil
	}
	t := o.leads(n, byTrackingHeader, "X-Case-Number of a trusted application")
	if !t.onCase() {
		o.note("refused: X-Case-Number names case %d, which doesn't exist", n)
		return t, &Refusal{550, [3]int{5, 1, 0}, fmt.Sprintf("X-Case-Number names case %d, which doesn't exist", n)}
	}
	var quiet trace
	if r, _ := trackSigned(o.caseRefs(), o.facts, &quiet); r.onCase() && r.found.Case.Number != t.found.Case.Number {
		o.note("conflict: the token in %s names case %d; X-Case-Number wins", carrierWords(r.method), r.found.Case.Number)
	}
	return t, nil
}

func (o *outbound) leads(n uint64, method, words string) tracking {
	found, ok := followMerges(o.facts, n)
	if !ok {
		return tracking{outcome: T0, method: byNothing}
	}
	o.note("%s leads to case %d", words, found.Case.Number)
	return tracking{outcome: T2, method: method, found: found}
}

func (o *outbound) caseRefs() []candidate {
	return refTokens(nil, byTrackingHeader, headerValues(o.sub.Mail, "X-Case-Ref"))
}

func (o *outbound) signed(cs []candidate) tracking {
	t, _ := trackSigned(firstN(cs), o.facts, &o.trace)
	if t.onCase() {
		o.note("the signed token in %s leads to case %d", carrierWords(t.method), t.found.Case.Number)
	}
	return t
}

// unsigned is where a Message-ID leads that the message answers.
func (o *outbound) unsigned() tracking {
	cs := ids(nil, byForeignID, slices.Concat(o.sub.InReplyTo, backwards(o.sub.References)))
	for _, c := range cs {
		for _, n := range c.leads(o.facts) {
			if t := o.leads(n, c.method, carrierWords(c.method)); t.onCase() {
				return t
			}
		}
	}
	return tracking{}
}

// parent is the message answered: the newest of those In-Reply-To and
// References name that is on the case.
func (o *outbound) parent() *store.Message {
	for _, id := range append(slices.Clone(o.sub.InReplyTo), backwards(o.sub.References)...) {
		for _, ref := range o.facts.MessageIDs[id] {
			if p, ok := o.facts.Parents[ref.ID]; ok && ref.Own && o.onThisCase(ref.Case) {
				return &p
			}
		}
	}
	return nil
}

// onThisCase: the number leads to the case of this submission.
func (o *outbound) onThisCase(n uint64) bool {
	c, ok := followMerges(o.facts, n)
	return ok && c.Case.Number == o.found.Case.Number
}
