package console

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/bolt"
)

// canary is an address that only Bcc names.
const canary = "canary@hidden.example"

// desk is a store with one case, told twice: the customer writes, the desk
// answers with a blind copy; and one message on the exceptions list.
type desk struct {
	st                                      store.Store
	ana, ben, acme, kim                     store.ID
	first, answer, odd, firstOut, answerOut store.ID
}

var (
	monday = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	before = monday.Add(-24 * time.Hour)
)

// id is a fixed UUIDv7, n apart.
func id(n byte) store.ID {
	v, _ := store.ParseID("01957000-0000-7000-8000-000000000000")
	v[15] = n
	return v
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	st, err := bolt.Open(filepath.Join(t.TempDir(), "casegate.db"), bolt.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	d := &desk{st: st, ana: id(1), ben: id(2), acme: id(3), kim: id(4), first: id(11), answer: id(12), odd: id(13), firstOut: id(21), answerOut: id(22)}
	d.people(t)
	d.mail(t, d.firstMail(), "From: ana@x.example\r\nTo: 311@city.example\r\nSubject: light\r\n\r\n", "X-Case-Number: 1\r\nFrom: ana@x.example\r\nTo: 311@city.example\r\nSubject: light\r\n\r\n", nil, "It is dark.\r\n")
	d.mail(t, d.answerMail(), "From: kim@city.example\r\nTo: ana@x.example\r\nSubject: Re: light\r\n\r\n", "From: kim@city.example\r\nTo: ana@x.example\r\nSubject: Re: light\r\nX-Case-Ref: t\r\n\r\n",
		[]store.Apart{{Offset: 43, Bytes: []byte("Bcc: " + canary + "\r\n")}}, "Soon.\r\n")
	d.mail(t, d.oddMail(), "From: robot@y.example\r\n\r\n", "", nil, "beep\r\n")
	d.outbox(t)
	return d
}

func (d *desk) update(t *testing.T, fn func(store.Tx) error) {
	t.Helper()
	if err := d.st.Update(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func (d *desk) people(t *testing.T) {
	d.update(t, func(tx store.Tx) error {
		held := []store.EmailAddress{{Address: "Ana@x.example", From: before}}
		puts := []error{
			tx.PutInstallation(store.Installation{ID: id(99), Keys: []store.SigningKey{{ID: 1, Secret: []byte("k"), CreatedAt: before}}}),
			tx.PutContact(store.Contact{ID: d.ana, Kind: store.Guest, Name: "Ana", EmailAddresses: held, CreatedAt: before}),
			tx.PutContact(store.Contact{ID: d.ben, Kind: store.Registered, Name: "Ben", EmailAddresses: held, CreatedAt: before}),
			tx.PutAccount(store.Account{ID: d.acme, Kind: store.Property, Name: "Elm Street 1", EmailAddresses: []string{"elm1@x.example"}, CreatedAt: before}),
			tx.PutAgent(store.Agent{ID: d.kim, Name: "Kim", EmailAddresses: []string{"kim@city.example"}, CreatedAt: before}),
			tx.PutCase(store.Case{ID: id(5), Number: 1, Title: "light", State: store.Active, Origin: "Email", Queue: "general", Mailbox: "311@city.example",
				Customer: d.ana, Accounts: []store.ID{d.acme}, Ordinal: 2, CreatedAt: monday, UpdatedAt: monday}),
			tx.Record(store.LogEntry{ID: id(31), Case: 1, At: monday, By: "kim@city.example", SourceType: "Case email-out", Text: "copied to " + canary + " too"}),
		}
		for _, err := range puts {
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (d *desk) firstMail() store.Message {
	return store.Message{
		ID: d.first, MessageID: "a@x.example", Direction: store.Incoming, Case: 1, Ordinal: 1, Subject: "light", From: "ana@x.example",
		Class: "human", Identity: "known guest", CorrelationMethod: "none", ReceivedAt: monday,
		Parties: []store.Party{
			{Role: store.RoleSender, AddressUsed: "ana@x.example", Party: store.PartyRef{Kind: store.PartyContact, ID: d.ana}, Why: "the customer's address"},
			{Role: store.RoleTo, AddressUsed: "311@city.example", Party: store.PartyRef{Kind: store.PartyMailbox, Address: "311@city.example"}, Why: "our mailbox"},
			{Role: store.RoleCC, AddressUsed: "both@x.example", Name: "Both", Candidates: []store.ID{d.ana, d.ben}, Why: "shared by several contacts"},
		},
		Links:    []store.Link{{Address: "ana@x.example"}},
		Decision: store.Decision{Rules: []string{"T0", "I26"}, Reasons: []string{"no evidence", "a new guest"}},
		Envelope: store.Envelope{Listener: "inbound", Peer: "192.0.2.1", Helo: "x", From: "ana@x.example", Recipients: []string{"311@city.example"}},
		Archived: store.Archived{ReceivedSHA256: "aa", ReceivedSize: 79, SentSHA256: "bb", SentSize: 96, Transforms: []string{"shout"}}, Mailboxes: []string{"311@city.example"},
	}
}

func (d *desk) answerMail() store.Message {
	return store.Message{
		ID: d.answer, MessageID: "b@city.example", Direction: store.Outgoing, Case: 1, Ordinal: 2, Subject: "Re: light", From: "kim@city.example",
		Class: "human", CorrelationMethod: "in_reply_to", ReceivedAt: monday.Add(time.Hour),
		Parties: []store.Party{
			{Role: store.RoleSender, AddressUsed: "kim@city.example", Party: store.PartyRef{Kind: store.PartyAgent, ID: d.kim}, Why: "agent"},
			{Role: store.RoleTo, AddressUsed: "ana@x.example", Party: store.PartyRef{Kind: store.PartyContact, ID: d.ana}, Why: "O3"},
			{Role: store.RoleBCC, AddressUsed: canary, Why: "O10"},
		},
		Links:    []store.Link{{Address: "ana@x.example"}, {Address: canary}},
		Decision: store.Decision{Rules: []string{"O0", "O10"}, Reasons: []string{"reply", "Bcc " + strings.ToUpper(canary) + " stays Bcc"}},
		Envelope: store.Envelope{Listener: "smarthost", From: "kim@city.example", Recipients: []string{"ana@x.example", canary}},
		Archived: store.Archived{ReceivedSHA256: "cc", ReceivedSize: 79, SentSHA256: "dd", SentSize: 80},
	}
}

func (d *desk) oddMail() store.Message {
	return store.Message{
		ID: d.odd, MessageID: "c@y.example", Direction: store.Incoming, Exception: "loop", Subject: "", From: "robot@y.example", Class: "loop",
		CorrelationMethod: "none", ReceivedAt: monday.Add(2 * time.Hour), Decision: store.Decision{Rules: []string{"I2"}, Reasons: []string{"our own loop header"}},
		Archived: store.Archived{ReceivedSHA256: "ee", ReceivedSize: 32},
	}
}

func (d *desk) mail(t *testing.T, m store.Message, received, sent string, apart []store.Apart, text string) {
	t.Helper()
	body, err := d.st.Stage(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer body.Discard()
	io.WriteString(body, text)
	if err := body.Seal(context.Background()); err != nil {
		t.Fatal(err)
	}
	d.update(t, func(tx store.Tx) error {
		if err := tx.PutMessage(m); err != nil {
			return err
		}
		var out []byte
		if sent != "" {
			out = []byte(sent)
		}
		return tx.Archive(m.ID, []byte(received), out, apart, body)
	})
}

func (d *desk) outbox(t *testing.T) {
	d.update(t, func(tx store.Tx) error {
		if err := tx.Enqueue(store.Delivery{ID: d.firstOut, Message: d.first, Case: 1, Role: "inbound", From: "ana@x.example", State: store.Queued,
			Recipients: []store.Recipient{{Address: "311@city.example", State: store.Queued}}, Due: monday, CreatedAt: monday}); err != nil {
			return err
		}
		return tx.Enqueue(store.Delivery{ID: d.answerOut, Message: d.answer, Case: 1, Role: "outbound", From: "311+t@city.example", State: store.Failed,
			Recipients: []store.Recipient{
				{Address: "ana@x.example", State: store.Delivered, Reply: "250 ok"},
				{Address: canary, State: store.Failed, ORcpt: "rfc822;" + canary, Reply: "550 no " + canary},
			},
			Attempts: []store.Attempt{{At: monday, NextHop: "smtp://127.0.0.1:2526", Result: "failed", Reply: "550 <" + canary + "> unknown"}}, Due: monday, CreatedAt: monday})
	})
}

func (d *desk) service() Service {
	return Service{Store: d.st, Transform: func(r io.Reader, names []string) io.Reader {
		text, _ := io.ReadAll(r)
		if len(names) == 1 && names[0] == "shout" {
			return strings.NewReader(strings.ToUpper(string(text)))
		}
		return strings.NewReader("wrong transforms")
	}}
}

func (d *desk) handler(access Access) http.Handler {
	return New(d.service(), Options{Access: access, Now: func() time.Time { return monday.Add(48*time.Hour + 1234567) }})
}

// ask sends one request.
func ask(h http.Handler, method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://localhost"+path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// read asks and decodes, failing on anything but the status wanted.
func read[T any](t *testing.T, h http.Handler, method, path, body string, status int) T {
	t.Helper()
	w := ask(h, method, path, body)
	if w.Code != status {
		t.Fatalf("%s %s: %d, want %d: %s", method, path, w.Code, status, w.Body)
	}
	var v T
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("%s %s: %v in %s", method, path, err, w.Body)
	}
	return v
}
