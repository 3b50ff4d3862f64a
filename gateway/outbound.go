package gateway

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// outbound is the pipeline of mail that the desk sends: decide, rewrite,
// record, queue, all in one transaction.
type outbound struct {
	pipeline
	sendAs  []string
	setting string
}

// NewOutbound returns the outbound pipeline of one listener. sendAs is what
// its peers may put in From, empty for every mailbox; setting names it in the
// configuration, for refusals.
func NewOutbound(o Options, sendAs []string, setting string) Handler {
	return &outbound{pipeline{o}, sendAs, setting}
}

// Mail accepts every envelope sender; the header's From is what is judged.
func (p *outbound) Mail(context.Context, *Envelope) error { return nil }

// Rcpt accepts every recipient: relaying to anyone is the smarthost's job.
func (p *outbound) Rcpt(context.Context, *Envelope, Recipient) error { return nil }

// submission is one message on its way through the outbound pipeline.
type submission struct {
	env    *Envelope
	spool  *spool
	header message.Header
	sub    resolver.Submission
}

// Accept makes a submission durable, rewritten and queued, and says under
// which id and case; or refuses it by a rule.
func (p *outbound) Accept(ctx context.Context, env *Envelope, sink Sink) (Receipt, error) {
	a := submission{env: env, spool: sink.(*spool)}
	if err := a.spool.body.Seal(ctx); err != nil {
		return Receipt{}, err
	}
	a.sub.Mail, a.header = read(env, a.spool, p.Now())
	a.sub.SendAs, a.sub.Setting = p.sendAs, p.setting
	var done store.Message
	var queued bool
	err := p.Store.Update(ctx, func(tx store.Tx) error {
		d, err := decideOutbound(tx, a.sub, p.Settings)
		if err != nil {
			return err
		}
		done, queued, err = p.record(tx, a, d)
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

// decideOutbound asks all that a submission's decision needs to know, and
// makes it.
func decideOutbound(r store.Reader, sub resolver.Submission, s resolver.Settings) (d resolver.OutboundDecision, err error) {
	facts, err := r.Facts(resolver.AskOutbound(sub, s))
	if err != nil {
		return d, err
	}
	if more := resolver.AskMore(facts); len(more) > 0 {
		others, err := r.Facts(store.Query{Addresses: more})
		if err != nil {
			return d, err
		}
		maps.Copy(facts.Holders, others.Holders)
	}
	if sub.Openers, err = openers(r, facts.Cases, sub.Received); err != nil {
		return d, err
	}
	return resolver.Outbound(sub, facts, s), nil
}

// openers tells who opened those cases whose customer has no address.
func openers(r store.Reader, cases map[uint64]store.CaseFacts, now time.Time) (map[uint64]string, error) {
	found := map[uint64]string{}
	for n, c := range cases {
		held := func(e store.EmailAddress) bool { return c.Customer.HeldAt(store.Key(e.Address), now) }
		if slices.ContainsFunc(c.Customer.EmailAddresses, held) {
			continue
		}
		first, _, err := r.Messages(store.MessageFilter{Case: n}, store.Page{Limit: 1})
		if err != nil {
			return nil, err
		}
		if len(first) > 0 && first[0].Direction == store.Incoming {
			found[n] = first[0].From
		}
	}
	return found, nil
}

// submitHash tells a repeated submission: same peer, envelope and raw bytes.
func submitHash(env *Envelope, s *spool) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n%s\n", env.Peer, env.From)
	var to []string
	for _, r := range env.Recipients {
		to = append(to, r.Path.String())
	}
	slices.Sort(to)
	for _, r := range to {
		io.WriteString(sum, r+"\n")
	}
	sum.Write(s.raw.Sum(nil))
	return hex.EncodeToString(sum.Sum(nil))
}

// record writes a decision: case, message, archive, log and outbox.
func (p *outbound) record(tx store.Tx, a submission, d resolver.OutboundDecision) (store.Message, bool, error) {
	switch {
	case d.Refusal != nil:
		return store.Message{}, false, Verdict{d.Refusal.Code, d.Refusal.Enhanced, d.Refusal.Text}
	case d.Duplicate != nil:
		m, err := tx.Message(d.Duplicate.ID)
		return m, false, err
	}
	if d.Case.Number != 0 {
		if err := tx.PutCase(d.Case); err != nil {
			return store.Message{}, false, err
		}
	}
	m := a.message(d, p.Settings)
	index := a.threadIndex(d)
	m.ThreadIndex = cmp.Or(m.ThreadIndex, index)
	received, apart := cutBcc(a.spool.header)
	sent := rewrite(a.header, d, trace(a.env, sentMark, a.sub.Mail, p.Settings.Hostname), p.Settings, index)
	var err error
	if m.Archived, err = archived(a.env, a.spool, sent); err != nil {
		return m, false, err
	}
	if err := tx.PutMessage(m); err != nil {
		return m, false, err
	}
	if err := tx.Archive(m.ID, received, sent, apart, a.spool.body); err != nil {
		return m, false, err
	}
	if err := p.logMail(tx, m, "Case email-out"); err != nil {
		return m, false, err
	}
	return m, true, tx.Enqueue(a.delivery(m, d))
}

// sentMark stands in the Received field of mail that went out by this gateway.
const sentMark = "(casegate outbound)"

// message is the record of a submission under a decision.
func (a submission) message(d resolver.OutboundDecision, s resolver.Settings) store.Message {
	sub := a.sub
	m := store.Message{
		ID: sub.ID, MessageID: sub.MessageID, DerivedID: sub.DerivedID,
		Direction: store.Outgoing, Case: d.Case.Number, Ordinal: d.Ordinal,
		Subject: sub.Subject, Class: string(d.Class), Identity: "submitter",
		Internal: d.Mode == resolver.Consult, Flags: d.Flags,
		CorrelationMethod: d.Method, Parties: d.Parties, Links: d.Links, Decision: d.Decision,
		Envelope: envelopeRecord(a.env, sub.Mail), ReceivedAt: sub.Received,
		ContentHash: sub.ContentHash, SubmitHash: sub.SubmitHash,
		References: d.References, ThreadIndex: threadIndexOf(a.header),
	}
	if m.MessageID == "" && d.Token != "" {
		m.MessageID = resolver.MessageID(d.Token, s.Hostname)
	}
	if from, ok := sub.Sender(); ok {
		m.From = from.Address
	}
	if m.Case == 0 {
		m.References = nil
	}
	m.References = m.References[:min(len(m.References), maxReferences)]
	return m
}

// threadIndex extends the parent's Thread-Index, so that Outlook keeps the
// thread (rule O13).
func (a submission) threadIndex(d resolver.OutboundDecision) string {
	if d.Parent == nil || len(a.header.Named("Thread-Index")) > 0 {
		return ""
	}
	return childThreadIndex(d.Parent.ThreadIndex, a.sub.Received)
}

// delivery is the outbox row. Its MAIL FROM carries the token, so that bounces
// find the case; the submitter's own is kept beside it.
func (a submission) delivery(m store.Message, d resolver.OutboundDecision) store.Delivery {
	from := m.Envelope.From
	if d.Token != "" && from != "" { // a null reverse-path stays null: nothing may answer it
		from = resolver.PlusAddress(d.Mailbox, d.Token)
	}
	return store.Delivery{
		ID: store.NewID(), Message: m.ID, Case: m.Case, Role: string(RoleOutbound), Mailbox: d.Mailbox,
		From: from, Submitter: m.Envelope.From, SMTPUTF8: a.env.SMTPUTF8, RET: a.env.RET, EnvID: a.env.EnvID,
		Recipients: recipients(a.env.Recipients, d.Recipients()), State: store.Queued,
		Due: m.ReceivedAt, CreatedAt: m.ReceivedAt,
	}
}
