package gateway

import (
	"context"
	"log/slog"
	"time"

	"github.com/casegate/casegate/gateway/mailauth"
	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// Options are what the pipelines need to know.
type Options struct {
	Store    store.Store
	Settings resolver.Settings
	Ack      Acknowledgement
	// Signers sign what leaves, by the domain in From; nil: nobody signs.
	Signers *mailauth.Signers
	// Directory asks an outside directory who has the addresses, and brings our
	// contacts up to date; nil when there is none. An error: it cannot be asked.
	Directory func(ctx context.Context, at time.Time, addresses []string) error
	// Checker finds out who sent a message, for listeners that ask for it.
	Checker *mailauth.Checker
	// ContentKey is that of the store's installation.
	ContentKey ContentKey
	// Route reports whether a route leads a delivery anywhere but "none".
	Route func(role Role, sender, recipient string) bool
	// Lane says where a delivery waits for its next hop (store.Delivery.Lane); nil:
	// nobody knows yet.
	Lane func(*store.Delivery) string
	// Queued is called after a commit that put something into the outbox.
	Queued func()
	// Accepted is told of each message that a session handed over, after it was
	// made durable and before its answer; nil: nobody asks.
	Accepted func(Accepted)
	Now      func() time.Time
	Logger   *slog.Logger
}

// pipeline is what the two directions share.
type pipeline struct{ Options }

// queue tells the deliveries of a plan their lanes, so that what comes for a next
// hop that hangs is never in the way of others, and their size.
func (p pipeline) queue(n plan) plan {
	for i := range n.deliveries {
		d := &n.deliveries[i]
		if p.Lane != nil {
			d.Lane = p.Lane(d)
		}
		if len(n.message.Archived.Transforms) == 0 {
			d.Size = n.message.Archived.SentSize
		}
	}
	return n
}

// Spool opens the way of a body into the store.
func (p pipeline) Spool(ctx context.Context, _ *Envelope) (Sink, error) {
	body, err := p.Store.Stage(ctx)
	if err != nil {
		return nil, err
	}
	return newSpool(body, p.ContentKey)
}

// envelopeRecord is the record of who handed a message over.
func envelopeRecord(env *Envelope, m resolver.Mail) store.Envelope {
	e := store.Envelope{Listener: env.Listener, Helo: env.Helo, From: m.EnvelopeFrom, Recipients: m.Recipients}
	if env.Peer.IsValid() {
		e.Peer = env.Peer.String()
	}
	e.Login, e.TLS = env.Login, env.TLS
	if c := env.Client; c.Name != "" || c.Helo != "" || c.Addr.IsValid() {
		e.Client = &store.Client{Name: c.Name, Helo: c.Helo}
		if c.Addr.IsValid() {
			e.Client.Address = c.Addr.String()
		}
	}
	return e
}

// transforms names what must be done to the archived body before it leaves.
func transforms(env *Envelope) []string {
	var t []string
	if env.Body.BareCR || env.Body.BareLF {
		t = append(t, message.BareNewlines)
	}
	if env.Body.NoFinalCRLF {
		t = append(t, message.FinalCRLF)
	}
	return t
}

// archived is the record of a message's bytes; sent is nil when it is not
// handed on.
func archived(env *Envelope, s *spool, sent []byte) (store.Archived, error) {
	a := store.Archived{ReceivedSHA256: s.digest(), ReceivedSize: s.size}
	if sent == nil {
		return a, nil
	}
	var err error
	a.Transforms = transforms(env)
	a.SentSHA256, a.SentSize, err = s.sentDigest(sent, a.Transforms)
	return a, err
}

// logMail is the case-log row of a mail, if the site's document type for them
// is set (rules §6).
func (p pipeline) logMail(m store.Message, sourceType string) []store.LogEntry {
	if p.Settings.LogDocumentType == "" || m.Case == 0 {
		return nil
	}
	a := m.Archived
	doc := &store.Document{FileName: m.ID.String() + ".eml", FileType: "eml", Size: a.ReceivedSize, SHA256: a.ReceivedSHA256, Message: m.ID}
	if m.Direction == store.Outgoing {
		doc.Size, doc.SHA256 = a.SentSize, a.SentSHA256
	}
	return []store.LogEntry{{
		ID: store.NewID(), Case: m.Case, At: m.ReceivedAt, By: m.From, SourceType: sourceType,
		DocumentType: p.Settings.LogDocumentType, Document: doc, Text: m.Subject,
	}}
}

func recipients(list []Recipient, to []string) []store.Recipient {
	given := map[string]Recipient{}
	for _, r := range list {
		given[store.Key(r.Path.String())] = r
	}
	out := make([]store.Recipient, 0, len(to))
	for _, address := range to {
		out = append(out, given[store.Key(address)].mailedAs(address))
	}
	return out
}

// mailedAs is the outbox's part of a recipient, under the address that goes on.
func (r Recipient) mailedAs(address string) store.Recipient {
	return store.Recipient{Address: address, Notify: r.Notify, ORcpt: r.ORCPT, State: store.Queued}
}
