package gateway

import (
	"fmt"

	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// observe archives a submission with the decision that would have been, and
// sends it on as it came (mode: observe): our Received field is added, and a
// Bcc field goes, as it must never show (rule O10). The case doesn't know of it.
func (p *outbound) observe(a submission, d resolver.OutboundDecision) (plan, error) {
	if a.header.TooLarge() { // where it wasn't read a Bcc may stand
		return plan{}, refused(&resolver.Refusal{Code: 554, Enhanced: [3]int{5, 6, 0}, Text: "the header cannot be read: " + a.sub.Unparsable})
	}
	n := plan{body: a.spool.body, message: a.message(d, p.Settings), tallies: d.Sent}
	n.message.Observed, n.message.Internal, n.message.Parties = true, false, d.Parties
	n.message.Case, n.message.Ordinal, n.message.References = 0, 0, nil
	n.message.MessageID = a.sub.MessageID
	n.message.Decision = observed(d)
	n.received, n.apart = cutBcc(a.spool.header)
	n.sent = unchanged(a.header, trace(a.env, resolver.SentMark, a.sub.Mail, p.Settings.Hostname))
	n.deliveries = []store.Delivery{a.outbox(n.message, resolver.OutboundDecision{}, a.sub.Recipients)}
	var err error
	n.message.Archived, err = archived(a.env, a.spool, n.sent)
	return n, err
}

// unchanged is a header block as it came, below our Received field, without
// what must not show.
func unchanged(h message.Header, received string) []byte {
	e := message.NewEditor(h)
	e.Prepend("Received", received)
	for _, f := range h.Fields() {
		if hidden(f) {
			e.Remove(f)
		}
	}
	return e.Bytes()
}

// observed is a decision in words that say it was not carried out.
func observed(d resolver.OutboundDecision) store.Decision {
	would := "sent on as it came; what follows is what would have been done (mode: observe)"
	if r := d.Refusal; r != nil {
		would = fmt.Sprintf("sent on as it came; it would have been refused with %d: %s (mode: observe)", r.Code, r.Text)
	}
	return store.Decision{Rules: d.Rules, Reasons: append([]string{would}, d.Reasons...)}
}
