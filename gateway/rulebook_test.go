package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// put changes the store of a desk.
func put(t *testing.T, o gateway.Options, fn func(store.Tx) error) {
	t.Helper()
	if err := o.Store.Update(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

// stored is the message behind a receipt.
func stored(t *testing.T, o gateway.Options, r gateway.Receipt) (m store.Message) {
	t.Helper()
	id, err := store.ParseID(r.ID)
	if err != nil {
		t.Fatal(err)
	}
	look(t, o, func(rd store.Reader) (err error) { m, err = rd.Message(id); return err })
	return m
}

func look(t *testing.T, o gateway.Options, fn func(store.Reader) error) {
	t.Helper()
	if err := o.Store.View(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func outbox(t *testing.T, o gateway.Options) (list []store.Delivery) {
	t.Helper()
	look(t, o, func(rd store.Reader) (err error) {
		list, _, err = rd.Deliveries(store.DeliveryFilter{}, store.Page{Limit: 100})
		return err
	})
	return list
}

func mustHand(t *testing.T, h gateway.Handler, role gateway.Role, from, eml string, to ...string) gateway.Receipt {
	t.Helper()
	r, err := hand(t, h, role, from, strings.ReplaceAll(eml, "\n", "\r\n"), to...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func said(m store.Message) string { return strings.Join(m.Decision.Reasons, "\n") }

func quiet(o *gateway.Options) { o.Logger = slog.New(slog.DiscardHandler) }

// I5: a bounce of an answer tells what became of it, flags the case, and goes on
// to who submitted the answer.
func TestDeliveryReportTellsItsMessage(t *testing.T) {
	o := desk(t, nil)
	in, out := gateway.NewInbound(o, gateway.Intake{}), gateway.NewOutbound(o, gateway.Submitters{})
	first := stored(t, o, mustHand(t, in, gateway.RoleInbound, "ana@x.example", "From: Ana <ana@x.example>\nTo: 311@city.example\nSubject: lamp\nMessage-ID: <1@x.example>\n\nIt is dark.\n", "311@city.example"))
	answer := stored(t, o, mustHand(t, out, gateway.RoleOutbound, "crm@desk.example", "From: 311@city.example\nTo: ana@x.example\nSubject: Re: lamp\nIn-Reply-To: <1@x.example>\nMessage-ID: <2@desk.example>\n\nSoon.\n", "ana@x.example"))
	returnPath := outbox(t, o)[1].From
	bounce := `From: MAILER-DAEMON@mx.example
To: ` + returnPath + `
Subject: Undelivered
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b
Content-Type: text/plain

It failed.
--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example

Final-Recipient: rfc822; %s
Action: failed
Status: 5.1.1

--b--
`
	stranger := stored(t, o, mustHand(t, in, gateway.RoleInbound, "", fmt.Sprintf(bounce, "else@x.example"), returnPath))
	if got := stored(t, o, gateway.Receipt{ID: answer.ID.String()}); len(got.Events) != 0 || !strings.Contains(said(stranger), "no recipient of message") {
		t.Errorf("a report about nobody counted: %+v\n%s", got.Events, said(stranger))
	}
	report := stored(t, o, mustHand(t, in, gateway.RoleInbound, "", fmt.Sprintf(bounce, "ana@x.example"), returnPath))
	if report.Case != first.Case || !slices.Contains(report.Decision.Rules, "I5") {
		t.Fatalf("%+v", report)
	}
	got := stored(t, o, gateway.Receipt{ID: answer.ID.String()})
	if len(got.Events) != 1 || got.Events[0].Action != "failed" || got.Events[0].Recipient != "ana@x.example" || got.Events[0].Report != report.ID {
		t.Errorf("events: %+v", got.Events)
	}
	look(t, o, func(rd store.Reader) error {
		c, err := rd.Case(first.Case)
		if !slices.Contains(c.Flags, "customer-bounced") || c.State != store.Active {
			t.Errorf("%+v", c)
		}
		return err
	})
	last := outbox(t, o)
	passed := last[len(last)-1]
	if passed.From != "" || passed.Recipients[0].Address != "crm@desk.example" || passed.Message != report.ID {
		t.Errorf("passed on: %+v", passed)
	}
}

// I11: what an agent forwards as an attachment opens the case of its author.
func TestAgentForwardsAMessage(t *testing.T) {
	o := desk(t, nil)
	put(t, o, func(tx store.Tx) error {
		return tx.PutAgent(store.Agent{ID: store.NewID(), Name: "Rob", EmailAddresses: []string{"rob@city.example"}})
	})
	in := gateway.NewInbound(o, gateway.Intake{AuthServID: "mx.city.example"})
	eml := `Authentication-Results: mx.city.example; dmarc=pass header.from=city.example
From: Rob <rob@city.example>
To: 311@city.example
Subject: Fwd: lamp
Message-ID: <9@city.example>
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/plain

See below.
--b
Content-Type: message/rfc822

From: Ana <ana@x.example>
To: Rob <rob@city.example>
Subject: lamp
Message-ID: <1@x.example>

It is dark.
--b--
`
	m := stored(t, o, mustHand(t, in, gateway.RoleInbound, "rob@city.example", eml, "311@city.example"))
	if m.Case == 0 || m.Subject != "lamp" || m.From != "ana@x.example" || !slices.Contains(m.Decision.Rules, "I11") || !slices.Contains(m.Decision.Rules, "I26") {
		t.Fatalf("%+v\n%s", m, said(m))
	}
	if !slices.Contains(m.References, "1@x.example") || !slices.Contains(m.Flags, "agent-asserted") {
		t.Errorf("%v %v", m.References, m.Flags)
	}
	reply := stored(t, o, mustHand(t, in, gateway.RoleInbound, "ana@x.example", "From: ana@x.example\nTo: 311@city.example\nMessage-ID: <3@x.example>\nReferences: <1@x.example>\n\nStill dark.\n", "311@city.example"))
	if reply.Case != m.Case {
		t.Errorf("her next mail is on case %d, want %d\n%s", reply.Case, m.Case, said(reply))
	}
}

// A new case is acknowledged once, to a person, by mail that nothing answers.
func TestAcknowledgement(t *testing.T) {
	o := desk(t, func(o *gateway.Options) {
		o.Settings.Ack, o.Settings.AckPerHour, o.Settings.AckPerDay = true, 2, 20
		o.Ack = gateway.Acknowledgement{Subject: "Case {number}", Text: "It is case {number}.\n"}
	})
	in := gateway.NewInbound(o, gateway.Intake{})
	send := func(n int, extra string) gateway.Receipt {
		return mustHand(t, in, gateway.RoleInbound, "ana@x.example", fmt.Sprintf("From: Ana <ana@x.example>\nTo: 311@city.example\nSubject: lamp %d\nMessage-ID: <%d@x.example>\n%s\nIt is dark %d.\n", n, n, extra, n), "311@city.example")
	}
	first := stored(t, o, send(1, ""))
	var acks []store.Delivery
	count := func() int {
		acks = slices.DeleteFunc(outbox(t, o), func(d store.Delivery) bool { return d.Role != "outbound" })
		return len(acks)
	}
	if count() != 1 || acks[0].From != "" || acks[0].Recipients[0].Address != "ana@x.example" || acks[0].Case != first.Case {
		t.Fatalf("%+v", acks)
	}
	sent := export(t, o.Store, acks[0].Message, store.AsSent)
	for _, want := range []string{"Auto-Submitted: auto-replied\r\n", "X-Auto-Response-Suppress: All\r\n", "In-Reply-To: <1@x.example>\r\n", "Subject: Case 1\r\n", "Reply-To: 311+", "\r\n\r\nIt is case 1.\r\n"} {
		if !strings.Contains(sent, want) {
			t.Errorf("no %q in %q", want, sent)
		}
	}
	send(2, "Precedence: bulk\n")
	send(3, "X-Auto-Response-Suppress: OOF, AutoReply\n")
	if count() != 1 {
		t.Errorf("%d acknowledgements, want 1", count())
	}
	send(4, "")
	send(5, "")
	if count() != 2 {
		t.Errorf("%d acknowledgements within the hour, want 2", count())
	}
}

// Mode observe: decided and archived, and handed on as it came.
func TestObserve(t *testing.T) {
	o := desk(t, nil)
	in := gateway.NewInbound(o, gateway.Intake{Observe: true})
	eml := "From: ana@x.example\nTo: 311@city.example\nX-Case-Number: 7\nMessage-ID: <1@x.example>\n\nIt is dark.\n"
	r := mustHand(t, in, gateway.RoleInbound, "ana@x.example", eml, "311@city.example")
	m := stored(t, o, r)
	if m.Case != 0 || !m.Observed || !slices.Contains(m.Decision.Rules, "I26") || !strings.HasSuffix(r.Text, "uncased") {
		t.Errorf("%+v %s", m, r.Text)
	}
	sent := export(t, o.Store, m.ID, store.AsSent)
	if rest, ok := strings.CutPrefix(sent, sent[:strings.Index(sent, "From:")]); !ok || rest != strings.ReplaceAll(eml, "\n", "\r\n") || !strings.HasPrefix(sent, "Received: ") {
		t.Errorf("%q", sent)
	}
	look(t, o, func(rd store.Reader) error {
		cases, _, err := rd.Cases(store.CaseFilter{}, store.Page{})
		contacts, _, _ := rd.Contacts(store.ContactFilter{}, store.Page{})
		if len(cases)+len(contacts) != 0 {
			t.Errorf("%v %v", cases, contacts)
		}
		return err
	})
	if d := outbox(t, o); len(d) != 1 || d[0].Recipients[0].Address != "311@city.example" {
		t.Errorf("%+v", d)
	}
	if again := mustHand(t, in, gateway.RoleInbound, "ana@x.example", eml, "311@city.example"); again.ID != r.ID {
		t.Errorf("a resend is %s, want %s", again.ID, r.ID)
	}
	if m := stored(t, o, mustHand(t, gateway.NewInbound(o, gateway.Intake{}), gateway.RoleInbound, "ana@x.example", eml, "311@city.example")); m.Case == 0 {
		t.Errorf("what was only observed counts as a copy: %s", said(m))
	}
}

// I20: while the directory is out nobody is guessed; when it answers, the mail
// is decided on as if it came then.
func TestDirectoryOutage(t *testing.T) {
	up := false
	crm := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !up:
			http.Error(w, "no", http.StatusBadGateway)
		case r.URL.Query().Get("email") == "ana@x.example":
			json.NewEncoder(w).Encode(map[string]any{"contacts": []any{map[string]any{"id": "77", "name": "Ana", "email_addresses": []string{"ana@x.example"}}}})
		default:
			http.NotFound(w, r)
		}
	}))
	defer crm.Close()
	o := desk(t, quiet)
	d := &gateway.Directory{Store: o.Store, URL: crm.URL + "/?email={address}", Timeout: 5 * time.Second, Client: crm.Client()}
	o.Directory = d.Refresh
	in := gateway.NewInbound(o, gateway.Intake{})
	m := stored(t, o, mustHand(t, in, gateway.RoleInbound, "ana@x.example", "From: Ana <ana@x.example>\nTo: 311@city.example\nMessage-ID: <1@x.example>\n\nIt is dark.\n", "311@city.example"))
	if m.Exception != gateway.PendingDirectory || len(outbox(t, o)) != 0 {
		t.Fatalf("%+v", m)
	}
	if again, err := gateway.Retry(context.Background(), o, gateway.Intake{}, m.ID); err != nil || again.Exception != gateway.PendingDirectory {
		t.Fatalf("%+v %v", again, err)
	}
	up = true
	ctx, cancel := context.WithCancel(context.Background())
	go gateway.ResolvePending(ctx, o, func(string) gateway.Intake { return gateway.Intake{} }, 10*time.Millisecond)
	defer cancel()
	for deadline := time.Now().Add(10 * time.Second); stored(t, o, gateway.Receipt{ID: m.ID.String()}).Case == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is never decided on again")
		}
	}
	got := stored(t, o, gateway.Receipt{ID: m.ID.String()})
	look(t, o, func(rd store.Reader) error {
		c, err := rd.Case(got.Case)
		if err != nil {
			return err
		}
		who, err := rd.Contact(c.Customer)
		if who.Kind != store.Registered || who.External != "77" || who.Name != "Ana" {
			t.Errorf("%+v", who)
		}
		return err
	})
	if sent := export(t, o.Store, m.ID, store.AsSent); !strings.Contains(sent, "X-Case-Number: 1\r\n") || len(outbox(t, o)) != 1 {
		t.Errorf("it was not handed on: %q", sent)
	}
	if counts, err := o.Store.Verify(context.Background(), func(f store.Finding) { t.Error(f) }); err != nil || counts.Messages != 1 {
		t.Error(counts, err)
	}
}

// A person takes a message from the exceptions list: onto a case, or to a new
// one.
func TestAssign(t *testing.T) {
	o := desk(t, func(o *gateway.Options) { o.Settings.FloodHour = 1 })
	in := gateway.NewInbound(o, gateway.Intake{})
	send := func(n int) store.Message {
		return stored(t, o, mustHand(t, in, gateway.RoleInbound, "ana@x.example", fmt.Sprintf("From: ana@x.example\nTo: 311@city.example\nMessage-ID: <%d@x.example>\n\nIt is dark %d.\n", n, n), "311@city.example"))
	}
	first, second, third := send(1), send(2), send(3)
	if first.Case != 1 || second.Exception != "flood" || third.Exception != "flood" {
		t.Fatalf("%d %q %q", first.Case, second.Exception, third.Exception)
	}
	ctx := context.Background()
	m, err := gateway.Assign(ctx, o, gateway.Rulebook{}, second.ID, resolver.ByHand{By: "kim", Case: 1})
	if err != nil || m.Case != 1 || m.Exception != "" || !strings.Contains(said(m), "kim put it on case 1") {
		t.Errorf("%+v %v", m, err)
	}
	if m, err = gateway.Assign(ctx, o, gateway.Rulebook{}, third.ID, resolver.ByHand{By: "kim"}); err != nil || m.Case != 2 {
		t.Errorf("%+v %v", m, err)
	}
	if _, err = gateway.Assign(ctx, o, gateway.Rulebook{}, third.ID, resolver.ByHand{Case: 1}); err != gateway.ErrSettled {
		t.Error(err)
	}
	if len(outbox(t, o)) != 3 {
		t.Error(outbox(t, o))
	}
	if _, err := o.Store.Verify(ctx, func(f store.Finding) { t.Error(f) }); err != nil {
		t.Error(err)
	}
}

// Replay compares two rulebooks on what was known when the mail came.
func TestReplay(t *testing.T) {
	o := desk(t, nil)
	put(t, o, func(tx store.Tx) error {
		return tx.PutContact(store.Contact{ID: store.NewID(), Kind: store.Registered, Name: "Ana", EmailAddresses: []store.EmailAddress{{Address: "ana@x.example"}}})
	})
	in := gateway.NewInbound(o, gateway.Intake{})
	for n := range 3 {
		mustHand(t, in, gateway.RoleInbound, "ana@x.example", fmt.Sprintf("From: ana@x.example\nTo: 311@city.example\nMessage-ID: <%d@x.example>\n\nIt is dark %d.\n", n, n), "311@city.example")
		mustHand(t, in, gateway.RoleInbound, "ben@x.example", fmt.Sprintf("From: ben@x.example\nTo: 311@city.example\nMessage-ID: <%d@b.example>\n\nIt is wet %d.\n", n, n), "311@city.example")
	}
	book := gateway.Rulebook{Settings: o.Settings, Names: []string{"test"}, Intakes: map[string]gateway.Intake{"test": {}}}
	other := book
	replay := func() (done int, words []string) {
		err := gateway.Replay(context.Background(), o, book, other, time.Time{}, func() { done++ }, func(c gateway.Change) error {
			words = append(words, c.Before+" -> "+c.After)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return done, words
	}
	if done, words := replay(); done != 6 || len(words) != 0 {
		t.Errorf("the same rulebook: %d %q", done, words)
	}
	other.Settings.Strict = true
	if _, words := replay(); len(words) != 3 || !strings.HasSuffix(words[0], "-> open a case in general for a new guest") {
		t.Errorf("strict: %q", words)
	}
	other = book
	other.Settings.FloodHour = 2
	if _, words := replay(); len(words) != 2 || !strings.HasSuffix(words[0], "-> exception flood") {
		t.Errorf("capped: %q", words)
	}
}
