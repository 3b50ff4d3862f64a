package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/mail"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/store"
)

// kept is what the store holds of a submission.
type kept struct {
	message    store.Message
	kase       store.Case
	deliveries []store.Delivery
	received   string
	sent       string
}

func keptOf(t *testing.T, o gateway.Options, r gateway.Receipt) (k kept) {
	t.Helper()
	id, err := store.ParseID(r.ID)
	if err != nil {
		t.Fatal(err)
	}
	err = o.Store.View(context.Background(), func(rd store.Reader) (err error) {
		if k.message, err = rd.Message(id); err != nil {
			return err
		}
		if k.message.Case != 0 {
			if k.kase, err = rd.Case(k.message.Case); err != nil {
				return err
			}
		}
		k.deliveries, _, err = rd.Deliveries(store.DeliveryFilter{Message: id}, store.Page{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	k.received, k.sent = export(t, o.Store, id, store.AsReceived), export(t, o.Store, id, store.AsSent)
	return k
}

func (k kept) mailed() (all []string) {
	for _, d := range k.deliveries {
		all = append(all, rcpts(d)...)
	}
	slices.Sort(all)
	return all
}

func (k kept) says(words string) bool {
	return strings.Contains(strings.Join(k.message.Decision.Reasons, "\n"), words)
}

// submit hands in what must be accepted.
func submit(t *testing.T, h gateway.Handler, eml string, to ...string) gateway.Receipt {
	t.Helper()
	r, err := hand(t, h, gateway.RoleOutbound, "311@city.example", eml, to...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// declined hands in what must not be, and returns the code and words of why.
func declined(t *testing.T, h gateway.Handler, eml string, to ...string) string {
	t.Helper()
	_, err := hand(t, h, gateway.RoleOutbound, "311@city.example", eml, to...)
	var v gateway.Verdict
	if !errors.As(err, &v) {
		t.Fatalf("not refused by a rule: %v", err)
	}
	return fmt.Sprintf("%d %s", v.Code, v.Text)
}

// sound runs verify.
func sound(t *testing.T, o gateway.Options) store.Counts {
	t.Helper()
	n, err := o.Store.Verify(context.Background(), func(f store.Finding) { t.Error(f) })
	if err != nil {
		t.Error(err)
	}
	return n
}

// One submission in four transactions, one of them repeated after a lost 250:
// one activity, one variant, each recipient once.
func TestSubmissionInParts(t *testing.T) {
	o, out, head := opened(t, nil, "Ann <ann@x.example>")
	eml := head + "Message-ID: <split@desk.example>\r\nTo: Ann <ann@x.example>\r\nCc: Ron <ron@x.example>, 311@city.example\r\n\r\nhello\r\n"
	first := submit(t, out, eml, "311@city.example", "ron@x.example")
	for _, to := range [][]string{{"ann@x.example"}, {"blind@x.example", "RON@x.example"}, {"blind@x.example"}, {"blind@x.example", "RON@x.example"}} {
		if r := submit(t, out, eml, to...); r != first {
			t.Errorf("%q: %+v, want %+v", to, r, first)
		}
	}
	k := keptOf(t, o, first)
	if got, want := k.mailed(), []string{"ann@x.example", "blind@x.example", "ron@x.example"}; !slices.Equal(got, want) {
		t.Errorf("mailed to %q, want %q", got, want)
	}
	for _, d := range k.deliveries {
		if d.Message != k.message.ID || d.From != k.deliveries[0].From || d.Case != 1 {
			t.Errorf("%+v", d)
		}
	}
	var blind []string
	for _, p := range k.message.Parties {
		if p.Role == store.RoleBCC {
			blind = append(blind, p.AddressUsed)
		}
	}
	if !slices.Equal(blind, []string{"blind@x.example"}) || !k.says("part 2 of the submission") || strings.Contains(k.sent, "blind") {
		t.Errorf("blind %q, %q\n%s", blind, k.message.Decision.Reasons, k.sent)
	}
	if n := sound(t, o); n.Messages != 2 || n.Cases != 1 {
		t.Errorf("%+v", n)
	}
	if k.kase.Ordinal != 2 {
		t.Errorf("%d activities", k.kase.Ordinal)
	}
}

// Without a Message-ID of its own a part is known by what it says.
func TestSubmissionInPartsWithoutMessageID(t *testing.T) {
	o, out, head := opened(t, nil, "Ann <ann@x.example>")
	eml := head + "To: 311@city.example\r\n\r\nhello\r\n"
	a, b := submit(t, out, eml, "311@city.example"), submit(t, out, eml, "ann@x.example")
	if k := keptOf(t, o, a); a != b || !slices.Equal(k.mailed(), []string{"ann@x.example"}) {
		t.Errorf("%+v %+v: %q", a, b, k.mailed())
	}
}

// The same bytes from one peer under two logins are two submissions, whole or in
// parts; the same login again is a repetition.
func TestSubmissionsOfTwoLogins(t *testing.T) {
	o, out, head := opened(t, nil, "Ann <ann@x.example>")
	for _, login := range []string{"eva@city.example", "ben@city.example"} {
		agent := store.Agent{ID: store.NewID(), Name: login, EmailAddresses: []string{login}, SendAs: []string{"311@city.example"}}
		if err := o.Store.Update(t.Context(), func(tx store.Tx) error { return tx.PutAgent(agent) }); err != nil {
			t.Fatal(err)
		}
	}
	eml := head + "Message-ID: <both@desk.example>\r\nTo: Ann <ann@x.example>\r\n\r\nhello\r\n"
	as := func(login string, to ...string) gateway.Receipt {
		t.Helper()
		env := &gateway.Envelope{Listener: "test", Role: gateway.RoleOutbound, Protocol: "ESMTPSA", Helo: "client.example", Login: login, From: path(t, "311@city.example")}
		for _, address := range to {
			env.Recipients = append(env.Recipients, gateway.Recipient{Path: path(t, address)})
		}
		sink, err := out.Spool(t.Context(), env)
		if err != nil {
			t.Fatal(err)
		}
		defer sink.Discard()
		if _, err := sink.Write([]byte(eml)); err != nil {
			t.Fatal(err)
		}
		r, err := out.Accept(t.Context(), env, sink)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	eva, ben := as("eva@city.example", "ann@x.example"), as("ben@city.example", "ann@x.example")
	if again := as("ben@city.example", "ann@x.example"); again != ben || eva == ben {
		t.Errorf("eva %+v, ben %+v, again %+v", eva, ben, again)
	}
	for login, r := range map[string]gateway.Receipt{"eva@city.example": eva, "ben@city.example": ben} {
		if part := as(login, "ron@x.example"); part != r {
			t.Errorf("a part by %s: %+v, want %+v", login, part, r)
		}
		if k := keptOf(t, o, r); k.message.Envelope.Login != login || !slices.Equal(k.mailed(), []string{"ann@x.example", "ron@x.example"}) {
			t.Errorf("%s: %+v mailed to %q", login, k.message.Envelope, k.mailed())
		}
	}
	sound(t, o)
}

func TestUncasedCreateOpensACase(t *testing.T) {
	o := desk(t, func(o *gateway.Options) { o.Settings.Uncased = "create" })
	out := gateway.NewOutbound(o, gateway.Submitters{Setting: "send_as"})
	eml := "From: City <311@city.example>\r\nTo: Nora <nora@x.example>\r\nSubject: Your permit\r\nMessage-ID: <p@desk.example>\r\n\r\nhello\r\n"
	r := submit(t, out, eml, "nora@x.example")
	k := keptOf(t, o, r)
	if k.kase.Number == 0 || !strings.HasSuffix(r.Text, fmt.Sprintf("case %d", k.kase.Number)) || k.kase.Title != "Your permit" || k.kase.Opener != "nora@x.example" {
		t.Fatalf("%s: %+v", r.Text, k.kase)
	}
	token := fieldOf(k.sent, "X-Case-Ref")[0]
	if d := k.deliveries[0]; d.From != "311+"+token+"@city.example" || d.Case != k.kase.Number {
		t.Errorf("%+v", d)
	}
	again := submit(t, out, eml, "nora@x.example")
	part := submit(t, out, eml, "311@city.example")
	if again != r || part != r {
		t.Errorf("%+v %+v", again, part)
	}
	back, err := hand(t, gateway.NewInbound(o, gateway.Intake{}), gateway.RoleInbound, "nora@x.example", "From: nora@x.example\r\nMessage-ID: <b@x.example>\r\n\r\nthanks\r\n", k.deliveries[0].From)
	if err != nil || !strings.HasSuffix(back.Text, fmt.Sprintf("case %d", k.kase.Number)) {
		t.Errorf("%+v %v", back, err)
	}
	if n := sound(t, o); n.Cases != 1 || n.Contacts != 1 {
		t.Errorf("%+v", n)
	}
	if why := declined(t, out, strings.Replace(eml, "nora@x.example", "nora@x.example>, <ron@x.example", 1), "nora@x.example", "ron@x.example"); !strings.HasPrefix(why, "550 ") || !strings.Contains(why, "2 outsiders") {
		t.Error(why)
	}
}

// The case's tag stands once in the subject, and nothing else of the field
// changes.
func TestSubjectTag(t *testing.T) {
	for given, want := range map[string]string{
		"Subject: Re: light\r\n":                           "Subject: Re: light [case 1]\r\n",
		"Subject: Re: light [case 1] again\r\n":            "Subject: Re: light [case 1] again\r\n",
		"SUBJECT:Re: =?utf-8?q?=5BCASE?= 1]\r\n":           "SUBJECT:Re: =?utf-8?q?=5BCASE?= 1]\r\n",
		"subject :\tRe: =?utf-8?q?J=C3=B6?=  \r\n":         "subject :\tRe: =?utf-8?q?J=C3=B6?= [case 1]  \r\n",
		"Subject: folded\r\n =?utf-8?q?J=C3=B6?=\r\n":      "Subject: folded\r\n =?utf-8?q?J=C3=B6?= [case 1]\r\n",
		"Subject: of another [case 7]\r\n":                 "Subject: of another [case 7] [case 1]\r\n",
		"Subject:\r\n":                                     "Subject: [case 1]\r\n",
		"":                                                 "Subject: [case 1]\r\n",
		"Subject: raw \xc3\xb6\xff\r\nSubject: second\r\n": "Subject: raw \xc3\xb6\xff [case 1]\r\nSubject: second\r\n",
	} {
		o, out, _ := opened(t, func(o *gateway.Options) { o.Settings.SubjectTag = true }, "ann@x.example")
		k := keptOf(t, o, submit(t, out, "From: 311@city.example\r\nIn-Reply-To: <first@x.example>\r\n"+given+"To: ann@x.example\r\n\r\nhello\r\n", "ann@x.example"))
		if !strings.Contains(k.sent, "\r\n"+want) || strings.Count(strings.ToLower(k.sent), "[case 1]") > 1 {
			t.Errorf("%q became %q", given, k.sent)
		}
	}
	o, out, _ := opened(t, func(o *gateway.Options) { o.Settings.SubjectTag = true }, "ann@x.example")
	if k := keptOf(t, o, submit(t, out, "From: 311@city.example\r\nSubject: Re: light [case 1]\r\nTo: ann@x.example\r\n\r\nhello\r\n", "ann@x.example")); k.message.Case != 1 || k.message.CorrelationMethod != "subject_token" {
		t.Errorf("case %d by %s", k.message.Case, k.message.CorrelationMethod)
	}
}

// What waits for a person is in the outbox, with the reason, and nobody is
// mailed before.
func TestHeld(t *testing.T) {
	o, out, head := opened(t, func(o *gateway.Options) { o.Settings.NewRecipients = "hold" }, "ann@x.example")
	k := keptOf(t, o, submit(t, out, head+"To: ann@x.example\r\nCc: new@x.example\r\n\r\nhello\r\n", "ann@x.example", "new@x.example"))
	d := k.deliveries[0]
	if len(k.deliveries) != 1 || d.State != store.Held || !strings.Contains(d.Recipients[0].Reply, "held until somebody releases it: new@x.example is on the case for the first time") {
		t.Errorf("%+v", d)
	}
	if list, err := o.Store.Claim(context.Background(), d.Due.Add(1), 1, 10, nil); err != nil || slices.ContainsFunc(list, func(c store.Delivery) bool { return c.Message == k.message.ID }) {
		t.Errorf("claimed: %+v %v", list, err)
	}
	if !slices.Contains(k.message.Flags, "held") || !slices.Contains(k.message.Flags, "new-recipient") || !k.says("held until a person releases it") {
		t.Errorf("%q %q", k.message.Flags, k.message.Decision.Reasons)
	}
}

// An outside directory that does not answer (on_unknown).
func TestOutboundDirectoryOut(t *testing.T) {
	out := errors.New("down")
	var asked []string
	o, _, head := opened(t, nil, "ann@x.example")
	o.Logger = slog.New(slog.DiscardHandler)
	o.Directory = func(_ context.Context, _ time.Time, addresses []string) error { asked = addresses; return out }
	h := gateway.NewOutbound(o, gateway.Submitters{})
	eml := head + "To: Ann <ann@x.example>\r\nCc: Ron <ron@x.example>, 311@city.example\r\n\r\nhello\r\n"
	if why := declined(t, h, eml, "ann@x.example", "ron@x.example", "blind@x.example"); !strings.HasPrefix(why, "451 the directory does not answer") {
		t.Error(why)
	}
	if !slices.Equal(asked, []string{"ann@x.example", "ron@x.example", "blind@x.example"}) {
		t.Errorf("asked for %q", asked)
	}
	o.Settings.OnUnknown = "text"
	k := keptOf(t, o, submit(t, gateway.NewOutbound(o, gateway.Submitters{}), eml, "ann@x.example", "ron@x.example"))
	if got := fieldOf(k.sent, "Cc"); !slices.Equal(got, []string{"ron@x.example"}) {
		t.Errorf("Cc %q", got)
	}
}

// X-Case-* of a trusted application steer, and go no further; those of others
// only go no further.
func TestControlHeadersSteer(t *testing.T) {
	o, _, _ := opened(t, nil, "ann@x.example")
	eml := "From: 311@city.example\r\nSubject: %s\r\nX-Case-Number: 1\r\nX-Case-Mode: reply\r\nTo: ron@x.example\r\n\r\nhello\r\n"
	k := keptOf(t, o, submit(t, gateway.NewOutbound(o, gateway.Submitters{ControlHeaders: true}), fmt.Sprintf(eml, "a"), "ron@x.example"))
	if k.message.Case != 1 || k.message.Internal || !slices.Equal(k.mailed(), []string{"ann@x.example", "ron@x.example"}) {
		t.Errorf("case %d, internal %v, mailed to %q", k.message.Case, k.message.Internal, k.mailed())
	}
	if h := fieldOf(k.sent, "X-Case-Number"); h != nil || fieldOf(k.sent, "X-Case-Mode") != nil || len(fieldOf(k.sent, "X-Case-Ref")) != 1 {
		t.Error(k.sent)
	}
	if k := keptOf(t, o, submit(t, gateway.NewOutbound(o, gateway.Submitters{}), fmt.Sprintf(eml, "b"), "ron@x.example")); k.message.Case != 0 {
		t.Errorf("case %d", k.message.Case)
	}
}

// A reply to the customer's own Reply-To is a reply (O0): the archive knows what
// his mail asked for.
func TestReplyToTheCustomersReplyTo(t *testing.T) {
	o, _, _ := opened(t, nil, "ann@x.example")
	first := "Message-ID: <second@x.example>\r\nFrom: Zoe <zoe@x.example>\r\nReply-To: Zoe at home <zoe@home.example>\r\nTo: 311@city.example\r\nSubject: bin\r\n\r\nfull\r\n"
	r, err := hand(t, gateway.NewInbound(o, gateway.Intake{}), gateway.RoleInbound, "zoe@x.example", first, "311@city.example")
	if err != nil {
		t.Fatal(err)
	}
	n := keptOf(t, o, r).message.Case
	out := gateway.NewOutbound(o, gateway.Submitters{})
	k := keptOf(t, o, submit(t, out, "From: 311@city.example\r\nIn-Reply-To: <second@x.example>\r\nSubject: Re: bin\r\nTo: zoe@home.example\r\n\r\nsoon\r\n", "zoe@home.example"))
	if k.message.Case != n || k.message.Internal || !slices.Equal(k.mailed(), []string{"zoe@home.example", "zoe@x.example"}) {
		t.Errorf("case %d, internal %v, mailed to %q: %q", k.message.Case, k.message.Internal, k.mailed(), k.message.Decision.Reasons)
	}
}

// The case's mailbox stands in From under the name that was given.
func TestSenderMailboxIsShown(t *testing.T) {
	o, out, _ := opened(t, func(o *gateway.Options) { o.Settings.Sender = "mailbox" }, "ann@x.example")
	err := o.Store.Update(context.Background(), func(tx store.Tx) error {
		return tx.PutAgent(store.Agent{ID: store.NewID(), Name: "Kim", EmailAddresses: []string{"kim@city.example"}})
	})
	if err != nil {
		t.Fatal(err)
	}
	k := keptOf(t, o, submit(t, out, "From: \"Kim, of the city\" <kim@city.example>\r\nIn-Reply-To: <first@x.example>\r\nTo: ann@x.example\r\n\r\nhello\r\n", "ann@x.example"))
	from, err := mail.ParseAddress(fieldOf(k.sent, "From")[0])
	if err != nil || from.Address != "311@city.example" || from.Name != "Kim, of the city" {
		t.Errorf("%v %v", from, err)
	}
}
