// Package resolver holds casegate's rules as pure functions: the tracking
// evidence, the classes of mail, the sender's identity, and the two decision
// tables of the rulebook, inbound and outbound.
//
// A decision is made in two steps, both without clock, network or writes:
//
//	query := resolver.Ask(mail, settings)             what must be known
//	facts, err := tx.Facts(query)                     one read
//	decision := resolver.Inbound(mail, facts, settings)
//
// The same input gives the same decision in the same words, however often it
// runs. Rule numbers (T1, I16, O4 …) are those of the rulebook; every decision
// carries those that fired and a sentence for each.
package resolver

import (
	"fmt"
	"strings"
	"time"

	"github.com/casegate/casegate/store"
)

// Header is what the rules read of a header: all values of a field, unfolded,
// top to bottom.
type Header interface {
	Values(name string) []string
}

// Address is one mailbox of a header field.
type Address struct {
	Name    string // decoded display name; proves nothing
	Address string // addr-spec as written
}

// Key is the canonical form of the address.
func (a Address) Key() string { return store.Key(a.Address) }

// Domain is the canonical domain of the address.
func (a Address) Domain() string {
	_, domain, _ := cutLast(a.Key(), "@")
	return domain
}

// Mail is all that the rules know of a message: its envelope, its header, and
// ids reserved for what it may bring about.
type Mail struct {
	ID         store.ID // of this message
	NewCase    store.ID // of the case, should one be opened
	NewContact store.ID // of the guest, should one be minted
	Received   time.Time

	EnvelopeFrom string   // empty: the null reverse-path
	Recipients   []string // RCPT TO, in order
	Header       Header
	Author       *Address  // the single From address; nil: more, fewer, or none to be trusted
	From         []Address // all that can be read in From
	To, CC, BCC  []Address
	Subject      string // decoded
	MessageID    string // without angle brackets, empty when missing
	DerivedID    string // stands in for a missing Message-ID
	InReplyTo    []string
	References   []string
	ContentHash  string // what I1 compares
	SubmitHash   string // of peer, login, envelope and raw bytes: the same hand-over again
	Omitted      int    // addresses of the header that were too many to read
	Unparsable   string // why the header cannot be used; empty: it can
	TooManyHops  bool   // more Received fields than a real way has

	TrustedForm    bool          // the listener may assert the customer (rule I23)
	ControlHeaders bool          // the listener's peers are believed in X-Case-* fields
	Login          string        // address of the agent who signed in; empty: nobody did
	Verdict        Verdict       // what authentication says of the single From address
	DirectoryOut   string        // why the outside directory could not be asked; empty: it was, or there is none
	Unasked        int           // recipients that were too many to ask the directory for
	Notification   *Notification // what a delivery report, receipt or complaint tells
	Embedded       *Mail         // the message that this one forwards whole, if it is exactly one (rule I11)
}

// Verdict is what SPF, DKIM and DMARC amount to; zero when nothing was checked.
type Verdict struct {
	AlignedPass bool   // the From domain is proven
	Forged      bool   // DMARC fails under a policy of quarantine or reject
	Words       string // who says so and why, in one line
}

// Notification is what a DSN (RFC 3464), MDN (RFC 8098) or complaint (RFC 5965)
// tells of an earlier message.
type Notification struct {
	Recipients []ReportedRecipient
	Returned   *Returned // headers of that message, if it gives them back
}

// ReportedRecipient is one recipient of the message reported on.
type ReportedRecipient struct {
	Address    string
	Original   string // as the sender gave it, if the report says so
	Action     string // failed, delayed, delivered, relayed, expanded
	Status     string // RFC 3463
	Diagnostic string
}

// Permanent reports whether the recipient will not get the message.
func (r ReportedRecipient) Permanent() bool {
	return r.Action == "failed" && !strings.HasPrefix(r.Status, "4")
}

// Returned is the tracking evidence in a message given back.
type Returned struct {
	MessageID  string
	InReplyTo  []string
	References []string
	CaseRefs   []string // X-Case-Ref
	ReturnPath string
}

// Sender is the single From address; ok is false when there is no such thing.
func (m Mail) Sender() (Address, bool) {
	if m.Author == nil {
		return Address{}, false
	}
	return *m.Author, true
}

// Mailbox is one of our own addresses; mail to it feeds Queue.
type Mailbox struct {
	Address string
	Queue   string
}

// Settings are the site's choices; see config.example.yaml for each.
type Settings struct {
	Hostname     string // the gateway's own name, in Message-IDs and Received
	Mailboxes    []Mailbox
	DedupeWindow time.Duration // rule I1
	SubmitWindow time.Duration // a submission repeated within it is the same one
	ReopenWindow time.Duration // rule I17
	ReopenPerDay int           // rule I17
	Strict       bool          // identity.on_unverified: guest (rule I25)
	FloodHour    int           // new cases an hour from one address (rule I21); 0: no bound
	FloodDay     int           // and a day
	AnswersHour  int           // mails of one case to one address, an hour (rule O14); 0: no bound
	AnswersDay   int           // and a day
	OrphanCase   bool          // orphan_auto: case (rule I15)
	SubjectTag   bool          // a case number in the subject counts as unsigned evidence
	Ack          bool          // acknowledge new cases
	AckPerHour   int           // to one address
	AckPerDay    int

	Sender              string // user | template | mailbox
	ToPolicy            string // cc | keep | drop (rule O6)
	Unresolved          string // text | drop (rule O7)
	UnresolvedOriginals string // off | cc | bcc (rule O9)
	BccCurrentUser      bool   // rule O10
	Uncased             string // pass | reject | create
	NewRecipients       string // allow | hold (rule O8)
	OnUnknown           string // defer | text | pass, while the directory cannot be asked
	OnSigned            string // strip | hold, where a DKIM signature would break
	LogDocumentType     string // case_log.document_type; empty: no log row for mail
}

// mailbox returns the mailbox that an address belongs to, and what stands
// behind the plus; mailbox+anything is the same mailbox everywhere.
func (s Settings) mailbox(address string) (m Mailbox, plus string, ok bool) {
	key := store.Key(address)
	local, domain, found := cutLast(key, "@")
	if !found {
		return Mailbox{}, "", false
	}
	base, plus, _ := strings.Cut(local, "+")
	for _, m := range s.Mailboxes {
		if k := store.Key(m.Address); k == key || k == base+"@"+domain {
			return m, plus, true
		}
	}
	return Mailbox{}, "", false
}

// Own returns the mailbox that an address belongs to: one of our own
// addresses, with or without a plus.
func (s Settings) Own(address string) (Mailbox, bool) {
	m, _, ok := s.mailbox(address)
	return m, ok
}

// DaemonAddress is the sender that our own delivery reports show. Nobody reads
// what is sent to it.
func DaemonAddress(hostname string) string { return "mailer-daemon@" + hostname }

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// trace collects the rules that fired and a sentence for each, in order.
type trace struct{ store.Decision }

func (t *trace) rule(number, format string, args ...any) {
	t.Rules = append(t.Rules, number)
	t.Reasons = append(t.Reasons, number+": "+fmt.Sprintf(format, args...))
}

func (t *trace) note(format string, args ...any) {
	t.Reasons = append(t.Reasons, fmt.Sprintf(format, args...))
}

// WithoutToken returns the bare mailbox where an address is mailbox+token, and
// any other address as it is.
func (s Settings) WithoutToken(address string) string {
	m, plus, ok := s.mailbox(address)
	if _, isToken := tokenText(plus); ok && isToken {
		return m.Address
	}
	return address
}
