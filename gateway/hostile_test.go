package gateway_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/mail"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/store"
)

// opened is a desk with case 1 of a customer, and the smarthost.
func opened(t *testing.T, change func(*gateway.Options), customer string) (gateway.Options, gateway.Handler, string) {
	t.Helper()
	o := desk(t, change)
	eml := "Message-ID: <first@x.example>\r\nFrom: " + customer + "\r\nTo: 311@city.example\r\nSubject: light\r\n\r\nout\r\n"
	if _, err := hand(t, gateway.NewInbound(o, gateway.Intake{}), gateway.RoleInbound, "a@x.example", eml, "311@city.example"); err != nil {
		t.Fatal(err)
	}
	return o, gateway.NewOutbound(o, gateway.Submitters{Setting: "send_as"}), "From: 311@city.example\r\nIn-Reply-To: <first@x.example>\r\nSubject: Re: light\r\n"
}

// sentOf returns what a submission became: its EML as sent, and its delivery.
func sentOf(t *testing.T, o gateway.Options, r gateway.Receipt) (string, store.Delivery) {
	t.Helper()
	id, err := store.ParseID(r.ID)
	if err != nil {
		t.Fatal(err)
	}
	var list []store.Delivery
	err = o.Store.View(context.Background(), func(rd store.Reader) (err error) {
		list, _, err = rd.Deliveries(store.DeliveryFilter{Message: id}, store.Page{})
		return err
	})
	if err != nil || len(list) != 1 {
		t.Fatal(err, len(list))
	}
	return export(t, o.Store, id, store.AsSent), list[0]
}

func rcpts(d store.Delivery) (list []string) {
	for _, r := range d.Recipients {
		list = append(list, r.Address)
	}
	return list
}

func fieldOf(eml, name string) []string {
	m, err := mail.ReadMessage(strings.NewReader(eml))
	if err != nil {
		return []string{err.Error()}
	}
	return m.Header[name]
}

// A header full of addresses costs its reading and no more: the decision runs
// where everybody waits for it.
func TestManyAddresses(t *testing.T) {
	var b strings.Builder
	for i := 0; b.Len() < 900<<10; {
		b.WriteString("To: ")
		for range 5000 {
			fmt.Fprintf(&b, "%x@b,\r\n ", i)
			i++
		}
		b.WriteString("c@b\r\n")
	}
	o := desk(t, nil)
	start := time.Now()
	_, err := hand(t, gateway.NewInbound(o, gateway.Intake{}), gateway.RoleInbound, "a@x.example", "From: a@x.example\r\n"+b.String()+"\r\n", "311@city.example")
	if d := time.Since(start); err != nil || d > 2*time.Second {
		t.Errorf("inbound: %v, %v", d, err)
	}
	_, out, head := opened(t, nil, "a@x.example")
	start = time.Now()
	_, err = hand(t, out, gateway.RoleOutbound, "311@city.example", head+b.String()+"\r\n", "a@x.example")
	if d := time.Since(start); err == nil || d > 2*time.Second {
		t.Errorf("outbound: %v, %v", d, err)
	}
}

// The same for ids.
func TestManyIDs(t *testing.T) {
	var b strings.Builder
	for _, name := range []string{"References", "In-Reply-To"} {
		b.WriteString(name + ":")
		for i := range 40000 {
			fmt.Fprintf(&b, " <%x@%s>\r\n", i, name[:1])
		}
	}
	_, out, head := opened(t, nil, "a@x.example")
	start := time.Now()
	_, err := hand(t, out, gateway.RoleOutbound, "311@city.example", strings.Replace(head, "In-Reply-To: <first@x.example>\r\n", "", 1)+b.String()+"To: a@x.example\r\n\r\n", "a@x.example")
	if d := time.Since(start); err != nil || d > time.Second {
		t.Errorf("%v, %v", d, err)
	}
}

// A customer's name is a stranger's words: it must not break the field that O3
// shows it in.
func TestCustomersNameCannotBreakTo(t *testing.T) {
	for _, name := range []string{`"A <x@x> B"`, `"A <x@x>, c@evil.example"`, `=?utf-8?q?J=C3=B6_<x@x>?=`, `"a\"b"`} {
		o, out, head := opened(t, nil, name+" <a@x.example>")
		r, err := hand(t, out, gateway.RoleOutbound, "311@city.example", head+"To: a@x.example\r\n\r\n", "a@x.example")
		if err != nil {
			t.Fatal(err)
		}
		sent, _ := sentOf(t, o, r)
		if list, err := mail.ParseAddressList(strings.Join(fieldOf(sent, "To"), "|")); err != nil || len(list) != 1 || list[0].Address != "a@x.example" {
			t.Errorf("%s: %q: %v", name, fieldOf(sent, "To"), err)
		}
	}
}

// A Message-ID that is none carries nothing: ours takes its place (rules §2).
func TestUnusableMessageIDIsReplaced(t *testing.T) {
	for _, id := range []string{"Message-ID: \r\n", "Message-ID: not an id\r\n", "message-id: <>\r\nMessage-ID: x\r\n"} {
		o, out, head := opened(t, nil, "a@x.example")
		r, err := hand(t, out, gateway.RoleOutbound, "311@city.example", head+id+"To: a@x.example\r\n\r\n", "a@x.example")
		if err != nil {
			t.Fatal(err)
		}
		sent, _ := sentOf(t, o, r)
		if got := fieldOf(sent, "Message-Id"); len(got) != 1 || !strings.HasPrefix(got[0], "<m.") {
			t.Errorf("%q became %q", id, got)
		}
	}
}

// A list without anybody stays as it came.
func TestEmptyListsStay(t *testing.T) {
	o, out, head := opened(t, nil, "a@x.example")
	for i, to := range []string{"To: undisclosed-recipients:;\r\n", "To:\r\n", "To: (none)\r\n"} {
		r, err := hand(t, out, gateway.RoleOutbound, "311@city.example", head+to+"\r\n"+fmt.Sprint(i)+"\r\n", "c@x.example")
		if err != nil {
			t.Fatal(err)
		}
		if sent, d := sentOf(t, o, r); !strings.Contains(sent, to) || !slices.Equal(rcpts(d), []string{"c@x.example"}) {
			t.Errorf("%q: %q, %q", to, sent, rcpts(d))
		}
	}
}

// Who was removed stands in no other field either (security 45).
func TestNoRemovedAddressInAnyField(t *testing.T) {
	o, out, head := opened(t, nil, "a@x.example")
	ana := store.Contact{ID: store.NewID(), Kind: store.Registered, EmailAddresses: []store.EmailAddress{{Address: "a@x.example"}, {Address: "ana@work.example"}}}
	err := o.Store.Update(context.Background(), func(tx store.Tx) error { return tx.PutContact(ana) })
	if err != nil {
		t.Fatal(err)
	}
	eml := head + "To: a@x.example\r\nCc: ana@work.example\r\nResent-To: ana@work.example\r\nResent-Cc: Ana <ana@work.example>\r\nResent-Bcc: ana@work.example\r\nMail-Followup-To: a@x.example,\r\n ana@work.example\r\nMail-Reply-To: ana@work.example\r\n\r\n"
	r, err := hand(t, out, gateway.RoleOutbound, "311@city.example", eml, "a@x.example", "ana@work.example")
	if err != nil {
		t.Fatal(err)
	}
	if sent, d := sentOf(t, o, r); strings.Contains(sent, "ana@work") || !slices.Equal(rcpts(d), []string{"a@x.example"}) {
		t.Errorf("%q %q", sent, rcpts(d))
	}
}

// X-Case-* go; what another system needs to know its own mail by stays (O13).
func TestOnlyOurControlFieldsLeaveOutbound(t *testing.T) {
	o, out, head := opened(t, nil, "a@x.example")
	r, err := hand(t, out, gateway.RoleOutbound, "311@city.example", head+"X-RT-Loop-Prevention: rt\r\nX-Case-Number: 1\r\nTo: a@x.example\r\n\r\n", "a@x.example")
	if err != nil {
		t.Fatal(err)
	}
	if sent, _ := sentOf(t, o, r); !strings.Contains(sent, "X-RT-Loop-Prevention: rt\r\n") || strings.Contains(sent, "X-Case-Number") {
		t.Error(sent)
	}
}

// A DKIM signature goes if, and only if, it covers what was rewritten (rules §6).
func TestBrokenSignaturesGo(t *testing.T) {
	for fields, stays := range map[string]bool{
		"from:to:reply-to": false, "From : References": false, "from:subject:date": true, "from:cc": false, "from:message-id": false,
	} {
		o, out, head := opened(t, nil, "Ana <a@x.example>")
		sig := "DKIM-Signature: v=1; a=rsa-sha256; d=city.example;\r\n\th=" + fields + "; bh=x; b=y\r\n"
		r, err := hand(t, out, gateway.RoleOutbound, "311@city.example", sig+head+"To: a@x.example\r\nCc: 311@city.example\r\n\r\n", "a@x.example", "311@city.example")
		if err != nil {
			t.Fatal(err)
		}
		if sent, _ := sentOf(t, o, r); strings.Contains(sent, "DKIM-Signature") != stays {
			t.Errorf("%s: stays %v: %s", fields, !stays, sent)
		}
	}
}

// A Bcc that only the normalised line ends show is a Bcc (O10).
func TestBccBehindABareCR(t *testing.T) {
	for _, bcc := range []string{"Subject: x\rBcc: secret@x.example\r\n", "Subject: x\nBcc: secret@x.example\n", "X: y\rBcc: secret@x.example\r\tmore@x.example\rZ: z\r\n"} {
		o, out, head := opened(t, nil, "a@x.example")
		r, err := hand(t, out, gateway.RoleOutbound, "311@city.example", head+"To: a@x.example\r\n"+bcc+"\r\nbody\r\n", "a@x.example", "secret@x.example")
		if err != nil {
			t.Fatal(err)
		}
		id, _ := store.ParseID(r.ID)
		received, sent := export(t, o.Store, id, store.AsReceived), export(t, o.Store, id, store.AsSent)
		h, _, _ := strings.Cut(strings.ReplaceAll(received, "\r\n", "\n"), "\n\n")
		h2, _, _ := strings.Cut(sent, "\r\n\r\n")
		if strings.Contains(h+h2, "secret") {
			t.Errorf("%q: %q | %q", bcc, received, sent)
		}
		var findings []store.Finding
		if _, err := o.Store.Verify(context.Background(), func(f store.Finding) { findings = append(findings, f) }); err != nil || len(findings) > 0 {
			t.Error(findings, err)
		}
	}
}

// Lines that are no fields, behind line ends that are made CRLF: what is read of
// the header is longer than what came.
func TestJunkBehindBareNewlines(t *testing.T) {
	for _, end := range []string{"\n", "\r"} {
		o := desk(t, nil)
		eml := "From: a@x.example\nTo: 311@city.example\nSubject: " + end + strings.Repeat("a line that is no field"+end, 50) + "\nhello\n"
		r, err := hand(t, gateway.NewInbound(o, gateway.Intake{}), gateway.RoleInbound, "a@x.example", eml, "311@city.example")
		if err != nil || !strings.HasSuffix(r.Text, "case 1") {
			t.Errorf("%q: %v %v", end, r, err)
		}
	}
}

// On a trusted form's listener Reply-To is the sender (rules §4).
func TestFormsSpeakByReplyTo(t *testing.T) {
	o := desk(t, nil)
	form := gateway.NewInbound(o, gateway.Intake{TrustedForm: true})
	eml := "From: Form <form@city.example>\r\nReply-To: Cleo <cleo@x.example>\r\nX-Case-Customer: guest\r\nTo: 311@city.example\r\n\r\nhello\r\n"
	r, err := hand(t, form, gateway.RoleInbound, "form@city.example", eml, "311@city.example")
	if err != nil {
		t.Fatal(err)
	}
	id, _ := store.ParseID(r.ID)
	var m store.Message
	var c []store.Contact
	err = o.Store.View(context.Background(), func(rd store.Reader) (err error) {
		if m, err = rd.Message(id); err != nil {
			return err
		}
		c, _, err = rd.Contacts(store.ContactFilter{Address: "cleo@x.example"}, store.Page{})
		return err
	})
	if err != nil || len(c) != 1 || m.From != "cleo@x.example" || m.Parties[0].AddressUsed != "cleo@x.example" || m.Parties[0].Party.ID != c[0].ID {
		t.Errorf("%v %+v %+v", err, c, m)
	}
}

// A mail on the exceptions list is a duplicate too when it comes again, token or
// not (I1).
func TestExceptionsAreKeptOnce(t *testing.T) {
	o, out, head := opened(t, nil, "a@x.example")
	r, err := hand(t, out, gateway.RoleOutbound, "311@city.example", head+"To: a@x.example\r\n\r\n", "a@x.example")
	if err != nil {
		t.Fatal(err)
	}
	_, d := sentOf(t, o, r)
	in := gateway.NewInbound(o, gateway.Intake{})
	dsn := "Message-ID: <dsn@x.example>\r\nFrom: mailer-daemon@x.example\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b--\r\n"
	first, err := hand(t, in, gateway.RoleInbound, "<>", dsn, d.From)
	if err != nil {
		t.Fatal(err)
	}
	again, err := hand(t, in, gateway.RoleInbound, "<>", dsn, d.From)
	if err != nil || again != first {
		t.Error(first, again, err)
	}
}

// What is copied into records does not grow with the header.
func TestHugeThreadIndex(t *testing.T) {
	o := desk(t, nil)
	eml := "Message-ID: <first@x.example>\r\nFrom: a@x.example\r\nTo: 311@city.example\r\nSubject: " + strings.Repeat("s", 300<<10) + "\r\nThread-Index: " + strings.Repeat("AAAA", 100<<10) + "\r\n\r\nout\r\n"
	r, err := hand(t, gateway.NewInbound(o, gateway.Intake{}), gateway.RoleInbound, "a@x.example", eml, "311@city.example")
	if err != nil {
		t.Fatal(err)
	}
	id, _ := store.ParseID(r.ID)
	o.Store.View(context.Background(), func(rd store.Reader) error {
		m, _ := rd.Message(id)
		c, _ := rd.Case(1)
		if len(m.ThreadIndex) > 1000 || len(c.Title) > 1000 {
			t.Error(len(m.ThreadIndex), len(c.Title))
		}
		return nil
	})
}

// A customer without an address is answered where his mail came from (O4).
func TestOriginalSenderIsTheLastResort(t *testing.T) {
	o := desk(t, nil)
	cleo := store.Contact{ID: store.NewID(), Kind: store.Registered, Name: "Cleo"}
	if err := o.Store.Update(context.Background(), func(tx store.Tx) error { return tx.PutContact(cleo) }); err != nil {
		t.Fatal(err)
	}
	eml := "Message-ID: <first@x.example>\r\nFrom: cleo@x.example\r\nX-Case-Customer: " + cleo.ID.String() + "\r\nTo: 311@city.example\r\n\r\nhello\r\n"
	if _, err := hand(t, gateway.NewInbound(o, gateway.Intake{TrustedForm: true}), gateway.RoleInbound, "form@city.example", eml, "311@city.example"); err != nil {
		t.Fatal(err)
	}
	out := gateway.NewOutbound(o, gateway.Submitters{Setting: "send_as"})
	r, err := hand(t, out, gateway.RoleOutbound, "311@city.example", "From: 311@city.example\r\nIn-Reply-To: <first@x.example>\r\nTo: 311@city.example\r\n\r\n", "311@city.example")
	if err != nil {
		t.Fatal(err)
	}
	if sent, d := sentOf(t, o, r); !slices.Equal(rcpts(d), []string{"cleo@x.example"}) || !slices.Equal(fieldOf(sent, "To"), []string{`"Cleo" <cleo@x.example>`}) {
		t.Error(rcpts(d), sent)
	}
}

// The token leaves the address that the desk's server gets; what the sender
// asked to be told of the delivery does not.
func TestNotifySurvivesTheToken(t *testing.T) {
	o, out, head := opened(t, nil, "a@x.example")
	r, err := hand(t, out, gateway.RoleOutbound, "311@city.example", head+"To: a@x.example\r\n\r\n", "a@x.example")
	if err != nil {
		t.Fatal(err)
	}
	_, asked := sentOf(t, o, r)
	in := gateway.NewInbound(o, gateway.Intake{})
	env := &gateway.Envelope{
		Listener: "test", Role: gateway.RoleInbound, Protocol: "ESMTP", From: path(t, "a@x.example"),
		Recipients: []gateway.Recipient{{Path: path(t, asked.From), Notify: []string{"NEVER"}}},
	}
	sink, err := in.Spool(context.Background(), env)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Discard()
	sink.Write([]byte("Message-ID: <r@x.example>\r\nFrom: a@x.example\r\n\r\nthanks\r\n"))
	if r, err = in.Accept(context.Background(), env, sink); err != nil {
		t.Fatal(err)
	}
	_, d := sentOf(t, o, r)
	if got := d.Recipients; len(got) != 1 || got[0].Address != "311@city.example" || !slices.Equal(got[0].Notify, []string{"NEVER"}) {
		t.Errorf("%+v", got)
	}
}

var errUndone = errors.New("undone")

// twice is a store that runs each Update, takes it back, and runs it again, as
// a batched transaction may.
type twice struct{ store.Store }

func (s twice) Update(ctx context.Context, fn func(store.Tx) error) error {
	err := s.Store.Update(ctx, func(tx store.Tx) error { return cmp.Or(fn(tx), errUndone) })
	if !errors.Is(err, errUndone) {
		return err
	}
	return s.Store.Update(ctx, fn)
}

// Run twice, decided once.
func TestRunTwice(t *testing.T) {
	o, out, head := opened(t, func(o *gateway.Options) { o.Store = twice{o.Store} }, "a@x.example")
	r, err := hand(t, out, gateway.RoleOutbound, "311@city.example", head+"To: a@x.example\r\nCc: 311@city.example\r\nBcc: c@x.example\r\n\r\nhi\r\n", "a@x.example", "c@x.example", "311@city.example")
	if err != nil {
		t.Fatal(err)
	}
	_, d := sentOf(t, o, r)
	in := gateway.NewInbound(o, gateway.Intake{})
	for range 2 {
		again, err := hand(t, in, gateway.RoleInbound, "a@x.example", "Message-ID: <r@x.example>\r\nFrom: a@x.example\r\n\r\nthanks\r\n", d.From)
		if err != nil || !strings.HasSuffix(again.Text, "case 1") {
			t.Fatal(again, err)
		}
	}
	counts, err := o.Store.Verify(context.Background(), func(f store.Finding) { t.Error(f) })
	if err != nil || counts.Cases != 1 || counts.Contacts != 1 || counts.Messages != 3 {
		t.Errorf("%+v %v", counts, err)
	}
	var c store.Case
	o.Store.View(context.Background(), func(rd store.Reader) (err error) { c, err = rd.Case(1); return err })
	if c.Ordinal != 3 {
		t.Error(c.Ordinal)
	}
}

// No field, however full, costs more than its reading.
func TestHostileFields(t *testing.T) {
	block := map[string]string{
		"x-case-ref":      strings.Repeat("X-Case-Ref: aeaqaaaaaaaqaaacopdvb2acpvrhgufwqwxq\r\n", 9000),
		"dkim":            strings.Repeat("DKIM-Signature: h=a:b:c:d:e:f:g:reply-to-x\r\n", 9000),
		"received":        strings.Repeat("Received: from a by gw.city.example (casegate inbound) x\r\n", 9000),
		"one dkim":        "DKIM-Signature: h=" + strings.Repeat("a:b:c:d:", 100<<10) + "\r\n",
		"names":           strings.Repeat("A: b\r\n", 9000),
		"tokens in To":    "To: " + strings.Repeat("311+aeaqaaaaaaaqaaacopdvb2acpvrhgufwqwxq@city.example,\r\n ", 9000) + "\r\n",
		"groups":          "To: " + strings.Repeat("g:a@b;\r\n ", 90000) + "\r\n",
		"parentheses":     "To: " + strings.Repeat("(", 900<<10) + "\r\n",
		"one address":     "To: " + strings.Repeat("a@b,", 200<<10) + "\r\n",
		"references":      "References: " + strings.Repeat("<case.aeaqaaaaaaaqaaacopdvb2acpvrhgufwqwxq@x>\r\n ", 15000) + "\r\n",
		"received fields": strings.Repeat("To: a@b\r\n", 9990),
	}
	for name, fields := range block {
		o, out, head := opened(t, nil, "a@x.example")
		in := gateway.NewInbound(o, gateway.Intake{})
		for _, run := range []func() error{
			func() error {
				_, err := hand(t, in, gateway.RoleInbound, "a@x.example", "From: a@x.example\r\n"+fields+"\r\n", "311@city.example")
				return err
			},
			func() error {
				_, err := hand(t, out, gateway.RoleOutbound, "a@x.example", head+fields+"To: a@x.example\r\n\r\n", "a@x.example")
				if err != nil && strings.Contains(err.Error(), "too many") {
					err = nil
				}
				return err
			},
		} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			err := run()
			runtime.ReadMemStats(&after)
			if d := time.Since(start); err != nil || d > time.Second {
				t.Errorf("%s: %v, %v", name, d, err)
			} else {
				t.Logf("%s: %v, %d MB", name, d, (after.TotalAlloc-before.TotalAlloc)>>20)
			}
		}
	}
}
