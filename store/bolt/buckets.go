package bolt

import (
	"encoding/binary"

	"github.com/casegate/casegate/store"
)

// bucket is one of the top-level buckets; the package comment says what each
// holds.
type bucket uint8

const (
	meta bucket = iota
	cases
	caseStates
	caseCustomers
	contacts
	registered
	accounts
	agents
	addresses
	externals
	messages
	caseRows
	exceptions
	unresolved
	messageIDs
	archive
	bodies
	bodyOwners
	staged
	deliveries
	due
	lanes
	leases
	deliveryMessages
	deliveryStates
	tallies
	bucketCount
)

func (b bucket) String() string {
	return [bucketCount]string{
		"meta", "cases", "case-states", "case-customers", "contacts", "registered", "accounts", "agents",
		"addresses", "externals", "messages", "case-rows", "exceptions", "unresolved", "message-ids", "archive",
		"bodies", "body-owners", "staged", "deliveries", "due", "lanes", "leases",
		"delivery-messages", "delivery-states", "tallies",
	}[b]
}

// fill is how full a page is left when it splits: to the brim where keys only
// ever grow, with some room where records are rewritten, half where keys are
// random.
func (b bucket) fill() float64 {
	switch b {
	case messages, archive, bodies, bodyOwners, deliveryMessages, exceptions, unresolved:
		return 1
	case cases, contacts, deliveries, caseRows, due, lanes, caseStates, caseCustomers:
		return 0.9
	}
	return 0.5
}

// The sorts of caseRows. All rows of a case lie together, so that a message
// changes one page of them and not one of each sort.
const (
	ofMessages   = 'm' // id
	ofOrdinals   = 'o' // ordinal (4 bytes) id
	ofUse        = 'u' // hash(address) -> usage
	ofDeliveries = 'd' // id
	ofLog        = 'l' // id -> LogEntry
)

// ofCase is a key of caseRows, or begins those of one sort.
func ofCase(n uint64, sort byte, rest ...[]byte) []byte {
	key := make([]byte, 0, caseRow+4+len(store.ID{}))
	key = append(binary.BigEndian.AppendUint64(key, n), sort)
	for _, r := range rest {
		key = append(key, r...)
	}
	return key
}

// caseRow is how long the number and the sort in a key are.
const caseRow = 8 + 1
