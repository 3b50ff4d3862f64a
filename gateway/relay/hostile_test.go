package relay

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/casegate/casegate/gateway/testbed"
	"github.com/casegate/casegate/store"
)

// nasty is what somebody might hope to get into a log, a terminal, a report.
const nasty = "a\x00b\x1b[31mc\rX-Evil: 1\x7f\xff\xfe\u202e\u2028\u0085<script>"

// stages of a session, in their order, and how a good reply to each begins.
var stages = [][2]string{{"greeting", "220"}, {"EHLO", "250"}, {"MAIL", "250"}, {"RCPT", "250"}, {"DATA", "354"}, {".", "250"}}

// moods are what a next hop may do at each stage. CODE stands for a good one.
// fate has a letter for each stage: what becomes of the mail is deferred,
// ambiguous and deferred, failed, or Delivered; ? is either, by chance.
var moods = []struct {
	name string
	do   func(code string) move
	fate string
}{
	{"says nothing", func(string) move { return mute }, "ddddda"},
	{"hangs up", func(string) move { return hangUp }, "ddddda"},
	{"resets the connection", func(string) move { return hangUpHard }, "ddddda"},
	{"an octet at a time, for ever", func(code string) move { return drip(code + "-still there\r\n") }, "ddddda"},
	{"421 and hangs up", text("421 4.3.2 "+nasty+"\r\n", hangUp), "dddddd"},
	{"421 and stays", text("421 4.3.2 bye\r\n", mute), "dddddd"},
	{"150", text("150 wait\r\n"), "ddddda"},
	{"650", text("650 what\r\n"), "ddddda"},
	{"000", text("000 what\r\n"), "ddddda"},
	{"2x0", text("2x0 ok\r\n"), "ddddda"},
	{"an empty line", text("\r\n"), "ddddda"},
	{"nothing but the code, in short", text("25\r\n"), "ddddda"},
	{"half a line", text("25", hangUp), "ddddda"},
	{"a line without its end", text("250 ok", hangUp), "ddddda"},
	{"a code and no blank", func(code string) move { return say(code + "_ok\r\n") }, "ddddda"},
	{"controls without a code", text(nasty + "\r\n"), "ddddda"},
	{"220", text("220 hi\r\n"), "DdDDdD"},
	{"250", text("250 hi\r\n"), "dDDDdD"},
	{"354", text("354 go\r\n"), "ddddDa"},
	{"the good reply for ever", func(code string) move { return pour(code + " ok\r\n") }, "dddddD"},
	{"a reply of endless lines", func(code string) move { return pour(code + "-ok\r\n") }, "ddddda"},
	{"a line without end", func(code string) move { return pour(code + " ok") }, "ddddda"},
	{"NUL without end", func(string) move { return pour("\x00") }, "ddddda"},
	{"a code that changes midway", func(code string) move { return say(code + "-ok\r\n550 no\r\n") }, "ddddda"},
	{"a refusal that changes midway", func(code string) move { return say("550-no\r\n" + code + " ok\r\n") }, "ddddda"},
	{"taken, with controls", func(code string) move { return say(code + " 2.0.0 " + nasty + "\r\n") }, "DDDDDD"},
	{"450, with controls", text("450 4.2.0 " + nasty + "\r\n"), "dddddd"},
	{"550, with controls", text("550 5.1.0 " + nasty + "\r\n"), "ddffff"},
	{"550 and a header field behind a bare LF", text("550 5.1.0 no\nX-Evil: 1\r\n"), "ddffff"},
	{"64 KiB in a line", text("550 " + strings.Repeat("x", 64<<10) + "\r\n"), "ddddda"},
	{"64 KiB in lines", text(strings.Repeat("550-"+strings.Repeat("\x01", 4000)+"\r\n", 16) + "550 no\r\n"), "ddffff"},
	{"taken, with the status of a failure", func(code string) move { return say(code + " 5.1.1 no\r\n") }, "DDDDDD"},
	{"refused, with the status of success", text("550 2.1.5 ok\r\n"), "ddffff"},
	{"refused, with no status at all", text("550 5..1 5.1. 5.12345.1\r\n"), "ddffff"},
	{"noise behind the good reply", func(code string) move { return say(code + " ok\r\n" + nasty + "\r\n") }, "dddddD"},
	{"noise behind a refusal", text("550 5.1.1 no\r\n\r\n"), "ddffff"},
	{"the good reply twice", func(code string) move { return say(strings.Repeat(code+" ok\r\n", 2)) }, "dddddD"},
	{"a refusal behind the good reply", func(code string) move { return say(code + " ok\r\n550 5.1.1 no\r\n") }, "ddddfa"},
	{"the good reply behind a refusal", func(code string) move { return say("550 5.1.1 no\r\n" + code + " ok\r\n") }, "ddddda"},
	{"goodbye behind a refusal", text("550 5.1.1 no\r\n421 bye\r\n", hangUp), "ddffff"},
	{"another reply a moment later", func(code string) move { return say(code+" ok\r\n", "250 unasked\r\n") }, "dddd?D"},
}

// text says the same at each stage.
func text(s string, then ...move) func(string) move {
	return func(string) move { return inTurn(append([]move{say(s)}, then...)...) }
}

// TestHostileReplies: whatever a next hop says or does at whatever stage, mail
// is lost, kept or counted as delivered by its own clear word alone.
func TestHostileReplies(t *testing.T) {
	var list []assault
	for _, m := range moods {
		for i, stage := range stages {
			want := map[byte]string{'d': "deferred ", 'a': "ambiguous deferred 4.", 'f': "failed ", 'D': "delivered 2"}[m.fate[i]]
			list = append(list, assault{name: stage[0] + ": " + m.name, play: script{stage[0]: m.do(stage[1])}, want: want})
		}
	}
	siege(t, 2*time.Second, list)
}

// offers is an answer to EHLO.
func offers(keywords ...string) move {
	return say("250-mx.example\r\n250-" + strings.Join(append(keywords, "8BITMIME"), "\r\n250-") + "\r\n250 OK\r\n")
}

// TestHostileOffers: what EHLO offers is heeded as far as it makes sense, and
// costs little.
func TestHostileOffers(t *testing.T) {
	hundred := func(line string) move { return offers(slices.Repeat([]string{line}, 100)...) }
	words := strings.Repeat(" X", 2000)
	list := []assault{
		{name: "100 000 keywords", play: script{"EHLO": say(strings.Repeat("250-X-KEYWORD\r\n", 100_000) + "250 OK\r\n")}, want: "deferred 4.4.1 saying EHLO: the next hop's reply makes no sense: more than 128 lines"},
		{name: "keywords without end", play: script{"EHLO": pour("250-X-KEYWORD 1 2 3\r\n")}, want: "deferred 4.4.1 "},
		{name: "AUTH of very many mechanisms", play: script{"EHLO": hundred("AUTH" + words)}, want: "delivered 250 "},
		{name: "XFORWARD of very many attributes", play: script{"EHLO": hundred("XFORWARD" + words)}, route: Route{XForward: true}, want: "delivered 250 "},
		{name: "keywords that are controls", play: script{"EHLO": offers(nasty, "\x00", "\x1b]0;x\x07", "SIZE\x00", "PIPELINING\x00")}, want: "delivered 250 "},
		{name: "no keyword at all", play: script{"EHLO": say("250-\r\n250- \r\n250-\t\r\n250 8BITMIME\r\n")}, want: "delivered 250 "},
		{name: "a size too small", play: script{"EHLO": offers("SIZE 1")}, want: "failed 5.3.4 "},
	}
	for _, size := range []string{"", "0", "-1", "-9223372036854775808", "9223372036854775807", "9223372036854775808", "1e99", "0x1", "1x", strings.Repeat("9", 3000), "\x00", "\u0661"} {
		list = append(list, assault{name: fmt.Sprintf("size %.20q", size), play: script{"EHLO": offers("SIZE " + size)}, want: "delivered 250 "})
	}
	siege(t, 2*time.Second, list)
}

// TestHostileForwarding: whatever is said to XFORWARD, the mail goes on, unless
// the session cannot.
func TestHostileForwarding(t *testing.T) {
	var list []assault
	for _, c := range []struct {
		name string
		do   move
		want string
	}{
		{"refused", say("501 5.5.4 " + nasty + "\r\n"), "delivered 250 "},
		{"refused for now", say("451 4.3.0 no\r\n"), "delivered 250 "},
		{"354", say("354 go\r\n"), "delivered 250 "},
		{"421", say("421 4.3.2 bye\r\n"), "deferred 4.4.2 connection lost at XFORWARD: "},
		{"150", say("150 wait\r\n"), "deferred 4.4.2 connection lost at XFORWARD: "},
		{"nothing", mute, "deferred 4.4.2 connection lost at XFORWARD: "},
		{"hangs up", hangUp, "deferred 4.4.2 connection lost at XFORWARD: "},
		{"twice", say("250 ok\r\n550 5.7.1 not you\r\n"), "deferred 4.5.0 replies are out of step at MAIL: "},
		{"for ever", pour("250-ok\r\n"), "deferred 4.4.2 connection lost at XFORWARD: "},
	} {
		list = append(list, assault{name: c.name, play: script{"EHLO": offers("XFORWARD NAME ADDR HELO IDENT SOURCE"), "XFORWARD": c.do}, route: Route{XForward: true}, want: c.want})
	}
	siege(t, 2*time.Second, list)
}

// together answers several commands that came at once, then their message.
func together(replies string, rest ...move) script {
	moves := append([]move{say("220 mx.example\r\n"), hear(1), offers("PIPELINING"), hear(4), say(replies)}, rest...)
	return script{"greeting": inTurn(append(moves, mute)...)}
}

// TestHostilePipelining: one reply too many or too few for a group of commands
// must not have a word about one recipient count for another, nor for the mail.
func TestHostilePipelining(t *testing.T) {
	const ok, no, later, data = "250 ok\r\n", "550 5.1.1 no\r\n", "450 4.2.1 busy\r\n", "354 go\r\n"
	dot := inTurn(takeData, say("250 2.0.0 ok\r\n"))
	siege(t, 2*time.Second, []assault{
		{name: "as it should be", to: 2, play: together(ok+ok+no+data, dot), want: "failed 550 5.1.1 (1 of 2", each: "delivered failed"},
		{name: "one too many first", to: 2, play: together(ok + ok + ok + no + data), want: "deferred 4.5.0 "},
		{name: "one too many first, and all is refused", to: 2, play: together(ok + ok + no + no + no), want: "deferred 4.5.0 "},
		{name: "a refusal too many first", to: 2, play: together(no + ok + ok + ok + data), want: "deferred 4.5.0 "},
		{name: "one too many in the middle", to: 2, play: together(ok + ok + ok + ok + data), want: "deferred 4.5.0 "},
		{name: "a second 354", to: 2, play: together(ok + ok + ok + data + data), want: "deferred 4.5.0 "},
		{name: "the reply to the dot with the others", to: 2, play: together(ok + ok + ok + data + ok), want: "deferred 4.5.0 "},
		{name: "one too few", to: 2, play: together(ok + ok + data), want: "deferred 4"},
		{name: "one too few, the last refused", to: 2, play: together(ok + ok + no), want: "deferred 4.4.2 connection lost at DATA: ", each: "queued failed"},
		{name: "the first alone", to: 2, play: together(ok), want: "deferred 4.4.2 connection lost at RCPT: "},
		{name: "none", to: 2, play: together(""), want: "deferred 4.4.2 connection lost at MAIL: "},
		{name: "354 to RCPT", to: 2, play: together(ok + data + ok + ok), want: "deferred 4.5.0 "},
		{name: "354 to all", to: 2, play: together(data + data + data + data), want: "deferred 354 go"},
		{name: "250 to DATA", to: 2, play: together(ok + ok + ok + ok), want: "deferred 4.5.0 the answer to DATA is 250 ok"},
		{name: "421 in the middle", to: 2, play: together(ok+no+"421 4.3.2 bye\r\n", hangUp), want: "deferred 4.4.2 connection lost at RCPT: ", each: "failed queued"},
		{name: "goodbye behind them", to: 2, play: together(ok+no+no+"503 5.5.1 no\r\n"+"421 4.3.2 bye\r\n", hangUp), want: "failed 550 5.1.1 (2 of 2"},
		{name: "all before it was asked", to: 2, play: script{"greeting": inTurn(say("220 hi\r\n250-mx\r\n250 PIPELINING\r\n"+ok+ok+ok+data), hear(5), dot, mute)}, want: "deferred 4.4.1 saying EHLO: the next hop spoke before it was asked: 250"},
		{name: "all with the answer to EHLO", to: 2, play: script{"EHLO": inTurn(say("250-mx\r\n250 PIPELINING\r\n"+ok+ok+ok+data), hear(4), dot, mute)}, want: "deferred 4.5.0 replies are out of step at MAIL: the next hop spoke before it was asked: 250"},
		{name: "busy for ever", to: 2, play: together(ok+later, pour(later)), want: "deferred 4"},
	})
}

// TestHostileBody: what a next hop does while the message is on its way. Only
// what it says to the final dot takes the mail.
func TestHostileBody(t *testing.T) {
	big := "A: b\r\n\r\n" + strings.Repeat(strings.Repeat("x", 998)+"\r\n", 12<<10)
	part := func(f *foe) error { _, err := io.CopyN(io.Discard, f.r, 300<<10); return err }
	const lost = "deferred 4.4.2 connection lost at the message: "
	list := []assault{
		{name: "taken whole", play: script{}, want: "delivered 250 "},
		{name: "taken before it is sent", play: script{"DATA": say("354 go\r\n", "250 2.0.0 ok\r\n"), ".": say("554 5.6.0 spam\r\n")}, want: "deferred 4.5.0 the message was answered before it was sent"},
		{name: "taken halfway", play: script{"DATA": inTurn(say("354 go\r\n"), part, say("250 2.0.0 ok\r\n"), mute)}, want: "deferred 4.5.0 the message was answered before it was sent"},
		{name: "taken halfway, who then hangs up", play: script{"DATA": inTurn(say("354 go\r\n"), part, say("250 2.0.0 ok\r\n"), hangUp)}, want: "deferred 4."},
		{name: "354 twice", play: script{"DATA": say("354 go\r\n", "354 go\r\n")}, want: "deferred 4.5.0 the message was answered before it was sent"},
		{name: "refused halfway", play: script{"DATA": inTurn(say("354 go\r\n"), part, say("552 5.3.4 too much\r\n"), mute)}, want: "failed 552 5.3.4 too much"},
		{name: "put off halfway", play: script{"DATA": inTurn(say("354 go\r\n"), part, say("452 4.3.1 full\r\n"), mute)}, want: "deferred 452 4.3.1 full"},
		{name: "nonsense halfway", play: script{"DATA": inTurn(say("354 go\r\n"), part, say(nasty+"\r\n"), mute)}, want: "deferred 4.5.0 the message was answered before it was sent"},
		{name: "half a word halfway", play: script{"DATA": inTurn(say("354 go\r\n"), part, say("5"), mute)}, want: lost},
		{name: "talks for ever halfway", play: script{"DATA": inTurn(say("354 go\r\n"), part, pour("250-ok\r\n"))}, want: "deferred 4."},
		{name: "reads no more", play: script{"DATA": inTurn(say("354 go\r\n"), deaf)}, want: lost},
		{name: "reads no more from the middle on", play: script{"DATA": inTurn(say("354 go\r\n"), part, deaf)}, want: lost},
		{name: "reads an octet now and then", play: script{"DATA": inTurn(say("354 go\r\n"), sip)}, want: lost},
		{name: "hangs up halfway", play: script{"DATA": inTurn(say("354 go\r\n"), part, hangUp)}, want: lost},
		{name: "resets halfway", play: script{"DATA": inTurn(say("354 go\r\n"), part, hangUpHard)}, want: lost},
		{name: "resets before the dot is answered", play: script{".": hangUpHard}, want: "ambiguous deferred 4.4.2 "},
		{name: "says nothing to the dot", play: script{".": mute}, want: "ambiguous deferred 4.4.2 "},
	}
	for i := range list {
		list[i].eml = big
	}
	siege(t, time.Second, list)
}

// underTLS is an answer to STARTTLS, and what goes on then.
func underTLS(cfg *tls.Config) move { return inTurn(say("220 go\r\n"), secure(cfg)) }

// record is one of TLS, as it would be in the clear.
func record(kind byte, payload string) string {
	return string([]byte{kind, 3, 3, byte(len(payload) >> 8), byte(len(payload))}) + payload
}

// TestHostileTLS: where TLS is asked for nothing goes without, and nothing that
// comes in its stead is believed, or costs much.
func TestHostileTLS(t *testing.T) {
	ca := testbed.NewAuthority(t)
	localhost := func(edit func(*x509.Certificate)) *testbed.Certificate {
		return ca.Issue(func(c *x509.Certificate) {
			if c.DNSNames = []string{"localhost"}; edit != nil {
				edit(c)
			}
		})
	}
	good := localhost(nil)
	chain := func(n int) *tls.Config {
		c := good.Certificate
		for range n {
			c.Certificate = append(c.Certificate[:len(c.Certificate):len(c.Certificate)], ca.Own.Certificate.Certificate[0])
		}
		return &tls.Config{Certificates: []tls.Certificate{c}}
	}
	named := func(names ...string) *tls.Config {
		return localhost(func(c *x509.Certificate) { c.DNSNames = names }).Server()
	}
	long := strings.Repeat("x", 2000)
	verify := Route{TLS: TLSVerify, TLSCA: ca.File}
	require := Route{TLS: TLSRequire, TLSCA: ""}
	const none, wrong = "deferred 4.7.4 ", "deferred 4.7.5 TLS: "
	var list []assault
	for _, c := range []struct {
		name  string
		do    move // nil: not offered
		want  string
		under move // the answer to EHLO under TLS; nil: as before
	}{
		{"as it should be", underTLS(good.Server()), "delivered 250 ", nil},
		{"not offered", nil, none + "STARTTLS is not offered, and tls is ", nil},
		{"refused", say("454 4.7.0 " + nasty + "\r\n"), none + "the answer to STARTTLS is 454 4.7.0 a", nil},
		{"250", say("250 ok\r\n"), none + "the answer to STARTTLS is 250 ok", nil},
		{"421", say("421 4.3.2 bye\r\n"), "deferred 4.4.1 the next hop is closing: 421 4.3.2 bye", nil},
		{"nonsense", say("2x0 go\r\n"), "deferred 4.4.1 saying STARTTLS: ", nil},
		{"no answer", mute, "deferred 4.4.1 saying STARTTLS: ", nil},
		{"hangs up", hangUp, "deferred 4.4.1 saying STARTTLS: ", nil},
		{"goes on in the clear", say("220 go\r\n", "250-mx.example\r\n250 8BITMIME\r\n"), wrong, nil},
		{"goes on in the clear at once", say("220 go\r\n250-mx.example\r\n250 8BITMIME\r\n"), wrong + "30 octets came in the clear behind the answer to STARTTLS", nil},
		{"goes on in the clear before TLS", inTurn(say("220 go\r\n250 injected\r\n"), secure(good.Server())), wrong + "14 octets came in the clear", nil},
		{"no handshake", inTurn(say("220 go\r\n"), mute), wrong, nil},
		{"a handshake an octet at a time", inTurn(say("220 go\r\n"), drip(record(22, "\x02\xff\xff\xff"))), wrong, nil},
		{"hangs up in the handshake", inTurn(say("220 go\r\n"), hangUp), wrong, nil},
		{"NUL for ever", inTurn(say("220 go\r\n", ""), pour("\x00")), wrong, nil},
		{"a handshake message of 16 MiB", inTurn(say("220 go\r\n", record(22, "\x02\xff\xff\xff")), pour(record(22, strings.Repeat("\x00", 16<<10)))), wrong, nil},
		{"records of nothing", inTurn(say("220 go\r\n", ""), pour(record(22, ""))), wrong, nil},
		{"warnings for ever", inTurn(say("220 go\r\n", ""), pour(record(21, "\x01\x5a"))), wrong, nil},
		{"changes of cipher for ever", inTurn(say("220 go\r\n", ""), pour(record(20, "\x01"))), wrong, nil},
		{"a record that is too long", inTurn(say("220 go\r\n", ""), pour("\x16\x03\x03\xff\xff")), wrong, nil},
		{"a chain of 500", underTLS(chain(500)), "delivered 250 ", nil},
		{"a chain of 5000", underTLS(chain(5000)), wrong, nil},
		{"speaks unasked under TLS", underTLS(good.Server()), "deferred 4.5.0 replies are out of step at MAIL: ", say("250-mx.example\r\n250 8BITMIME\r\n250 ok\r\n")},
		{"talks for ever under TLS", underTLS(good.Server()), "deferred 4.4.1 saying EHLO: ", pour("250-ok\r\n")},
		{"says nothing under TLS", underTLS(good.Server()), "deferred 4.4.1 saying EHLO: ", mute},
	} {
		for _, rt := range []Route{verify, require, {TLS: TLSOpportunistic}} {
			a := assault{name: c.name + ", " + rt.TLS, route: rt, want: c.want, play: script{}}
			if rt.TLS == TLSOpportunistic && (strings.HasPrefix(c.want, none) || strings.HasPrefix(c.want, wrong)) {
				a.want = "delivered 250 " // in the clear
			}
			if c.do != nil {
				a.play["EHLO"], a.play["STARTTLS"] = offers("STARTTLS"), c.do
			}
			if c.under != nil {
				a.play["EHLO, TLS"] = c.under
			}
			list = append(list, a)
		}
	}
	for name, cfg := range map[string]*tls.Config{
		"names of 200 KB":               named(slices.Repeat([]string{long}, 99)...),
		"names that do harm":            named("a\r\nX-Evil: 1", "\x1b[31mred\x00", "<script>"),
		"a thousand names":              named(slices.Repeat([]string{"x.example"}, 1000)...),
		"no name":                       named(),
		"somebody's whom we don't know": testbed.NewAuthority(t).Issue(func(c *x509.Certificate) { c.Subject.CommonName = strings.Repeat("\x1b", 50_000) }).Server(),
	} {
		list = append(list, assault{name: name, route: verify, play: script{"EHLO": offers("STARTTLS"), "STARTTLS": underTLS(cfg)}, want: "deferred 4.7.5 TLS: the next hop's certificate is not the one expected: "})
		list = append(list, assault{name: name + ", require", route: require, play: script{"EHLO": offers("STARTTLS"), "STARTTLS": underTLS(cfg)}, want: "delivered 250 "})
	}
	siege(t, 5*time.Second, list)
}

// TestHostileSignIn: who signs in is not led on, and gives nobody's word for
// the mail.
func TestHostileSignIn(t *testing.T) {
	ca := testbed.NewAuthority(t)
	cert := ca.Issue(func(c *x509.Certificate) { c.DNSNames = []string{"localhost"} }).Server()
	challenge := func(text string) move {
		return func(f *foe) error {
			for {
				if err := inTurn(say("334 "+text+"\r\n"), hear(1))(f); err != nil {
					return err
				}
			}
		}
	}
	mechanisms := offers(slices.Repeat([]string{"AUTH" + strings.Repeat(" X", 2000)}, 100)...)
	var list []assault
	for _, c := range []struct {
		name  string
		offer move // nil: PLAIN and LOGIN
		do    move
		want  string
	}{
		{"as it should be", nil, say("235 2.7.0 ok\r\n"), "delivered 250 "},
		{"PLAIN behind very many", mechanisms, nil, "deferred 4.7.0 signing in: the next hop offers none of "},
		{"challenges for ever", nil, challenge(""), "deferred 4.7.0 signing in with PLAIN: the next hop's reply makes no sense: a challenge too many"},
		{"challenges for ever, to LOGIN", offers("AUTH LOGIN"), challenge(""), "deferred 4.7.0 signing in with LOGIN: the next hop's reply makes no sense: a challenge too many"},
		{"a challenge of 1 MiB", nil, challenge(strings.Repeat("QUJD", 256<<10)), "deferred 4.7.0 signing in with PLAIN: the next hop's reply makes no sense: a line of more than 4096 octets"},
		{"a challenge without end", nil, pour("334-QUJD\r\n"), "deferred 4.7.0 signing in with PLAIN: the next hop's reply makes no sense: more than 128 lines"},
		{"a challenge that is no base64", offers("AUTH LOGIN"), challenge("=" + nasty), "deferred 4.7.0 "},
		{"250", nil, say("250 ok\r\n"), "deferred 4.7.0 signing in with PLAIN: 250 ok"},
		{"refused", nil, say("535 5.7.8 " + nasty + "\r\n"), "deferred 4.7.0 signing in with PLAIN: 535 5.7.8 a"},
		{"421", nil, say("421 4.3.2 bye\r\n"), "deferred 4.7.0 signing in with PLAIN: 421 4.3.2 bye"},
		{"nothing", nil, mute, "deferred 4.7.0 "},
		{"hangs up", nil, hangUp, "deferred 4.7.0 "},
		{"an octet at a time", nil, drip("334 "), "deferred 4.7.0 "},
		{"let in and thrown out", nil, say("235 ok\r\n535 no\r\n"), "deferred 4.5.0 replies are out of step at MAIL: the next hop spoke before it was asked: 535"},
		{"let in before it is asked", say("250-mx.example\r\n250 AUTH PLAIN\r\n235 ok\r\n"), nil, "deferred 4.7.0 signing in with PLAIN: the next hop spoke before it was asked: 235"},
	} {
		play := script{"EHLO": offers("STARTTLS"), "STARTTLS": underTLS(cert), "EHLO, TLS": c.offer, "AUTH": c.do}
		if c.offer == nil {
			play["EHLO, TLS"] = offers("AUTH PLAIN LOGIN")
		}
		list = append(list, assault{name: c.name, play: play, want: c.want, route: Route{
			TLS: TLSVerify, TLSCA: ca.File, Auth: &Auth{User: "kim@city.example", PasswordFile: secretFile(t, "hunter2")},
		}})
	}
	siege(t, 2*time.Second, list)
}

// TestHostileLMTP: whom a reply to the final dot is about is clear, or all that
// were taken are in doubt.
func TestHostileLMTP(t *testing.T) {
	const ok, no, later = "250 2.0.0 ok\r\n", "550 5.1.1 no\r\n", "452 4.2.2 full\r\n"
	const unanswered, surplus = "ambiguous deferred 4.4.2 no reply to the final dot, it may have been taken: ", "ambiguous deferred 4.5.0 more replies"
	var list []assault
	for _, c := range []struct {
		name string
		do   move
		want string
		each string
	}{
		{"one of each", say(ok + later + no), "deferred 452 4.2.2 (1 of 3", "delivered queued failed"},
		{"in another order", say(no + ok + later), "deferred 452 4.2.2 (1 of 3", "failed delivered queued"},
		{"with controls", say("250 " + nasty + "\r\n" + "450 " + nasty + "\r\n" + "550 " + nasty + "\r\n"), "deferred 450 (1 of 3", "delivered queued failed"},
		{"one for all", say(ok), unanswered, "delivered queued queued"},
		{"none", mute, unanswered, "queued queued queued"},
		{"none, and hangs up", hangUp, unanswered, "queued queued queued"},
		{"one too few", say(no, no), unanswered, "failed failed queued"},
		{"one too many", say(ok + ok + ok + no), surplus, ""},
		{"one too many, all alike", say(ok + ok + ok + ok), "delivered 250 ", ""},
		{"no end of them", pour(ok), surplus, ""},
		{"no end of one", pour("250-2.0.0 ok\r\n"), unanswered, ""},
		{"no end of the second", inTurn(say(ok), pour("250-2.0.0 ok\r\n")), unanswered, "delivered queued queued"},
		{"an octet at a time", drip(strings.Repeat("250-ok\r\n", 100)), unanswered, ""},
		{"421 in the middle", say(ok+"421 4.3.2 bye\r\n", ""), "ambiguous deferred 421 4.3.2 (2 of 3", "delivered queued queued"},
		{"354 in the middle", say(ok + "354 go\r\n" + ok), unanswered, "delivered queued queued"},
		{"nonsense in the middle", say(ok + "2x0 ok\r\n" + no), unanswered, "delivered queued queued"},
		{"a code that changes", say(ok + "250-ok\r\n550 no\r\n" + ok), unanswered, "delivered queued queued"},
	} {
		list = append(list, assault{name: c.name, scheme: "lmtp", to: 3, play: script{".": c.do}, want: c.want, each: c.each})
	}
	siege(t, 2*time.Second, list)
}

// TestHostileGoodbye: what becomes of a session after the mail is no matter to
// the mail.
func TestHostileGoodbye(t *testing.T) {
	var list []assault
	for _, m := range moods {
		do := m.do("250")
		list = append(list,
			assault{name: "QUIT: " + m.name, play: script{"QUIT": do}, want: "delivered 250 "},
			assault{name: "unused: " + m.name, play: script{".": inTurn(say("250 ok\r\n", ""), do)}}, // unless it comes too early

			assault{name: "RSET: " + m.name, play: script{"RCPT": say("450 4.2.1 busy\r\n"), "RSET": do}, want: "deferred 450 "})
	}
	siege(t, 2*time.Second, list)
}

// TestHostileProbe: who looks at a next hop with check gets an answer too, in words
// that are safe on a terminal.
func TestHostileProbe(t *testing.T) {
	dialer := &counting{open: map[net.Conn]bool{}}
	const patience = 2 * time.Second
	r, err := New(newMemory(), Options{Hostname: "gw.city.example", Dial: dialer.dial,
		Timeouts: Timeouts{Connect: patience, Greeting: patience, Mail: patience, Rcpt: patience, Data: patience, Block: patience, Dot: patience}})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for _, m := range moods {
		for i, stage := range stages[:4] {
			rt := Route{Role: "outbound", NextHop: listen(t, "smtp", script{stage[0]: m.do(stage[1])})}
			all.Go(func() {
				list, err := r.Probe(t.Context(), rt, "desk@city.example", "ana@x.example")
				if err != nil || len(list) != 1 {
					t.Errorf("%s: %s: %+v, %v", stage[0], m.name, list, err)
					return
				}
				got := fmt.Sprint(list[0].Err)
				if m.fate[i] == 'f' && list[0].Err == nil || len(got) > mostWords || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
					t.Errorf("%s: %s: %.300q", stage[0], m.name, got)
				}
			})
		}
	}
	all.Wait()
	dialer.check(t)
}

// TestMuteNextHops: hundreds of mails for next hops that take connections and
// never say a word take no more of those than there may be, and keep nobody
// else's waiting. When stopping nobody waits for them.
func TestMuteNextHops(t *testing.T) {
	b := newBed(t)
	b.sink = newSink(t, "smtp", nil)
	dialer := &counting{open: map[net.Conn]bool{}}
	const hops, perHop = 40, 5
	b.opts = Options{Hostname: "gw.city.example", Jitter: -1, PerHop: perHop, Dial: dialer.dial}
	var waiting []store.ID
	for i := range hops {
		b.opts.Routes = append(b.opts.Routes, Route{Role: "outbound", Recipient: fmt.Sprintf("n%d.example", i), NextHop: listen(t, "smtp", script{"greeting": mute})})
		for range 10 {
			waiting = append(waiting, b.send(eml, nil, fmt.Sprintf("ana@n%d.example", i)).ID)
		}
	}
	b.opts.Routes = append(b.opts.Routes, Route{Role: "outbound", NextHop: b.sink.nextHop})
	r, err := New(b.st, b.opts)
	if err != nil {
		t.Fatal(err)
	}
	stop := start(r)
	testbed.Until(t, "all next hops are waited for", func() bool { return dialer.now() >= hops })
	for i := range 50 {
		d := b.send(eml, nil, fmt.Sprintf("ben%d@x.example", i))
		r.Wake()
		testbed.Until(t, "another's mail is delivered", func() bool { return b.delivery(d.ID).State == store.Delivered })
	}
	stop()
	dialer.check(t)
	if dialer.most > perHop*(hops+1) {
		t.Errorf("%d connections at once", dialer.most)
	}
	for _, id := range waiting {
		if d := b.delivery(id); d.State != store.Queued || len(d.Attempts) > 0 {
			t.Fatalf("%+v", d)
		}
	}
}

// TestHostileRenegotiation: a next hop that wants another handshake in the
// middle gets none.
func TestHostileRenegotiation(t *testing.T) {
	testbed.Need(t, "openssl")
	cert := testbed.NewAuthority(t).Issue(nil)
	file, address := filepath.Join(t.TempDir(), "cert.pem"), testbed.Free(t, 1)[0]
	testbed.Write(t, file, cert.PEM())
	server := exec.Command("openssl", "s_server", "-accept", address, "-cert", file, "-key", file, "-tls1_2", "-crlf")
	in, err := server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out testbed.Buffer
	server.Stdout, server.Stderr = &out, &out
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Process.Kill(); server.Wait() })
	testbed.Until(t, "openssl listens", func() bool { return strings.Contains(out.String(), "ACCEPT") })
	m := newMemory()
	id := m.add(eml, time.Now(), "ana@x.example")
	_, stop := run(t, m, Options{Routes: []Route{{Role: "outbound", NextHop: "smtps://" + address, TLS: TLSRequire}}})
	defer stop()
	testbed.Until(t, "the handshake is done", func() bool { return strings.Contains(out.String(), "CIPHER is") })
	io.WriteString(in, "220 mx.example\n")
	testbed.Until(t, "EHLO is said", func() bool { return strings.Contains(out.String(), "EHLO gw.city.example") })
	io.WriteString(in, "R\n") // its command for that
	testbed.Until(t, "it is tried", func() bool { return len(m.get(id).Attempts) > 0 })
	if d := m.get(id); d.State != store.Queued || !strings.Contains(d.Attempts[0].Reply, "renegotiation") {
		t.Errorf("%+v\n%s", d, out.String())
	}
}

// FuzzNextHop: a next hop says anything, a piece in reply to each command, and
// hangs up behind one that is no whole reply; a | is between two. Mail is taken by
// the reply to the final dot alone, given up only by a refusal, and what is kept
// of all that is safe to show.
func FuzzNextHop(f *testing.F) {
	for _, said := range []string{
		"220 a\r\n|250-a\r\n250 PIPELINING\r\n|250 a\r\n|250 a\r\n|250 a\r\n|354 a\r\n|250 2.0.0 ok\r\n450 a\r\n",
		"220 a\r\n|502 a\r\n|250 a\r\n|250 a\r\n|550 5.1.1 a\r\n|250 a\r\n|354 a\r\n|250 a\r\n",
		"220 a\r\n|250-SIZE 9\r\n250 AUTH\r\n|250 a\r\n550 b\r\n|421 a\r\n|354 a\r\n354 b\r\n|450 a\r\n",
		"220 a\r\n|250 a\r\n|250 a\r\n|250 a\r\n|250 a\r\n|354 a\r\n|250 \x1b[1m\u202e\r\n550 a\r\n250 b\r\n",
	} {
		f.Add(said, false)
		f.Add(said, true)
	}
	h := newFuzzed(f)
	f.Fuzz(func(t *testing.T, said string, lmtp bool) {
		verdicts, last := h.play(t, strings.Split(said, "|"), lmtp)
		taken := 0
		for line := range strings.SplitSeq(last, "\n") {
			if strings.HasPrefix(line, "2") {
				taken++
			}
		}
		if !lmtp && strings.HasPrefix(last, "2") {
			taken = len(verdicts) // one reply for all
		}
		for _, v := range verdicts {
			switch {
			case v.state == store.Delivered:
				taken--
			case v.state == store.Failed && !strings.HasPrefix(v.reply, "5"):
				t.Errorf("failed: %q", v.reply)
			case v.state != store.Failed && v.state != store.Queued:
				t.Errorf("it is %q: %q", v.state, v.reply)
			}
			if len(v.reply) > mostWords || strings.ContainsFunc(v.reply, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%d octets: %q", len(v.reply), v.reply)
			}
		}
		if taken < 0 {
			t.Errorf("delivered to %d too many by %q: %+v", -taken, last, verdicts)
		}
	})
}

// fuzzed is a relay with one mail for two, and a next hop that is told what to
// say.
type fuzzed struct {
	r      *Relay
	id     store.ID
	pieces []string
	last   string // said in reply to the final dot
	done   chan struct{}
}

func newFuzzed(f *testing.F) *fuzzed {
	h, m := new(fuzzed), newMemory()
	h.id = m.get(m.add(eml, time.Now(), "ana@x.example")).Message
	var err error
	h.r, err = New(m, Options{Hostname: "gw.city.example", Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		h.done = make(chan struct{})
		go func() {
			defer close(h.done)
			defer server.Close()
			h.last = answerWith(server, h.pieces)
		}()
		return client, nil
	}})
	if err != nil {
		f.Fatal(err)
	}
	return h
}

// play makes one attempt. last is what was said in reply to the final dot.
func (f *fuzzed) play(t *testing.T, pieces []string, lmtp bool) (verdicts []verdict, last string) {
	f.pieces, f.last = pieces, ""
	rt, err := (&Route{Role: "outbound", NextHop: map[bool]string{false: "smtp", true: "lmtp"}[lmtp] + "://127.0.0.1:25"}).compile()
	if err != nil {
		t.Fatal(err)
	}
	s, err := rt.settings(rt.endpoints[0])
	if err != nil {
		t.Fatal(err)
	}
	s.limit = 1
	h := newHop(f.r, s)
	l, err := f.r.letter(t.Context(), &store.Delivery{Message: f.id})
	if err != nil {
		t.Fatal(err)
	}
	env := &envelope{from: "desk@city.example", to: []store.Recipient{{Address: "ana@x.example"}, {Address: "ben@x.example"}}}
	verdicts = f.r.transact(t.Context(), t.Context(), h, env, l)
	h.close()
	<-f.done
	return verdicts, f.last
}

// whole reports whether text is replies, none of them unfinished.
func whole(text string) bool {
	r := bufio.NewReader(strings.NewReader(text))
	for n := 0; ; n++ {
		if _, err := readReply(r); err != nil {
			return errors.Is(err, errReply) || err == io.EOF && n > 0
		}
	}
}

// answerWith says the next piece in reply to each line, until there is none or the
// message came. last is the one in reply to that.
func answerWith(c net.Conn, pieces []string) (last string) {
	say, said := make(chan string, len(pieces)), make(chan struct{})
	go func() {
		defer close(said)
		for s := range say {
			io.WriteString(c, s)
		}
	}()
	lines, inData := bufio.NewReader(c), false
	defer func() {
		close(say)
		go io.Copy(io.Discard, lines) // ends with the connection
		<-said
	}()
	say <- pieces[0]
	for n := 1; n < len(pieces) && whole(pieces[n-1]); {
		line, err := lines.ReadString('\n')
		if err != nil {
			return ""
		}
		if inData && line != ".\r\n" {
			continue
		}
		if inData {
			say <- pieces[n]
			return pieces[n]
		}
		inData = line == "DATA\r\n" && strings.HasPrefix(pieces[n], "354")
		say <- pieces[n]
		n++
	}
	return ""
}
