package storetest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/casegate/casegate/store"
)

func (s *suite) contact(name string, addresses ...string) store.Contact {
	c := store.Contact{ID: store.NewID(), Kind: store.Guest, Name: name, CreatedAt: s.now}
	for _, a := range addresses {
		c.EmailAddresses = append(c.EmailAddresses, store.EmailAddress{Address: a})
	}
	return c
}

func (s *suite) registered(name string, addresses ...string) store.Contact {
	c := s.contact(name, addresses...)
	c.Kind = store.Registered
	return c
}

func (s *suite) newCase(n uint64, customer store.Contact) store.Case {
	return store.Case{
		ID: store.NewID(), Number: n, Title: fmt.Sprintf("case %d", n), State: store.Active, Origin: "Email",
		Queue: "general", Customer: customer.ID, CreatedAt: s.now, UpdatedAt: s.now,
	}
}

func (s *suite) delivery(message store.ID, n uint64, due time.Time) store.Delivery {
	return store.Delivery{
		ID: store.NewID(), Message: message, Case: n, Role: "inbound", From: "ana@x.example",
		Recipients: []store.Recipient{{Address: "Team@City.example", State: store.Queued}},
		State:      store.Queued, Due: due, CreatedAt: s.now,
	}
}

// mail is a message with its bytes, from a guest who opens a case with it.
type mail struct {
	msg          store.Message
	guest        store.Contact
	header, sent []byte
	apart        []store.Apart
	body         []byte
}

func (s *suite) mail(from string, size int) *mail {
	m := &mail{guest: s.contact("someone", from), body: make([]byte, size)}
	src := rand.NewChaCha8([32]byte{byte(size)})
	src.Read(m.body)
	id := store.NewID()
	m.header = []byte("From: " + from + "\r\nTo: 311@city.example\r\nMessage-ID: <" + id.String() + "@x>\r\n\r\n")
	m.sent = append([]byte("X-Case-Ref: token\r\n"), m.header...)
	m.msg = store.Message{
		ID: id, MessageID: id.String() + "@x", Direction: store.Incoming, Subject: "b\xe4d bytes", From: from, Class: "human",
		Identity: "unknown", CorrelationMethod: "none", ReceivedAt: s.now, ContentHash: "not hex",
		Parties: []store.Party{
			{Role: store.RoleSender, AddressUsed: from, Why: "new guest"},
			{Role: store.RoleTo, AddressUsed: "311@City.example", Why: "our mailbox"},
		},
		Decision: store.Decision{Rules: []string{"I26"}, Reasons: []string{"nobody has the address"}},
		Envelope: store.Envelope{Listener: "inbound", From: from, Recipients: []string{"311@city.example"}},
	}
	m.seal()
	return m
}

// seal notes the digests of the bytes.
func (m *mail) seal() {
	received := sha256.Sum256(m.whole())
	m.msg.Archived = store.Archived{ReceivedSHA256: hex.EncodeToString(received[:]), ReceivedSize: int64(len(m.whole()))}
	if m.sent != nil {
		sent := sha256.Sum256(m.asSent())
		m.msg.Archived.SentSHA256, m.msg.Archived.SentSize = hex.EncodeToString(sent[:]), int64(len(m.asSent()))
	}
}

// whole is the message as it came: with the fields that are kept apart.
func (m *mail) whole() []byte {
	header := m.header
	for _, a := range m.apart {
		header = cat(header[:a.Offset], a.Bytes, header[a.Offset:])
	}
	return cat(header, m.body)
}

func (m *mail) received() []byte { return cat(m.header, m.body) }

func (m *mail) asSent() []byte { return cat(m.sent, m.body) }

func cat(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// accept stores a mail as a new case and returns its number.
func (m *mail) accept(s *suite) uint64 {
	s.Helper()
	body := s.staged(m.body)
	defer body.Discard()
	s.update(func(tx store.Tx) (err error) {
		if m.msg.Case, err = s.ReserveCase(s.ctx); err != nil {
			return err
		}
		if err := tx.PutContact(m.guest); err != nil {
			return err
		}
		if err := tx.PutCase(s.newCase(m.msg.Case, m.guest)); err != nil {
			return err
		}
		return m.put(tx, body)
	})
	return m.msg.Case
}

// join stores a mail on a case there is, or on none.
func (m *mail) join(s *suite, n uint64) {
	s.Helper()
	m.msg.Case = n
	body := s.staged(m.body)
	defer body.Discard()
	s.update(func(tx store.Tx) error { return m.put(tx, body) })
}

func (m *mail) put(tx store.Tx, body store.Body) error {
	if err := tx.PutMessage(m.msg); err != nil {
		return err
	}
	return tx.Archive(m.msg.ID, m.header, m.sent, m.apart, body)
}

// staged is a sealed body, written in pieces of odd sizes.
func (s *suite) staged(data []byte) store.Body {
	s.Helper()
	body, err := s.Stage(s.ctx)
	s.ok(err)
	for n := 1; len(data) > 0; n = n*3 + 1 {
		n = min(n, len(data))
		_, err := body.Write(data[:n])
		s.ok(err)
		data = data[n:]
	}
	s.ok(body.Seal(s.ctx))
	return body
}

func (s *suite) read(id store.ID, as store.As) []byte {
	s.Helper()
	r, err := s.Open(s.ctx, id, as)
	s.ok(err)
	defer r.Close()
	data, err := io.ReadAll(r)
	s.ok(err)
	return data
}

// pages walks a list page by page.
func pages[T any](s *suite, limit int, list func(store.Page) ([]T, store.Cursor, error)) (all []T) {
	s.Helper()
	p := store.Page{Limit: limit}
	for {
		rows, next, err := list(p)
		s.ok(err)
		if len(rows) > limit {
			s.Errorf("%d rows on a page of %d", len(rows), limit)
		}
		all = append(all, rows...)
		if next == "" {
			return all
		}
		p.After = next
	}
}

func (s *suite) cases(f store.CaseFilter) (numbers []uint64) {
	s.Helper()
	s.view(func(r store.Reader) error {
		for _, c := range pages(s, 3, func(p store.Page) ([]store.Case, store.Cursor, error) { return r.Cases(f, p) }) {
			numbers = append(numbers, c.Number)
		}
		return nil
	})
	return numbers
}

func (s *suite) messages(f store.MessageFilter) (ids []store.ID) {
	s.Helper()
	s.view(func(r store.Reader) error {
		for _, m := range pages(s, 3, func(p store.Page) ([]store.Message, store.Cursor, error) { return r.Messages(f, p) }) {
			ids = append(ids, m.ID)
		}
		return nil
	})
	return ids
}

func (s *suite) contacts(f store.ContactFilter) (names []string) {
	s.Helper()
	s.view(func(r store.Reader) error {
		for _, c := range pages(s, 2, func(p store.Page) ([]store.Contact, store.Cursor, error) { return r.Contacts(f, p) }) {
			names = append(names, c.Name)
		}
		return nil
	})
	return names
}

func (s *suite) deliveries(f store.DeliveryFilter) (ids []store.ID) {
	s.Helper()
	s.view(func(r store.Reader) error {
		for _, d := range pages(s, 2, func(p store.Page) ([]store.Delivery, store.Cursor, error) { return r.Deliveries(f, p) }) {
			ids = append(ids, d.ID)
		}
		return nil
	})
	return ids
}

func (s *suite) facts(q store.Query) (f store.Facts) {
	s.Helper()
	s.view(func(r store.Reader) (err error) { f, err = r.Facts(q); return err })
	return f
}

func reverse[T any](list []T) []T {
	out := make([]T, 0, len(list))
	for i := len(list) - 1; i >= 0; i-- {
		out = append(out, list[i])
	}
	return out
}
