package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// ErrSettled: the message is on a case, so that there is nothing to decide.
var ErrSettled = errors.New("the message is not on the exceptions list")

// Assign puts a message of the exceptions list where a person says: stamped,
// recorded and handed on as if it had been decided so at once.
func Assign(ctx context.Context, o Options, book Rulebook, id store.ID, h resolver.ByHand) (store.Message, error) {
	var m store.Message
	err := o.Store.View(ctx, func(r store.Reader) (err error) { m, err = r.Message(id); return err })
	if err != nil {
		return m, err
	}
	p := &inbound{pipeline{o}, book.Intakes[m.Envelope.Listener]}
	return p.reconsider(ctx, id, cmp.Or(h.By, "a person"),
		func(a arrival, r store.Reader) (store.Facts, error) {
			return r.Facts(resolver.AskByHand(a.mail, o.Settings, h))
		},
		func(a arrival, f store.Facts) (resolver.InboundDecision, error) {
			d, ok := resolver.InboundByHand(a.mail, f, o.Settings, h)
			if !ok {
				return d, fmt.Errorf("the case or contact: %w", store.ErrNotFound)
			}
			return d, nil
		})
}

// Retry decides again on a message that waits for the directory (rule I20). It
// stays where it is while the directory does not answer.
func Retry(ctx context.Context, o Options, l Intake, id store.ID) (store.Message, error) {
	p := &inbound{pipeline{o}, l}
	return p.reconsider(ctx, id, "rule I20",
		func(a arrival, r store.Reader) (store.Facts, error) {
			return leftOut{r, id}.Facts(resolver.Ask(a.mail, o.Settings))
		},
		func(a arrival, f store.Facts) (resolver.InboundDecision, error) {
			return resolver.Inbound(a.mail, f, o.Settings), nil
		})
}

// reconsider decides again on a message of the exceptions list, from its bytes
// in the archive, and records the outcome under the same id.
func (p *inbound) reconsider(ctx context.Context, id store.ID, by string,
	ask func(arrival, store.Reader) (store.Facts, error), decide func(arrival, store.Facts) (resolver.InboundDecision, error)) (store.Message, error) {
	a, err := p.again(ctx, id)
	if err != nil {
		return store.Message{}, err
	}
	defer a.spool.Discard()
	if err := p.prepareAck(ctx, a); err != nil {
		return store.Message{}, err
	}
	defer a.ack.discard()
	var old store.Message
	s := settling{
		pipeline: p.pipeline, signs: p.Signers != nil, planned: p.Signers != nil,
		ask: func(r store.Reader) (f store.Facts, err error) {
			if old, err = r.Message(id); err != nil {
				return f, err
			}
			if old.Exception == "" {
				return f, ErrSettled
			}
			return ask(a, r)
		},
		decide: func(f store.Facts) (plan, error) {
			d, err := decide(a, f)
			if err != nil {
				return plan{}, err
			}
			return p.planned(ctx, a, d, f.Installation)
		},
		amend: func(n plan) plan { return p.inPlaceOf(old, n, by) },
	}
	done, _, err := s.run(ctx)
	return done, err
}

// inPlaceOf is a plan for a message whose record and bytes as received are kept.
func (p *inbound) inPlaceOf(old store.Message, n plan, by string) plan {
	if n.repeats != (store.ID{}) {
		n = plan{message: old}
		n.message.Exception = "duplicate"
	}
	n.message.Mailboxes = union(old.Mailboxes, n.message.Mailboxes)
	n.kept, n.message.Archived.ReceivedSHA256 = true, old.Archived.ReceivedSHA256
	n.message.Archived.ReceivedSize = old.Archived.ReceivedSize
	n.message.Envelope, n.message.SubmitHash, n.message.ContentHash = old.Envelope, old.SubmitHash, old.ContentHash
	n.log = slices.Concat(n.log, p.audit(n.message, by))
	return n
}

func union(a, b []string) []string {
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a[:len(a):len(a)], s)
		}
	}
	return a
}

func (p *inbound) audit(m store.Message, by string) []store.LogEntry {
	if m.Case == 0 {
		return nil
	}
	return []store.LogEntry{{
		ID: store.NewID(), Case: m.Case, At: p.Now(), By: by, SourceType: "Case changed",
		Text: "message " + m.ID.String() + " taken from the exceptions list",
	}}
}

// again reads a stored message as it was when it came.
func (p *inbound) again(ctx context.Context, id store.ID) (a arrival, err error) {
	var old store.Message
	err = p.Store.View(ctx, func(r store.Reader) (err error) {
		old, err = r.Message(id)
		return err
	})
	if err != nil {
		return a, err
	}
	if a.env, a.spool, err = p.reopen(ctx, old); err != nil {
		return a, err
	}
	a.env.Body, a.stored = a.spool.facts(), &old
	if err := p.guarded(&a.mail, func() error { p.read(ctx, &a); return nil }); err != nil {
		p.setAside(&a, err)
	}
	asStored(&a.mail, old)
	a.number = sync.OnceValues(func() (uint64, error) { return p.Store.ReserveCase(ctx) })
	a.ack = &ackBody{}
	return a, nil
}

// asStored gives a mail what its record knows for certain.
func asStored(m *resolver.Mail, old store.Message) {
	m.ID, m.Received = old.ID, old.ReceivedAt
	m.ContentHash, m.SubmitHash, m.DerivedID = old.ContentHash, old.SubmitHash, old.DerivedID
}

// reopen is the envelope and the header of an archived message, and its body
// where it is.
func (p pipeline) reopen(ctx context.Context, old store.Message) (*Envelope, *spool, error) {
	env, err := storedEnvelope(old)
	if err != nil {
		return nil, nil, err
	}
	var header []byte
	err = p.Store.View(ctx, func(r store.Reader) (err error) {
		header, _, err = r.Header(old.ID, store.AsReceived)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	s, err := newSpool(&archivedBody{ctx: ctx, store: p.Store, id: old.ID, header: int64(len(header))}, p.ContentKey)
	if err != nil {
		return nil, nil, err
	}
	_, err = s.Write(header)
	if !s.inBody && len(header) >= message.MaxHeader-len("\r") && old.Archived.ReceivedSize > int64(len(header)) {
		s.inBody, s.tooLong = true, true // it was cut
	}
	return env, s, err
}

// storedEnvelope is the envelope that a message came in.
func storedEnvelope(m store.Message) (*Envelope, error) {
	env := &Envelope{Listener: m.Envelope.Listener, Role: RoleInbound, Protocol: "ESMTP", Helo: m.Envelope.Helo}
	if m.Direction == store.Outgoing {
		env.Role = RoleOutbound
	}
	var err error
	if env.From, err = ParsePath("<" + m.Envelope.From + ">"); err != nil {
		return nil, err
	}
	for _, to := range m.Envelope.Recipients {
		path, err := ParsePath(to)
		if err != nil {
			return nil, err
		}
		env.Recipients = append(env.Recipients, Recipient{Path: path})
	}
	return env, nil
}

// archivedBody is a body that the archive has; what is written to it is only
// counted.
type archivedBody struct {
	unkept
	ctx    context.Context
	store  store.Store
	id     store.ID
	header int64
}

func (b *archivedBody) WriteTo(w io.Writer) (int64, error) {
	eml, err := b.store.Open(b.ctx, b.id, store.AsReceived)
	if err != nil {
		return 0, err
	}
	defer eml.Close()
	if _, err := io.CopyN(io.Discard, eml, b.header); err != nil {
		return 0, err
	}
	return io.Copy(w, eml)
}

// facts finds out again what the wire saw of a body.
func (s *spool) facts() BodyFacts {
	var f factFinder
	f.Write(s.header)
	s.body.WriteTo(&f)
	return f.end()
}

// factFinder looks for what is not CRLF.
type factFinder struct {
	last byte
	any  bool
	BodyFacts
}

func (f *factFinder) Write(p []byte) (int, error) {
	for _, c := range p {
		f.BareCR = f.BareCR || f.last == '\r' && c != '\n'
		f.BareLF = f.BareLF || c == '\n' && f.last != '\r'
		f.last, f.any = c, true
	}
	return len(p), nil
}

func (f *factFinder) end() BodyFacts {
	f.BareCR = f.BareCR || f.last == '\r'
	f.NoFinalCRLF = f.any && f.last != '\n'
	return f.BodyFacts
}
