package resolver

import (
	"slices"
	"time"

	"github.com/casegate/casegate/store"
)

// Action is what becomes of an inbound message.
type Action string

// The actions. Every message is archived but a duplicate, which already is.
const (
	Open      Action = "open"      // a new case
	Link      Action = "link"      // onto an existing case
	Reopen    Action = "reopen"    // onto a resolved case, which is active again
	Except    Action = "exception" // onto the exceptions list
	Duplicate Action = "duplicate" // nothing; the mailbox is noted
	Refuse    Action = "refuse"    // not accepted
)

// InboundDecision is what to do with a message from outside, and why.
type InboundDecision struct {
	store.Decision
	Row       string // the row of the table that fired
	Action    Action
	Exception string           // the reason, with Except
	Refusal   *Refusal         // with Refuse
	Original  store.MessageRef // with Duplicate: the message it repeats

	Direction  store.Direction
	Case       store.Case     // as it shall be stored; Number 0: to be given
	Customer   store.Contact  // of that case
	Guest      *store.Contact // to be created
	Class      Class
	Identity   Identity
	Method     string
	Ordinal    uint32   // of this activity on the case
	Answers    uint32   // ordinal of the activity that its token names
	AlsoOn     []uint64 // further cases that show it
	Related    []uint64
	Flags      []string
	Mailboxes  []string
	Parties    []store.Party
	Internal   bool // it answers a consult (rule O0)
	Links      []store.Link
	Linked     []store.Contact // what Links expand to now
	Unresolved []string        // addresses left unresolved

	Opened   string                // with Open: the canonical address that is tallied for it
	Events   []store.DeliveryEvent // what a report says of the message Answered
	Answered store.Message
	PassTo   string // with I5: the submitter's MAIL FROM, who wants to know too
	Ack      string // address to acknowledge the new case to; empty: nobody
	Embedded bool   // decided on the message that this one forwards (rule I11)
}

// Refusal is an SMTP answer that a rule asks for.
type Refusal struct {
	Code     int
	Enhanced [3]int
	Text     string
}

// cell is where a message stands in the inbound table.
type cell struct {
	tracking  tracking
	state     store.CaseState
	sender    sender
	class     Class
	duplicate bool
	late      bool // resolved, and outside the reopen window or limiter
	consult   bool // it answers an internal consultation

	forwards     bool // exactly one message/rfc822 part
	outsiders    int  // external addresses in To and Cc
	orphanCase   bool // orphan_auto: case
	directoryOut bool
	flood        bool
}

// Words of the table.
func (c *cell) onCase() bool                     { return c.tracking.onCase() }
func (c *cell) byEnvelope() bool                 { return c.tracking.outcome == T1 && c.tracking.method == byEnvelope }
func (c *cell) is(classes ...Class) bool         { return slices.Contains(classes, c.class) }
func (c *cell) from(who ...Identity) bool        { return slices.Contains(who, c.sender.identity) }
func (c *cell) known(state store.CaseState) bool { return c.onCase() && c.state == state }

// toOneOutsider: an agent's mail that makes whom it is written to a customer. Who
// that is must be known: while it isn't, the mail waits (I20).
func (c *cell) toOneOutsider() bool { return c.from(Agent) && c.is(Human) && c.outsiders == 1 }

// inboundRow is one row of rules §5.
type inboundRow struct {
	number string
	means  string
	when   func(*cell) bool
	then   func(*inbound)
}

// inboundTable is rules §5, first matching row wins.
var inboundTable []inboundRow

// Rows lead back to the table (I11), so it cannot be filled where it is named.
func init() {
	inboundTable = []inboundRow{
		{"I1", "it repeats a message that is here already", func(c *cell) bool { return c.duplicate }, (*inbound).duplicate},
		{"I2", "it is a loop, or claims to come from ourselves", func(c *cell) bool { return c.is(Loop) || c.from(Own) }, except("loop")},
		{"I3", "its header cannot be read, but the envelope names the case", func(c *cell) bool { return c.byEnvelope() && c.is(Unparsable) }, (*inbound).linkOpaque},
		{"I4", "its header cannot be read", func(c *cell) bool { return c.is(Unparsable) }, except("unparsable")},
		{"I5", "a delivery report about a case", func(c *cell) bool { return c.onCase() && c.is(DSN) }, (*inbound).linkDeliveryReport},
		{"I6", "a delivery report about no case", func(c *cell) bool { return c.is(DSN) }, except("orphan-dsn")},
		{"I7", "a receipt or complaint about a case", func(c *cell) bool { return c.onCase() && c.is(Report) }, (*inbound).linkReceipt},
		{"I8", "a receipt or complaint about no case", func(c *cell) bool { return c.is(Report) }, except("orphan-report")},
		{"I9", "an agent's automatic reply on a case", func(c *cell) bool { return c.onCase() && c.from(Agent) && c.is(AutoReply) }, (*inbound).linkInternal},
		{"I10", "an agent writes on a case", func(c *cell) bool { return c.onCase() && c.from(Agent) }, (*inbound).linkOutgoing},
		{"I11", "an agent forwards one message", func(c *cell) bool { return c.from(Agent) && c.is(Human) && c.forwards }, (*inbound).embedded},
		{"I12", "an agent writes to one outsider", func(c *cell) bool { return c.toOneOutsider() && !c.directoryOut }, (*inbound).openOutgoing},
		{"I13", "an agent writes about no case", func(c *cell) bool { return c.from(Agent) && !c.toOneOutsider() }, except("agent-no-case")},
		{"I14", "an automatic reply on a case", func(c *cell) bool { return c.onCase() && c.is(AutoReply) }, (*inbound).linkOnly},
		{"I15", "an automatic reply about no case", func(c *cell) bool { return c.is(AutoReply) && !c.orphanCase }, except("orphan-auto-reply")},
		{"I16", "a message on an active case", func(c *cell) bool { return c.known(store.Active) }, (*inbound).link},
		{"I17", "a person writes on a resolved case in time", func(c *cell) bool { return c.known(store.Resolved) && c.is(Human) && !c.late && !c.consult }, (*inbound).reopen},
		{"I18", "a message on a resolved case, too late or not by a person", func(c *cell) bool { return c.known(store.Resolved) }, (*inbound).linkLate},
		{"I19", "a message on a cancelled case", func(c *cell) bool { return c.known(store.Cancelled) }, (*inbound).linkCancelled},
		{"I20", "the directory cannot be asked", func(c *cell) bool { return c.directoryOut }, except("pending-directory")},
		{"I21", "the sender opens too many cases", func(c *cell) bool { return c.flood && !c.from(Asserted) }, except("flood")},
		{"I22", "a forged sender without a case", func(c *cell) bool { return c.from(Forged) }, (*inbound).openUnverified},
		{"I23", "a trusted form vouches for its sender", func(c *cell) bool { return c.from(Asserted) }, (*inbound).openAsserted},
		{"I24", "a registered contact, verified, without a case", func(c *cell) bool { return c.from(Registered) && c.sender.verified }, (*inbound).openVerified},
		{"I25", "a registered contact, unverified, without a case", func(c *cell) bool { return c.from(Registered) }, (*inbound).openRegistered},
		{"I26", "a sender who is no single registered contact, without a case", func(c *cell) bool { return c.from(Ambiguous, KnownGuest, Unknown) }, (*inbound).openGuest},
		{"I27", "no rule fits: this is a defect, please report it", func(*cell) bool { return true }, except("unclassified")},
	}
}

// Inbound decides on a message from outside (rules §2-§5).
func Inbound(m Mail, f store.Facts, s Settings) InboundDecision {
	in := weigh(m, f, s)
	if m.TrustedForm && in.unknownAssertion() {
		return in.refuse()
	}
	return in.decide()
}

// weigh finds out where a message stands in the table.
func weigh(m Mail, f store.Facts, s Settings) *inbound {
	in := &inbound{mail: m, facts: f, settings: s}
	in.class, in.classSign = classify(m, f, s)
	in.note("class %s: %s", in.class, in.classSign)
	if m.Omitted > 0 {
		in.note("%d addresses of the header are left out: it has too many", m.Omitted)
	}
	in.sender = identify(m, f, s, &in.trace)
	in.tracking = track(m, f, s, in.sender.participant(), &in.trace)
	in.consult = in.tracking.named.Consult && !in.tracking.found.Customer.HeldAt(in.sender.participant(), m.Received)
	in.state = in.tracking.found.Case.State
	in.late = in.isLate()
	in.original, in.cell.duplicate = in.repeats()
	in.forwards, in.outsiders = m.Embedded != nil, len(in.external())
	in.orphanCase, in.flood = s.OrphanCase, in.isFlood()
	if in.directoryOut = m.DirectoryOut != ""; in.directoryOut {
		in.note("directory unknown: %s", m.DirectoryOut)
	}
	if m.Unasked > 0 {
		in.note("%d recipients are more than the directory was asked for: what is known here of them counts", m.Unasked)
	}
	if !in.onCase() && len(headerValues(m, "Thread-Index")) > 0 {
		in.note("its Thread-Index is a hint and no evidence")
	}
	d := &in.d
	d.Direction, d.Class, d.Identity, d.Method = store.Incoming, in.class, in.sender.identity, in.tracking.said()
	d.Related, d.Mailboxes = in.tracking.related, in.mailboxes()
	if label := mixedScripts(in.sender.address.Address); label != "" {
		d.Flags = append(d.Flags, "mixed-scripts")
		in.note("the sender's address mixes the letters of several scripts in %+q: it may be made to look like another", label)
	}
	return in
}

// inbound is one decision in the making.
type inbound struct {
	cell
	trace
	mail      Mail
	facts     store.Facts
	settings  Settings
	classSign string
	original  store.MessageRef
	passed    *InboundDecision // on the embedded message (rule I11), which stands for this one
	d         InboundDecision
}

func (in *inbound) decide() InboundDecision {
	d := &in.d
	if in.tracking.thirdParty && !in.is(DSN, Report) {
		d.Flags = append(d.Flags, "third-party")
	}
	for _, row := range inboundTable {
		if row.when(&in.cell) {
			d.Row = row.number
			in.rule(row.number, "%s", row.means)
			row.then(in)
			break
		}
	}
	if in.passed != nil {
		return *in.passed
	}
	in.people()
	in.acknowledge()
	d.Decision = in.Decision
	return *d
}

// repeats finds the message that this one is a duplicate of (rule I1).
func (in *inbound) repeats() (store.MessageRef, bool) {
	id := in.mail.MessageID
	if id == "" {
		id = in.mail.DerivedID
	}
	for _, ref := range in.facts.MessageIDs[id] {
		fresh := in.mail.Received.Sub(ref.ReceivedAt) <= in.settings.DedupeWindow
		again := ref.SubmitHash != "" && ref.SubmitHash == in.mail.SubmitHash
		came := again || ref.Direction == store.Incoming || in.from(Agent) // an agent's own mail is outgoing (I10, I12)
		same := ref.Own && came && ref.ContentHash == in.mail.ContentHash
		if same && fresh && !in.leadsElsewhere(ref) {
			return ref, true
		}
	}
	return store.MessageRef{}, false
}

// leadsElsewhere: the evidence names another case than that of the message
// here already. The same hand-over again bears the same evidence.
func (in *inbound) leadsElsewhere(ref store.MessageRef) bool {
	if !in.tracking.onCase() || ref.SubmitHash != "" && ref.SubmitHash == in.mail.SubmitHash {
		return false
	}
	c, ok := followMerges(in.facts, ref.Case)
	return !ok || c.Case.Number != in.tracking.found.Case.Number
}

// isLate: outside the reopen window, or reopened by mail often enough today.
func (in *inbound) isLate() bool {
	c, now := in.tracking.found.Case, in.mail.Received
	if now.Sub(c.ResolvedAt) > in.settings.ReopenWindow {
		return true
	}
	today := 0
	for _, at := range c.ReopenedAt {
		if now.Sub(at) < 24*time.Hour {
			today++
		}
	}
	return today >= in.settings.ReopenPerDay
}

func (in *inbound) mailboxes() []string {
	var own []string
	for _, r := range in.mail.Recipients {
		if m, ok := in.settings.Own(r); ok {
			own = appendNew(own, m.Address)
		}
	}
	return own
}

func (in *inbound) unknownAssertion() bool {
	asserted := AssertedBy(in.mail)
	id, err := store.ParseID(asserted)
	_, known := in.facts.Contacts[id]
	return asserted != "" && asserted != "guest" && (err != nil || !known)
}

func (in *inbound) refuse() InboundDecision {
	in.rule("I23", "the form names a contact that does not exist")
	in.d.Row, in.d.Action = "I23", Refuse
	in.d.Refusal = &Refusal{550, [3]int{5, 1, 0}, "X-Case-Customer names no contact: send the id of a contact, or the word guest"}
	in.d.Decision = in.Decision
	return in.d
}
