package main

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// customerMail is a citizen's mail with all the oddities that must survive, and
// forged control headers that must not.
var customerMail = letter(`Received: from phone.example.net (phone.example.net [192.0.2.7])
	by mx.example.net with ESMTPS id 4X1; Sun, 22 Nov 2026 18:59:58 +0000
X-Case-Number: 99999
x-case-ref : aeaqaaaaaaaqaaacoi2tx7xj4e7d4y3l6wfq
X-CASE-Customer: someone
 registered
Authentication-Results: gw.city.example; dmarc=pass
 header.from=example.net
Authentication-Results: mx.example.net; spf=pass smtp.mailfrom=example.net
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.net; s=x;
	h=From:To:Subject; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=;
	b=dGhpcyBpcyBub3QgYSBzaWduYXR1cmU=
FROM: Dana Miller
 <dana@example.net>
To: 311@city.example,
	"Paul Miller" <paul@miller.example.net>
cC:Hall Office <hall@example.org>
Subject: Street light out
Date: Sun, 22 Nov 2026 18:59:00 +0000
Message-Id: <light-1@example.net>
X-Odd :	tabs	and blanks at the end  	
X-Odd: twice, with bytes that no charset explains: ` + "\xfc\xe9" + `
X-Zammad-Ticket: 4711
MIME-Version: 1.0
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: 8bit

Gr` + "\xfc\xdf" + `e,

.a line that begins with a dot
..and one with two
.
the street light is out.  	
From here the field road is dark.

` + strings.Repeat("x", 900) + `

Dana
`)

// directory fills in who is known: Paul, and Iris and Jan who share an address.
func (g *gate) directory() {
	g.t.Helper()
	g.contact("registered", "Paul Miller", "paul@miller.example.net")
	g.contact("registered", "Iris Hall", "hall@example.org", "iris@private.example")
	g.contact("registered", "Jan Hall", "hall@example.org")
}

// opened sends customerMail and returns it as it came to the next hop.
func (g *gate) opened(crm *nextHop) (m arrived, id, number string) {
	g.t.Helper()
	id, number = swaksTaken(g.t, g.at["inbound"], "dana@example.net", "311@city.example", customerMail)
	return crm.take(g.t, "Street light out"), id, number
}

// TestConversation: a customer writes, the desk answers all with a real client,
// and the customer's real clients bring their replies back to the case.
func TestConversation(t *testing.T) {
	crm, world := startHop(t), startHop(t)
	g := startGate(t, crm.url, world.url)
	g.directory()
	stamped, id, number := g.opened(crm)
	c := g.caseOf(number)
	stampedInbound(t, stamped, c, id)
	openedCase(t, c)

	const canary = "canary.foreman@blind.example"
	desk := person{"City 311", "311@city.example", g.at["smarthost"]}
	desk.nailReply(t, "reply", stamped, nil, "We send a crew on Thursday.", "~b "+canary)
	answer := world.take(t, "Re: Street light out")
	answered(t, g, answer, canary)

	dana := person{"Dana Miller", "dana@example.net", g.at["inbound"]}
	for _, r := range []struct {
		name     string
		change   func(arrived) arrived
		settings map[string][]string // by client
		method   string
	}{
		{"to Reply-To", asDelivered, map[string][]string{"s-nail": {"reply-to-honour=yes"}, "mutt": {"set reply_to=yes"}}, "plus_address"},
		{"to From", asDelivered, map[string][]string{"s-nail": {"reply-to-honour=no"}, "mutt": {"set reply_to=no"}}, "references"},
		{"to Reply-To, Message-ID replaced", relayed, map[string][]string{"s-nail": {"reply-to-honour=yes"}, "mutt": {"set reply_to=yes"}}, "plus_address"},
		{"to From, Message-ID replaced", relayed, map[string][]string{"s-nail": {"reply-to-honour=no"}, "mutt": {"set reply_to=no"}}, "references"},
	} {
		got := r.change(answer)
		t.Run("s-nail replies "+r.name, func(t *testing.T) {
			dana.nailReply(t, "Reply", got, r.settings["s-nail"], "It works again.")
			replied(t, g, crm, number, r.method, got)
		})
		t.Run("mutt replies "+r.name, func(t *testing.T) {
			dana.muttReply(t, "reply", got, r.settings["mutt"], "It works again.")
			replied(t, g, crm, number, r.method, got)
		})
	}
	t.Run("s-nail writes anew to Reply-To", func(t *testing.T) {
		dana.nailWrite(t, "Something else", answer.get("Reply-To"), "Are you there?")
		same(t, "evidence", onCase(t, g, number).CorrelationMethod, "plus_address")
	})
	same(t, "the customer", g.caseOf(number).Customer, c.Customer)
	same(t, "contacts with the customer's address", g.count("contact", "list", "--address", "dana@example.net"), 1)
	g.settle()
	unseen(t, g, canary, number, crm, world)
}

// stampedInbound: the next hop gets what the customer sent, less the forged
// headers, under our stamps.
func stampedInbound(t *testing.T, got arrived, c shownCase, id string) {
	t.Helper()
	sent := parseEML(customerMail)
	same(t, "the body", got.body, sent.body)
	same(t, "MAIL FROM", got.from, "dana@example.net")
	same(t, "RCPT TO", got.to, []string{"311@city.example"})
	const stamps = 8
	kept := slices.DeleteFunc(slices.Clone(sent.fields), func(f string) bool {
		name := strings.ToLower(f)
		return strings.HasPrefix(name, "x-case-") || strings.HasPrefix(name, "x-zammad-") ||
			strings.HasPrefix(name, "authentication-results: gw.city.example")
	})
	same(t, "how many forged fields there were", len(sent.fields)-len(kept), 5)
	same(t, "the customer's fields", got.fields[stamps:], kept)

	token := got.get("X-Case-Ref")
	if !regexp.MustCompile(`^[a-z2-7]{36}$`).MatchString(token) {
		t.Errorf("X-Case-Ref: %q", token)
	}
	var ids []string
	for _, l := range c.Timeline[0].Links {
		ids = append(ids, l.ID)
	}
	same(t, "how many contacts are linked", len(ids), 4)
	received := got.get("Received")
	for _, words := range []string{"from client.example ([127.0.0.1]) by gw.city.example", "with ESMTP id " + id} {
		if !strings.Contains(strings.Join(strings.Fields(received), " "), words) {
			t.Errorf("Received: %q does not say %q", received, words)
		}
	}
	for i, want := range []string{
		"Received: " + received,
		"Authentication-Results: gw.city.example; none",
		"X-Case-Ref: " + token,
		fmt.Sprintf("X-Case-Number: %d", c.Number),
		"X-Case-Customer: " + c.Customer.ID + " guest",
		"X-Case-Contacts: " + strings.Join(ids, ", ") + "; count=4",
		"X-Case-Unresolved: hall@example.org; count=1",
		"X-Case-Decision: T4 I26",
	} {
		same(t, "stamp", strings.TrimSuffix(strings.ReplaceAll(got.fields[i], "\r\n ", " "), "\r\n"), want)
	}
}

// openedCase: what the case says of its first message.
func openedCase(t *testing.T, c shownCase) {
	t.Helper()
	same(t, "the customer", c.Customer, shownPerson{c.Customer.ID, "guest", "Dana Miller"})
	same(t, "the case", []string{c.Title, c.State, c.Origin, c.Queue}, []string{"Street light out", "Active", "Email", "general"})
	first := c.Timeline[0]
	same(t, "identity", first.Identity, "unknown")
	same(t, "parties", first.people(), []string{
		"Sender dana@example.net = contact Dana Miller",
		"To 311@city.example = mailbox 311@city.example",
		"To paul@miller.example.net = contact Paul Miller",
		"CC hall@example.org = unresolved",
	})
	same(t, "candidates", len(first.Parties[3].Candidates), 2)
	same(t, "links", first.linked(), []string{"Dana Miller", "Iris Hall", "Jan Hall", "Paul Miller"})
	same(t, "rules", first.Decision.Rules, []string{"T4", "I26"})
}

// answered: the parties are rewritten, the carriers are in place, and the
// blind copy is in the envelope alone.
func answered(t *testing.T, g *gate, got arrived, canary string) {
	t.Helper()
	m := g.newest(t)
	given := parseEML(g.run("message", "export", m.ID, "--as", "received"))
	same(t, "To as s-nail wrote it", given.get("To"), `Dana Miller <dana@example.net>, "Paul Miller" <paul@miller.example.net>`)
	same(t, "Cc as s-nail wrote it", given.get("Cc"), `Hall Office <hall@example.org>`)

	same(t, "To", got.named("To"), []string{"To: Dana Miller <dana@example.net>\r\n"})
	same(t, "Cc", got.named("Cc"), []string{"Cc: hall@example.org, \"Paul Miller\" <paul@miller.example.net>\r\n"})
	same(t, "RCPT TO", sorted(got.to), []string{canary, "dana@example.net", "hall@example.org", "paul@miller.example.net"})
	token := got.get("X-Case-Ref")
	same(t, "Reply-To", got.get("Reply-To"), "311+"+token+"@city.example")
	same(t, "MAIL FROM", got.from, "311+"+token+"@city.example")
	same(t, "Message-ID", got.get("Message-ID"), given.get("Message-ID"))
	same(t, "Message-ID in the record", "<"+m.MessageID+">", given.get("Message-ID"))
	same(t, "From", got.named("From"), given.named("From"))
	references := strings.Fields(got.get("References"))
	if len(references) != 2 || !strings.HasPrefix(references[0], "<case.") || !strings.HasSuffix(references[0], "@gw.city.example>") {
		t.Errorf("References: %q", references)
	}
	same(t, "the parent in References", references[len(references)-1], "<light-1@example.net>")
	ours := []string{"Received", "To", "Cc", "Reply-To", "References", "X-Case-Ref"}
	same(t, "the other fields", got.without(ours...), given.without(ours...))
	same(t, "the body", got.body, given.body)
	if bytes.Contains(got.wire, []byte("canary")) || len(got.named("Bcc")) > 0 {
		t.Errorf("the blind copy shows:\n%s", got.wire)
	}
	same(t, "identity", m.Identity, "submitter")
	same(t, "parties", sorted(m.people()), []string{
		"CC hall@example.org = unresolved",
		"CC paul@miller.example.net = contact Paul Miller",
		"Sender 311@city.example = mailbox 311@city.example",
		"To dana@example.net = contact Dana Miller",
	})
	same(t, "rules", m.Decision.Rules, []string{"O0", "O3", "O6", "O7", "O10", "O13"})
}

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}

func asDelivered(m arrived) arrived { return m }

// relayed is the message behind a relay that gives its own Message-ID, as
// Amazon SES and Exchange do.
func relayed(m arrived) arrived {
	given := m.get("Message-ID")
	m.eml = parseEML(bytes.Replace(m.raw, []byte(given), []byte("<0102018f3c@eu-west-1.amazonses.com>"), 1))
	return m
}

// onCase is the newest message, which must be on the case.
func onCase(t *testing.T, g *gate, number string) shownMessage {
	t.Helper()
	m := g.newest(t)
	if m.Case == nil || fmt.Sprint(*m.Case) != number {
		t.Fatalf("%q is on case %v, not %s: %q", m.Subject, m.Case, number, m.Decision.Reasons)
	}
	return m
}

// replied: the newest message is a reply that its evidence led to the case.
func replied(t *testing.T, g *gate, crm *nextHop, number, method string, to arrived) {
	t.Helper()
	m := onCase(t, g, number)
	received := parseEML(g.run("message", "export", m.ID, "--as", "received"))
	same(t, "In-Reply-To", received.get("In-Reply-To"), to.get("Message-ID"))
	same(t, "evidence", m.CorrelationMethod, method)
	same(t, "rules", m.Decision.Rules, []string{"T1", "I16"})
	same(t, "sender", m.people()[0], "Sender dana@example.net = contact Dana Miller")
	same(t, "identity", m.Identity, "known guest")
	if slices.Contains(m.Flags, "third-party") {
		t.Error("the customer counts as a third party")
	}
	stamped := crm.take(t, m.Subject)
	same(t, "the body at the next hop", stamped.body, received.body)
	same(t, "X-Case-Number", stamped.get("X-Case-Number"), number)
	same(t, "RCPT TO", stamped.to, []string{"311@city.example"})
}

// unseen: an address of a blind copy turns up nowhere without the right.
func unseen(t *testing.T, g *gate, canary, number string, hops ...*nextHop) {
	t.Helper()
	for _, args := range [][]string{
		{"case", "show", number}, {"case", "show", number, "--json"}, {"case", "list", "--json"},
		{"message", "list", "--json"}, {"queue", "list"}, {"queue", "list", "--json"}, {"contact", "list", "--json"},
	} {
		if out := g.run(args...); bytes.Contains(out, []byte(canary)) {
			t.Errorf("casegate %s tells the blind copy:\n%s", strings.Join(args, " "), out)
		}
	}
	for _, m := range g.caseOf(number).Timeline {
		for _, args := range [][]string{
			{"message", "show", m.ID}, {"message", "show", m.ID, "--json"}, {"explain", m.ID}, {"explain", m.ID, "--today"},
			{"message", "export", m.ID, "--as", "received"}, {"message", "export", m.ID, "--as", "sent"},
		} {
			if out := g.run(args...); bytes.Contains(out, []byte(canary)) {
				t.Errorf("casegate %s tells the blind copy:\n%s", strings.Join(args, " "), out)
			}
		}
	}
	if log := g.log.String(); strings.Contains(log, canary) {
		t.Errorf("the log tells the blind copy:\n%s", log)
	}
	if out := g.run("case", "show", number, "--json", "--bcc"); !bytes.Contains(out, []byte(canary)) {
		t.Error("case show --bcc does not tell the blind copy")
	}
}
