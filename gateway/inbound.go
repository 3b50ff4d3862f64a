package gateway

import (
	"context"
	"slices"
	"sync"

	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// inbound is the pipeline of mail from outside: decide, stamp, record, queue.
type inbound struct {
	pipeline
	trustedForm bool
}

// NewInbound returns the inbound pipeline of one listener. On a trusted form's
// listener the mail itself says who the customer is (rule I23).
func NewInbound(o Options, trustedForm bool) Handler {
	return &inbound{pipeline{o}, trustedForm}
}

// Mail accepts every sender: what he is worth is decided with the message.
func (p *inbound) Mail(context.Context, *Envelope) error { return nil }

// Rcpt takes our mailboxes and nothing else; relaying is the smarthost's job.
func (p *inbound) Rcpt(_ context.Context, _ *Envelope, to Recipient) error {
	if _, own := p.Settings.Own(to.Path.String()); own {
		return nil
	}
	return Verdict{550, [3]int{5, 1, 1}, "no such mailbox here"}
}

// arrival is one message on its way through the inbound pipeline.
type arrival struct {
	env    *Envelope
	spool  *spool
	header message.Header
	mail   resolver.Mail
	number func() (uint64, error) // of the case, should one be opened
}

// Accept makes a message durable and says under which id and case. A crash
// before the transaction commits: the sender repeats it, and it is new. A crash
// after: recovery needs nothing but the store.
func (p *inbound) Accept(ctx context.Context, env *Envelope, sink Sink) (Receipt, error) {
	a := arrival{env: env, spool: sink.(*spool)}
	if err := a.spool.body.Seal(ctx); err != nil {
		return Receipt{}, err
	}
	a.mail, a.header = read(env, a.spool, p.Now())
	if a.mail.TrustedForm = p.trustedForm; p.trustedForm {
		p.speakFor(&a.mail, a.header)
	}
	a.number = sync.OnceValues(func() (uint64, error) { return p.Store.ReserveCase(ctx) })
	query := resolver.Ask(a.mail, p.Settings)
	return settle(ctx, p.pipeline,
		func(r store.Reader) (store.Facts, error) { return r.Facts(query) },
		func(f store.Facts) (plan, error) { return p.plan(a, f) })
}

// speakFor takes the one whom a trusted form answers to for the sender: there,
// and nowhere else, Reply-To stands for From (rules §4).
func (p *inbound) speakFor(m *resolver.Mail, h message.Header) {
	fields := h.Named("Reply-To")
	if len(fields) != 1 {
		return
	}
	list, unread := message.ParseListAll(fields[0].Value())
	if len(list) != 1 || len(unread) > 0 || !list[0].Clean() {
		return
	}
	if _, own := p.Settings.Own(list[0].Address); !own {
		m.Author = addressOf(list[0])
		m.From = []resolver.Address{*m.Author}
	}
}

// plan decides on an arrival and works out all that follows from it.
func (p *inbound) plan(a arrival, f store.Facts) (plan, error) {
	d := resolver.Inbound(a.mail, f, p.Settings)
	switch d.Action {
	case resolver.Refuse:
		return plan{}, refused(d.Refusal)
	case resolver.Duplicate:
		return plan{repeats: d.Original.ID, mailboxes: d.Mailboxes}, nil
	case resolver.Open:
		var err error
		if d.Case.Number, err = a.number(); err != nil {
			return plan{}, err
		}
	}
	n := plan{contact: d.Guest, body: a.spool.body, received: a.spool.header, message: a.message(d)}
	if d.Action != resolver.Except {
		token, err := resolver.Sign(f.Installation, d.Case.Number, d.Ordinal)
		if err != nil {
			return plan{}, err
		}
		n.kase, n.sent = &d.Case, stampInbound(a, d, token, p.Settings)
		n.delivery = p.handOn(a, n.message)
	}
	var err error
	if n.message.Archived, err = archived(a.env, a.spool, n.sent); err != nil {
		return plan{}, err
	}
	if d.Action == resolver.Reopen {
		n.log = append(n.log, store.LogEntry{
			ID: store.NewID(), Case: d.Case.Number, At: d.Case.UpdatedAt, By: "rule " + d.Row,
			SourceType: "Case changed", Text: "reopened by mail",
		})
	}
	n.log = append(n.log, p.logMail(n.message, "Case email-in")...)
	return n, nil
}

// message is the record of an arrival under a decision.
func (a arrival) message(d resolver.InboundDecision) store.Message {
	m := store.Message{
		ID: a.mail.ID, MessageID: a.mail.MessageID, DerivedID: a.mail.DerivedID,
		Direction: store.Incoming, Exception: d.Exception, Subject: a.mail.Subject,
		Class: string(d.Class), Identity: string(d.Identity), Flags: d.Flags,
		ThreadIndex: threadIndexOf(a.header), CorrelationMethod: d.Method,
		Internal: d.Internal, Related: d.Related, Parties: d.Parties, Links: d.Links, Decision: d.Decision,
		Envelope: envelopeRecord(a.env, a.mail), Mailboxes: d.Mailboxes,
		ReceivedAt: a.mail.Received, ContentHash: a.mail.ContentHash, SubmitHash: a.mail.SubmitHash,
	}
	if from, ok := a.mail.Sender(); ok {
		m.From = from.Address
	}
	for _, id := range slices.Concat(a.mail.InReplyTo, a.mail.References) {
		if !slices.Contains(m.References, id) && len(m.References) < maxReferences {
			m.References = append(m.References, id)
		}
	}
	if d.Exception == "" {
		m.Case, m.Ordinal = d.Case.Number, d.Ordinal
	}
	return m
}

// maxReferences is how many ids a message may lead to its case by.
const maxReferences = 100

// handOn is the stamped message's way to the next hop, where a route has one.
// What is on the exceptions list waits for a person.
func (p *inbound) handOn(a arrival, m store.Message) *store.Delivery {
	var to []store.Recipient
	for _, r := range a.env.Recipients {
		address := p.Settings.WithoutToken(r.Path.String())
		again := slices.ContainsFunc(to, func(t store.Recipient) bool { return t.Address == address })
		if !again && p.Route(RoleInbound, m.Envelope.From, address) {
			to = append(to, r.mailedAs(address))
		}
	}
	if len(to) == 0 {
		return nil
	}
	return &store.Delivery{
		ID: store.NewID(), Message: m.ID, Case: m.Case, Role: string(RoleInbound), Mailbox: m.Mailboxes[0],
		From: m.Envelope.From, Submitter: m.Envelope.From, SMTPUTF8: a.env.SMTPUTF8,
		RET: a.env.RET, EnvID: a.env.EnvID,
		Recipients: to, State: store.Queued, Due: m.ReceivedAt, CreatedAt: m.ReceivedAt,
	}
}
