package gateway

import (
	"context"
	"fmt"
	"slices"

	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// inbound is the pipeline of mail from outside: decide, record, stamp, queue,
// all in one transaction.
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
	var done store.Message
	var queued bool
	err := p.Store.Update(ctx, func(tx store.Tx) error {
		facts, err := tx.Facts(resolver.Ask(a.mail, p.Settings))
		if err != nil {
			return err
		}
		d := resolver.Inbound(a.mail, facts, p.Settings)
		done, queued, err = p.record(tx, a, facts.Installation, d)
		return err
	})
	if err != nil {
		return Receipt{}, err
	}
	if queued {
		p.Queued()
	}
	return receipt(done), nil
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

func receipt(m store.Message) Receipt {
	id := m.ID.String()
	switch {
	case m.Case != 0:
		return Receipt{ID: id, Text: fmt.Sprintf("accepted %s case %d", id, m.Case)}
	case m.Exception != "":
		return Receipt{ID: id, Text: fmt.Sprintf("accepted %s exception %s", id, m.Exception)}
	}
	return Receipt{ID: id, Text: fmt.Sprintf("accepted %s uncased", id)}
}

// record writes a decision: contact, case, message, archive, log and outbox.
func (p *inbound) record(tx store.Tx, a arrival, in store.Installation, d resolver.InboundDecision) (store.Message, bool, error) {
	switch d.Action {
	case resolver.Refuse:
		return store.Message{}, false, Verdict{d.Refusal.Code, d.Refusal.Enhanced, d.Refusal.Text}
	case resolver.Duplicate:
		m, err := p.noteMailbox(tx, d)
		return m, false, err
	}
	if err := p.recordCase(tx, &d); err != nil {
		return store.Message{}, false, err
	}
	m := a.message(d)
	var sent []byte
	if m.Case != 0 {
		token, err := resolver.Sign(in, m.Case, m.Ordinal)
		if err != nil {
			return m, false, err
		}
		sent = stampInbound(a, d, token, p.Settings)
	}
	var err error
	if m.Archived, err = archived(a.env, a.spool, sent); err != nil {
		return m, false, err
	}
	if err := tx.PutMessage(m); err != nil {
		return m, false, err
	}
	if err := tx.Archive(m.ID, a.spool.header, sent, nil, a.spool.body); err != nil {
		return m, false, err
	}
	if err := p.logMail(tx, m, "Case email-in"); err != nil {
		return m, false, err
	}
	queued, err := p.handOn(tx, a, m)
	return m, queued, err
}

// recordCase stores the guest and the case that the decision brings about.
func (p *inbound) recordCase(tx store.Tx, d *resolver.InboundDecision) error {
	if d.Guest != nil {
		if err := tx.PutContact(*d.Guest); err != nil {
			return err
		}
	}
	if d.Action == resolver.Except {
		return nil
	}
	if d.Action == resolver.Open {
		number, err := tx.NextCase()
		if err != nil {
			return err
		}
		d.Case.Number = number
	}
	if err := tx.PutCase(d.Case); err != nil {
		return err
	}
	if d.Action != resolver.Reopen {
		return nil
	}
	return tx.Record(store.LogEntry{
		ID: store.NewID(), Case: d.Case.Number, At: d.Case.UpdatedAt, By: "rule " + d.Row,
		SourceType: "Case changed", Text: "reopened by mail",
	})
}

// noteMailbox adds the further mailbox that a duplicate reached (rule I1).
func (p *inbound) noteMailbox(tx store.Tx, d resolver.InboundDecision) (store.Message, error) {
	m, err := tx.Message(d.Original.ID)
	if err != nil {
		return m, err
	}
	known := len(m.Mailboxes)
	for _, address := range d.Mailboxes {
		if !slices.Contains(m.Mailboxes, address) {
			m.Mailboxes = append(m.Mailboxes, address)
		}
	}
	if len(m.Mailboxes) == known {
		return m, nil
	}
	return m, tx.PutMessage(m)
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

// handOn queues the stamped message for the next hop, where a route has one.
// What is on the exceptions list waits for a person.
func (p *inbound) handOn(tx store.Tx, a arrival, m store.Message) (bool, error) {
	if m.Case == 0 {
		return false, nil
	}
	var to []store.Recipient
	for _, r := range a.env.Recipients {
		address := p.Settings.WithoutToken(r.Path.String())
		again := slices.ContainsFunc(to, func(t store.Recipient) bool { return t.Address == address })
		if !again && p.Route(RoleInbound, m.Envelope.From, address) {
			to = append(to, r.mailedAs(address))
		}
	}
	if len(to) == 0 {
		return false, nil
	}
	return true, tx.Enqueue(store.Delivery{
		ID: store.NewID(), Message: m.ID, Case: m.Case, Role: string(RoleInbound), Mailbox: m.Mailboxes[0],
		From: m.Envelope.From, Submitter: m.Envelope.From, SMTPUTF8: a.env.SMTPUTF8,
		RET: a.env.RET, EnvID: a.env.EnvID,
		Recipients: to, State: store.Queued, Due: m.ReceivedAt, CreatedAt: m.ReceivedAt,
	})
}
