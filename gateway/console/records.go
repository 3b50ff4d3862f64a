package console

import (
	"io"
	"time"

	"github.com/casegate/casegate/store"
)

// The records as the API tells them. Where a store record needs no names looked
// up and hides nothing, it is told as it is.

// Case is a row of the list of cases.
type Case struct {
	ID         store.ID        `json:"id"`
	Number     uint64          `json:"number"`
	Title      string          `json:"title"`
	State      store.CaseState `json:"state"`
	Origin     string          `json:"origin"`
	Queue      string          `json:"queue"`
	Customer   Person          `json:"customer"`
	MergedInto uint64          `json:"merged_into,omitempty"`
	Flags      []string        `json:"flags,omitempty"`
	CreatedAt  time.Time       `json:"created_at"`
	UpdatedAt  time.Time       `json:"updated_at"`
}

// CaseDetail is a case with everything on it.
type CaseDetail struct {
	Case
	Accounts  []Person         `json:"accounts"`
	HandLinks []HandLink       `json:"hand_links,omitempty"`
	Timeline  []Activity       `json:"timeline" doc:"oldest first"`
	Log       []store.LogEntry `json:"log" doc:"oldest first"`
}

// HandLink is who a person said an address is, in this case.
type HandLink struct {
	Address string    `json:"address"`
	Contact Person    `json:"contact"`
	By      string    `json:"by"`
	At      time.Time `json:"at"`
}

// Person is whoever a record points at: a contact (registered, guest), an
// account (business, property) or an agent.
type Person struct {
	ID   store.ID `json:"id"`
	Kind string   `json:"kind"`
	Name string   `json:"name"`
}

// MessageRow is a row of the list of messages. It is on a case, or on the
// exceptions list with a reason, or neither.
type MessageRow struct {
	ID         store.ID        `json:"id"`
	MessageID  string          `json:"message_id"`
	Subject    string          `json:"subject"`
	Direction  store.Direction `json:"direction"`
	Case       *uint64         `json:"case"`
	Exception  *string         `json:"exception"`
	From       string          `json:"from"`
	ReceivedAt time.Time       `json:"received_at"`
}

// Activity is one message as a timeline tells it.
type Activity struct {
	MessageRow
	Class             string           `json:"class,omitempty"`
	Identity          string           `json:"identity,omitempty"`
	Flags             []string         `json:"flags,omitempty"`
	Parties           []ActivityParty  `json:"parties"`
	Links             []ContactLink    `json:"links"`
	CorrelationMethod string           `json:"correlation_method"`
	RelatedCases      []uint64         `json:"related_cases,omitempty"`
	Decision          store.Decision   `json:"decision"`
	Internal          bool             `json:"internal"`
	Archived          store.Archived   `json:"archived"`
	Delivery          []store.Delivery `json:"delivery"`
	// Events are what reports told of its delivery, by others or by us.
	Events []store.DeliveryEvent `json:"events,omitempty"`
}

// MessageDetail is an activity and how it came.
type MessageDetail struct {
	Activity
	References []string       `json:"references,omitempty"`
	Mailboxes  []string       `json:"mailboxes,omitempty"`
	Envelope   store.Envelope `json:"envelope"`
	// Authentication is what our own check of the sender found when it came.
	Authentication *store.Authentication `json:"authentication,omitempty"`
}

// ActivityParty is one address of a message in one role. Party is null when it
// is unresolved.
type ActivityParty struct {
	Role        store.Role `json:"role"`
	AddressUsed string     `json:"address_used"`
	Name        string     `json:"unresolved_party_name,omitempty"`
	Party       *PartyRef  `json:"party"`
	Candidates  []Person   `json:"candidates,omitempty"`
	ByHand      bool       `json:"by_hand,omitempty" doc:"a person said who it is"`
	Why         string     `json:"why"`
}

// PartyRef is who a party is: contact, account, agent or mailbox.
type PartyRef struct {
	Kind    store.PartyKind `json:"kind"`
	ID      store.ID        `json:"id,omitzero"`
	Name    string          `json:"name,omitempty"`
	Address string          `json:"address,omitempty" doc:"of a mailbox"`
}

// ContactLink is a contact that held an address of the message when it came.
type ContactLink struct {
	Person
	Address string `json:"address"`
}

// ExplainRequest is a mail to be decided as if it came now. Nothing is written.
type ExplainRequest struct {
	Role       string   // inbound or outbound
	Listener   string   // it comes in by; empty: the first of the role
	From       string   // MAIL FROM; <> is the null reverse-path
	Recipients []string // RCPT TO; empty: as the header says
	// Stored is the message asked about, when it is in the archive: it must not
	// count as a duplicate of itself.
	Stored store.ID
	EML    io.Reader
}

// Explanation is a decision and its reasons.
type Explanation struct {
	ID                store.ID        `json:"id,omitzero" doc:"of a stored message"`
	Stored            bool            `json:"stored" doc:"what was decided; false: what would be decided now"`
	Role              string          `json:"role" enum:"inbound,outbound"`
	Outcome           string          `json:"outcome" doc:"in a few words: link, open, reopen, except, refuse, duplicate, send ..."`
	Case              uint64          `json:"case,omitempty" doc:"none yet if one would be opened"`
	Exception         string          `json:"exception,omitempty"`
	Class             string          `json:"class,omitempty"`
	Identity          string          `json:"identity,omitempty"`
	CorrelationMethod string          `json:"correlation_method,omitempty"`
	Decision          store.Decision  `json:"decision"`
	Parties           []ActivityParty `json:"parties"`
	Recipients        []string        `json:"recipients,omitempty" doc:"who would receive it"`
}
