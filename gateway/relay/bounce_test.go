package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"

	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/bolt"
)

// bed is a store with one case, a next hop, and the way between.
type bed struct {
	*testing.T
	st   store.Store
	sink *sink
	opts Options
}

const (
	desk  = "kim@city.example"
	token = "311+token@city.example"
)

func newBed(t *testing.T) *bed {
	st, err := bolt.Open(filepath.Join(t.TempDir(), "casegate.db"), bolt.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{T: t, st: st}
	t.Cleanup(func() {
		st.Verify(context.Background(), func(f store.Finding) { t.Errorf("verify: %+v", f) })
		st.Close()
	})
	var dial dialer
	b.sink, dial = newPipeSink(t)
	b.opts = Options{Hostname: "gw.city.example", Jitter: -1, Dial: dial, Routes: []Route{{Role: "outbound", NextHop: b.sink.nextHop}, {Role: "inbound", NextHop: b.sink.nextHop}}}
	ana := store.Contact{ID: store.NewID(), Kind: store.Guest, EmailAddresses: []store.EmailAddress{{Address: "Ana@x.example"}}}
	b.update(func(tx store.Tx) error {
		if err := tx.PutContact(ana); err != nil {
			return err
		}
		return tx.PutCase(store.Case{ID: store.NewID(), Number: 7, State: store.Active, Customer: ana.ID, Ordinal: 1, CreatedAt: time.Now(), UpdatedAt: time.Now()})
	})
	return b
}

func (b *bed) update(fn func(store.Tx) error) {
	b.Helper()
	if err := b.st.Update(context.Background(), fn); err != nil {
		b.Fatal(err)
	}
}

// send archives an outgoing mail of the case and queues it.
func (b *bed) send(eml string, edit func(*store.Message, *store.Delivery), to ...string) store.Delivery {
	b.Helper()
	body, err := b.st.Stage(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	defer body.Discard()
	header, text, _ := strings.Cut(eml, "\r\n\r\n")
	header += "\r\n\r\n"
	io.WriteString(body, text)
	if err := body.Seal(context.Background()); err != nil {
		b.Fatal(err)
	}
	digest := fmt.Sprintf("%x", sha256.Sum256([]byte(eml)))
	m := store.Message{
		ID: store.NewID(), MessageID: "m1@city.example", Direction: store.Outgoing, Case: 7, Ordinal: 1, Class: "human",
		ReceivedAt: time.Now().UTC(), Archived: store.Archived{ReceivedSize: int64(len(eml)), SentSize: int64(len(eml)), ReceivedSHA256: digest, SentSHA256: digest},
		Envelope: store.Envelope{Listener: "smarthost", From: desk, Recipients: to},
	}
	d := store.Delivery{
		ID: store.NewID(), Message: m.ID, Case: 7, Role: "outbound", Mailbox: "311@city.example", From: token, Submitter: desk,
		State: store.Queued, Due: m.ReceivedAt, CreatedAt: m.ReceivedAt,
	}
	for _, a := range to {
		m.Parties = append(m.Parties, store.Party{Role: store.RoleTo, AddressUsed: a, Sent: true})
		d.Recipients = append(d.Recipients, store.Recipient{Address: a, State: store.Queued})
	}
	if edit != nil {
		edit(&m, &d)
	}
	b.update(func(tx store.Tx) error {
		if err := tx.PutMessage(m); err != nil {
			return err
		}
		if err := tx.Archive(m.ID, []byte(header), []byte(header), nil, body); err != nil {
			return err
		}
		return tx.Enqueue(d)
	})
	return d
}

// run relays for so long.
func (b *bed) run(d time.Duration) {
	b.Helper()
	r, err := New(b.st, b.opts)
	if err != nil {
		b.Fatal(err)
	}
	stop := start(r)
	time.Sleep(d)
	stop()
}

func (b *bed) message(id store.ID) (m store.Message) {
	b.Helper()
	err := b.st.View(context.Background(), func(r store.Reader) (err error) { m, err = r.Message(id); return err })
	if err != nil {
		b.Fatal(err)
	}
	return m
}

func (b *bed) delivery(id store.ID) store.Delivery { return load(b.T, b.st, id) }

func (b *bed) kase() (c store.Case) {
	b.Helper()
	err := b.st.View(context.Background(), func(r store.Reader) (err error) { c, err = r.Case(7); return err })
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// deliveries counts the rows of the outbox.
func (b *bed) deliveries() (list []store.Delivery) {
	b.Helper()
	err := b.st.View(context.Background(), func(r store.Reader) (err error) {
		list, _, err = r.Deliveries(store.DeliveryFilter{}, store.Page{})
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return list
}

// reports reads what the submitter got.
func (b *bed) reports() (list []message.Report) {
	b.Helper()
	for _, eml := range b.sink.got(desk) {
		n := bytes.Index(eml, []byte("\r\n\r\n")) + 4
		h := message.Parse(eml[:n])
		rep, err := message.ReadReport(h, bytes.NewReader(eml[n:]))
		if err != nil {
			b.Fatalf("%v in %s", err, eml)
		}
		list = append(list, rep)
	}
	return list
}

// inVirtualTime runs a test with a bed in virtual time.
func inVirtualTime(t *testing.T, fn func(*bed)) {
	synctest.Test(t, func(t *testing.T) { fn(newBed(t)) })
}

func events(m store.Message) (list []string) {
	for _, e := range m.Events {
		list = append(list, strings.TrimSpace(e.Recipient+" "+e.Action+" "+e.Status))
	}
	return list
}

func TestFailureIsReported(t *testing.T) {
	inVirtualTime(t, func(b *bed) {
		eml := "From: kim@city.example\r\nTo: ana@x.example\r\nSubject: light\r\nMessage-ID: <m1@city.example>\r\n\r\n.It is fixed.\r\n"
		d := b.send(eml, func(_ *store.Message, d *store.Delivery) {
			d.EnvID = "QQ 314"
			d.Recipients[0].ORcpt = "rfc822;Ana@x.example"
		}, "ana@x.example", "unknown@x.example", "ben@x.example")
		b.sink.rcpt = func(to string) error {
			if to == "ana@x.example" || to == "unknown@x.example" {
				return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user " + to}
			}
			return nil
		}
		b.run(time.Minute)
		got := b.reports()
		if len(got) != 1 {
			b.Fatalf("%d reports", len(got))
		}
		want := []message.ReportedRecipient{
			{FinalRecipient: "ana@x.example", OriginalRecipient: "Ana@x.example", Action: "failed", Status: "5.1.1", DiagnosticCode: "smtp; 550 5.1.1 no such user ana@x.example", RemoteMTA: "[127.0.0.1]"},
			{FinalRecipient: "unknown@x.example", Action: "failed", Status: "5.1.1", DiagnosticCode: "smtp; 550 5.1.1 no such user unknown@x.example", RemoteMTA: "[127.0.0.1]"},
		}
		if diff := cmp.Diff(want, got[0].Recipients); diff != "" {
			b.Errorf("recipients: want - got +\n%s", diff)
		}
		if got[0].Kind != message.DeliveryReport || got[0].Returned == nil || got[0].Returned.Get("Subject") != "light" {
			b.Errorf("%+v", got[0])
		}
		raw := string(b.sink.got(desk)[0])
		for _, piece := range []string{
			"\r\nAuto-Submitted: auto-replied\r\n", "\r\nOriginal-Envelope-Id: QQ 314\r\n", "\r\nReporting-MTA: dns; gw.city.example\r\n",
			"\r\nContent-Type: text/rfc822-headers\r\n", "\r\nIn-Reply-To: <m1@city.example>\r\n", "\r\nTo: kim@city.example\r\n",
		} {
			if !strings.Contains(raw, piece) {
				b.Errorf("it lacks %q:\n%s", piece, raw)
			}
		}
		if strings.Contains(raw, "It is fixed") || b.sink.from[len(b.sink.from)-1] != "" {
			b.Errorf("from %q\n%s", b.sink.from, raw)
		}
		m := b.message(d.Message)
		if diff := cmp.Diff([]string{"ana@x.example failed 5.1.1", "unknown@x.example failed 5.1.1"}, events(m)); diff != "" {
			b.Errorf("events: want - got +\n%s", diff)
		}
		rep := b.message(m.Events[0].Report)
		if rep.Case != 0 || rep.Class != "dsn" || rep.Envelope.Listener != "bounce" || rep.Envelope.From != "" || rep.Related[0] != 7 {
			b.Errorf("%+v", rep)
		}
		if c := b.kase(); fmt.Sprint(c.Flags) != "[customer-bounced]" {
			b.Errorf("flags %v", c.Flags)
		}
		if row := b.delivery(d.ID); row.State != store.Failed || row.Recipients[2].State != store.Delivered {
			b.Errorf("%+v", row)
		}
	})
}

// TestEachRefusalHasItsOwnHost: of mail that goes by several routes, a report
// says of each recipient which next hop spoke of him.
func TestEachRefusalHasItsOwnHost(t *testing.T) {
	inVirtualTime(t, func(b *bed) {
		b.opts.Routes = append([]Route{
			{Role: "outbound", Recipient: "x.example", NextHop: "smtp://mx.x.example", TLS: TLSNone},
			{Role: "outbound", Recipient: "y.example", NextHop: "smtp://mx.y.example", TLS: TLSNone},
		}, b.opts.Routes...)
		b.send(eml, nil, "unknown@x.example", "unknown@y.example", "ben@z.example")
		b.run(time.Minute)
		got := b.reports()
		if len(got) != 1 {
			b.Fatalf("%d reports", len(got))
		}
		hosts := map[string]string{}
		for _, to := range got[0].Recipients {
			hosts[to.FinalRecipient] = to.RemoteMTA
		}
		want := map[string]string{"unknown@x.example": "mx.x.example", "unknown@y.example": "mx.y.example"}
		if diff := cmp.Diff(want, hosts); diff != "" {
			b.Errorf("hosts: want - got +\n%s", diff)
		}
	})
}

// TestWhoIsTold goes through who hears of a failure.
func TestWhoIsTold(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*store.Message, *store.Delivery)
		own  bool
		want int
	}{
		{"plain", func(*store.Message, *store.Delivery) {}, false, 1},
		{"NOTIFY=FAILURE", func(_ *store.Message, d *store.Delivery) { d.Recipients[0].Notify = []string{"FAILURE"} }, false, 1},
		{"NOTIFY=NEVER", func(_ *store.Message, d *store.Delivery) { d.Recipients[0].Notify = []string{"NEVER"} }, false, 0},
		{"NOTIFY=SUCCESS,DELAY", func(_ *store.Message, d *store.Delivery) { d.Recipients[0].Notify = []string{"SUCCESS", "DELAY"} }, false, 0},
		{"null reverse-path", func(_ *store.Message, d *store.Delivery) { d.From, d.Submitter = "", "" }, false, 0},
		{"no submitter", func(_ *store.Message, d *store.Delivery) { d.Submitter = "" }, false, 0},
		{"a report", func(m *store.Message, _ *store.Delivery) { m.Class = "dsn" }, false, 0},
		{"an acknowledgement", func(m *store.Message, d *store.Delivery) { m.Flags, d.From = []string{"acknowledgement"}, "" }, false, 0},
		{"from outside", func(m *store.Message, d *store.Delivery) {
			m.Direction, d.Role, d.From, d.Submitter = store.Incoming, "inbound", desk, desk
		}, false, 0},
		{"passed on", func(m *store.Message, d *store.Delivery) { m.Direction = store.Incoming }, false, 0},
		{"a mailbox of ours", func(*store.Message, *store.Delivery) {}, true, 0},
		{"a mailbox of ours, on no case", func(m *store.Message, d *store.Delivery) { m.Case, d.Case, m.Ordinal = 0, 0, 0 }, true, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			inVirtualTime(t, func(b *bed) {
				b.opts.Own = func(string) bool { return c.own }
				d := b.send(eml, c.edit, "unknown@x.example")
				b.run(time.Minute)
				if got := len(b.reports()); got != c.want || len(b.deliveries()) != 1+c.want {
					b.Errorf("%d reports, %d deliveries", got, len(b.deliveries()))
				}
				if e := events(b.message(d.Message)); len(e) != 1 || e[0] != "unknown@x.example failed 5.1.1" {
					b.Errorf("events %q", e)
				}
			})
		})
	}
}

// TestReportToAMailbox of ours goes to where it is read, if anywhere.
func TestReportToAMailbox(t *testing.T) {
	for _, c := range []struct {
		own           bool
		inbound, want string
	}{
		{true, "smtp://desk.example", "smtp://desk.example"},
		{true, None, "smtp://world.example"},
		{false, "smtp://desk.example", "smtp://world.example"},
	} {
		inVirtualTime(t, func(b *bed) {
			b.opts.Own = func(string) bool { return c.own }
			b.opts.Routes = []Route{
				{Role: "outbound", NextHop: "smtp://world.example", TLS: TLSNone},
				{Role: "inbound", NextHop: c.inbound, TLS: TLSNone},
			}
			sent := b.send(eml, func(m *store.Message, d *store.Delivery) { m.Case, d.Case, m.Ordinal = 0, 0, 0 }, "unknown@x.example")
			b.run(time.Minute)
			for _, d := range b.deliveries() {
				if d.ID != sent.ID && (len(d.Attempts) != 1 || d.Attempts[0].NextHop != c.want || d.State != store.Delivered) {
					b.Errorf("%+v: %+v", c, d)
				}
			}
			if n := len(b.reports()); n != 1 {
				b.Errorf("%+v: %d reports", c, n)
			}
		})
	}
}

// TestCaseIsFlagged: by who failed, and how.
func TestCaseIsFlagged(t *testing.T) {
	for _, c := range []struct {
		name, to string
		code     int
		own      bool
		want     string
	}{
		{"the customer", "ana@x.example", 550, false, "[customer-bounced]"},
		{"another", "ben@x.example", 550, false, "[recipient-bounced]"},
		{"the customer, in time", "ana@x.example", 450, false, "[]"},
		{"nobody is told", "ben@x.example", 450, true, "[delivery-failed]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inVirtualTime(t, func(b *bed) {
				b.opts.Own, b.opts.DelayAfter = func(string) bool { return c.own }, -1
				b.sink.rcpt = func(to string) error {
					if to == desk {
						return nil
					}
					return &smtp.SMTPError{Code: c.code, EnhancedCode: smtp.EnhancedCode{c.code / 100, 1, 1}, Message: "no"}
				}
				b.send(eml, nil, c.to)
				b.run(6 * 24 * time.Hour)
				if got := fmt.Sprint(b.kase().Flags); got != c.want {
					b.Errorf("flags %s, want %s", got, c.want)
				}
			})
		})
	}
}

// TestHandOnFails: what came from outside and does not reach the desk is put
// where a person sees it.
func TestHandOnFails(t *testing.T) {
	for _, number := range []uint64{7, 0} {
		inVirtualTime(t, func(b *bed) {
			d := b.send(eml, func(m *store.Message, d *store.Delivery) {
				m.Direction, m.Case, d.Case, d.Role, d.From, d.Submitter = store.Incoming, number, number, "inbound", "ana@x.example", "ana@x.example"
				if number == 0 {
					m.Ordinal = 0
				}
			}, "unknown@city.example")
			b.run(time.Minute)
			m, c := b.message(d.Message), b.kase()
			if len(m.Events) != 1 || (number != 0) != (fmt.Sprint(c.Flags) == "[hand-on-failed]") || (number == 0) != (m.Exception == "hand-on-failed") {
				b.Errorf("case %d: %+v\n%+v", number, m, c)
			}
			if len(b.deliveries()) != 1 {
				b.Error("somebody outside is told")
			}
		})
	}
}

// TestDelayIsToldOnce: a next hop that answers 4xx for a day.
func TestDelayIsToldOnce(t *testing.T) {
	inVirtualTime(t, func(b *bed) {
		begin := time.Now()
		b.sink.rcpt = func(to string) error {
			if to != desk && time.Since(begin) < 24*time.Hour {
				return &smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 2, 1}, Message: "busy"}
			}
			return nil
		}
		d := b.send(eml, func(_ *store.Message, d *store.Delivery) {
			d.Recipients[1].Notify = []string{"FAILURE"}
		}, "ana@x.example", "ben@x.example")
		b.run(5 * time.Hour)
		got := b.reports()
		if len(got) != 1 {
			b.Fatalf("%d reports after 5 h", len(got))
		}
		want := []message.ReportedRecipient{{FinalRecipient: "ana@x.example", Action: "delayed", Status: "4.2.1", DiagnosticCode: "smtp; 450 4.2.1 busy", RemoteMTA: "[127.0.0.1]"}}
		if diff := cmp.Diff(want, got[0].Recipients); diff != "" {
			b.Errorf("want - got +\n%s", diff)
		}
		if rep := b.message(b.message(d.Message).Events[0].Report); rep.ReceivedAt.Sub(begin) != 4*time.Hour {
			b.Errorf("told after %s", rep.ReceivedAt.Sub(begin))
		}
		b.run(48 * time.Hour)
		if row := b.delivery(d.ID); row.State != store.Delivered || len(b.reports()) != 1 || len(b.kase().Flags) != 0 {
			b.Errorf("%+v", row)
		}
	})
}

// TestExpiryIsReported: time runs out, but the address is not to blame.
func TestExpiryIsReported(t *testing.T) {
	inVirtualTime(t, func(b *bed) {
		b.opts.DelayAfter = -1
		b.sink.rcpt = func(to string) error {
			if to == desk {
				return nil
			}
			return &smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 2, 1}, Message: "busy"}
		}
		d := b.send(eml, nil, "ana@x.example")
		b.run(6 * 24 * time.Hour)
		got := b.reports()
		if len(got) != 1 || got[0].Recipients[0].Status != "4.4.7" || got[0].Recipients[0].Action != "failed" {
			b.Fatalf("%+v", got)
		}
		if !strings.Contains(got[0].Recipients[0].DiagnosticCode, "5.4.7 given up after 5 days; last: 450 4.2.1 busy") {
			b.Error(got[0].Recipients[0].DiagnosticCode)
		}
		if c := b.kase(); len(c.Flags) != 0 || b.delivery(d.ID).State != store.Failed {
			b.Errorf("%+v", c.Flags)
		}
	})
}

// TestSuccessIsRelayed: a next hop without DSN tells nobody, so we do.
func TestSuccessIsRelayed(t *testing.T) {
	for _, dsn := range []bool{false, true} {
		inVirtualTime(t, func(b *bed) {
			b.sink.srv.EnableDSN = dsn
			b.send(eml, func(_ *store.Message, d *store.Delivery) {
				d.Recipients[0].Notify = []string{"SUCCESS", "FAILURE"}
			}, "ana@x.example", "ben@x.example")
			b.run(time.Minute)
			got := b.reports()
			if dsn {
				if len(got) != 0 {
					b.Errorf("%+v", got)
				}
				return
			}
			if len(got) != 1 || len(got[0].Recipients) != 1 || got[0].Recipients[0].Action != "relayed" || got[0].Recipients[0].Status != "2.0.0" {
				b.Errorf("%+v", got)
			}
		})
	}
}

// TestReturnedMessage: RET=FULL, up to a size, byte for byte.
func TestReturnedMessage(t *testing.T) {
	mail := "Subject: gr\xc3\xbc\xc3\x9fe\r\nFrom: kim@city.example\r\n\r\n.dot\r\nf\xfcnf\r\n"
	for _, c := range []struct {
		name, ret, eml, has, hasNot string
	}{
		{"full", "FULL", mail, "\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + mail + "\r\n--=_", "quoted-printable"},
		{"headers", "HDRS", mail, "\r\nSubject: gr=C3=BC=C3=9Fe\r\n", ".dot"},
		{"unsaid", "", mail, "\r\nSubject: gr=C3=BC=C3=9Fe\r\n", ".dot"},
		{"too large", "FULL", mail + strings.Repeat("line\r\n", 50000), "quoted-printable", ".dot"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inVirtualTime(t, func(b *bed) {
				b.send(c.eml, func(_ *store.Message, d *store.Delivery) { d.RET = c.ret }, "unknown@x.example")
				b.run(time.Minute)
				mails := b.sink.got(desk)
				if len(mails) != 1 || !bytes.Contains(mails[0], []byte(c.has)) || bytes.Contains(mails[0], []byte(c.hasNot)) {
					b.Errorf("%q", mails)
				}
				b.reports()
			})
		})
	}
}

// TestBlindCopyIsNotNamed (invariant 7): not in the report, nor in its record.
func TestBlindCopyIsNotNamed(t *testing.T) {
	inVirtualTime(t, func(b *bed) {
		d := b.send(eml, func(m *store.Message, d *store.Delivery) {
			m.Parties[1].Role = store.RoleBCC
			d.Recipients[1].ORcpt = "rfc822;unknown-canary@x.example"
		}, "ana@x.example", "unknown-canary@x.example")
		b.run(time.Minute)
		mails := b.sink.got(desk)
		if len(mails) != 1 || bytes.Contains(mails[0], []byte("canary")) {
			b.Fatalf("%s", mails)
		}
		if got := b.reports()[0].Recipients; len(got) != 1 || got[0].Action != "failed" || got[0].Status != "5.1.1" || got[0].FinalRecipient != "blind-copy@undisclosed.invalid" {
			b.Errorf("%+v", got)
		}
		if rep := fmt.Sprintf("%+v", b.message(b.message(d.Message).Events[0].Report)); strings.Contains(rep, "canary") {
			b.Error(rep)
		}
	})
}

// TestReportNeverBounces: one that cannot be delivered is the end of it.
func TestReportNeverBounces(t *testing.T) {
	inVirtualTime(t, func(b *bed) {
		b.sink.rcpt = func(string) error { return &smtp.SMTPError{Code: 550, Message: "no"} }
		b.send(eml, nil, "ana@x.example")
		b.run(10 * 24 * time.Hour)
		if n := len(b.deliveries()); n != 2 {
			b.Errorf("%d deliveries", n)
		}
	})
}

// TestOddReports: whatever stands in the record, the report is one mail with
// clean lines that can be read.
func TestOddReports(t *testing.T) {
	inVirtualTime(t, func(b *bed) {
		b.sink.rcpt = func(to string) error {
			if to == desk {
				return nil
			}
			return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "n\u00e9 " + strings.Repeat("long ", 300)}
		}
		b.send("Subject: "+strings.Repeat("x", 2000)+"\r\nX: \x00\r\n\r\n", func(m *store.Message, d *store.Delivery) {
			m.MessageID, d.EnvID = "a>\u00e9", "\u00e9+"
			d.Recipients[0].ORcpt = "utf-8;j\u00fcrgen@x.example"
		}, "j\u00fcrgen@x.example")
		b.run(time.Minute)
		got := b.reports()
		if len(got) != 1 || got[0].Recipients[0].FinalRecipient != "j\u00fcrgen@x.example" || got[0].Recipients[0].OriginalRecipient != "j\u00fcrgen@x.example" {
			b.Fatalf("%+v", got)
		}
		for line := range strings.SplitSeq(string(b.sink.got(desk)[0]), "\r\n") {
			if len(line) > 998 || !ascii(line) || strings.ContainsAny(line, "\r\n\x00") {
				b.Errorf("%q", line)
			}
		}
	})
}
