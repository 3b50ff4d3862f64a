package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	netmail "net/mail"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestOutboundEdges: what the smarthost refuses, adds, leaves alone, and how
// little it touches.
func TestOutboundEdges(t *testing.T) {
	crm, world := startHop(t), startHop(t)
	g := startGate(t, crm.url, world.url)
	g.directory()
	const dana, desk = "dana@example.net", "311@city.example"
	parent := base64.StdEncoding.EncodeToString([]byte("\x01\xd9\x00\x00\x00\x01sixteen bytes id"))
	_, number := swaksTaken(t, g.at["inbound"], dana, desk, letter(`From: "Dana Miller" <dana@example.net>
To: 311@city.example, hall@example.org
Cc: Ron <ron@example.org>
Subject: Outlook
Thread-Index: `+parent+`
Message-ID: <outlook-1@example.net>

Hello
`))
	crm.take(t, "Outlook")
	answer := func(subject, header string) []byte {
		return letter("From: 311@city.example\nSubject: " + subject + "\nMessage-ID: <" + subject + "@crm.city.example>\nIn-Reply-To: <outlook-1@example.net>\n" + header + "\nHello\n.\n")
	}
	// sent takes an answer in and returns it as the next hop got it.
	sent := func(t *testing.T, subject, to, header string) arrived {
		t.Helper()
		_, on := swaksTaken(t, g.at["smarthost"], desk, to, answer(subject, header))
		same(t, "case", on, number)
		return world.take(t, subject)
	}
	// refused asks for a reply, and that nothing is kept or sent.
	refused := func(t *testing.T, listener, from, to, want string, mail []byte) {
		t.Helper()
		before := g.count("message", "list")
		out := swaks(t, g.at[listener], from, to, mail)
		if said := regexp.MustCompile(`(?m)^<\*\* (.*)$`).FindStringSubmatch(out); said == nil || said[1] != want {
			t.Errorf("want %q:\n%s", want, out)
		}
		same(t, "messages", g.count("message", "list"), before)
	}

	t.Run("send-as", func(t *testing.T) {
		mail := simpleMail("send-as", "Mayor <mayor@city.example>", dana)
		refused(t, "smarthost", "mayor@city.example", dana, "550 5.7.1 unable to send as mayor@city.example: listeners[4].send_as allows 311@city.example, parks@city.example", mail)
		refused(t, "desk", "mayor@city.example", dana, "550 5.7.1 unable to send as mayor@city.example: listeners[5].send_as allows kim@city.example", mail)
		refused(t, "desk", desk, dana, "550 5.7.1 unable to send as 311@city.example: listeners[5].send_as allows kim@city.example", simpleMail("send-as", desk, dana))
		refused(t, "smarthost", desk, dana, "550 5.7.1 From is not one plain address (2 can be read): send exactly one", simpleMail("send-as", desk+", mayor@city.example", dana))
		out := swaks(t, g.at["desk"], "kim@city.example", dana, simpleMail("send-as", "Kim <kim@city.example>", dana))
		if !regexp.MustCompile(`(?m)^<-  250 2\.0\.0 accepted \S+ uncased$`).MatchString(out) {
			t.Errorf("kim may not send as kim:\n%s", out)
		}
		world.take(t, "send-as")
	})
	t.Run("O4, the customer is added", func(t *testing.T) {
		m := sent(t, "o4", desk, "To: City <311@city.example>\n")
		same(t, "RCPT TO", m.to, []string{dana})
		same(t, "To", m.named("To"), []string{"To: \"Dana Miller\" <dana@example.net>\r\n"})
		m = sent(t, "o4-cc", "parks@city.example", "Cc: parks@city.example\n")
		same(t, "RCPT TO", m.to, []string{dana})
		same(t, "To", m.named("To"), []string{"To: \"Dana Miller\" <dana@example.net>\r\n"})
		same(t, "Cc", len(m.named("Cc")), 0)
	})
	t.Run("O5 and O12, only a linked contact's other address", func(t *testing.T) {
		refused(t, "smarthost", desk, "iris@private.example", "554 5.5.0 no recipient is left after the rules were applied: see rule O5", answer("o12", "To: iris@private.example\n"))
		m := sent(t, "o5", dana+",iris@private.example", "To: Dana Miller <dana@example.net>\nCc: Iris <iris@private.example>\n")
		same(t, "RCPT TO", m.to, []string{dana})
		if strings.Contains(string(m.wire), "private") {
			t.Errorf("the linked contact's other address shows:\n%s", m.wire)
		}
	})
	t.Run("shown but not in the envelope", func(t *testing.T) {
		m := sent(t, "envelope", dana, "To: Dana Miller <dana@example.net>\nCc: ron@example.org\n")
		same(t, "RCPT TO", m.to, []string{dana})
		same(t, "Cc", m.named("Cc"), []string{"Cc: ron@example.org\r\n"})
	})
	t.Run("consult", func(t *testing.T) {
		m := sent(t, "consult", "ron@example.org", "To: Ron <ron@example.org>\nX-Case-Mode: reply\n")
		same(t, "RCPT TO", m.to, []string{"ron@example.org"})
		same(t, "X-Case-Mode", len(m.named("X-Case-Mode")), 0)
		if strings.Contains(string(m.wire), dana) {
			t.Errorf("the customer shows in a consult:\n%s", m.wire)
		}
		same(t, "internal", g.newest(t).Internal, true)
	})
	t.Run("the customer in Bcc stays there", func(t *testing.T) {
		m := sent(t, "blind", "ron@example.org,"+dana, "To: ron@example.org\n")
		same(t, "RCPT TO", sorted(m.to), []string{dana, "ron@example.org"})
		if strings.Contains(string(m.wire), dana) {
			t.Errorf("the customer shows:\n%s", m.wire)
		}
	})
	t.Run("Thread-Index", func(t *testing.T) {
		given, _ := base64.StdEncoding.DecodeString(parent)
		m := sent(t, "thread", dana, "To: dana@example.net\n")
		got, err := base64.StdEncoding.DecodeString(m.get("Thread-Index"))
		if err != nil || len(got) != len(given)+5 || string(got[:len(given)]) != string(given) {
			t.Errorf("Thread-Index %x (%v) does not extend %x by 5 bytes", got, err, given)
		}
	})
	t.Run("an agent's own address stays in From", func(t *testing.T) { // sender: user
		mail := bytes.Replace(answer("kim", "To: dana@example.net\nReply-To: kim@city.example\n"), []byte("311@city.example"), []byte("Kim <kim@city.example>"), 1)
		_, on := swaksTaken(t, g.at["desk"], "kim@city.example", dana, mail)
		same(t, "case", on, number)
		m := world.take(t, "kim")
		token := m.get("X-Case-Ref")
		same(t, "From", m.get("From"), "Kim <kim@city.example>")
		same(t, "Reply-To", m.named("Reply-To"), []string{"Reply-To: 311+" + token + "@city.example\r\n"})
		same(t, "MAIL FROM", m.from, "311+"+token+"@city.example")
	})
	t.Run("uncased passes", func(t *testing.T) {
		mail := letter("From: parks@city.example\nTO : Somebody\n <a@example.org> ,311@city.example\nSubject: pass\nReply-To: x@city.example\nX-Case-Note: stays\nBcc: b@example.org\n\nHello\n")
		out := swaks(t, g.at["smarthost"], "parks@city.example", "a@example.org,311@city.example,b@example.org", mail)
		if !regexp.MustCompile(`(?m)^<-  250 2\.0\.0 accepted \S+ uncased$`).MatchString(out) {
			t.Fatalf("not accepted uncased:\n%s", out)
		}
		m := world.take(t, "pass")
		same(t, "MAIL FROM", m.from, "parks@city.example")
		same(t, "RCPT TO", m.to, []string{"a@example.org", "311@city.example", "b@example.org"})
		given := parseEML(mail)
		same(t, "the fields below Received", m.fields[1:], given.without("Bcc"))
		same(t, "the body", m.body, given.body)
	})
	t.Run("odd folding", func(t *testing.T) {
		to := "To:\n\t\"Miller,\n Dana\" (a comment,\n with a fold)\n\t<dana@example.net> ,\n  311@city.example\n\t, =?utf-8?q?Bj=C3=B6rn?=\n\t<ron@example.org>;\n"
		m := sent(t, "folding", dana+",311@city.example,ron@example.org,hall@example.org,paul@miller.example.net",
			to+"cC:  Paul\n\tMiller <paul@miller.example.net>   ,\n Hall\n Office <hall@example.org>\n\t ,\"Q. \\\"x\\\"\" <q@example.com>\n")
		// Dana is shown as the case's customer; the city's own address goes with one
		// separator; Ron, known to no directory, moves to Cc, bare.
		same(t, "To", m.named("To"), []string{"To:\r\n\t\"Dana Miller\" <dana@example.net>;\r\n"})
		same(t, "Cc", m.named("Cc"), []string{"cC:  Paul\r\n\tMiller <paul@miller.example.net>   ,\r\n hall@example.org\r\n\t ,q@example.com, ron@example.org\r\n"})
	})
	t.Run("odd folding, one mailbox changes", func(t *testing.T) {
		const before = "To:\n\tDana\n Miller\n\t(a comment,\n with a fold) <dana@example.net>\n\t;\n"
		const cc = "cC:  Paul\n\tMiller <paul@miller.example.net>   ,\n %s\n\t ,paul@miller.example.net (again)\n"
		m := sent(t, "folding-2", dana+",hall@example.org,paul@miller.example.net",
			before+strings.Replace(cc, "%s", "Hall\n Office <hall@example.org>", 1))
		same(t, "To", m.named("To"), []string{string(letter(before))})
		same(t, "Cc", m.named("Cc"), []string{string(letter("cC:  Paul\n\tMiller <paul@miller.example.net>   ,\n hall@example.org\n"))})
	})
	t.Run("names from a stranger's hand", func(t *testing.T) {
		for i, c := range []struct{ from, shown string }{
			{"=?utf-8?q?Dana=0D=0ABcc:_canary@blind.example=0D=0AX-Evil:_1?=", ""},
			{"=?utf-8?b?" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("Größe 😀 ", 20))) + "?=", strings.TrimSpace(strings.Repeat("Größe 😀 ", 20))},
			{`"Dana \"Q\" O'Hara, x"`, `Dana "Q" O'Hara, x`},
			{`"paul@miller.example.net"`, "paul@miller.example.net"},
		} {
			id := fmt.Sprintf("name-%d", i)
			_, number := swaksTaken(t, g.at["inbound"], "dana@example.net", desk, simpleMail(id, c.from+" <dana@example.net>", desk))
			crm.take(t, id)
			mail := letter("From: 311@city.example\nTo: 311@city.example\nSubject: answer-" + id + "\nIn-Reply-To: <" + id + "@mail.example>\n\nHello\n")
			_, on := swaksTaken(t, g.at["smarthost"], desk, desk, mail)
			same(t, id+": case", on, number)
			m := world.take(t, "answer-"+id)
			same(t, id+": RCPT TO", m.to, []string{dana})
			parsed, err := netmail.ReadMessage(bytes.NewReader(m.raw))
			if err != nil {
				t.Fatal(err)
			}
			to, err := parsed.Header.AddressList("To")
			if err != nil || len(to) != 1 || to[0].Address != dana {
				t.Errorf("%s: To is %v (%v): %q", id, to, err, m.named("To"))
			} else if c.shown != "" {
				same(t, id+": the name", strings.TrimSpace(to[0].Name), strings.TrimSpace(c.shown))
			}
			for _, f := range m.fields {
				if name, _, _ := strings.Cut(f, ":"); !slices.Contains([]string{"Received", "From", "To", "Subject", "In-Reply-To", "Reply-To", "References", "Message-ID", "X-Case-Ref"}, name) {
					t.Errorf("%s: a field that nobody wrote: %q", id, f)
				}
				for line := range strings.SplitSeq(f, "\r\n") {
					if len(line) > 998 {
						t.Errorf("%s: a line of %d bytes", id, len(line))
					}
				}
			}
		}
	})
	g.settle()
	same(t, "messages that nobody expected", world.left(), 0)
}
