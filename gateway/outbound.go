package gateway

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/casegate/casegate/gateway/mailauth"
	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// Submitters are the peers of an outbound listener: what they may do, what they
// are believed for, and what is done to their mail.
type Submitters struct {
	SendAs         []string // addresses they may put in From; empty: every mailbox
	Setting        string   // where SendAs is set, for refusals
	ControlHeaders bool     // their X-Case-* fields steer
	Observe        bool     // decide and archive, change nothing
}

// outbound is the pipeline of mail that the desk sends: decide, rewrite,
// record, queue.
type outbound struct {
	pipeline
	Submitters
}

// NewOutbound returns the outbound pipeline of one listener.
func NewOutbound(o Options, s Submitters) Handler { return &outbound{pipeline{o}, s} }

// Mail accepts every envelope sender; the header's From is what is judged.
func (p *outbound) Mail(context.Context, *Envelope) error { return nil }

// Rcpt accepts every recipient, as relaying to anyone is the smarthost's job,
// but the sender of our own reports: a client that answers those would be sent
// another on its answer, for ever.
func (p *outbound) Rcpt(_ context.Context, _ *Envelope, to Recipient) error {
	if to.Path.Key() != store.Key(resolver.DaemonAddress(p.Settings.Hostname)) {
		return nil
	}
	if _, own := p.Settings.Own(to.Path.String()); own {
		return nil
	}
	return Verdict{550, [3]int{5, 1, 1}, "nobody reads answers to this gateway's delivery reports"}
}

// submission is one message on its way through the outbound pipeline.
type submission struct {
	env    *Envelope
	spool  *spool
	header message.Header
	sub    resolver.Submission
	number func() (uint64, error) // of the case, should one be opened
	hash   func() (mailauth.BodyHash, error)
}

// Accept makes a submission durable, rewritten and queued, and says under
// which id and case; or refuses it by a rule.
func (p *outbound) Accept(ctx context.Context, env *Envelope, sink Sink) (Receipt, error) {
	v := handover{env: env, at: time.Now(), signs: p.Signers != nil && !p.Observe}
	a := submission{env: env, spool: sink.(*spool)}
	if err := a.spool.body.Seal(ctx); err != nil {
		return Receipt{}, err
	}
	var err error
	for range maxTries {
		var r Receipt
		err = p.guarded(&a.sub.Mail, func() error { p.read(ctx, &a); return nil })
		if err == nil {
			if r, err = p.settle(ctx, v, &a); !isDefect(err) {
				return r, err
			}
		}
	}
	// Unread it must not be sent, and who sent it is there to be told.
	return Receipt{}, Verdict{554, [3]int{5, 3, 0}, "casegate has a defect that this message meets, and has not sent it: " + err.Error() + ": whoever runs this gateway finds it in the log"}
}

// settle decides on a submission and records it.
func (p *outbound) settle(ctx context.Context, v handover, a *submission) (Receipt, error) {
	return settle(ctx, p.pipeline, v,
		func(r store.Reader) (facts store.Facts, err error) {
			err = p.guarded(&a.sub.Mail, func() (err error) { facts, err = askOutbound(r, a.sub, p.Settings); return err })
			return facts, err
		},
		func(f store.Facts) (n plan, err error) {
			err = p.guarded(&a.sub.Mail, func() (err error) { n, err = p.plan(*a, f); return err })
			return n, err
		})
}

// read is what the rules know of a submission, with what its listener says of
// who submits.
func (p *outbound) read(ctx context.Context, a *submission) {
	a.sub.Mail, a.header = read(a.env, a.spool, p.Now())
	a.sub.ControlHeaders, a.sub.Login = p.ControlHeaders, a.env.Login
	a.sub.SendAs, a.sub.Setting, a.sub.Listener = p.SendAs, p.Setting, a.env.Listener
	a.sub.Peer = envelopeRecord(a.env, a.sub.Mail).Peer
	a.number = sync.OnceValues(func() (uint64, error) { return p.Store.ReserveCase(ctx) })
	a.hash = sync.OnceValues(func() (mailauth.BodyHash, error) { return a.spool.bodyHash(ctx, transforms(a.env)) })
	p.askDirectory(ctx, &a.sub.Mail)
}

// askDirectory brings our contacts up to date with an outside directory, as far
// as the submission is meant for them.
func (p *outbound) askDirectory(ctx context.Context, m *resolver.Mail) {
	if p.Directory == nil {
		return
	}
	var addresses []string
	asked := map[string]bool{}
	add := func(address string) {
		key := store.Key(address)
		if _, own := p.Settings.Own(address); !own && !asked[key] {
			asked[key] = true
			addresses = append(addresses, key)
		}
	}
	for _, to := range slices.Concat(m.To, m.CC) {
		add(to.Address)
	}
	for _, to := range m.Recipients {
		add(to)
	}
	if err := p.Directory(ctx, m.Received, addresses); err != nil {
		m.DirectoryOut = "the directory does not answer"
		p.Logger.Warn("the directory does not answer", "message", m.ID, "error", err)
	}
}

// askOutbound asks all that a submission's decision needs to know.
func askOutbound(r store.Reader, sub resolver.Submission, s resolver.Settings) (store.Facts, error) {
	facts, err := r.Facts(resolver.AskOutbound(sub, s))
	if err != nil {
		return facts, err
	}
	if q := resolver.AskFurther(sub, facts); len(q.Addresses)+len(q.Ordinals) > 0 {
		more, err := r.Facts(q)
		if err != nil {
			return facts, err
		}
		maps.Copy(facts.Holders, more.Holders)
		facts.Answered = more.Answered
	}
	if err := answersTo(r, sub, facts); err != nil {
		return facts, err
	}
	facts.Tallies, err = sent(r, resolver.AskSent(sub, facts, s))
	return facts, err
}

// sent asks for a count, if there is one to ask for (rule O14).
func sent(r store.Reader, q store.Query) (map[store.TallyKey][]time.Time, error) {
	if len(q.Tallies) == 0 {
		return nil, nil
	}
	facts, err := r.Facts(q)
	return facts.Tallies, err
}

// answersTo fills in where the messages answered asked for answers (rule O0).
func answersTo(r store.Reader, sub resolver.Submission, facts store.Facts) error {
	for _, id := range sub.InReplyTo[:min(len(sub.InReplyTo), maxParents)] {
		for _, ref := range facts.MessageIDs[id] {
			m, known := facts.Parents[ref.ID]
			if !known || m.Direction != store.Incoming || m.ReplyTo != nil {
				continue
			}
			block, _, err := r.Header(ref.ID, store.AsReceived)
			if errors.Is(err, store.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			people := addresses{h: message.Parse(clean(block)), left: maxParents}
			for _, a := range people.read("Reply-To") {
				m.ReplyTo = append(m.ReplyTo, a.Address)
			}
			facts.Parents[ref.ID] = m
		}
	}
	return nil
}

// maxParents is how many messages one may answer, and how many addresses may be
// asked to be answered at.
const maxParents = 4

// submitHash tells a repeated submission: same peer, login, envelope and raw
// bytes.
func submitHash(env *Envelope, s *spool) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n%s\n", env.Peer, env.From)
	if env.Login != "" {
		fmt.Fprintf(sum, "login %s\n", env.Login)
	}
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

// decide decides on a submission; a case that it opens has its number.
func (p *outbound) decide(a submission, f store.Facts) (resolver.OutboundDecision, error) {
	d := resolver.Outbound(a.sub, f, p.Settings)
	if !d.Opens || d.Refusal != nil || p.Observe {
		return d, nil
	}
	var err error
	if a.sub.NewNumber, err = a.number(); err != nil {
		return d, err
	}
	return resolver.Outbound(a.sub, f, p.Settings), nil
}

// plan decides on a submission and works out all that follows from it.
func (p *outbound) plan(a submission, f store.Facts) (plan, error) {
	d, err := p.decide(a, f)
	switch {
	case err != nil:
		return plan{}, err
	case d.Duplicate != nil:
		return plan{repeats: d.Duplicate.ID}, nil
	case p.Observe:
		return p.observe(a, d)
	case d.Refusal != nil:
		return plan{}, refused(d.Refusal)
	case d.Part != nil:
		return a.furtherPart(d), nil
	}
	n := plan{body: a.spool.body, contact: d.Guest, message: a.message(d, p.Settings), tallies: d.Sent}
	if d.Case.Number != 0 {
		n.kase = &d.Case
	}
	n.received, n.apart = cutBcc(a.spool.header)
	if err := p.compose(&n, a, &d); err != nil {
		return plan{}, err
	}
	n.deliveries = []store.Delivery{a.delivery(n.message, d)}
	if n.message.Archived, err = archived(a.env, a.spool, n.sent); err != nil {
		return plan{}, err
	}
	n.log = p.logMail(n.message, "Case email-out")
	return n, nil
}

// compose makes the header block that is sent, and records what becomes of
// signatures: others' and ours.
func (p *outbound) compose(n *plan, a submission, d *resolver.OutboundDecision) error {
	index := a.threadIndex(*d)
	n.message.ThreadIndex = cmp.Or(n.message.ThreadIndex, index)
	var broken []brokenSignature
	n.sent, broken = rewrite(a.header, *d, trace(a.env, resolver.SentMark, a.sub.Mail, p.Settings.Hostname), p.Settings, index)
	p.onSigned(&n.message, d, broken)
	return p.sign(n, a.hash)
}

// onSigned records the signatures that were taken out, and holds the message if
// the site wants that (on_signed).
func (p *outbound) onSigned(m *store.Message, d *resolver.OutboundDecision, broken []brokenSignature) {
	if len(broken) == 0 {
		return
	}
	m.Decision.Reasons = slices.Clone(m.Decision.Reasons)
	for _, b := range broken {
		m.Decision.Reasons = append(m.Decision.Reasons, b.String())
	}
	if p.Settings.OnSigned != "hold" {
		return
	}
	const why = "its DKIM-Signature had to be removed (on_signed: hold)"
	d.Hold = cmp.Or(d.Hold, why)
	m.Decision.Reasons = append(m.Decision.Reasons, "held until a person releases it: "+why)
	if !slices.Contains(m.Flags, "held") {
		m.Flags = append(slices.Clone(m.Flags), "held")
	}
}

// furtherPart is what a part of a split submission adds to the first one: a
// delivery of the same bytes, for those whom no part has served yet.
func (a submission) furtherPart(d resolver.OutboundDecision) plan {
	n := plan{part: true, message: *d.Part}
	if to := d.Recipients(); len(to) > 0 {
		n.deliveries = []store.Delivery{a.delivery(n.message, d)}
	}
	return n
}

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

// delivery is the outbox row for whom the decision leaves; it waits if a rule
// holds it.
func (a submission) delivery(m store.Message, d resolver.OutboundDecision) store.Delivery {
	row := a.outbox(m, d, d.Recipients())
	if d.Hold == "" {
		return row
	}
	row.State = store.Held
	for i := range row.Recipients {
		row.Recipients[i].Reply = "4.7.0 held until somebody releases it: " + d.Hold
	}
	return row
}

// outbox is a row of the outbox. Its MAIL FROM carries the token, so that
// bounces find the case; the submitter's own is kept beside it.
func (a submission) outbox(m store.Message, d resolver.OutboundDecision, to []string) store.Delivery {
	submitter := a.env.From.String()
	from := submitter
	if d.Token != "" && from != "" { // a null reverse-path stays null: nothing may answer it
		from = resolver.PlusAddress(d.Mailbox, d.Token)
	}
	return store.Delivery{
		ID: store.NewID(), Message: m.ID, Case: m.Case, Role: string(RoleOutbound), Mailbox: d.Mailbox,
		From: from, Submitter: submitter, SMTPUTF8: a.env.SMTPUTF8, RET: a.env.RET, EnvID: a.env.EnvID,
		Recipients: recipients(a.env.Recipients, to), State: store.Queued,
		Due: a.sub.Received, CreatedAt: a.sub.Received,
	}
}
