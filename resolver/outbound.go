package resolver

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/casegate/casegate/store"
)

// Submission is a message given to the smarthost, and by whom.
type Submission struct {
	Mail
	SendAs  []string // addresses the submitter may put in From; empty: every mailbox
	Setting string   // where SendAs is set, for the refusal
}

// Mode tells an answer to the customer from an internal consultation (O0).
type Mode string

// The modes.
const (
	Reply   Mode = "reply"
	Consult Mode = "consult"
)

// Entry is one recipient as the rules leave it: what becomes of one address of
// the given header or envelope.
type Entry struct {
	Given   store.Role // field it stood in; BCC: envelope or Bcc only; empty: inserted
	Field   store.Role // field it is shown in; BCC: delivered unseen; empty: dropped
	Bare    bool       // shown as the address alone, without a name
	Name    string     // shown with this name instead of the given one
	Address Address
	Path    string // the address as RCPT TO gave it, which is what is mailed
	Deliver bool   // stands in the final envelope
	Party   store.Party
}

// called is the address for a sentence that people read; of a blind copy they
// learn nothing.
func (e Entry) called() string {
	if e.Given == store.RoleBCC {
		return "a blind recipient's address"
	}
	return e.Address.Address
}

func (e Entry) dropped() bool { return e.Field == "" }

// Changed reports whether the entry is shown other than it was given.
func (e Entry) Changed() bool { return e.Field != e.Given || e.Bare || e.Name != "" }

// OutboundDecision is what to do with a submission, and why.
type OutboundDecision struct {
	store.Decision
	Refusal   *Refusal
	Duplicate *store.MessageRef // the same submission, already accepted

	Case       store.Case // as it shall be stored; Number 0: uncased
	Customer   store.Contact
	Mode       Mode
	Class      Class
	Method     string
	Ordinal    uint32
	Entries    []Entry
	From       string // the mailbox to put in From (sender: mailbox); empty: as given
	Mailbox    string // whose Reply-To and MAIL FROM carry the token
	Token      string // of this activity
	CaseToken  string // of the case, for the pseudo-reference
	Parent     *store.Message
	References []string
	Parties    []store.Party
	Links      []store.Link
	Flags      []string
}

// Recipients is the final envelope.
func (d OutboundDecision) Recipients() []string {
	var to []string
	for _, e := range d.Entries {
		if e.Deliver && e.Field != "" {
			to = append(to, cmp.Or(e.Path, e.Address.Address))
		}
	}
	return to
}

// outbound is one decision in the making.
type outbound struct {
	trace
	sub      Submission
	facts    store.Facts
	settings Settings
	found    store.CaseFacts
	cased    bool
	inserted string // key of the address that O4 added
	d        OutboundDecision
}

// Outbound decides on a submission (rules §6). The given envelope decides who
// receives, the header who is shown; the only addition ever is Case.Customer.
func Outbound(sub Submission, f store.Facts, s Settings) OutboundDecision {
	o := &outbound{sub: sub, facts: f, settings: s}
	steps := []func() *Refusal{
		o.readable, o.repeated, o.maySend, o.bind, o.given,
		o.ownAddresses, o.mode, o.duplicates, o.customer, o.insertCustomer,
		o.linkedOnly, o.others, o.originals, o.bcc, o.nobody, o.stamp,
	}
	for _, step := range steps {
		if o.d.Refusal = step(); o.d.Refusal != nil || o.d.Duplicate != nil {
			break
		}
	}
	o.finish()
	return o.d
}

func (o *outbound) readable() *Refusal {
	o.d.Class, o.d.Method = Human, byNothing
	if o.sub.Unparsable == "" {
		return nil
	}
	o.note("refused: %s", o.sub.Unparsable)
	return &Refusal{554, [3]int{5, 6, 0}, "the message has no header that can be read: " + o.sub.Unparsable}
}

// repeated finds the submission whose 250 was lost (invariant 3), and its like
// that a client split over several transactions.
func (o *outbound) repeated() *Refusal {
	id := o.sub.MessageID
	if id == "" {
		id = o.sub.DerivedID
	}
	for _, ref := range o.facts.MessageIDs[id] {
		if !ref.Own || ref.Direction != store.Outgoing || o.sub.Received.Sub(ref.ReceivedAt) > o.settings.SubmitWindow {
			continue
		}
		if ref.SubmitHash == o.sub.SubmitHash {
			o.d.Duplicate = &ref
			o.note("the same submission as message %s: its reply was lost, nothing is sent twice", ref.ID)
			return nil
		}
		if ref.ContentHash == o.sub.ContentHash {
			o.note("refused: the rest of submission %s, split over several transactions", ref.ID)
			return &Refusal{550, [3]int{5, 3, 3}, "rule §6 (one submission in several transactions) is not built yet: send all recipients in one transaction"}
		}
	}
	return nil
}

// maySend: From must be within what the submitter may use.
func (o *outbound) maySend() *Refusal {
	from, ok := o.sub.Sender()
	if !ok {
		o.note("refused: From is not one plain address (%d can be read)", len(o.sub.From))
		return &Refusal{550, [3]int{5, 7, 1}, fmt.Sprintf("From is not one plain address (%d can be read): send exactly one", len(o.sub.From))}
	}
	if o.allowed(from) {
		return nil
	}
	o.note("refused: %s is outside send_as", from.Address)
	return &Refusal{550, [3]int{5, 7, 1}, fmt.Sprintf("unable to send as %s: %s allows %s", from.Address, o.sub.Setting, o.allowedWords())}
}

func (o *outbound) allowed(from Address) bool {
	if len(o.sub.SendAs) == 0 {
		_, own := o.settings.Own(from.Address)
		return own || len(o.facts.Holders[from.Key()].Agents) == 1
	}
	return slices.ContainsFunc(o.sub.SendAs, func(a string) bool { return store.Key(a) == from.Key() })
}

func (o *outbound) allowedWords() string {
	names := o.sub.SendAs
	if len(names) == 0 {
		for _, m := range o.settings.Mailboxes {
			names = append(names, m.Address)
		}
	}
	const most = 3
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

// bind finds the case (rules §6): X-Case-Ref, then In-Reply-To and References,
// then a token in To.
func (o *outbound) bind() *Refusal {
	t := o.track()
	switch {
	case t.onCase():
		o.cased, o.found = true, t.found
		o.d.Method = t.method
		c := t.found.Case
		c.Ordinal++
		c.UpdatedAt = o.sub.Received
		o.d.Case, o.d.Customer, o.d.Ordinal = c, t.found.Customer, c.Ordinal
		return nil
	case o.settings.Uncased == "reject":
		o.note("refused: it is about no case, and outbound.uncased is reject")
		return &Refusal{550, [3]int{5, 7, 1}, "the message is about no case: answer a message of the case, or send its X-Case-Ref (outbound.uncased is reject)"}
	}
	o.note("uncased: nothing in the message leads to a case; only rule O10 applies")
	return nil
}

func (o *outbound) track() tracking {
	var cs []candidate
	for _, v := range headerValues(o.sub.Mail, "X-Case-Ref") {
		if _, ok := tokenText(v); ok {
			cs = append(cs, candidate{method: byTrackingHeader, token: v})
		}
	}
	cs = idTokens(cs, byInReplyTo, o.sub.InReplyTo)
	cs = idTokens(cs, byReferences, backwards(o.sub.References))
	if t, _ := trackSigned(firstN(cs), o.facts, &o.trace); t.onCase() {
		o.note("the signed token in %s leads to case %d", carrierWords(t.method), t.found.Case.Number)
		return t
	}
	for _, c := range unsigned(o.sub.Mail) {
		for _, ref := range leads(o.facts, c.id) {
			if found, ok := followMerges(o.facts, ref.Case); ok {
				o.note("a Message-ID it answers is on case %d", found.Case.Number)
				return tracking{outcome: T2, method: c.method, found: found}
			}
		}
	}
	var to []candidate
	for _, a := range o.sub.To {
		to = plusTokens(to, false, []string{a.Address}, o.settings)
	}
	t, _ := trackSigned(firstN(to), o.facts, &o.trace)
	if t.onCase() {
		o.note("the token in To leads to case %d", t.found.Case.Number)
	}
	return t
}

// given lists the recipients as they came: those of the header, then those of
// the envelope that no visible field shows.
func (o *outbound) given() *Refusal {
	if o.cased && o.sub.Omitted > 0 {
		o.note("refused: the header shows %d addresses too many", o.sub.Omitted)
		return &Refusal{550, [3]int{5, 5, 3}, fmt.Sprintf("the header shows %d addresses too many", o.sub.Omitted)}
	}
	envelope := map[string]string{}
	for _, r := range o.sub.Recipients {
		envelope[store.Key(r)] = r
	}
	shown := map[string]bool{}
	for _, f := range []struct {
		role store.Role
		list []Address
	}{{store.RoleTo, o.sub.To}, {store.RoleCC, o.sub.CC}} {
		for _, a := range f.list {
			path, deliver := envelope[a.Key()]
			shown[a.Key()] = true
			o.d.Entries = append(o.d.Entries, Entry{Given: f.role, Field: f.role, Address: a, Path: path, Deliver: deliver})
		}
	}
	for _, r := range o.sub.Recipients {
		if key := store.Key(r); !shown[key] {
			shown[key] = true
			o.d.Entries = append(o.d.Entries, Entry{Given: store.RoleBCC, Field: store.RoleBCC, Address: Address{Address: r}, Deliver: true})
		}
	}
	return nil
}

// stamp prepares the carriers (O13).
func (o *outbound) stamp() *Refusal {
	if !o.cased {
		return nil
	}
	var err, err2 error
	o.d.Token, err = Token{Case: o.d.Case.Number, Ordinal: o.d.Ordinal, Consult: o.d.Mode == Consult}.sign(o.facts.Installation)
	o.d.CaseToken, err2 = Sign(o.facts.Installation, o.d.Case.Number, 0)
	if err != nil || err2 != nil {
		return &Refusal{554, [3]int{5, 3, 0}, "the case can take no more messages: open a new one"}
	}
	if o.d.Mailbox = o.caseMailbox(); o.d.Mailbox == "" {
		return &Refusal{550, [3]int{5, 3, 5}, "no mailbox is configured that answers could come back to (mailboxes)"}
	}
	if o.settings.Sender == "mailbox" {
		o.d.From = o.d.Mailbox
		o.note("sender: mailbox shows %s in From", o.d.From)
	}
	o.d.References = o.references(PseudoReference(o.d.CaseToken, o.settings.Hostname))
	o.rule("O13", "stamped with the token of case %d, activity %d", o.d.Case.Number, o.d.Ordinal)
	return nil
}

// caseMailbox is the mailbox that answers come back to: that of From, else
// that of the case, else the first.
func (o *outbound) caseMailbox() string {
	if from, ok := o.sub.Sender(); ok {
		if m, own := o.settings.Own(from.Address); own && o.settings.Sender != "mailbox" {
			return m.Address
		}
	}
	if m, own := o.settings.Own(o.d.Case.Mailbox); own {
		return m.Address
	}
	if len(o.settings.Mailboxes) > 0 {
		return o.settings.Mailboxes[0].Address
	}
	return ""
}

const maxReferences = 1500 // bytes of the field's value (O13)

// references puts the pseudo-reference first and keeps the field within
// bounds: the parent and the newest stay. The pseudo-reference that the thread
// has already stays too, whatever key or hostname it was made with.
func (o *outbound) references(pseudo string) []string {
	given := unique(slices.Concat(o.sub.References, o.sub.InReplyTo))
	if i := slices.IndexFunc(given, o.isPseudo); i >= 0 && !strings.EqualFold(given[i], pseudo) {
		pseudo = given[i]
	}
	parent, left := "", maxReferences-len(pseudo)-2
	if len(o.sub.InReplyTo) > 0 {
		parent = o.sub.InReplyTo[0]
		left -= len(parent) + 3
	}
	kept := slices.DeleteFunc(backwards(given), func(id string) bool {
		if id == parent || o.isPseudo(id) {
			return o.isPseudo(id)
		}
		left -= len(id) + 3
		return left < 0
	})
	return append([]string{pseudo}, backwards(kept)...)
}

// isPseudo: a pseudo-reference of this case that an earlier message bore.
func (o *outbound) isPseudo(id string) bool {
	text, ok := idToken(id)
	if !ok || verifyToken(o.facts.Installation, text) != nil {
		return false
	}
	tok, _ := readToken(text)
	return tok.Case == o.d.Case.Number && tok.Ordinal == 0
}
