package store

import (
	"time"

	"github.com/google/uuid"
)

// ID is a UUIDv7 (RFC 9562): unique, and ordered by time, so that archives
// append.
type ID = uuid.UUID

// NewID returns a fresh ID.
func NewID() ID { return uuid.Must(uuid.NewV7()) }

// ParseID reads the text form of an ID.
func ParseID(s string) (ID, error) { return uuid.Parse(s) }

// CaseState is the state of a case.
type CaseState string

// The states of a case. A merged case is Cancelled with MergedInto set.
const (
	Active    CaseState = "Active"
	Resolved  CaseState = "Resolved"
	Cancelled CaseState = "Cancelled"
)

// Case (Dataverse: incident) owns a piece of work and has exactly one customer.
type Case struct {
	ID         ID        `json:"id"`
	Number     uint64    `json:"number"`
	Title      string    `json:"title"`
	State      CaseState `json:"state"`
	Origin     string    `json:"origin"` // Email, Web or Phone
	Queue      string    `json:"queue"`
	Mailbox    string    `json:"mailbox,omitempty"`  // the mailbox it came in by
	Customer   ID        `json:"customer"`           // a Contact; never changed by mail
	Opener     string    `json:"opener,omitempty"`   // From address, as written, of the mail that opened it (rule O4)
	Accounts   []ID      `json:"accounts,omitempty"` // context, never identity
	MergedInto uint64    `json:"merged_into,omitempty"`
	Flags      []string  `json:"flags,omitempty"`
	// HandLinks say who an address is in this case, and in no other.
	HandLinks []HandLink `json:"hand_links,omitempty"`
	Ordinal   uint32     `json:"ordinal"` // the last ordinal given to an activity
	// ReopenedAt are the times of reopening by mail, newest last (rule I17).
	ReopenedAt []time.Time `json:"reopened_at,omitempty"`
	ResolvedAt time.Time   `json:"resolved_at,omitzero"`
	CreatedAt  time.Time   `json:"created_at"`
	UpdatedAt  time.Time   `json:"updated_at"`
}

// HandLink is what a person said about an address of one case.
type HandLink struct {
	Address string    `json:"address"` // canonical key
	Contact ID        `json:"contact"`
	By      string    `json:"by"`
	At      time.Time `json:"at"`
}

// ContactKind tells a known person from one met by mail.
type ContactKind string

// The kinds of contact.
const (
	Registered ContactKind = "registered"
	Guest      ContactKind = "guest"
)

// Contact owns identity. Several contacts may share an address, none an
// External.
type Contact struct {
	ID             ID             `json:"id"`
	Kind           ContactKind    `json:"kind"`
	Name           string         `json:"name,omitempty"`
	External       string         `json:"external_id,omitempty"` // its id in an outside directory
	EmailAddresses []EmailAddress `json:"email_addresses"`
	Account        ID             `json:"account,omitzero"`
	DoNotEmail     bool           `json:"do_not_email,omitempty"`
	Unverified     bool           `json:"unverified,omitempty"` // minted from forged mail (rule I22)
	CreatedAt      time.Time      `json:"created_at"`
}

// EmailAddress is an address and when it was a contact's. A zero To is now.
type EmailAddress struct {
	Address string    `json:"address"` // as entered; its key is Key(Address)
	From    time.Time `json:"valid_from,omitzero"`
	To      time.Time `json:"valid_to,omitzero"`
}

// HeldAt reports whether the contact had the address (a canonical key) at t.
func (c Contact) HeldAt(key string, t time.Time) bool {
	for _, e := range c.EmailAddresses {
		if Key(e.Address) == key && !t.Before(e.From) && (e.To.IsZero() || t.Before(e.To)) {
			return true
		}
	}
	return false
}

// AccountKind is what an account stands for.
type AccountKind string

// The kinds of account.
const (
	Business AccountKind = "business"
	Property AccountKind = "property"
)

// Account is context for cases; never a customer.
type Account struct {
	ID             ID          `json:"id"`
	Kind           AccountKind `json:"kind"`
	Name           string      `json:"name"`
	EmailAddresses []string    `json:"email_addresses"`
	CreatedAt      time.Time   `json:"created_at"`
}

// Agent (Dataverse: systemuser) is one of us.
type Agent struct {
	ID             ID        `json:"id"`
	Name           string    `json:"name"`
	EmailAddresses []string  `json:"email_addresses"`
	SendAs         []string  `json:"send_as,omitempty"` // addresses allowed in From; empty: every mailbox
	CreatedAt      time.Time `json:"created_at"`
	// PasswordHash is what a login is checked against; empty: there is none. It is
	// stored, and never leaves by JSON.
	PasswordHash string `json:"-" cbor:"password_hash,omitempty"`
}

// Direction of an e-mail activity, seen from the desk.
type Direction string

// The two directions.
const (
	Incoming Direction = "incoming"
	Outgoing Direction = "outgoing"
)

// Message is an e-mail activity: one mail, on one case, on the exceptions list,
// or uncased.
type Message struct {
	ID         ID        `json:"id"`
	MessageID  string    `json:"message_id,omitempty"` // the header's, without angle brackets
	DerivedID  string    `json:"derived_id,omitempty"` // found by like MessageID, where that is missing
	References []string  `json:"references,omitempty"` // ids it names: In-Reply-To, then References
	Direction  Direction `json:"direction"`
	Case       uint64    `json:"case,omitempty"`
	AlsoOn     []uint64  `json:"also_on,omitempty"`       // further cases whose timeline shows it
	Related    []uint64  `json:"related_cases,omitempty"` // noted, not joined (T3)
	Ordinal    uint32    `json:"ordinal,omitempty"`       // within the case, as tokens carry it
	Exception  string    `json:"exception,omitempty"`     // the reason, when on the exceptions list
	Subject    string    `json:"subject"`                 // decoded
	From       string    `json:"from,omitempty"`          // the single From address, else empty
	Class      string    `json:"class"`                   // rules §3
	Identity   string    `json:"identity,omitempty"`      // rules §4
	Internal   bool      `json:"internal,omitempty"`
	Flags      []string  `json:"flags,omitempty"`
	// ThreadIndex is the header's, so that answers can extend it (rule O13).
	ThreadIndex string `json:"thread_index,omitempty"`

	CorrelationMethod string   `json:"correlation_method"`
	Parties           []Party  `json:"parties"`
	Links             []Link   `json:"links,omitempty"`
	Decision          Decision `json:"decision"`
	// Authentication is what our own check of the sender found when the message
	// came; nil: there was none.
	Authentication *Authentication `json:"authentication,omitempty"`
	// Observed: it came by a listener in mode observe; the decision is what would
	// have been done.
	Observed bool `json:"observed,omitempty"`
	// Events are what reports told of the delivery of this message, which is
	// outgoing (rule I5); oldest first.
	Events []DeliveryEvent `json:"events,omitempty"`

	Envelope   Envelope  `json:"envelope"`
	Mailboxes  []string  `json:"mailboxes,omitempty"` // of ours that it reached
	Archived   Archived  `json:"archived"`
	ReceivedAt time.Time `json:"received_at"`
	// ContentHash covers what rule I1 compares; SubmitHash the peer, the login,
	// the envelope and the raw bytes of a submission (invariant 3). Hex SHA-256.
	ContentHash string `json:"content_hash,omitempty"`
	SubmitHash  string `json:"submit_hash,omitempty"`
	// PartHashes are the SubmitHash of each further part of a submission that was
	// split over several transactions (rules §6).
	PartHashes []string `json:"part_hashes,omitempty"`
	// ReplyTo is filled in for a decision on an answer, out of the archive (O0).
	ReplyTo []string `json:"-"`
}

// Authentication is what SPF, DKIM, DMARC and ARC said of a message's sender, in
// the words of RFC 8601. It can't be found out again: keys and policies change.
type Authentication struct {
	SPF         string `json:"spf,omitempty"`
	DKIM        string `json:"dkim,omitempty"`
	DMARC       string `json:"dmarc,omitempty"`
	ARC         string `json:"arc,omitempty"`
	From        string `json:"from,omitempty"`        // domain of the single From address
	SPFDomain   string `json:"spf_domain,omitempty"`  // of the envelope sender
	DKIMDomain  string `json:"dkim_domain,omitempty"` // of the signature that DKIM is about
	ARCDomain   string `json:"arc_domain,omitempty"`  // of the last seal
	Policy      string `json:"policy,omitempty"`      // that the From domain published
	AlignedPass bool   `json:"aligned_pass,omitempty"`
	Forged      bool   `json:"forged,omitempty"`
	Words       string `json:"words"`
}

// DeliveryEvent is what a report says of one recipient (RFC 3464).
type DeliveryEvent struct {
	At         time.Time `json:"at"`
	Recipient  string    `json:"recipient,omitempty"` // empty: the report doesn't say
	Action     string    `json:"action"`              // failed, delayed, delivered, relayed, expanded
	Status     string    `json:"status,omitempty"`    // RFC 3463
	Diagnostic string    `json:"diagnostic,omitempty"`
	Report     ID        `json:"report"` // the message that told it
}

// Envelope is who handed a message over, and for whom (RFC 5321).
type Envelope struct {
	Listener   string   `json:"listener"`
	Peer       string   `json:"peer,omitempty"`
	Helo       string   `json:"helo,omitempty"`
	From       string   `json:"from"` // empty: the null reverse-path
	Recipients []string `json:"recipients"`
	Login      string   `json:"login,omitempty"`  // of the agent who signed in
	TLS        *TLS     `json:"tls,omitempty"`    // how the session was secured; none: in the clear
	Client     *Client  `json:"client,omitempty"` // from whom the peer had it, as a trusted one said (XFORWARD)
}

// Client is a mail client as another mail system tells of it. What is empty was
// not said.
type Client struct {
	Name    string `json:"name,omitempty"` // of its host
	Address string `json:"address,omitempty"`
	Helo    string `json:"helo,omitempty"`
}

// Archived is what the archive holds of a message; sizes in bytes, digests hex
// SHA-256 of the whole EML.
type Archived struct {
	ReceivedSHA256 string `json:"received_sha256"`
	ReceivedSize   int64  `json:"received_size"`
	SentSHA256     string `json:"sent_sha256,omitempty"`
	SentSize       int64  `json:"sent_size,omitempty"`
	// Transforms that turn the archived body into the sent one, in order.
	Transforms []string `json:"transforms,omitempty"`
}

// Decision is what was decided, in the words of rules.md.
type Decision struct {
	Rules   []string `json:"rules"` // such as T1, I16
	Reasons []string `json:"reasons"`
}

// Role is a participation type (Dataverse activity party).
type Role string

// The participation types in use.
const (
	RoleSender    Role = "Sender"    // 1
	RoleTo        Role = "To"        // 2
	RoleCC        Role = "CC"        // 3
	RoleBCC       Role = "BCC"       // 4
	RoleRegarding Role = "Regarding" // 8
	RoleCustomer  Role = "Customer"  // 11
	RoleRelated   Role = "Related"   // 13
)

// PartyKind says what a party was resolved to.
type PartyKind string

// A party is one of these; the empty kind is unresolved.
const (
	Unresolved   PartyKind = ""
	PartyContact PartyKind = "contact"
	PartyAccount PartyKind = "account"
	PartyAgent   PartyKind = "agent"
	PartyMailbox PartyKind = "mailbox"
)

// Party is one address of a message in one role.
type Party struct {
	Role        Role     `json:"role"`
	AddressUsed string   `json:"address_used"`
	Name        string   `json:"unresolved_party_name,omitempty"`
	Party       PartyRef `json:"party,omitzero"`
	Candidates  []ID     `json:"candidates,omitempty"` // contacts that share the address
	ByHand      bool     `json:"by_hand,omitempty"`    // a person said who it is
	Sent        bool     `json:"sent,omitempty"`       // of an outgoing message: it is mailed to this address
	Why         string   `json:"why"`
}

// PartyRef points at who a party is; zero is unresolved.
type PartyRef struct {
	Kind    PartyKind `json:"kind"`
	ID      ID        `json:"id,omitzero"`
	Address string    `json:"address,omitempty"` // of a mailbox
}

// Link relates a message to every contact that held Address when it came
// (participation type Related); expanded on read.
type Link struct {
	Address string `json:"address"` // canonical key
}

// LogEntry is a row of a case's log, or of the installation's own: key
// rotated, contact imported.
type LogEntry struct {
	ID           ID        `json:"id"`
	Case         uint64    `json:"case"` // 0: the installation's own log
	At           time.Time `json:"at"`
	By           string    `json:"by"`          // who did it: a login, an address, or a part of casegate
	SourceType   string    `json:"source_type"` // Case email-in, Case email-out, Case document, Case changed
	DocumentType string    `json:"document_type,omitempty"`
	Document     *Document `json:"document,omitempty"`
	Text         string    `json:"text,omitempty"`
}

// Document is a document reference of a log row.
type Document struct {
	FileName string `json:"file_name"`
	FileType string `json:"file_type"`
	Size     int64  `json:"size"`
	SHA256   string `json:"sha256"`
	Message  ID     `json:"message,omitzero"` // an EML: the message that holds it
}

// DeliveryState is where a delivery stands.
type DeliveryState string

// The states of a delivery.
const (
	Queued    DeliveryState = "queued"
	Held      DeliveryState = "held"
	Delivered DeliveryState = "delivered" // every recipient accepted
	Failed    DeliveryState = "failed"    // no recipient left to try, at least one failed
)

// Delivery is an outbox row: one message for some recipients by whatever route
// fits when it is tried. Finished rows stay as evidence.
type Delivery struct {
	ID         ID            `json:"id"`
	Message    ID            `json:"message"`
	Case       uint64        `json:"case,omitempty"`
	Role       string        `json:"role"` // inbound or outbound: which routes apply
	Mailbox    string        `json:"mailbox,omitempty"`
	From       string        `json:"from"`                // MAIL FROM; empty is the null reverse-path
	Submitter  string        `json:"submitter,omitempty"` // the original MAIL FROM, for bounces
	RET        string        `json:"ret,omitempty"`
	EnvID      string        `json:"envid,omitempty"`
	SMTPUTF8   bool          `json:"smtputf8,omitempty"`
	Recipients []Recipient   `json:"recipients"`
	State      DeliveryState `json:"state"`
	Due        time.Time     `json:"due"`
	Attempts   []Attempt     `json:"attempts,omitempty"`
	CreatedAt  time.Time     `json:"created_at"`
	// Since is from when its age counts, where that is not CreatedAt: somebody
	// released it, or had it tried again.
	Since time.Time `json:"since,omitzero"`
	// Lane tells apart what must not wait for each other: the relay sets it where
	// it finds a next hop without room. Claim goes by it; it decides no route.
	Lane string `json:"-" cbor:"lane,omitempty"`
	// Size of the message in octets, where it is sent as it is archived: who sends
	// it need not look at its record. 0: that says more.
	Size int64 `json:"-" cbor:"size,omitempty"`
	// Reason is why it is held, or was dropped.
	Reason string `json:"reason,omitempty"`
	// Dropped: somebody gave it up, and wants its sender to be told; why.
	Dropped string `json:"dropped,omitempty"`
	// Interrupted is set by Claim when an earlier claim was never settled: the
	// next hop may have the message already.
	Interrupted bool `json:"interrupted,omitempty"`
}

// Recipient is one RCPT TO of a delivery and how it went.
type Recipient struct {
	Address string        `json:"address"`
	Notify  []string      `json:"notify,omitempty"`
	ORcpt   string        `json:"orcpt,omitempty"`
	State   DeliveryState `json:"state"`
	Reply   string        `json:"reply,omitempty"`   // the next hop's last words
	Delayed bool          `json:"delayed,omitempty"` // the sender was told that it takes long
}

// Attempt is one try at a next hop.
type Attempt struct {
	At        time.Time `json:"at"`
	NextHop   string    `json:"next_hop"`
	Result    string    `json:"result"` // delivered, deferred, failed
	Reply     string    `json:"reply,omitempty"`
	Ambiguous bool      `json:"ambiguous,omitempty"` // the next hop may have taken it
	TLS       *TLS      `json:"tls,omitempty"`       // how the session was secured; none: in the clear, or there was none
}

// TLS is how a session was secured: with a next hop, or the one by which a
// message came. There the certificate is the client's, if it showed one.
type TLS struct {
	Version string `json:"version"` // TLS 1.3
	Cipher  string `json:"cipher"`
	Peer    string `json:"peer,omitempty"`  // whom the certificate names
	Pin     string `json:"pin,omitempty"`   // SHA-256 of its public key (SPKI), in hex
	Trust   string `json:"trust,omitempty"` // verified, pinned, or unverified
}

// Installation is made once, in the store, at its first start: what signs and
// verifies tracking tokens. Part of every backup. Old keys stay, or the tokens
// they signed stop working.
type Installation struct {
	ID   ID           `json:"id"`
	Keys []SigningKey `json:"keys"`
}

// SigningKey is an HMAC-SHA-256 key. The newest key signs; all verify.
type SigningKey struct {
	ID        byte      `json:"id"`
	Secret    []byte    `json:"secret"`
	CreatedAt time.Time `json:"created_at"`
}
