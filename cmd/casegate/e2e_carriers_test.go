package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestCarriers: each of the five places that a token is stamped in leads back
// to the case when it is all that survives; and what proves nothing does not.
func TestCarriers(t *testing.T) {
	crm, world := startHop(t), startHop(t)
	g := startGate(t, crm.url, world.url)
	stamped, _, number := g.opened(crm)
	desk := person{"City 311", "311@city.example", g.at["smarthost"]}
	desk.nailReply(t, "Reply", stamped, []string{"message-id-disable"}, "The first answer has no Message-ID of its own.")
	ours := world.take(t, "Re: Street light out")
	given := parseEML(g.run("message", "export", g.newest(t).ID, "--as", "received"))
	same(t, "Message-ID that the client gave", given.get("Message-ID"), "")
	desk.nailReply(t, "Reply", stamped, nil, "The second has one.")
	theirs := world.take(t, "Re: Street light out")

	token := ours.get("X-Case-Ref")
	plus := "311+" + token + "@city.example"
	same(t, "the Message-ID given", ours.get("Message-ID"), "<m."+token+"@gw.city.example>")
	if theirs.get("X-Case-Ref") == token {
		t.Error("two activities bear one token")
	}
	pseudo := strings.Fields(ours.get("References"))[0]
	same(t, "the pseudo-reference of both", strings.Fields(theirs.get("References"))[0], pseudo)
	same(t, "MAIL FROM", ours.from, plus)

	const dana, stranger = "dana@example.net", "stranger@elsewhere.example"
	const foreign = "<0102018f3c@eu-west-1.amazonses.com>"
	forged := token[:35] + "a" // the last bit of the signature is another
	if token[35] == 'a' {
		forged = token[:35] + "q"
	}
	for i, c := range []struct {
		name, from, to string // to: the envelope's recipient
		header         []string
		method         string
		rules          []string
		flag           string
	}{
		{"Reply-To, the envelope's recipient", dana, plus, []string{"To: " + plus}, "plus_address", []string{"T1", "I16"}, ""},
		{"Reply-To, shouted", dana, strings.ToUpper(plus), nil, "plus_address", []string{"T1", "I16"}, ""},
		{"Reply-To, in To alone", dana, "311@city.example", []string{"To: City <" + plus + ">"}, "plus_address", []string{"T1", "I16"}, ""},
		{"Reply-To, in Cc alone", dana, "311@city.example", []string{"To: you@example.org", "Cc: " + plus}, "plus_address", []string{"T1", "I16"}, ""},
		{"MAIL FROM", dana, ours.from, []string{"To: undisclosed-recipients:;"}, "plus_address", []string{"T1", "I16"}, ""},
		{"X-Case-Ref", dana, "311@city.example", []string{"X-Case-Ref: " + token}, "tracking_header", []string{"T1", "I16"}, ""},
		{"Message-ID of ours, in In-Reply-To", dana, "311@city.example", []string{"In-Reply-To: " + ours.get("Message-ID")}, "in_reply_to", []string{"T1", "I16"}, ""},
		{"Message-ID of ours, in References", dana, "311@city.example", []string{"References: <x@y.example> " + ours.get("Message-ID")}, "references", []string{"T1", "I16"}, ""},
		{"the pseudo-reference", dana, "311@city.example", []string{"In-Reply-To: " + foreign, "References: " + pseudo + "\r\n\t" + foreign}, "references", []string{"T1", "I16"}, ""},
		{"Message-ID of the client's, in In-Reply-To", dana, "311@city.example", []string{"In-Reply-To: " + theirs.get("Message-ID")}, "foreign_message_id", []string{"T2", "I16"}, ""},
		{"a third party with the token", stranger, plus, nil, "plus_address", []string{"T1", "I16"}, "third-party"},
		{"a third party with a Message-ID alone", "other@elsewhere.example", "311@city.example", []string{"In-Reply-To: " + theirs.get("Message-ID")}, "", []string{"T3", "I26"}, ""},
		{"a token that was guessed", "guess@elsewhere.example", "311+" + forged + "@city.example", nil, "", []string{"T4", "I26"}, ""},
		{"nothing", "new@elsewhere.example", "311@city.example", nil, "", []string{"T0", "I26"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			header := append([]string{
				"From: " + c.from, "Date: Sun, 22 Nov 2026 20:00:00 +0000",
				fmt.Sprintf("Message-ID: <carrier-%d@mail.example>", i), "Subject: " + c.name,
			}, c.header...)
			id, on := swaksTaken(t, g.at["inbound"], c.from, c.to, []byte(strings.Join(header, "\r\n")+"\r\n\r\nHello\r\n"))
			m := g.message(id)
			same(t, "rules", m.Decision.Rules, c.rules)
			same(t, "on the case", on == number, c.method != "")
			if c.method != "" {
				same(t, "evidence", m.CorrelationMethod, c.method)
			}
			same(t, "third party", slices.Contains(m.Flags, "third-party"), c.flag != "")
		})
	}
	c := g.caseOf(number)
	same(t, "the customer", c.Customer.Name, "Dana Miller")
	same(t, "activities", len(c.Timeline), 3+11)

	// A third party who once wrote with the token gets no answer by himself.
	answer := letter("From: 311@city.example\nTo: 311@city.example\nSubject: To the customer\nIn-Reply-To: " + theirs.get("Message-ID") + "\n\nHello\n")
	swaksTaken(t, g.at["smarthost"], "311@city.example", "311@city.example", answer)
	sent := world.take(t, "To the customer")
	same(t, "RCPT TO", sent.to, []string{dana})
	if strings.Contains(string(sent.wire), stranger) {
		t.Errorf("the third party shows:\n%s", sent.wire)
	}
}
