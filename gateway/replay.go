package gateway

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// Rulebook is what a configuration says about decisions.
type Rulebook struct {
	Settings   resolver.Settings
	Names      []string              // of the listeners, in order
	Intakes    map[string]Intake     // of the inbound ones
	Submitters map[string]Submitters // of the outbound ones
}

// Listener is the named one of a role, or the first.
func (b Rulebook) Listener(role Role, name string) string {
	fits := func(name string) bool {
		if role == RoleOutbound {
			_, ok := b.Submitters[name]
			return ok
		}
		_, ok := b.Intakes[name]
		return ok
	}
	if fits(name) {
		return name
	}
	if i := slices.IndexFunc(b.Names, fits); i >= 0 {
		return b.Names[i]
	}
	return name
}

// Change is a message that another rulebook would treat otherwise.
type Change struct {
	Message store.Message
	Was     store.Decision
	Would   store.Decision
	Before  string // the outcome in a few words
	After   string
}

// Replay decides on every archived message since a time, under two rulebooks
// and on what was known when the message came, and reports where they differ.
// It writes nothing. What has been changed by hand since, such as the state of
// a case, counts as it is now, under both alike. done is called for each
// message looked at.
func Replay(ctx context.Context, o Options, now, then Rulebook, since time.Time, done func(), report func(Change) error) error {
	filter := store.MessageFilter{Since: since, OldestFirst: true}
	was, would := history{}, history{}
	return eachMessage(ctx, o.Store, filter, func(m store.Message) error {
		defer done()
		if err := ctx.Err(); err != nil || m.Envelope.Listener == "acknowledgement" {
			return err
		}
		before, err := redecide(ctx, o, now, was, m)
		if err != nil {
			return fmt.Errorf("message %s: %w", m.ID, err)
		}
		after, err := redecide(ctx, o, then, would, m)
		if err != nil {
			return fmt.Errorf("message %s: %w", m.ID, err)
		}
		if before.words == after.words {
			return nil
		}
		return report(Change{Message: m, Was: before.Decision, Would: after.Decision, Before: before.words, After: after.words})
	})
}

// verdict is a decision with its outcome in words: all that can be seen of it
// outside, so that equal words mean no change.
type verdict struct {
	store.Decision
	words string
}

func redecide(ctx context.Context, o Options, book Rulebook, past history, m store.Message) (verdict, error) {
	o.Settings, o.Directory = book.Settings, nil
	p := &inbound{pipeline{o}, book.Intakes[m.Envelope.Listener]}
	env, s, err := p.reopen(ctx, m)
	if err != nil {
		return verdict{}, err
	}
	var v verdict
	if !cameIn(m, book) {
		p, a := &outbound{pipeline{o}, book.Submitters[m.Envelope.Listener]}, submission{env: env, spool: s}
		p.read(ctx, &a)
		sub := a.sub
		asStored(&sub.Mail, m)
		err = o.Store.View(ctx, func(r store.Reader) error {
			f, err := askOutbound(asOf{r, m.ID, m.ReceivedAt, past}, sub, o.Settings)
			d := resolver.Outbound(sub, f, o.Settings)
			for _, k := range d.Sent {
				past.note(k, m.ReceivedAt)
			}
			v = outboundVerdict(d)
			return err
		})
		return v, err
	}
	a := arrival{env: env, spool: s, stored: &m}
	p.read(ctx, &a)
	asStored(&a.mail, m)
	err = o.Store.View(ctx, func(r store.Reader) error {
		f, err := asOf{r, m.ID, m.ReceivedAt, past}.Facts(resolver.Ask(a.mail, o.Settings))
		d := resolver.Inbound(a.mail, f, o.Settings)
		past.note(store.TallyKey{Kind: store.TallyOpened, Address: d.Opened}, m.ReceivedAt)
		past.note(store.TallyKey{Kind: store.TallyAcknowledged, Address: store.Key(d.Ack)}, m.ReceivedAt)
		v = inboundVerdict(d)
		return err
	})
	return v, err
}

// cameIn: by an inbound listener; what an agent writes to a mailbox of ours is
// outgoing all the same (rules I10, I12).
func cameIn(m store.Message, book Rulebook) bool {
	if _, ok := book.Intakes[m.Envelope.Listener]; ok {
		return true
	}
	return m.Direction == store.Incoming
}

func inboundVerdict(d resolver.InboundDecision) verdict {
	words := []string{string(d.Action)}
	switch d.Action {
	case resolver.Except:
		words = append(words, d.Exception)
	case resolver.Refuse:
		words = append(words, d.Refusal.Text)
	case resolver.Open:
		words = append(words, "a case in "+d.Case.Queue+" for", customerWords(d))
	case resolver.Link, resolver.Reopen:
		words = append(words, fmt.Sprintf("case %d", d.Case.Number))
		if d.Guest != nil {
			words = append(words, "with a new guest")
		}
	}
	if d.Ack != "" {
		words = append(words, "and acknowledge")
	}
	return verdict{d.Decision, strings.Join(words, " ")}
}

func customerWords(d resolver.InboundDecision) string {
	if d.Guest != nil {
		return "a new guest"
	}
	return "contact " + d.Customer.ID.String()
}

func outboundVerdict(d resolver.OutboundDecision) verdict {
	switch {
	case d.Refusal != nil:
		return verdict{d.Decision, "refuse: " + d.Refusal.Text}
	case d.Duplicate != nil:
		return verdict{d.Decision, "duplicate"}
	}
	words := "send uncased"
	if d.Opens {
		words = "open a case and send"
	} else if d.Case.Number != 0 {
		words = fmt.Sprintf("send on case %d", d.Case.Number)
	}
	for _, e := range d.Entries {
		if e.Deliver && e.Field != "" {
			words += " " + shownAs(e)
		}
	}
	words += fmt.Sprintf(" as %s %s %s", d.FromName, d.From, d.SubjectTag)
	if d.Mode == resolver.Consult {
		words += ", internal"
	}
	if d.Hold != "" {
		words += ", held: " + d.Hold
	}
	return verdict{d.Decision, words}
}

// asOf is a Reader whose facts leave out a message and what came after it.
type asOf struct {
	store.Reader
	id   store.ID
	at   time.Time
	past history
}

// history counts what the messages decided on so far have set off.
type history map[store.TallyKey][]time.Time

func (h history) note(k store.TallyKey, at time.Time) {
	if k.Address != "" {
		h[k] = append(h.before(k, at), at)
	}
}

// before lists the events of the window before a time.
func (h history) before(k store.TallyKey, at time.Time) []time.Time {
	return slices.DeleteFunc(h[k], func(t time.Time) bool { return at.Sub(t) >= store.TallyWindow })
}

func (a asOf) Facts(q store.Query) (store.Facts, error) {
	f, err := leftOut{a.Reader, a.id}.Facts(q)
	if err != nil {
		return f, err
	}
	later := func(t time.Time) bool { return !t.Before(a.at) }
	for k, refs := range f.MessageIDs {
		f.MessageIDs[k] = slices.DeleteFunc(refs, func(r store.MessageRef) bool { return later(r.ReceivedAt) })
	}
	f.Tallies = map[store.TallyKey][]time.Time{}
	for _, k := range q.Tallies {
		f.Tallies[k] = a.past.before(k, a.at)
	}
	for k, h := range f.Holders {
		h.Contacts = slices.DeleteFunc(slices.Clone(h.Contacts), func(c store.Contact) bool { return later(c.CreatedAt) })
		f.Holders[k] = h
	}
	maps.DeleteFunc(f.Cases, func(_ uint64, c store.CaseFacts) bool { return later(c.Case.CreatedAt) })
	for n, c := range f.Cases {
		c.Used = maps.Clone(c.Used)
		maps.DeleteFunc(c.Used, func(_ string, u store.Usage) bool { return later(u.First) })
		f.Cases[n] = c
	}
	return f, nil
}

// shownAs names a recipient; of a blind one people learn nothing.
func shownAs(e resolver.Entry) string {
	if e.Field == store.RoleBCC {
		return "a blind recipient"
	}
	words := string(e.Field) + " " + e.Address.Key()
	if e.Bare || e.Name != "" {
		words += " (" + e.Name + ")"
	}
	return words
}

// CountMessages is how many messages Replay will look at.
func CountMessages(ctx context.Context, st store.Store, since time.Time) (n int, err error) {
	err = eachMessage(ctx, st, store.MessageFilter{Since: since, OldestFirst: true}, func(store.Message) error {
		n++
		return ctx.Err()
	})
	return n, err
}
