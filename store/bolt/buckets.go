package bolt

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
	messages
	timeline
	exceptions
	messageIDs
	used
	archive
	bodies
	bodyOwners
	staged
	deliveries
	due
	leases
	deliveryMessages
	deliveryCases
	deliveryStates
	caseLog
	bucketCount
)

func (b bucket) String() string {
	return [bucketCount]string{
		"meta", "cases", "case-states", "contacts", "registered", "accounts", "agents",
		"addresses", "messages", "timeline", "exceptions", "message-ids", "used", "archive",
		"bodies", "body-owners", "staged", "deliveries", "due", "leases",
		"delivery-messages", "delivery-cases", "delivery-states", "log",
	}[b]
}

// fill is how full a page is left when it splits: to the brim where keys only
// ever grow, with some room where records are rewritten, half where keys are
// random.
func (b bucket) fill() float64 {
	switch b {
	case messages, archive, bodies, caseLog, timeline, bodyOwners, deliveryMessages, deliveryCases, exceptions:
		return 1
	case cases, contacts, deliveries, used, due, caseStates:
		return 0.9
	}
	return 0.5
}
