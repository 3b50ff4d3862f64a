package main

import (
	"bytes"
	"fmt"
	"net/textproto"
	"os"
	"regexp"
	"strings"
	"testing"
)

// simpleMail is a plain message with this Message-ID.
func simpleMail(id, from, to string, more ...string) []byte {
	return letter(fmt.Sprintf("From: %s\nTo: %s\nSubject: %s\nDate: Sun, 22 Nov 2026 19:00:00 +0000\nMessage-ID: <%s@mail.example>\n%s\nHello\n.\n.dot\n",
		from, to, id, id, strings.Join(append(more, ""), "\n")))
}

// TestSessions: the replies that a client meets, by each kind of listener; and
// the same mail coming again.
func TestSessions(t *testing.T) {
	crm, world := startHop(t), startHop(t)
	g := startGate(t, crm.url, world.url)
	const dana = "dana@example.net"
	lmtp := []string{"--protocol", "LMTP"}

	t.Run("by every door", func(t *testing.T) {
		for name, c := range map[string]struct {
			at   string
			more []string
			says string // the reply, less id and number
		}{
			"smtp":           {g.at["inbound"], nil, "accepted ID case N"},
			"smtp pipelined": {g.at["inbound"], []string{"--pipeline"}, "accepted ID case N"},
			"lmtp":           {g.at["lmtp"], lmtp, "<311@city.example> accepted ID case N"},
			"lmtp pipelined": {g.at["lmtp"], append(lmtp, "--pipeline"), "<311@city.example> accepted ID case N"},
			"lmtp-unix":      {g.at["lmtp-unix"], lmtp, "<311@city.example> accepted ID case N"},
		} {
			subject := strings.ReplaceAll(name, " ", "-")
			mail := simpleMail(subject, dana, "311@city.example")
			out := swaks(t, c.at, dana, "311@city.example", mail, c.more...)
			reply := taken.FindStringSubmatch(out)
			if reply == nil {
				t.Errorf("%s: not taken on a case:\n%s", name, out)
				continue
			}
			said := strings.NewReplacer("<-  250 2.0.0 ", "", reply[1], "ID", "case "+reply[2], "case N").Replace(reply[0])
			same(t, name+": the reply", said, c.says)
			same(t, name+": as received", g.run("message", "export", reply[1]), mail)
			same(t, name+": the body at the next hop", crm.take(t, subject).body, parseEML(mail).body)
			same(t, name+": listener", g.message(reply[1]).Envelope.Listener, strings.Fields(strings.Replace(name, "smtp", "inbound", 1))[0])
		}
	})
	t.Run("unknown recipient", func(t *testing.T) {
		for _, listener := range []string{"inbound", "lmtp", "lmtp-unix"} {
			var more []string
			if listener != "inbound" {
				more = lmtp
			}
			before := g.count("message", "list")
			out := swaks(t, g.at[listener], dana, "nobody@city.example", simpleMail("unknown", dana, "nobody@city.example"), more...)
			if !regexp.MustCompile(`(?m)^<\*\* 550 5\.1\.1 `).MatchString(out) || strings.Contains(out, "-> DATA") {
				t.Errorf("%s: an unknown recipient is not refused with 550 5.1.1:\n%s", listener, out)
			}
			same(t, listener+": messages", g.count("message", "list"), before)

			out = swaks(t, g.at[listener], dana, "nobody@city.example,someone@example.org,311@city.example", simpleMail("mixed-"+listener, dana, "311@city.example"), more...)
			same(t, listener+": refusals", len(regexp.MustCompile(`(?m)^<\*\* 550 5\.1\.1 `).FindAllString(out, -1)), 2)
			if reply := taken.FindStringSubmatch(out); reply == nil {
				t.Errorf("%s: the known recipient was not served:\n%s", listener, out)
			} else {
				same(t, listener+": the envelope", g.message(reply[1]).Envelope.Recipients, []string{"311@city.example"})
			}
		}
	})
	t.Run("the same mail again", func(t *testing.T) { // rule I1
		mail := simpleMail("again", dana, "311@city.example, parks@city.example")
		id, number := swaksTaken(t, g.at["inbound"], dana, "311@city.example", mail)
		crm.take(t, "again")
		for _, c := range []struct {
			name, at, to string
			more         []string
			mail         []byte
		}{
			{"as before", g.at["inbound"], "311@city.example", nil, mail},
			{"pipelined", g.at["inbound"], "311@city.example", []string{"--pipeline"}, mail},
			{"by lmtp", g.at["lmtp"], "311@city.example", lmtp, mail},
			{"by another way", g.at["inbound"], "311@city.example", nil, append([]byte("Received: from other.example by mx2.example.net; Sun, 22 Nov 2026 19:01:00 +0000\r\n"), mail...)},
			{"to another mailbox", g.at["inbound"], "parks@city.example", nil, mail},
		} {
			again, on := swaksTaken(t, c.at, dana, c.to, c.mail, c.more...)
			same(t, c.name+": id and case", []string{again, on}, []string{id, number})
		}
		g.settle()
		same(t, "activities", len(g.caseOf(number).Timeline), 1)
		if _, more := crm.find("again"); more {
			t.Error("the next hop got it twice")
		}
		var m struct{ Mailboxes []string }
		g.json(&m, "message", "show", id)
		same(t, "mailboxes", m.Mailboxes, []string{"311@city.example", "parks@city.example"})
		other := bytes.Replace(mail, []byte("Hello"), []byte("Hullo"), 1)
		if other, _ := swaksTaken(t, g.at["inbound"], dana, "311@city.example", other); other == id {
			t.Error("another content under the same Message-ID counts as the same mail")
		}
	})
	t.Run("two mailboxes in one transaction", func(t *testing.T) {
		to := "311@city.example,parks@city.example"
		for name, at := range map[string]string{"both-smtp": g.at["inbound"], "both-lmtp": g.at["lmtp"]} {
			var more []string
			if name == "both-lmtp" {
				more = lmtp
			}
			out := swaks(t, at, dana, to, simpleMail(name, dana, to), more...)
			replies := taken.FindAllStringSubmatch(out, -1)
			want := 1
			if name == "both-lmtp" {
				want = 2
			}
			if len(replies) != want {
				t.Fatalf("%s: %d replies\n%s", name, len(replies), out)
			}
			same(t, name+": id and case of each", replies[0][1:], replies[want-1][1:])
			same(t, name+": RCPT TO at the next hop", crm.take(t, name).to, []string{"311@city.example", "parks@city.example"})
		}
	})
	t.Run("NOTIFY and ORCPT go on", func(t *testing.T) { // RFC 3461 §5.2
		_, number := swaksTaken(t, g.at["inbound"], dana, "311@city.example", simpleMail("notify", dana, "311@city.example"))
		token := crm.take(t, "notify").get("X-Case-Ref")
		for name, to := range map[string]string{"notify-mailbox": "311@city.example", "notify-token": "311+" + token + "@city.example"} {
			mail := simpleMail(name, dana, to)
			raw(t, g.at["inbound"], "MAIL FROM:<"+dana+"> RET=HDRS", "RCPT TO:<"+to+"> NOTIFY=DELAY,FAILURE ORCPT=rfc822;alias@city.example",
				fmt.Sprintf("BDAT %d LAST\r\n%s", len(mail), mail))
			m := crm.take(t, name)
			same(t, name+": RCPT TO", m.to, []string{"311@city.example"})
			same(t, name+": NOTIFY and ORCPT", m.notify, []string{"[DELAY FAILURE] alias@city.example"})
			same(t, name+": on the case", m.get("X-Case-Number") == number, name == "notify-token")
		}
	})
	t.Run("the same submission again", func(t *testing.T) { // invariant 3
		_, number := swaksTaken(t, g.at["inbound"], dana, "311@city.example", simpleMail("first", dana, "311@city.example"))
		answer := simpleMail("answer", "311@city.example", dana, "In-Reply-To: <first@mail.example>")
		id, on := swaksTaken(t, g.at["smarthost"], "311@city.example", dana+",hall@example.org", answer)
		same(t, "case", on, number)
		for range 2 {
			again, on := swaksTaken(t, g.at["smarthost"], "311@city.example", dana+",hall@example.org", answer)
			same(t, "id and case", []string{again, on}, []string{id, number})
		}
		g.settle()
		world.take(t, "answer")
		same(t, "sent more than once", world.left(), 0)
		same(t, "activities", len(g.caseOf(number).Timeline), 2)
		same(t, "outbox rows", len(g.message(id).Delivery), 1)
	})
}

// TestExport: both EMLs of a message come back byte for byte, from the daemon
// and without it, and their digests are those of the records.
func TestExport(t *testing.T) {
	crm, world := startHop(t), startHop(t)
	g := startGate(t, crm.url, world.url)
	type both struct {
		id             string
		received, sent []byte
	}
	all := map[string]both{}

	stamped, id, _ := g.opened(crm)
	all["inbound"] = both{id, customerMail, stamped.raw}

	bcc := letter(`From: 311@city.example
Bcc: First Hidden <hidden.one@blind.example>,
	hidden.two@blind.example
To: Dana <dana@example.net>, 311@city.example
In-Reply-To: <light-1@example.net>
bcc : hidden.three@blind.example
Subject: With Bcc
Resent-Bcc: hidden.four@blind.example
Message-ID: <bcc-1@crm.city.example>

Body
.
`)
	to := "dana@example.net,hidden.one@blind.example,hidden.two@blind.example,hidden.three@blind.example"
	id, _ = swaksTaken(t, g.at["smarthost"], "311@city.example", to, bcc)
	answer := world.take(t, "With Bcc")
	all["outbound with Bcc"] = both{id, bcc, answer.raw}
	same(t, "RCPT TO", sorted(answer.to), sorted(strings.Split(to, ",")))
	if bytes.Contains(answer.wire, []byte("hidden")) || bytes.Contains(bytes.ToLower(answer.wire), []byte("bcc:")) {
		t.Errorf("Bcc shows:\n%s", answer.wire)
	}

	uncased := letter("From: 311@city.example\nTo: a@example.org\nSubject: Uncased\n\nBody\n")
	out := swaks(t, g.at["smarthost"], "311@city.example", "a@example.org", uncased)
	reply := regexp.MustCompile(`(?m)^<-  250 2\.0\.0 accepted (\S+) uncased$`).FindStringSubmatch(out)
	if reply == nil {
		t.Fatalf("not accepted uncased:\n%s", out)
	}
	all["uncased"] = both{reply[1], uncased, world.take(t, "Uncased").raw}

	newlines := []byte("From: dana@example.net\r\nTo: 311@city.example\r\nSubject: Newlines\r\nMessage-ID: <n-1@mail.example>\r\n\r\nbare LF\nbare CR\rCRLF\r\n\n.dot\r\r\nend")
	id = bdat(t, g.at["border"], "dana@example.net", "311@city.example", newlines)
	all["newlines normalized"] = both{id, newlines, crm.take(t, "Newlines").raw}
	same(t, "the body normalized", string(parseEML(all["newlines normalized"].sent).body), "bare LF\r\nbare CR\r\nCRLF\r\n\r\n.dot\r\n\r\nend\r\n")

	// The header too; and what a bare CR hides is a field to the next hop.
	everywhere := []byte("From: dana@example.net\nTo: 311@city.example\nX-Odd: a\rX-Case-Number: 99999\nSubject: Odd header\nMessage-ID: <n-2@mail.example>\n\nbody\n")
	id = bdat(t, g.at["border"], "dana@example.net", "311@city.example", everywhere)
	odd := crm.take(t, "Odd header")
	all["newlines normalized in the header"] = both{id, everywhere, odd.raw}
	same(t, "X-Case-Number behind a bare CR", len(odd.named("X-Case-Number")), 1)

	large := append(simpleMail("large", "dana@example.net", "311@city.example"), bytes.Repeat([]byte("."+strings.Repeat("0123456789", 7)+"\r\n"), 20_000)...)
	id, _ = swaksTaken(t, g.at["lmtp"], "dana@example.net", "311@city.example", large, "--protocol", "LMTP")
	all["large"] = both{id, large, crm.take(t, "large").raw}

	g.settle()
	check := func(t *testing.T) {
		for name, m := range all {
			record := g.message(m.id).Archived
			same(t, name+": received_sha256", record.ReceivedSHA256, hexSum(m.received))
			same(t, name+": sent_sha256", record.SentSHA256, hexSum(m.sent))
			if got := g.run("message", "export", m.id, "--as", "sent"); !bytes.Equal(got, m.sent) {
				t.Errorf("%s: as sent is not what the next hop got:\n%.2000q\n%.2000q", name, got, m.sent)
			}
			if got := g.run("message", "export", m.id, "--as", "received", "--bcc"); !bytes.Equal(got, m.received) {
				t.Errorf("%s: as received is not what was sent:\n%.2000q\n%.2000q", name, got, m.received)
			}
			open := parseEML(m.received)
			shown := strings.Join(open.without("Bcc", "bcc ", "Resent-Bcc"), "") + "\r\n" + string(open.body)
			if name == "newlines normalized in the header" { // nothing is hidden, and parseEML knows CRLF only
				shown = string(m.received)
			}
			if got := g.run("message", "export", m.id); string(got) != shown {
				t.Errorf("%s: as received, for those who may not see Bcc:\n%.2000q\n%.2000q", name, got, shown)
			}
		}
	}
	t.Run("from the daemon", check)
	g.stop()
	if _, err := os.Stat(g.dir + "/data/casegate.sock"); err == nil {
		t.Error("the daemon left its socket")
	}
	t.Run("without it", check)
}

// bdat sends a message in one chunk, for only there may its last line be open
// (RFC 3030), and returns the id it was taken under.
func bdat(t *testing.T, at, from, to string, message []byte) string {
	t.Helper()
	return raw(t, at, "MAIL FROM:<"+from+">", "RCPT TO:<"+to+">", fmt.Sprintf("BDAT %d LAST\r\n%s", len(message), message))
}

// raw speaks SMTP as it is told and returns the id that a message was taken
// under.
func raw(t *testing.T, at string, commands ...string) string {
	t.Helper()
	c, err := textproto.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var said string
	for i, line := range append([]string{"", "EHLO client.example"}, commands...) {
		if i > 0 {
			c.W.WriteString(line)
			if !strings.HasPrefix(line, "BDAT") {
				c.W.WriteString("\r\n")
			}
		}
		if err := c.W.Flush(); err != nil {
			t.Fatal(err)
		}
		if _, said, err = c.ReadResponse(2); err != nil {
			t.Fatalf("%.40q: %v", line, err)
		}
	}
	reply := taken.FindStringSubmatch("<-  250 " + said)
	if reply == nil {
		t.Fatalf("not taken on a case: %s", said)
	}
	return reply[1]
}
