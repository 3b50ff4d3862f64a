package resolver

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/casegate/casegate/store"
)

// Submission is a message given to the smarthost, and by whom.
type Submission struct {
	Mail
	Listener  string   // that took it
	Peer      string   // that brought it
	SendAs    []string // addresses that the listener's peers may put in From; empty: every mailbox
	Setting   string   // where SendAs is set, for the refusal
	NewNumber uint64   // of the case, should one be opened; see OutboundDecision.Opens
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
	Part      *store.Message    // what it is a further part of, as it shall be stored; Entries are whom that adds

	Case       store.Case // as it shall be stored; Number 0: uncased
	Customer   store.Contact
	Opens      bool           // a new case; decide again with Submission.NewNumber set
	Guest      *store.Contact // to be created
	Mode       Mode
	Class      Class
	Method     string
	Ordinal    uint32
	Hold       string // why nothing is sent before a person says so
	Entries    []Entry
	From       string // to put in From (sender: user, mailbox); empty: as given
	FromName   string // shown with it; empty: as given
	Mailbox    string // whose Reply-To and MAIL FROM carry the token
	Token      string // of this activity
	CaseToken  string // of the case, for the pseudo-reference
	SubjectTag string // to stand in the subject; empty: none
	Parent     *store.Message
	References []string
	Parties    []store.Party
	Links      []store.Link
	Flags      []string
	Sent       []store.TallyKey // that it counts for, as it is sent (rule O14); at most one
}

// Recipients is the final envelope.
func (d OutboundDecision) Recipients() (to []string) {
	seen := map[string]bool{}
	for _, e := range d.Entries {
		if key := e.Address.Key(); e.Deliver && !e.dropped() && !seen[key] {
			seen[key] = true
			to = append(to, cmp.Or(e.Path, e.Address.Address))
		}
	}
	return to
}

// outbound is one decision in the making.
type outbound struct {
	trace
	sub       Submission
	facts     store.Facts
	settings  Settings
	submitter submitter
	part      *store.Message // that this is a further part of
	found     store.CaseFacts
	cased     bool
	unasked   bool   // the directory is out: nobody is known but the customer (on_unknown: text)
	inserted  string // key of the address that O4 added
	d         OutboundDecision
}

// Outbound decides on a submission (rules §6). The given envelope decides who
// receives, the header who is shown; the only addition ever is Case.Customer.
func Outbound(sub Submission, f store.Facts, s Settings) OutboundDecision {
	o := &outbound{sub: sub, facts: f, settings: s}
	o.d.Class, o.d.Method = Human, byNothing
	switch {
	case !o.follow(o.repeated, o.readable, o.maySend):
		o.finish()
	case o.part != nil:
		o.follow(o.join, o.directory, o.given, o.unserved, o.ownAddresses, o.duplicates,
			o.linkedOnly, o.others)
		o.finishPart()
	default:
		o.follow(o.bind, o.directory, o.given, o.ownAddresses, o.mode, o.duplicates,
			o.customer, o.insertCustomer, o.linkedOnly, o.others, o.originals,
			o.sender, o.bcc, o.bounces, o.nobody, o.stamp, o.enough)
		o.finish()
	}
	return o.d
}

// follow takes the steps in order, up to the first that settles the matter.
func (o *outbound) follow(steps ...func() *Refusal) bool {
	for _, step := range steps {
		if o.d.Refusal = step(); o.d.Refusal != nil || o.d.Duplicate != nil {
			return false
		}
	}
	return true
}

func (o *outbound) readable() *Refusal {
	if passed(o.sub.Header, o.settings.Hostname, SentMark) {
		o.note("refused: it has passed this smarthost before")
		return &Refusal{554, [3]int{5, 4, 6}, "routing loop: the message has passed this smarthost before; look where the next hop sends it"}
	}
	if o.sub.Unparsable == "" {
		return nil
	}
	o.note("refused: %s", o.sub.Unparsable)
	return &Refusal{554, [3]int{5, 6, 0}, "the message has no header that can be read: " + o.sub.Unparsable}
}

// directory: what to do while an outside directory cannot be asked who the
// recipients are. Mail about no case is not looked at, so it goes on.
func (o *outbound) directory() *Refusal {
	if !o.cased || o.sub.DirectoryOut == "" {
		return nil
	}
	switch o.settings.OnUnknown {
	case "pass":
		o.note("%s: decided by what is known here (on_unknown: pass)", o.sub.DirectoryOut)
		return nil
	case "text":
		o.unasked = true
		o.note("%s: addresses are shown as text (on_unknown: text)", o.sub.DirectoryOut)
		return nil
	}
	return o.deferred()
}

func (o *outbound) deferred() *Refusal {
	o.note("refused for now: %s (on_unknown: defer)", o.sub.DirectoryOut)
	return &Refusal{451, [3]int{4, 4, 3}, o.sub.DirectoryOut + ", so the recipients cannot be told: try again later"}
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
			o.d.Entries = append(o.d.Entries, Entry{Given: store.RoleBCC, Field: store.RoleBCC, Address: Address{Address: r}, Path: r, Deliver: true})
		}
	}
	return nil
}

func (o *outbound) flag(name string) { o.d.Flags = appendNew(o.d.Flags, name) }

// hold keeps the message back until a person releases it; the first reason
// stays.
func (o *outbound) hold(why string) { o.d.Hold = cmp.Or(o.d.Hold, why) }

// finish fills in the parties and links of what is really sent.
func (o *outbound) finish() {
	p := o.partyList()
	if from, ok := o.sub.Sender(); ok {
		p.add(p.recipient(store.RoleSender, from))
	}
	o.each(func(e *Entry) {
		e.Party = o.partyOf(p, *e)
		p.add(e.Party)
	})
	o.d.Parties = p.rows
	o.d.Links, _ = links(p.rows, o.facts, o.settings, o.d.Guest)
	if o.d.Hold != "" {
		o.flag("held")
		o.note("held until a person releases it: %s", o.d.Hold)
	}
	o.d.Decision = o.Decision
}

func (o *outbound) partyList() *partyList {
	return &partyList{facts: o.facts, settings: o.settings, hand: o.d.Case.HandLinks}
}

func (o *outbound) partyOf(p *partyList, e Entry) store.Party {
	row := p.recipient(e.Field, e.Address)
	if o.cased && o.isCustomer(e.Address) && !row.ByHand {
		row.Party, row.Candidates, row.Why = contactRef(o.d.Customer), nil, "Case.Customer"
	}
	if e.Bare {
		row.Name = ""
	}
	row.Sent = e.Deliver
	return row
}

// each walks the entries that are still there.
func (o *outbound) each(f func(e *Entry)) {
	for i := range o.d.Entries {
		if e := &o.d.Entries[i]; !e.dropped() {
			f(e)
		}
	}
}

func (o *outbound) drop(e *Entry, rule, format string, args ...any) {
	e.Field, e.Deliver = "", false
	o.rule(rule, format, args...)
}

// stands: the address is in the list already, or a rule took it out.
func (o *outbound) stands(a Address) bool {
	return slices.ContainsFunc(o.d.Entries, func(e Entry) bool { return e.Address.Key() == a.Key() })
}
