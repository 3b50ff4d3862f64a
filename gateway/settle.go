package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// plan is all that one message brings about.
type plan struct {
	repeats   store.ID // the message it is a copy of; then all else is empty
	mailboxes []string // that the copy reached

	contact  *store.Contact
	kase     *store.Case
	message  store.Message
	kept     bool   // the archive has the bytes as received: the message is decided on again
	part     bool   // the archive has all of it: a further part of a split submission
	received []byte // header blocks
	sent     []byte
	apart    []store.Apart
	body     store.Body
	log      []store.LogEntry

	deliveries []store.Delivery
	tallies    []store.TallyKey
	answered   store.ID // the message that events are told of
	events     []store.DeliveryEvent
	ack        *plan // an answer that goes out with it
}

func (n *plan) tally(kind store.Tally, address string) {
	n.tallies = append(n.tallies, store.TallyKey{Kind: kind, Address: address})
}

// say adds to the reasons of the decision what became of the bytes.
func (n *plan) say(why string) {
	n.message.Decision.Reasons = append(slices.Clone(n.message.Decision.Reasons), why)
}

// queued: something goes into the outbox.
func (n plan) queued() bool { return len(n.deliveries) > 0 || n.ack != nil }

// settle decides on a message and records what follows, in one transaction. For
// a large message all that takes time is done before it, on a plan from a
// snapshot. The transaction asks the same again: where nothing has changed, the
// plan holds, since a decision rests on the facts alone; else it is made there,
// as it is for a little one. What is signed is planned outside again: signing
// takes longer than all else, and everybody waits for the transaction.
func settle(ctx context.Context, p pipeline, v handover, ask func(store.Reader) (store.Facts, error), decide func(store.Facts) (plan, error)) (Receipt, error) {
	s := settling{pipeline: p, ask: ask, decide: decide, planned: !p.quick(v), signs: v.signs}
	done, repeats, err := s.run(ctx)
	if err != nil {
		return Receipt{}, err
	}
	p.announce(ctx, v, done, repeats)
	return receipt(done), nil
}

// maxPlans is how many plans are made of what is signed; where the last does not
// hold either, the transaction makes its own.
const maxPlans = 3

// errOutdated: the facts are no longer those of the plan.
var errOutdated = errors.New("the plan is outdated")

// settling is a message being settled.
type settling struct {
	pipeline
	ask     func(store.Reader) (store.Facts, error)
	decide  func(store.Facts) (plan, error)
	amend   func(plan) plan // by what ask saw besides; nil: nothing
	signs   bool            // what follows may be signed
	planned bool            // before the transaction: on these facts, this plan
	facts   store.Facts
	draft   plan
}

// run settles it.
func (s *settling) run(ctx context.Context) (done store.Message, repeats bool, err error) {
	for left := maxPlans - 1; ; left-- {
		if err = s.plan(ctx); err != nil {
			return done, false, err
		}
		if done, repeats, err = s.commit(ctx, left > 0); !errors.Is(err, errOutdated) {
			return done, repeats, err
		}
	}
}

// plan decides on a snapshot.
func (s *settling) plan(ctx context.Context) error {
	if !s.planned {
		return nil
	}
	err := s.Store.View(ctx, func(r store.Reader) (err error) {
		s.facts, err = s.ask(r)
		return err
	})
	if err == nil {
		s.draft, err = s.decide(s.facts)
	}
	return err
}

// commit carries the plan out. Where that does not hold, is signed and may be
// made again, the error is errOutdated.
func (s *settling) commit(ctx context.Context, again bool) (done store.Message, repeats bool, err error) {
	queued := false
	err = s.Store.Update(ctx, func(tx store.Tx) error {
		now, err := s.ask(tx)
		if err != nil {
			return err
		}
		final := s.draft
		if !s.planned || !now.Equal(s.facts) {
			if again && s.signs {
				return errOutdated
			}
			if final, err = s.decide(now); err != nil {
				return err
			}
		}
		if s.amend != nil {
			final = s.amend(final)
		}
		queued, repeats = final.queued(), final.repeats != (store.ID{})
		done, err = s.queue(final).record(tx)
		return err
	})
	if err == nil && queued {
		s.Queued()
	}
	return done, repeats, err
}

// quick: hashing so little takes less time than asking twice (measured: an
// eighth more messages a second). An acknowledgement needs a plan: its body is
// staged before the transaction; and so does a signature.
func (p pipeline) quick(v handover) bool {
	const little = 64 << 10
	return v.env.Body.Size <= little && !p.Settings.Ack && !v.signs
}

// record writes a plan and returns the message that stands for it.
func (n plan) record(tx store.Tx) (store.Message, error) {
	if n.repeats != (store.ID{}) {
		return n.noteMailboxes(tx)
	}
	if n.contact != nil {
		if err := tx.PutContact(*n.contact); err != nil {
			return n.message, err
		}
	}
	if n.kase != nil {
		if err := tx.PutCase(*n.kase); err != nil {
			return n.message, err
		}
	}
	if err := tx.PutMessage(n.message); err != nil {
		return n.message, err
	}
	if err := n.archive(tx); err != nil {
		return n.message, err
	}
	for _, entry := range n.log {
		if err := tx.Record(entry); err != nil {
			return n.message, err
		}
	}
	for _, d := range n.deliveries {
		if err := tx.Enqueue(d); err != nil {
			return n.message, err
		}
	}
	for _, k := range n.tallies {
		if err := tx.Tally(k, n.message.ReceivedAt); err != nil {
			return n.message, err
		}
	}
	if err := n.tell(tx); err != nil || n.ack == nil {
		return n.message, err
	}
	_, err := n.ack.record(tx)
	return n.message, err
}

func (n plan) archive(tx store.Tx) error {
	switch {
	case n.part:
		return nil
	case n.kept:
		return tx.ArchiveSent(n.message.ID, n.sent)
	}
	return tx.Archive(n.message.ID, n.received, n.sent, n.apart, n.body)
}

// tell adds what a report says to the message that it is about (rule I5).
func (n plan) tell(tx store.Tx) error {
	if len(n.events) == 0 {
		return nil
	}
	m, err := tx.Message(n.answered)
	if err != nil {
		return err
	}
	m.Events = append(m.Events, n.events...)
	m.Events = m.Events[max(0, len(m.Events)-maxEvents):]
	return tx.PutMessage(m)
}

// maxEvents is how many of a message's delivery events are kept, the newest.
const maxEvents = 100

// noteMailboxes adds the further mailboxes that a copy reached (rule I1).
func (n plan) noteMailboxes(tx store.Tx) (store.Message, error) {
	m, err := tx.Message(n.repeats)
	if err != nil {
		return m, err
	}
	known := len(m.Mailboxes)
	for _, address := range n.mailboxes {
		if !slices.Contains(m.Mailboxes, address) {
			m.Mailboxes = append(m.Mailboxes, address)
		}
	}
	if len(m.Mailboxes) == known {
		return m, nil
	}
	return m, tx.PutMessage(m)
}

// refused is a refusal by a rule as the answer of a session.
func refused(r *resolver.Refusal) error { return Verdict{r.Code, r.Enhanced, r.Text} }

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
