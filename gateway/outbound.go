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

	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// outbound is the pipeline of mail that the desk sends: decide, rewrite,
// record, queue.
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
	return settle(ctx, p.pipeline,
		func(r store.Reader) (store.Facts, error) { return askOutbound(r, a.sub, p.Settings) },
		func(f store.Facts) (plan, error) { return p.plan(a, f) })
}

// askOutbound asks all that a submission's decision needs to know.
func askOutbound(r store.Reader, sub resolver.Submission, s resolver.Settings) (store.Facts, error) {
	facts, err := r.Facts(resolver.AskOutbound(sub, s))
	if err != nil {
		return facts, err
	}
	if more := resolver.AskMore(facts); len(more) > 0 {
		others, err := r.Facts(store.Query{Addresses: more})
		if err != nil {
			return facts, err
		}
		maps.Copy(facts.Holders, others.Holders)
	}
	return facts, nil
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

// plan decides on a submission and works out all that follows from it.
func (p *outbound) plan(a submission, f store.Facts) (plan, error) {
	d := resolver.Outbound(a.sub, f, p.Settings)
	switch {
	case d.Refusal != nil:
		return plan{}, refused(d.Refusal)
	case d.Duplicate != nil:
		return plan{repeats: d.Duplicate.ID}, nil
	}
	n := plan{body: a.spool.body, message: a.message(d, p.Settings)}
	if d.Case.Number != 0 {
		n.kase = &d.Case
	}
	index := a.threadIndex(d)
	n.message.ThreadIndex = cmp.Or(n.message.ThreadIndex, index)
	n.received, n.apart = cutBcc(a.spool.header)
	n.sent = rewrite(a.header, d, trace(a.env, sentMark, a.sub.Mail, p.Settings.Hostname), p.Settings, index)
	n.deliveries = []store.Delivery{a.delivery(n.message, d)}
	var err error
	if n.message.Archived, err = archived(a.env, a.spool, n.sent); err != nil {
		return plan{}, err
	}
	n.log = p.logMail(n.message, "Case email-out")
	return n, nil
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
