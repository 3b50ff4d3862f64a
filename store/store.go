package store

import (
	"context"
	"errors"
	"io"
	"time"
)

var (
	// ErrNotFound: the record asked for does not exist.
	ErrNotFound = errors.New("not found")
	// ErrFull: no room left (disk, quota). Nothing was changed; the same call
	// succeeds once there is room.
	ErrFull = errors.New("storage is full")
	// ErrUnavailable: the store cannot say whether the change is durable, or
	// cannot be reached. Repeat the whole transaction later: all keys are
	// idempotent.
	ErrUnavailable = errors.New("storage is unavailable")
	// ErrTaken: another record has what may be had once, such as a Contact's
	// External. Nothing was changed.
	ErrTaken = errors.New("another record has it already")
	// ErrInUse: another process has the store open.
	ErrInUse = errors.New("the store is in use by another process")
	// ErrSchema: the store was written by a newer casegate, or is not ours.
	ErrSchema = errors.New("the store has a schema this version does not know")
)

// Store is the one door to everything durable. All methods may be called
// concurrently.
type Store interface {
	// Update runs fn in a read-write transaction and returns when its changes
	// are on stable storage. fn sees its own writes. It may run more than once,
	// alone or with others in one commit, so it must touch nothing but tx and
	// variables it sets anew on each run. An error of fn undoes all it wrote
	// and is returned as it is. ErrFull and ErrUnavailable as described there.
	Update(ctx context.Context, fn func(Tx) error) error

	// View runs fn on a consistent snapshot. fn must not wait for a network
	// peer: a long view makes the embedded store's file grow.
	View(ctx context.Context, fn func(Reader) error) error

	// ReserveCase returns a number for a new case that nobody else gets; it is
	// durable with the case put under it. Numbers grow, gaps are fine.
	ReserveCase(ctx context.Context) (uint64, error)

	// Stage opens a body that is written before the transaction that archives
	// it. A staged body whose Message never commits is swept later.
	Stage(ctx context.Context) (Body, error)

	// Open streams an archived EML as received or as sent, header block and
	// body; the caller closes it. The bytes of the body are the archived ones:
	// Archive.Transforms says how sent bytes differ. ErrNotFound.
	Open(ctx context.Context, id ID, as As) (io.ReadCloser, error)

	// Claim leases up to n deliveries that are due and belong to nobody, of each
	// lane no more than there is room for: the oldest of each lane first, and the
	// lanes in turn. The lease is durable before Claim returns; a claim not
	// settled (crash, or until passed) comes back with Delivery.Interrupted set,
	// room or not. It looks only at what it hands out, however much waits.
	Claim(ctx context.Context, now time.Time, lease time.Duration, n int, room Room) ([]Delivery, error)
	// Settle makes of each of these deliveries, as it is now, what fn makes of it,
	// and ends their leases, in one transaction: fn is as for Update, and is called
	// once for each, in their order. Interrupted is not stored: an Attempt says what
	// became of it.
	Settle(ctx context.Context, fn func(Delivery) (Delivery, error), claimed ...ID) error
	// NextDue is when there will be something to claim: a delivery is due in a
	// lane with room, or a lease ends. ok is false when the outbox holds nothing
	// to wait for.
	NextDue(ctx context.Context, room Room) (due time.Time, ok bool, err error)

	// Verify reads everything, reports each broken promise to report (a
	// message without its body, a digest that differs, a dangling index row)
	// and counts what it looked at.
	Verify(ctx context.Context, report func(Finding)) (Counts, error)

	// Close waits for open transactions and releases the store.
	Close() error
}

// Room is how many more deliveries of a lane (Delivery.Lane) may be claimed; of
// one that it does not name, as many as there are.
type Room map[string]int

// Body is one message body on its way into the archive. It is not safe for
// concurrent use.
type Body interface {
	io.Writer
	// WriteTo writes the whole body again, after Seal; also inside an Update.
	io.WriterTo
	// Size is the number of bytes written so far.
	Size() int64
	// Seal ends the body; after it only Tx.Archive and Discard may use it.
	Seal(ctx context.Context) error
	// Discard releases what was staged unless a Message committed with it.
	// Always call it, also after success.
	Discard()
}

// Reader answers questions on one snapshot. A missing record is ErrNotFound.
// Lists are in the order given and page by cursor.
type Reader interface {
	// Facts answers all that one decision asks, in one read.
	Facts(Query) (Facts, error)

	Installation() (Installation, error)

	Case(number uint64) (Case, error)
	Contact(ID) (Contact, error)
	Account(ID) (Account, error)
	Agent(ID) (Agent, error)
	Message(ID) (Message, error)
	// ByOrdinal finds a message by what a token names (rules §2). Ordinal 0 is
	// the case itself, so no message. Of several, the oldest.
	ByOrdinal(caseNumber uint64, ordinal uint32) (Message, error)
	// ContactByExternal finds a contact by its id in an outside directory.
	ContactByExternal(id string) (Contact, error)
	// Header returns an archived header block, as received or as sent, and the
	// fields kept apart from it (Bcc).
	Header(ID, As) (block []byte, apart []Apart, err error)
	Delivery(ID) (Delivery, error)

	// Holders answers who has the address (a canonical key, see Key) now.
	Holders(address string) (Holders, error)
	// HeldBy answers which contacts had the address (a canonical key) at a
	// time, oldest first: how a Link is expanded on read. No contact is no error.
	HeldBy(address string, at time.Time) ([]Contact, error)

	Cases(CaseFilter, Page) ([]Case, Cursor, error)              // newest number first
	Contacts(ContactFilter, Page) ([]Contact, Cursor, error)     // oldest first
	Accounts(Page) ([]Account, Cursor, error)                    // oldest first
	Agents(Page) ([]Agent, Cursor, error)                        // oldest first
	Messages(MessageFilter, Page) ([]Message, Cursor, error)     // newest first, or as the filter says
	Deliveries(DeliveryFilter, Page) ([]Delivery, Cursor, error) // oldest first
	Log(caseNumber uint64, p Page) ([]LogEntry, Cursor, error)   // oldest first; of case 0: the installation's own
}

// Tx is a Reader that also writes. Put stores a record whole, replacing the
// one with the same key, and keeps every index of it right.
type Tx interface {
	Reader

	PutCase(Case) error
	PutContact(Contact) error // ErrTaken: another contact has its External
	PutAccount(Account) error
	PutAgent(Agent) error
	PutInstallation(Installation) error // keys left out are gone: their tokens no longer verify

	// PutMessage stores the activity. With Case set it joins that case's
	// timeline, its Message-ID, DerivedID and those it references lead to the case, and
	// the addresses of its sender and recipients count as used on the case.
	// With Exception set it joins the exceptions list. On a case, with a sender
	// or recipient who is not resolved, it joins the list of those.
	PutMessage(Message) error
	// Archive stores a message's bytes, once per message. sent may be nil
	// (never handed on); apart holds the fields cut out of received.
	Archive(id ID, received, sent []byte, apart []Apart, body Body) error
	// ArchiveSent adds the sent header block of a message that was archived
	// without one; nil adds nothing.
	ArchiveSent(id ID, sent []byte) error
	// Enqueue adds a delivery to the outbox, or replaces it.
	Enqueue(Delivery) error
	// Tally notes one event more. What is older than TallyWindow is forgotten, a
	// little with each call.
	Tally(k TallyKey, at time.Time) error
	// Record appends a row to the log of a case, or, with Case 0, to that of the
	// installation.
	Record(LogEntry) error
}

// As picks one of the two EMLs of a message.
type As string

// Both come back byte for byte: one body, two header blocks.
const (
	AsReceived As = "received"
	AsSent     As = "sent"
)

// Apart is a field cut out of an archived header block (Bcc): its bytes, and
// where in the original block they stood. Putting all back, in order, restores
// the block.
type Apart struct {
	Offset int    `json:"offset"`
	Bytes  []byte `json:"bytes"`
}

// Cursor continues a list; the empty cursor is the beginning, and is returned
// at the end.
type Cursor string

// Page asks for at most Limit rows behind After. Limit 0 is 50. A page may be
// short, even empty, while its cursor goes on: a filter that hardly matches
// must not keep a snapshot open for long.
type Page struct {
	After Cursor
	Limit int
}

// Max is the number of rows to return.
func (p Page) Max() int {
	if p.Limit <= 0 {
		return 50
	}
	return p.Limit
}

// CaseFilter selects cases; zero fields select all.
type CaseFilter struct {
	State    CaseState
	Queue    string
	Customer ID // cases whose customer this is now
}

// ContactFilter selects contacts; zero fields select all.
type ContactFilter struct {
	Address string // canonical key, held now
	Kind    ContactKind
}

// MessageFilter selects messages; zero fields select all.
type MessageFilter struct {
	Case       uint64 // its timeline, oldest first
	Exceptions bool   // only what is on the exceptions list
	Exception  string // only what is there for this reason
	Unresolved bool   // only what has an unresolved sender or recipient, on a case
	// Since leaves out what was received before. It is sought by the time in
	// their ids: one made over a day before its message was received is missed.
	Since       time.Time
	OldestFirst bool
}

// DeliveryFilter selects deliveries; zero fields select all.
type DeliveryFilter struct {
	Case    uint64
	Message ID
	State   DeliveryState
	Address string // canonical key of a recipient
}

// Finding is one broken promise that Verify met.
type Finding struct {
	Record string `json:"record"` // kind and key, such as "message 0192…"
	What   string `json:"what"`
}

// Counts is how many records Verify looked at.
type Counts struct {
	Cases      int   `json:"cases"`
	Contacts   int   `json:"contacts"`
	Messages   int   `json:"messages"`
	Exceptions int   `json:"exceptions"`
	Deliveries int   `json:"deliveries"`
	Queued     int   `json:"queued"`
	Bytes      int64 `json:"bytes"` // of archived EML as received
	Findings   int   `json:"findings"`
}
