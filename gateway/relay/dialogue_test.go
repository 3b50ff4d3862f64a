package relay

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/casegate/casegate/store"
)

const eml = "From: desk@city.example\r\nSubject: streetlight\r\n\r\n.dot\r\nfixed.\r\n"

const hello = `
	S: 220 mx.example ready
	C: EHLO gw.city.example
`

// envelopes of one and of three recipients, answered one by one.
const (
	slow  = "S: 250 mx.example\n"
	fast  = "S: 250-mx.example\nS: 250-pipelining\nS: 250 8BitMime\n"
	eight = "S: 250-mx.example\nS: 250 8BITMIME\n"
	data  = "C: DATA\nS: 354 go\nD:\nS: 250 2.0.0 ok\n"
	mail1 = "C: MAIL FROM:<desk@city.example> BODY=8BITMIME\nS: 250 ok\nC: RCPT TO:<ana@x.example>\nS: 250 ok\n"
	three = `
		C: MAIL FROM:<desk@city.example> BODY=8BITMIME
		C: RCPT TO:<ana@x.example>
		C: RCPT TO:<ben@x.example>
		C: RCPT TO:<eva@x.example>
		C: DATA
	`
)

// outcome is what a delivery comes to, in short.
type outcome struct {
	State      store.DeliveryState
	Recipients []string // state and reply
	Attempts   []string // result and reply
	Mails      int
}

func outcomeOf(d store.Delivery, p *peer) outcome {
	o := outcome{State: d.State}
	for _, to := range d.Recipients {
		o.Recipients = append(o.Recipients, strings.TrimSpace(fmt.Sprintf("%s %s", to.State, to.Reply)))
	}
	for _, a := range d.Attempts {
		s := a.Result + " " + a.Reply
		if a.Ambiguous {
			s = "ambiguous " + s
		}
		o.Attempts = append(o.Attempts, s)
	}
	_, mails := p.seen()
	o.Mails = len(mails)
	return o
}

// dialogue is one attempt at one delivery.
type dialogue struct {
	name, script string
	hop          string   // "": smtp://127.0.0.1:2526
	to           []string // nil: ana@x.example
	mail         mail
	edit         func(*store.Delivery)
	want         outcome
}

// dialogues are what an attempt may meet.
var dialogues = []dialogue{
	{name: "one by one", script: hello + eight + mail1 + data,
		want: outcome{store.Delivered, []string{"delivered 250 2.0.0 ok"}, []string{"delivered 250 2.0.0 ok"}, 1}},
	{name: "all at once", script: hello + fast + "C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nD:\nS: 250 2.0.0 ok",
		want: outcome{store.Delivered, []string{"delivered 250 2.0.0 ok"}, []string{"delivered 250 2.0.0 ok"}, 1}},
	{name: "EHLO unknown", script: hello + "S: 502 what?\nC: HELO gw.city.example\nS: 250 mx\nC: MAIL FROM:<desk@city.example>\nS: 250 ok\nC: RCPT TO:<ana@x.example>\nS: 250 ok\n" + data,
		want: outcome{store.Delivered, []string{"delivered 250 2.0.0 ok"}, []string{"delivered 250 2.0.0 ok"}, 1}},
	{name: "a 5xx greeting is about the next hop", script: "S: 554 no service here",
		want: outcome{store.Queued, []string{"queued 4.4.1 the greeting is 554 no service here"}, []string{"deferred 4.4.1 the greeting is 554 no service here"}, 0}},
	{name: "slow to greet", script: "W: 4m\n" + hello + eight + mail1 + data,
		want: outcome{store.Delivered, []string{"delivered 250 2.0.0 ok"}, []string{"delivered 250 2.0.0 ok"}, 1}},
	{name: "too slow to greet", script: "W: 6m",
		want: outcome{store.Queued, []string{"queued 4.4.1 waiting for the greeting: read pipe: i/o timeout"}, []string{"deferred 4.4.1 waiting for the greeting: read pipe: i/o timeout"}, 0}},
	{name: "5xx for one of three", to: []string{"ana@x.example", "ben@x.example", "eva@x.example"},
		script: hello + fast + three + "S: 250 ok\nS: 250 ok\nS: 550 5.1.1 <ben@x.example> unknown\nS: 250 ok\nS: 354 go\nD:\nS: 250 2.0.0 ok",
		want: outcome{store.Failed, []string{"delivered 250 2.0.0 ok", "failed 550 5.1.1 <ben@x.example> unknown", "delivered 250 2.0.0 ok"},
			[]string{"failed 550 5.1.1 (1 of 3 recipients)"}, 1}},
	{name: "one of each", to: []string{"ana@x.example", "ben@x.example", "eva@x.example"},
		script: hello + fast + three + "S: 250 ok\nS: 250 ok\nS: 550 5.1.1 no\nS: 450 4.2.1 later\nS: 354 go\nD:\nS: 250 2.0.0 ok",
		want: outcome{store.Queued, []string{"delivered 250 2.0.0 ok", "failed 550 5.1.1 no", "queued 450 4.2.1 later"},
			[]string{"deferred 450 4.2.1 (1 of 3 recipients)"}, 1}},
	{name: "no recipient taken, yet 354: no empty message", script: hello + fast + "C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 550 5.1.1 no\nS: 354 go",
		want: outcome{store.Failed, []string{"failed 550 5.1.1 no"}, []string{"failed 550 5.1.1 (1 of 1 recipients)"}, 0}},
	{name: "no recipient taken", script: hello + eight + "C: MAIL*\nS: 250 ok\nC: RCPT*\nS: 550 5.1.1 no\nC: RSET\nS: 250 ok",
		want: outcome{store.Failed, []string{"failed 550 5.1.1 no"}, []string{"failed 550 5.1.1 (1 of 1 recipients)"}, 0}},
	{name: "MAIL refused", script: hello + fast + "C: MAIL*\nC: RCPT*\nC: DATA\nS: 550 5.7.1 not you\nS: 503 no\nS: 503 no",
		want: outcome{store.Failed, []string{"failed 550 5.7.1 not you"}, []string{"failed 550 5.7.1 not you"}, 0}},
	{name: "wants TLS first", script: hello + eight + "C: MAIL*\nS: 530 5.7.0 must issue STARTTLS first",
		want: outcome{store.Queued, []string{"queued 530 5.7.0 must issue STARTTLS first"}, []string{"deferred 530 5.7.0 must issue STARTTLS first"}, 0}},
	{name: "DATA refused for now", script: hello + eight + mail1 + "C: DATA\nS: 451 4.3.0 disk\nC: RSET\nS: 250 ok",
		want: outcome{store.Queued, []string{"queued 451 4.3.0 disk"}, []string{"deferred 451 4.3.0 disk"}, 0}},
	{name: "DATA answered with nonsense", script: hello + eight + mail1 + "C: DATA\nS: 250 ok",
		want: outcome{store.Queued, []string{"queued 4.5.0 the answer to DATA is 250 ok"}, []string{"deferred 4.5.0 the answer to DATA is 250 ok"}, 0}},
	{name: "out of step: no reply can be trusted", to: []string{"ana@x.example", "ben@x.example", "eva@x.example"},
		script: hello + fast + three + "S: 250 unasked\nS: 250 ok\nS: 550 5.1.1 ana is unknown\nS: 250 ok\nS: 250 ok",
		want: outcome{store.Queued, []string{"queued 4.5.0 the answer to DATA is 250 ok", "queued 4.5.0 the answer to DATA is 250 ok", "queued 4.5.0 the answer to DATA is 250 ok"},
			[]string{"deferred 4.5.0 the answer to DATA is 250 ok"}, 0}},
	{name: "taken before it is sent", script: hello + eight + mail1 + "C: DATA\nS: 354 go|250 2.0.0 ok\nA:",
		want: outcome{store.Queued, []string{"queued 4.5.0 the message was answered before it was sent"}, []string{"deferred 4.5.0 the message was answered before it was sent"}, 0}},
	{name: "refused before it is sent", script: hello + eight + mail1 + "C: DATA\nS: 354 go|552 5.3.4 too much\nA:",
		want: outcome{store.Failed, []string{"failed 552 5.3.4 too much"}, []string{"failed 552 5.3.4 too much"}, 0}},
	{name: "a reply that changes its mind", script: hello + eight + mail1 + "C: DATA\nS: 354 go\nD:\nS: 250-2.0.0 ok|554 5.6.0 no",
		want: outcome{store.Queued, []string{"queued 4.4.2 no reply to the final dot, it may have been taken: the next hop's reply makes no sense: it changes from 250 to 554"},
			[]string{"ambiguous deferred 4.4.2 no reply to the final dot, it may have been taken: the next hop's reply makes no sense: it changes from 250 to 554"}, 1}},
	{name: "ten thousand lines after the dot", script: hello + eight + mail1 + "C: DATA\nS: 354 go\nD:\nS: " + strings.Repeat("250-ok|", 10000) + "250 ok",
		want: outcome{store.Queued, []string{"queued 4.4.2 no reply to the final dot, it may have been taken: the next hop's reply makes no sense: more than 128 lines"},
			[]string{"ambiguous deferred 4.4.2 no reply to the final dot, it may have been taken: the next hop's reply makes no sense: more than 128 lines"}, 1}},
	{name: "lines of more than 998 octets leave as they are", mail: mail{header: "A: " + strings.Repeat("b", 3000) + "\r\n\r\n", body: strings.Repeat("c", 70000) + "\r\n"}, script: hello + eight + mail1 + data,
		want: outcome{store.Delivered, []string{"delivered 250 2.0.0 ok"}, []string{"delivered 250 2.0.0 ok"}, 1}},
	{name: "a header that has bare LF only", mail: mail{header: "A: b\nC: d\n\n", body: "end\n"}, script: hello,
		want: outcome{store.Failed, []string{"failed 5.6.0 not sent: the message has an LF without CR"}, []string{"failed 5.6.0 not sent: the message has an LF without CR"}, 0}},
	{name: "an address with a NUL", to: []string{"ana\x00@x.example"}, script: hello + eight,
		want: outcome{store.Failed, []string{"failed 5.1.3 the address cannot be sent as it is written"}, []string{"failed 5.1.3 (1 of 1 recipients)"}, 0}},
	{name: "4xx after the dot is no doubt", script: hello + eight + mail1 + "C: DATA\nS: 354 go\nD:\nS: 451 4.7.1 greylisted",
		want: outcome{store.Queued, []string{"queued 451 4.7.1 greylisted"}, []string{"deferred 451 4.7.1 greylisted"}, 1}},
	{name: "5xx after the dot", script: hello + eight + mail1 + "C: DATA\nS: 354 go\nD:\nS: 554 5.6.0 spam",
		want: outcome{store.Failed, []string{"failed 554 5.6.0 spam"}, []string{"failed 554 5.6.0 spam"}, 1}},
	{name: "hangs up after the dot", script: hello + eight + mail1 + "C: DATA\nS: 354 go\nD:\nH:",
		want: outcome{store.Queued, []string{"queued 4.4.2 no reply to the final dot, it may have been taken: the next hop hung up"},
			[]string{"ambiguous deferred 4.4.2 no reply to the final dot, it may have been taken: the next hop hung up"}, 1}},
	{name: "no reply to the dot for nine minutes is fine", script: hello + eight + mail1 + "C: DATA\nS: 354 go\nD:\nW: 9m\nS: 250 2.0.0 ok",
		want: outcome{store.Delivered, []string{"delivered 250 2.0.0 ok"}, []string{"delivered 250 2.0.0 ok"}, 1}},
	{name: "no reply to the dot for eleven minutes", script: hello + eight + mail1 + "C: DATA\nS: 354 go\nD:\nW: 11m",
		want: outcome{store.Queued, []string{"queued 4.4.2 no reply to the final dot, it may have been taken: read pipe: i/o timeout"},
			[]string{"ambiguous deferred 4.4.2 no reply to the final dot, it may have been taken: read pipe: i/o timeout"}, 1}},
	{name: "hangs up in mid body", mail: mail{header: "A: b\r\n\r\n", body: strings.Repeat("line\r\n", 50000)}, script: hello + eight + mail1 + "C: DATA\nS: 354 go\nR: 70000\nH:",
		want: outcome{store.Queued, []string{"queued 4.4.2 connection lost at the message: io: read/write on closed pipe"},
			[]string{"deferred 4.4.2 connection lost at the message: io: read/write on closed pipe"}, 0}},
	{name: "hangs up at MAIL", script: hello + eight + "C: MAIL*\nH:",
		want: outcome{store.Queued, []string{"queued 4.4.2 connection lost at MAIL: the next hop hung up"},
			[]string{"deferred 4.4.2 connection lost at MAIL: the next hop hung up"}, 0}},
	{name: "421 in the middle", script: hello + fast + "C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 421 4.3.2 going down\nH:",
		want: outcome{store.Queued, []string{"queued 4.4.2 connection lost at RCPT: the next hop is closing: 421 4.3.2 going down"},
			[]string{"deferred 4.4.2 connection lost at RCPT: the next hop is closing: 421 4.3.2 going down"}, 0}},
	{name: "replies with controls are kept harmless", script: hello + eight + "C: MAIL*\nS: 550 5.7.1 a\x1b[31mb\x00c\u202ed\xff",
		want: outcome{store.Failed, []string{`failed 550 5.7.1 a\x1b[31mb\x00c\u202ed\xff`}, []string{`failed 550 5.7.1 a\x1b[31mb\x00c\u202ed\xff`}, 0}},
	{name: "a line without end", script: hello + "S: 250 " + strings.Repeat("x", 5000),
		want: outcome{store.Queued, []string{"queued 4.4.1 saying EHLO: the next hop's reply makes no sense: a line of more than 4096 octets"},
			[]string{"deferred 4.4.1 saying EHLO: the next hop's reply makes no sense: a line of more than 4096 octets"}, 0}},
	{name: "a reply without end", script: hello + strings.Repeat("S: 250-X\n", 128),
		want: outcome{store.Queued, []string{"queued 4.4.1 saying EHLO: the next hop's reply makes no sense: more than 128 lines"},
			[]string{"deferred 4.4.1 saying EHLO: the next hop's reply makes no sense: more than 128 lines"}, 0}},
	{name: "too large", script: hello + "S: 250-mx\nS: 250 SIZE 20",
		want: outcome{store.Failed, []string{"failed 5.3.4 the message has 63 octets, the next hop takes 20"},
			[]string{"failed 5.3.4 the message has 63 octets, the next hop takes 20"}, 0}},
	{name: "size is said", script: hello + "S: 250-mx\nS: 250-8BITMIME\nS: 250 Size\nC: MAIL FROM:<desk@city.example> BODY=8BITMIME SIZE=63\nS: 250 ok\nC: RCPT*\nS: 250 ok\n" + data,
		want: outcome{store.Delivered, []string{"delivered 250 2.0.0 ok"}, []string{"delivered 250 2.0.0 ok"}, 1}},
	{name: "8-bit not offered", mail: mail{header: "A: b\r\n\r\n", body: "gr\xfc\xdfe\r\n"}, script: hello + slow,
		want: outcome{store.Failed, []string{"failed 5.6.3 the message is 8-bit, and the next hop does not offer 8BITMIME"},
			[]string{"failed 5.6.3 the message is 8-bit, and the next hop does not offer 8BITMIME"}, 0}},
	{name: "8-bit not offered and not needed", script: hello + slow + "C: MAIL FROM:<desk@city.example>\nS: 250 ok\nC: RCPT*\nS: 250 ok\n" + data,
		want: outcome{store.Delivered, []string{"delivered 250 2.0.0 ok"}, []string{"delivered 250 2.0.0 ok"}, 1}},
	{name: "SMTPUTF8 not offered", to: []string{"ana@x.example", "jürgen@x.example"}, script: hello + eight + mail1 + data,
		want: outcome{store.Failed, []string{"delivered 250 2.0.0 ok", "failed 5.6.7 the address needs SMTPUTF8, which the next hop does not offer"},
			[]string{"failed 5.6.7 (1 of 2 recipients)"}, 1}},
	{name: "SMTPUTF8 asked for and not offered", edit: func(d *store.Delivery) { d.SMTPUTF8 = true }, script: hello + eight,
		want: outcome{store.Failed, []string{"failed 5.6.7 the message needs SMTPUTF8, which the next hop does not offer"},
			[]string{"failed 5.6.7 the message needs SMTPUTF8, which the next hop does not offer"}, 0}},
	{name: "SMTPUTF8 offered", to: []string{"jürgen@x.example"}, script: hello + "S: 250-mx\nS: 250-SMTPUTF8\nS: 250 8BITMIME\nC: MAIL FROM:<desk@city.example> BODY=8BITMIME SMTPUTF8\nS: 250 ok\nC: RCPT TO:<jürgen@x.example>\nS: 250 ok\n" + data,
		want: outcome{store.Delivered, []string{"delivered 250 2.0.0 ok"}, []string{"delivered 250 2.0.0 ok"}, 1}},
	{name: "DSN offered", script: hello + "S: 250-mx\nS: 250-DSN\nS: 250 8BITMIME\nC: MAIL FROM:<> BODY=8BITMIME RET=HDRS ENVID=QQ+2B+3D314+0D+0A\nS: 250 ok\n" +
		"C: RCPT TO:<ana@x.example> NOTIFY=FAILURE,DELAY ORCPT=rfc822;a+2Bb@x.example\nS: 250 ok\n" + data,
		edit: func(d *store.Delivery) {
			d.From, d.RET, d.EnvID = "", "HDRS", "QQ+=314\r\n"
			d.Recipients[0].Notify, d.Recipients[0].ORcpt = []string{"failure", "delay", "bogus>"}, "rfc822;a+b@x.example"
		},
		want: outcome{store.Delivered, []string{"delivered 250 2.0.0 ok"}, []string{"delivered 250 2.0.0 ok"}, 1}},
	{name: "an address that would be a command", to: []string{"ana@x.example>\r\nRCPT TO:<eva@x.example"}, script: hello + eight,
		want: outcome{store.Failed, []string{"failed 5.1.3 the address cannot be sent as it is written"}, []string{"failed 5.1.3 (1 of 1 recipients)"}, 0}},
	{name: "a sender that would be a parameter", edit: func(d *store.Delivery) { d.From = "a@b> SIZE=1" }, script: hello + eight,
		want: outcome{store.Failed, []string{"failed 5.1.7 the sender's address cannot be sent as it is written"},
			[]string{"failed 5.1.7 the sender's address cannot be sent as it is written"}, 0}},
	{name: "bare LF in a short message: nobody is troubled", mail: mail{header: "A: b\r\n\r\n", body: "a\n.\r\nb\r\n"}, script: hello,
		want: outcome{store.Failed, []string{"failed 5.6.0 not sent: the message has an LF without CR"}, []string{"failed 5.6.0 not sent: the message has an LF without CR"}, 0}},
	{name: "bare CR far behind", mail: mail{header: "A: b\r\n\r\n", body: strings.Repeat("line\r\n", 20000) + "\r.\r\r\n"}, script: hello + eight + mail1 + "C: DATA\nS: 354 go\nA:",
		want: outcome{store.Failed, []string{"failed 5.6.0 not sent: the message has a CR without LF"}, []string{"failed 5.6.0 not sent: the message has a CR without LF"}, 0}},
	{name: "no final CRLF", mail: mail{header: "A: b\r\n\r\n", body: "end"}, script: hello,
		want: outcome{store.Failed, []string{"failed 5.6.0 not sent: the message does not end in CRLF"}, []string{"failed 5.6.0 not sent: the message does not end in CRLF"}, 0}},
	{name: "the archive fails in the middle", mail: mail{header: "A: b\r\n\r\n", body: strings.Repeat("line\r\n", 20000), torn: errors.New("disk on fire")}, script: hello + eight + mail1 + "C: DATA\nS: 354 go\nA:",
		want: outcome{store.Queued, []string{"queued 4.3.0 not sent: reading message ID: disk on fire"}, []string{"deferred 4.3.0 not sent: reading message ID: disk on fire"}, 0}},
	{name: "the archive is torn", mail: mail{header: "A: b\r\n\r\n", body: "line\r\n", msg: store.Message{Archived: store.Archived{SentSize: 99}}}, script: hello,
		want: outcome{store.Queued, []string{"queued 4.3.0 not sent: message ID has 14 octets where 99 were archived"}, []string{"deferred 4.3.0 not sent: message ID has 14 octets where 99 were archived"}, 0}},
	{name: "the message is gone", edit: func(d *store.Delivery) { d.Message = store.ID{1} }, script: hello,
		want: outcome{store.Held, []string{"queued 5.3.0 not sent, held: looking up message ID: not found"}, []string{"deferred 5.3.0 not sent, held: looking up message ID: not found"}, 0}},
}

// TestDialogues plays each dialogue with a delivery that is tried once. That
// no message but a whole one is ended with a dot is part of each: a peer keeps
// only what had one.
func TestDialogues(t *testing.T) {
	for _, c := range dialogues {
		t.Run(c.name, func(t *testing.T) { synctest.Test(t, c.play) })
	}
}

func (c dialogue) play(t *testing.T) {
	m, p := newMemory(), newPeer(t, c.script)
	if c.to == nil {
		c.to = []string{"ana@x.example"}
	}
	if c.mail.header == "" {
		header, body, _ := strings.Cut(eml, "\r\n\r\n")
		c.mail.header, c.mail.body = header+"\r\n\r\n", body
	}
	id := m.put(c.mail, time.Now(), c.to...)
	if c.edit != nil {
		m.change(id, c.edit)
	}
	opts := Options{Dial: p.Dial, Retry: []time.Duration{20 * time.Hour}}
	if c.hop != "" {
		opts.Routes = []Route{{Role: "outbound", NextHop: c.hop}}
	}
	_, stop := run(t, m, opts)
	time.Sleep(10 * time.Hour)
	synctest.Wait()
	stop()
	p.wg.Wait()
	got := outcomeOf(m.get(id), p)
	anonymous(&got, m.get(id).Message.String())
	if diff := cmp.Diff(c.want, got); diff != "" {
		t.Errorf("want - got +\n%s", diff)
	}
}

// anonymous replaces the message's id in replies.
func anonymous(o *outcome, id string) {
	for _, list := range [][]string{o.Recipients, o.Attempts} {
		for i := range list {
			list[i] = strings.ReplaceAll(list[i], id, "ID")
		}
	}
}
