package store

import (
	"reflect"
	"time"
)

// Query names everything one decision asks the store for.
type Query struct {
	Cases      []uint64      // case numbers read from signed evidence
	MessageIDs []string      // without angle brackets: the message's own and all it names
	Addresses  []string      // canonical keys of everyone the message names
	Contacts   []ID          // contacts named outright
	Parents    bool          // also the whole messages behind MessageIDs (rule O9)
	Ordinals   []CaseOrdinal // the messages that tokens name: asked for with reports only
	Tallies    []TallyKey
	At         time.Time // that Tallies are counted back from
}

// CaseOrdinal names an activity as tokens do.
type CaseOrdinal struct {
	Case    uint64
	Ordinal uint32
}

// Tally is a sort of event that is counted by address.
type Tally string

// The tallies.
const (
	TallyOpened       Tally = "opened"       // a case was opened by mail (rule I21)
	TallyAcknowledged Tally = "acknowledged" // an acknowledgement was sent
	TallySent         Tally = "sent"         // a mail of the desk went out (rule O14)
)

// TallyKey names one count: of a canonical address, on one case or, at 0, on
// all together.
type TallyKey struct {
	Kind    Tally
	Case    uint64
	Address string
}

// Facts is the answer to a Query: all of it from one snapshot.
type Facts struct {
	Installation Installation
	// Cases holds the cases asked for, those that MessageIDs lead to (the first
	// MaxLedTo, in the order asked), and every case these were merged into. A
	// number asked for that is missing does not exist.
	Cases map[uint64]CaseFacts
	// MessageIDs leads from a Message-ID to the activities that bear it (Own),
	// and to the oldest one of each case that names it; oldest first, and the
	// newest MaxMessageRefs of each sort. An id that leads nowhere is missing.
	MessageIDs map[string][]MessageRef
	// Holders says who has each address now. Every address asked is present.
	Holders map[string]Holders
	// Contacts holds the contacts asked for; one that is missing does not exist.
	Contacts map[ID]Contact
	// Parents holds the messages that bear an id, when Query.Parents asked.
	Parents map[ID]Message
	// Answered holds the messages that Ordinals name, so far as they exist.
	Answered map[CaseOrdinal]Message
	// Tallies holds the events since TallyWindow before At, newest first, at
	// most MaxTally of each. One that is later than At counts too: it was noted
	// while this decision waited. A tally of nothing is missing.
	Tallies map[TallyKey][]time.Time
}

// What is remembered of a tally.
const (
	TallyWindow = 24 * time.Hour
	MaxTally    = 1000
)

// Equal reports whether two answers to the same Query say the same: a decision
// on either is then the same.
func (f Facts) Equal(g Facts) bool { return reflect.DeepEqual(f, g) }

// CaseFacts is a case with what decisions ask about it.
type CaseFacts struct {
	Case     Case
	Customer Contact
	// Used tells, of the addresses asked, of the customer's, and of every
	// address of the contacts that hold an asked one, which were used on the
	// case and how.
	Used map[string]Usage
}

// Usage is how an address took part in a case so far.
type Usage struct {
	First  time.Time `json:"first"`
	Last   time.Time `json:"last"`
	Sender bool      `json:"sender,omitempty"` // it wrote at least once
}

// Holders are those who have one address now; never merged, never guessed.
type Holders struct {
	Contacts []Contact // oldest first; at most MaxHolders, guests left out first
	More     bool      // there are more contacts than these: list them by ContactFilter
	Accounts []Account
	Agents   []Agent
}

// Bounds that keep a decision short, whatever strangers have sent before: a
// machine that mails daily soon is a thousand guests on one address.
const (
	MaxHolders     = 50
	MaxMessageRefs = 32
	MaxLedTo       = 16
)

// MessageRef is one activity reached by a Message-ID.
type MessageRef struct {
	ID          ID        `json:"id"`
	Case        uint64    `json:"case,omitempty"` // 0: on the exceptions list, or uncased
	Own         bool      `json:"own,omitempty"`  // it bears the id; false: it only references it
	Direction   Direction `json:"direction,omitempty"`
	ContentHash string    `json:"content_hash,omitempty"` // of the activity that bears it
	SubmitHash  string    `json:"submit_hash,omitempty"`
	ReceivedAt  time.Time `json:"received_at"`
}
