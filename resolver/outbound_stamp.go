package resolver

import (
	"slices"
	"strings"
)

// stamp prepares the carriers (O13).
func (o *outbound) stamp() *Refusal {
	if !o.cased {
		return nil
	}
	var err, err2 error
	o.d.Token, err = Token{Case: o.d.Case.Number, Ordinal: o.d.Ordinal, Consult: o.d.Mode == Consult}.sign(o.facts.Installation)
	o.d.CaseToken, err2 = Token{Case: o.d.Case.Number, Consult: o.d.Mode == Consult}.sign(o.facts.Installation)
	if err != nil || err2 != nil {
		return &Refusal{554, [3]int{5, 3, 0}, "the case can take no more messages: open a new one"}
	}
	if o.settings.SubjectTag {
		o.d.SubjectTag = SubjectTag(o.d.Case.Number)
	}
	o.d.References = o.references(PseudoReference(o.d.CaseToken, o.settings.Hostname))
	if o.d.Opens {
		o.rule("O13", "stamped with the token of the new case")
		return nil
	}
	o.rule("O13", "stamped with the token of case %d, activity %d", o.d.Case.Number, o.d.Ordinal)
	return nil
}

const maxReferences = 1500 // bytes of the field's value (O13)

// references puts the pseudo-reference first and keeps the field within
// bounds: the parent and the newest stay. The pseudo-reference that the thread
// has already stays too, whatever key or hostname it was made with.
func (o *outbound) references(pseudo string) []string {
	given := unique(slices.Concat(o.sub.References, o.sub.InReplyTo))
	fits := func(id string) bool { return len(pseudo)+len(id)+5 <= maxReferences }
	if i := slices.IndexFunc(given, o.isSameThread); i >= 0 && !strings.EqualFold(given[i], pseudo) && len(given[i])+2 <= maxReferences {
		pseudo = given[i]
	}
	parent, left := "", maxReferences-len(pseudo)-2
	if len(o.sub.InReplyTo) > 0 && fits(o.sub.InReplyTo[0]) {
		parent = o.sub.InReplyTo[0]
		left -= len(parent) + 3
	}
	kept := slices.DeleteFunc(backwards(given), func(id string) bool {
		if id == parent || o.isPseudo(id) {
			return o.isPseudo(id)
		}
		if !fits(id) {
			return true
		}
		left -= len(id) + 3
		return left < 0
	})
	return append([]string{pseudo}, backwards(kept)...)
}

// isPseudo: a pseudo-reference of this case that an earlier message bore.
func (o *outbound) isPseudo(id string) bool {
	_, ok := o.pseudo(id)
	return ok
}

// isSameThread: such a one, of an internal thread where this message is
// internal: the thread is what tells an expert's answer from the customer's.
func (o *outbound) isSameThread(id string) bool {
	tok, ok := o.pseudo(id)
	return ok && tok.Consult == (o.d.Mode == Consult)
}

func (o *outbound) pseudo(id string) (Token, bool) {
	text, ok := idToken(id)
	if !ok || verifyToken(o.facts.Installation, text) != nil {
		return Token{}, false
	}
	tok, _ := readToken(text)
	return tok, tok.Case == o.d.Case.Number && tok.Ordinal == 0
}
