package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// bounceListener stands in the envelope of reports that we write ourselves.
const bounceListener = "bounce"

// The marks under which people find mail that went nowhere.
const (
	customerBounced  = "customer-bounced"  // of a case, as rule I5 sets it
	recipientBounced = "recipient-bounced" // of a case: of somebody else on it (rule O11 looks for either)
	deliveryFailed   = "delivery-failed"   // of a case: nobody was told by mail
	handOnFailed     = "hand-on-failed"    // of a case; and the reason on the exceptions list
)

// maxEvents is how many of a message's delivery events are kept, the newest.
const maxEvents = 1000

// bulletin is all that somebody hears of a job: events on the message, a flag
// on its case, and a report to who submitted it.
type bulletin struct {
	at     time.Time
	id     store.ID // of the message
	d      *store.Delivery
	events []store.DeliveryEvent
	report *report // nil: nobody is owed one
}

// bulletin works out what is to be told. What takes time, the body of a report,
// is staged here, before the transaction.
func (r *Relay) bulletin(ctx context.Context, n *news) (*bulletin, error) {
	b := &bulletin{at: r.now().UTC(), id: n.now.Message, d: &n.now}
	var m store.Message
	var header []byte
	err := r.st.View(ctx, func(rd store.Reader) (err error) {
		if m, err = rd.Message(n.now.Message); err != nil {
			return err
		}
		header, _, err = rd.Header(m.ID, store.AsSent)
		return err
	})
	if errors.Is(err, store.ErrNotFound) && m.ID == (store.ID{}) {
		return b, nil // the message is gone: the row says it all
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if r.reportable(&n.now, &m) {
		if b.report, err = r.compose(ctx, n, &m, header, b.at); err != nil {
			return nil, err
		}
	}
	b.tell(n)
	return b, nil
}

// tell lists the events. What a person gave up says nothing of an address.
func (b *bulletin) tell(n *news) {
	add := func(list []int, action string) {
		for _, i := range list {
			to := &n.now.Recipients[i]
			b.events = append(b.events, store.DeliveryEvent{
				At: b.at, Recipient: to.Address, Action: action, Status: n.status(i, action),
				Diagnostic: to.Reply, Report: b.reportID(),
			})
		}
	}
	if n.now.Dropped == "" {
		add(n.failed, "failed")
	}
	add(n.delayed, "delayed")
	add(n.relayed, "relayed")
}

// status is that of a recipient (RFC 3463). Running out of time is the next
// hop's trouble, not the address's: 4.4.7.
func (n *news) status(i int, action string) string {
	reply := n.now.Recipients[i].Reply
	switch {
	case slices.Contains(n.expired, i):
		return "4.4.7"
	case action == "delayed":
		return statusOf(reply, '4')
	case action == "relayed", action == "delivered":
		return statusOf(reply, '2')
	}
	return statusOf(reply, '5')
}

func (b *bulletin) reportID() store.ID {
	if b.report == nil {
		return store.ID{}
	}
	return b.report.m.ID
}

func (b *bulletin) discard() {
	if b.report != nil {
		b.report.body.Discard()
	}
}

// record writes all of it.
func (b *bulletin) record(tx store.Tx) error {
	if b.report != nil {
		if err := b.report.record(tx); err != nil {
			return err
		}
	}
	m, err := tx.Message(b.id)
	if errors.Is(err, store.ErrNotFound) || len(b.events) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	m.Events = append(slices.Clone(m.Events), b.events...)
	m.Events = m.Events[max(0, len(m.Events)-maxEvents):]
	flag, why := b.flag(tx, &m)
	if flag == handOnFailed && m.Case == 0 && m.Exception == "" {
		m.Exception = handOnFailed
		m.Decision.Reasons = append(slices.Clone(m.Decision.Reasons), why)
	}
	if err := tx.PutMessage(m); err != nil || flag == "" || m.Case == 0 {
		return err
	}
	return b.flagCase(tx, m.Case, flag, why)
}

// flag is what is to be set on the case, if anything: the desk did not get its
// mail; an address takes none, the customer's (rule I5) or another's; or nobody
// else would hear of it. why names nobody: a recipient may be a secret.
func (b *bulletin) flag(tx store.Tx, m *store.Message) (flag, why string) {
	see := "see casegate queue show " + b.d.ID.String()
	for _, e := range b.events {
		switch {
		case e.Action != "failed":
		case b.d.Role == "inbound":
			return handOnFailed, fmt.Sprintf("it could not be handed on (%s): %s", e.Status, see)
		case e.Status[0] == '5' && b.isCustomer(tx, m.Case, e.Recipient):
			return customerBounced, fmt.Sprintf("the customer's address does not take mail (%s): %s", e.Status, see)
		case m.Direction != store.Outgoing:
		case e.Status[0] == '5':
			flag, why = recipientBounced, fmt.Sprintf("an address does not take mail (%s): %s", e.Status, see)
		case b.report == nil && flag == "":
			flag, why = deliveryFailed, fmt.Sprintf("mail of it was given up (%s): %s", e.Status, see)
		}
	}
	return flag, why
}

func (b *bulletin) isCustomer(tx store.Tx, number uint64, address string) bool {
	if number == 0 {
		return false
	}
	c, err := tx.Case(number)
	if err != nil {
		return false
	}
	contact, err := tx.Contact(c.Customer)
	return err == nil && contact.HeldAt(store.Key(address), b.at)
}

func (b *bulletin) flagCase(tx store.Tx, number uint64, flag, why string) error {
	c, err := tx.Case(number)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err == nil {
		c, err = resolver.MergedTo(c, tx.Case)
	}
	if err != nil || slices.Contains(c.Flags, flag) {
		return err
	}
	c.Flags, c.UpdatedAt = append(slices.Clone(c.Flags), flag), b.at
	if err := tx.PutCase(c); err != nil {
		return err
	}
	return tx.Record(store.LogEntry{
		ID: store.NewID(), Case: c.Number, At: b.at, By: "relay",
		SourceType: "Case changed", Text: "flagged " + flag + ": " + why,
	})
}
