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
	contacts
	registered
	accounts
	agents
	addresses
	externals
	messages
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
	deliveryStates
	tallies
	bucketCount
)

func (b bucket) String() string {
	return [bucketCount]string{
		"meta", "cases", "case-states", "contacts", "registered", "accounts", "agents",
		"addresses", "externals", "messages", "exceptions", "unresolved", "message-ids", "archive",
		"bodies", "body-owners", "staged", "deliveries", "due", "lanes", "leases",
		"delivery-states", "tallies",
	}[b]
}

// fill is how full a page is left when it splits: to the brim where keys only
// ever grow, with some room where records are rewritten, half where keys are
// random.
func (b bucket) fill() float64 {
	switch b {
	case messages, archive, bodies, bodyOwners, exceptions, unresolved:
		return 1
	case cases, contacts, deliveries, due, lanes, caseStates:
		return 0.9
	}
	return 0.5
}

// The sorts of rows in cases. All of a case lie together, so that a message
// changes one page of them and not one of each sort.
const (
	ofRecord     = 'c' // -> Case
	ofDeliveries = 'd' // id
	ofLog        = 'l' // id -> LogEntry
	ofMessages   = 'm' // id
	ofOrdinals   = 'o' // ordinal (4 bytes) id
	ofUse        = 'u' // hash(address) -> usage
)

// ofCase is a key of cases, or begins those of one sort.
func ofCase(n uint64, sort byte, rest ...[]byte) []byte {
	key := make([]byte, 0, caseRow+4+len(store.ID{}))
	key = append(binary.BigEndian.AppendUint64(key, n), sort)
	for _, r := range rest {
		key = append(key, r...)
	}
	return key
}

// caseRow is how long number and sort are.
const caseRow = 8 + 1

func caseOf(key []byte) uint64 { return binary.BigEndian.Uint64(key) }

// underRecord follows an id in the keys of rows that lie under its record: the
// cases of a contact, the deliveries of a message.
const underRecord = '>'

func under(id store.ID) []byte { return append(id[:], underRecord) }

// isUnder tells such rows from records.
func isUnder(b bucket, key []byte) bool {
	return (b == contacts || b == messages) && len(key) > len(store.ID{})
}
