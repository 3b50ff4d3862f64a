package gateway

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/casegate/casegate/gateway/mailauth"
	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// Intake is what a listener's peers are believed for, and what is done to the
// mail they bring.
type Intake struct {
	TrustedForm    bool   // the mail itself says who the customer is (rule I23)
	ControlHeaders bool   // X-Case-* fields count, and stay
	AuthServID     string // whose Authentication-Results are believed; empty: nobody's
	Check          bool   // we find out ourselves who sent it; needs Options.Checker
	Border         bool   // the peers are the senders' own servers, so that SPF is about them
	Observe        bool   // decide and archive, change nothing
}

// inbound is the pipeline of mail from outside: decide, stamp, record, queue.
type inbound struct {
	pipeline
	Intake
}

// NewInbound returns the inbound pipeline of one listener.
func NewInbound(o Options, l Intake) Handler { return &inbound{pipeline{o}, l} }

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
	env     *Envelope
	spool   *spool
	header  message.Header
	mail    resolver.Mail
	stored  *store.Message // it came before, and this is its record
	verdict mailauth.Verdict
	number  func() (uint64, error) // of the case, should one be opened
	ack     *ackBody
	ackID   store.ID
	sealer  *mailauth.Signer // of what is handed on; nil: nobody
	hash    func() (mailauth.BodyHash, error)
}

// Accept makes a message durable and says under which id and case. A crash
// before the transaction commits: the sender repeats it, and it is new. A crash
// after: recovery needs nothing but the store.
func (p *inbound) Accept(ctx context.Context, env *Envelope, sink Sink) (Receipt, error) {
	v := handover{env: env, at: time.Now(), signs: p.Signers != nil && p.Settings.Ack}
	a := arrival{env: env, spool: sink.(*spool)}
	if err := a.spool.body.Seal(ctx); err != nil {
		return Receipt{}, err
	}
	a.number = sync.OnceValues(func() (uint64, error) { return p.Store.ReserveCase(ctx) })
	a.ack = &ackBody{}
	defer a.ack.discard()
	var err error
	for range maxTries {
		var r Receipt
		err = p.guarded(&a.mail, func() error { p.read(ctx, &a); return nil })
		if err == nil {
			if r, err = p.settle(ctx, v, &a); !isDefect(err) {
				return r, err
			}
		}
	}
	p.setAside(&a, err)
	return p.settle(ctx, v, &a)
}

// settle decides on an arrival and records it.
func (p *inbound) settle(ctx context.Context, v handover, a *arrival) (Receipt, error) {
	v.signs = v.signs || a.sealer != nil
	query := resolver.Ask(a.mail, p.Settings)
	return settle(ctx, p.pipeline, v,
		func(r store.Reader) (store.Facts, error) { return r.Facts(query) },
		func(f store.Facts) (n plan, err error) {
			err = p.guarded(&a.mail, func() (err error) { n, err = p.plan(ctx, *a, f); return err })
			return n, err
		})
}

// read finds out what the rules know of an arrival, with what its listener is
// believed for.
func (p *inbound) read(ctx context.Context, a *arrival) {
	a.mail, a.header = read(a.env, a.spool, p.Now())
	a.ackID = store.NewID() // later than the mail's: the timeline goes by ids
	a.mail.ControlHeaders, a.mail.Login = p.ControlHeaders, a.env.Login
	if a.mail.TrustedForm = p.TrustedForm; p.TrustedForm {
		p.speakFor(&a.mail, a.header)
	}
	if p.Observe { // what was only observed is no earlier copy of what is to be decided
		a.mail.ContentHash = "observed " + a.mail.ContentHash
	}
	p.authenticate(ctx, a)
	a.sealer = p.sealer(a)
	a.hash = sync.OnceValues(func() (mailauth.BodyHash, error) { return a.spool.bodyHash(ctx, transforms(a.env)) })
	p.lookInside(ctx, a)
	p.askDirectory(ctx, &a.mail)
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

// plan decides on an arrival.
func (p *inbound) plan(ctx context.Context, a arrival, f store.Facts) (plan, error) {
	d := resolver.Inbound(a.mail, f, p.Settings)
	if p.Observe && !repeats(d, a.mail) {
		return p.observe(a, d)
	}
	return p.planned(ctx, a, d, f.Installation)
}

// planned works out all that follows from a decision.
func (p *inbound) planned(ctx context.Context, a arrival, d resolver.InboundDecision, in store.Installation) (plan, error) {
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
		if err := p.onCase(&n, a, d, in); err != nil {
			return plan{}, err
		}
		a.noteBroken(&n)
		if err := p.seal(&n, a); err != nil {
			return plan{}, err
		}
	}
	var err error
	if n.message.Archived, err = archived(a.env, a.spool, n.sent); err != nil {
		return plan{}, err
	}
	n.log = append(n.log, p.logMail(n.message, "Case email-in")...)
	if d.Ack != "" {
		n.ack, err = p.acknowledge(ctx, a, d, in)
	}
	a.ack.planned = true
	return n, err
}

// onCase adds what follows for the case that the message joins or opens.
func (p *inbound) onCase(n *plan, a arrival, d resolver.InboundDecision, in store.Installation) error {
	token, err := resolver.Sign(in, d.Case.Number, d.Ordinal)
	if err != nil {
		return err
	}
	handed, passed := p.handOn(a, n.message), p.passOn(a, n.message, d.PassTo)
	n.kase, n.sent = &d.Case, stampInbound(a, d, token, p.Settings, len(passed) > 0)
	n.deliveries = append(handed, passed...)
	n.answered, n.events = d.Answered.ID, d.Events
	if d.Opened != "" {
		n.tally(store.TallyOpened, d.Opened)
	}
	if d.Action == resolver.Reopen {
		n.log = append(n.log, store.LogEntry{
			ID: store.NewID(), Case: d.Case.Number, At: d.Case.UpdatedAt, By: "rule " + d.Row,
			SourceType: "Case changed", Text: "reopened by mail",
		})
	}
	return nil
}

// repeats: the very hand-over that was answered already.
func repeats(d resolver.InboundDecision, m resolver.Mail) bool {
	return d.Action == resolver.Duplicate && d.Original.SubmitHash == m.SubmitHash
}

// observe archives and explains, and hands on what came.
func (p *inbound) observe(a arrival, d resolver.InboundDecision) (plan, error) {
	n := plan{body: a.spool.body, received: a.spool.header, message: a.message(d)}
	n.message.Observed, n.message.Case, n.message.Ordinal, n.message.Exception = true, 0, 0, ""
	e := message.NewEditor(a.header)
	e.Prepend("Received", trace(a.env, resolver.ReceivedMark, a.mail, p.Settings.Hostname))
	n.sent = e.Bytes()
	n.deliveries = p.handOn(a, n.message)
	var err error
	n.message.Archived, err = archived(a.env, a.spool, n.sent)
	return n, err
}

// message is the record of an arrival under a decision.
func (a arrival) message(d resolver.InboundDecision) store.Message {
	about := a.mail
	if d.Embedded {
		about = *a.mail.Embedded
	}
	m := store.Message{
		ID: a.mail.ID, MessageID: a.mail.MessageID, DerivedID: a.mail.DerivedID,
		Direction: d.Direction, Exception: d.Exception, Subject: about.Subject,
		Class: string(d.Class), Identity: string(d.Identity), Flags: d.Flags,
		ThreadIndex: threadIndexOf(a.header), CorrelationMethod: d.Method,
		Internal: d.Internal, AlsoOn: d.AlsoOn, Related: d.Related, Parties: d.Parties, Links: d.Links, Decision: d.Decision,
		Envelope: envelopeRecord(a.env, a.mail), Mailboxes: d.Mailboxes,
		Authentication: authentication(a.verdict),
		ReceivedAt:     a.mail.Received, ContentHash: a.mail.ContentHash, SubmitHash: a.mail.SubmitHash,
	}
	if from, ok := about.Sender(); ok {
		m.From = from.Address
	}
	named := slices.Concat(about.InReplyTo, about.References)
	if d.Embedded && about.MessageID != "" {
		named = append([]string{about.MessageID}, named...)
	}
	for _, id := range named {
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

// handOn is the message's way to the next hop, where a route has one. What is
// on the exceptions list waits for a person.
func (p *inbound) handOn(a arrival, m store.Message) []store.Delivery {
	var to []store.Recipient
	for _, r := range a.env.Recipients {
		address := r.Path.String()
		if !m.Observed {
			address = p.Settings.WithoutToken(address)
		}
		again := slices.ContainsFunc(to, func(t store.Recipient) bool { return t.Address == address })
		if !again && p.Route(RoleInbound, m.Envelope.From, address) {
			to = append(to, r.mailedAs(address))
		}
	}
	if len(to) == 0 {
		return nil
	}
	return []store.Delivery{{
		ID: store.NewID(), Message: m.ID, Case: m.Case, Role: string(RoleInbound), Mailbox: strings.Join(m.Mailboxes[:min(1, len(m.Mailboxes))], ""),
		From: m.Envelope.From, Submitter: m.Envelope.From, SMTPUTF8: a.env.SMTPUTF8,
		RET: a.env.RET, EnvID: a.env.EnvID,
		Recipients: to, State: store.Queued, Due: m.ReceivedAt, CreatedAt: m.ReceivedAt,
	}}
}

// passOn sends a delivery report on to who submitted the message (rule I5),
// with the null reverse-path: nothing may answer it.
func (p *inbound) passOn(a arrival, m store.Message, to string) []store.Delivery {
	if to == "" || !p.Route(RoleOutbound, "", to) {
		return nil
	}
	return []store.Delivery{{
		ID: store.NewID(), Message: m.ID, Case: m.Case, Role: string(RoleOutbound), SMTPUTF8: a.env.SMTPUTF8,
		Recipients: []store.Recipient{{Address: to, Notify: []string{"NEVER"}, State: store.Queued}},
		State:      store.Queued, Due: m.ReceivedAt, CreatedAt: m.ReceivedAt,
	}}
}
