package bolt

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
	timeline
	ordinals
	exceptions
	unresolved
	messageIDs
	used
	archive
	bodies
	bodyOwners
	staged
	deliveries
	due
	lanes
	leases
	deliveryMessages
	deliveryCases
	deliveryStates
	caseLog
	tallies
	bucketCount
)

func (b bucket) String() string {
	return [bucketCount]string{
		"meta", "cases", "case-states", "case-customers", "contacts", "registered", "accounts", "agents",
		"addresses", "externals", "messages", "timeline", "ordinals", "exceptions", "unresolved", "message-ids", "used", "archive",
		"bodies", "body-owners", "staged", "deliveries", "due", "lanes", "leases",
		"delivery-messages", "delivery-cases", "delivery-states", "log", "tallies",
	}[b]
}

// fill is how full a page is left when it splits: to the brim where keys only
// ever grow, with some room where records are rewritten, half where keys are
// random.
func (b bucket) fill() float64 {
	switch b {
	case messages, archive, bodies, caseLog, timeline, bodyOwners, deliveryMessages, deliveryCases, exceptions, unresolved:
		return 1
	case cases, contacts, deliveries, used, due, lanes, caseStates, caseCustomers, ordinals:
		return 0.9
	}
	return 0.5
}
