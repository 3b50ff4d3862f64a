package main

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
)

// TestFamily: three guests share one address. A new mail is a fourth guest's,
// related to all of them; the answer shows the fourth, once, and nothing of the
// others.
func TestFamily(t *testing.T) {
	crm, world := startHop(t), startHop(t)
	g := startGate(t, crm.url, world.url)
	const address = "miller.family@example.net"
	known := []string{
		g.contact("guest", "Ana Miller", address, "ana.private@work.example"),
		g.contact("guest", "Ben Miller", "Miller.Family@EXAMPLE.net"),
		g.contact("guest", "Cleo Miller", address),
	}
	swaksTaken(t, g.at["inbound"], address, "311@city.example", letter(`From: Dana Miller <Miller.Family@example.net>
To: 311@city.example
Subject: Street light
Message-ID: <family-1@example.net>

Hello
`))
	stamped := crm.take(t, "Street light")
	c := g.caseOf("1")
	first := c.Timeline[0]
	same(t, "the customer", c.Customer, shownPerson{c.Customer.ID, "guest", "Dana Miller"})
	if slices.Contains(known, c.Customer.ID) {
		t.Error("the customer is one of the three")
	}
	same(t, "guests with the address", g.count("contact", "list", "--address", address), 4)
	same(t, "links", first.linked(), []string{"Ana Miller", "Ben Miller", "Cleo Miller", "Dana Miller"})
	same(t, "rules", first.Decision.Rules, []string{"T0", "I26"})
	same(t, "identity", first.Identity, "known guest")
	same(t, "parties", first.people(), []string{
		"Sender Miller.Family@example.net = contact Dana Miller", "To 311@city.example = mailbox 311@city.example",
	})

	desk := person{"City 311", "311@city.example", g.at["smarthost"]}
	for i, lines := range [][]string{
		{"As it is."},
		{"To all of them.", "~t Ana Miller <miller.family@example.net>", "~c Ben Miller <MILLER.FAMILY@example.net>", "~c Cleo <miller.family@example.net>"},
		{"To Ana's other address too.", "~c Ana Miller <ana.private@work.example>"},
		{"And blind.", "~b ana.private@work.example"},
	} {
		t.Run(lines[0], func(t *testing.T) {
			desk.nailReply(t, "reply", stamped, nil, lines...)
			answer := world.take(t, "Re: Street light")
			same(t, "To", answer.named("To"), []string{"To: Dana Miller <Miller.Family@example.net>\r\n"})
			same(t, "Cc", len(answer.named("Cc")), 0)
			same(t, "RCPT TO", answer.to, []string{"Miller.Family@example.net"})
			same(t, "how often the address stands in it", bytes.Count(bytes.ToLower(answer.wire), []byte(address)), 1)
			for _, other := range []string{"Ana Miller", "Ben Miller", "Cleo", "private"} {
				if header, _, _ := bytes.Cut(answer.wire, []byte("\r\n\r\n")); bytes.Contains(header, []byte(other)) {
					t.Errorf("%s shows:\n%s", other, answer.wire)
				}
			}
			m := g.caseOf("1").Timeline[i+1]
			same(t, "parties", m.people(), []string{
				"Sender 311@city.example = mailbox 311@city.example", "To Miller.Family@example.net = contact Dana Miller",
			})
			same(t, "links", m.linked(), []string{"Ana Miller", "Ben Miller", "Cleo Miller", "Dana Miller"})
		})
	}
	t.Run("addressed to another of them alone", func(t *testing.T) {
		swaksTaken(t, g.at["smarthost"], "311@city.example", address, letter("From: 311@city.example\nTo: \"Ana Miller\" <miller.family@example.net>\nSubject: Ana\nIn-Reply-To: <family-1@example.net>\n\nHello\n"))
		answer := world.take(t, "Ana")
		same(t, "To", answer.named("To"), []string{"To: \"Dana Miller\" <miller.family@example.net>\r\n"})
	})
	t.Run("Ana replies by the shared address", func(t *testing.T) {
		desk.nailReply(t, "reply", stamped, nil, "Once more.")
		ana := person{"Ana Miller", address, g.at["inbound"]}
		ana.nailReply(t, "Reply", world.take(t, "Re: Street light"), nil, "Ana here.")
		m := onCase(t, g, "1")
		same(t, "sender", m.people()[0], "Sender miller.family@example.net = contact Dana Miller")
		same(t, "the customer", g.caseOf("1").Customer, c.Customer)
	})
	t.Run("a further mail is a fifth guest's", func(t *testing.T) {
		_, number := swaksTaken(t, g.at["inbound"], address, "311@city.example", simpleMail("hydrant", "Emil Miller <miller.family@example.net>", "311@city.example"))
		same(t, "case", number, "2")
		second := g.caseOf(number)
		same(t, "the customer", second.Customer, shownPerson{second.Customer.ID, "guest", "Emil Miller"})
		same(t, "links", second.Timeline[0].linked(), []string{"Ana Miller", "Ben Miller", "Cleo Miller", "Dana Miller", "Emil Miller"})
		same(t, "links of the first case", g.caseOf("1").Timeline[0].linked(), []string{"Ana Miller", "Ben Miller", "Cleo Miller", "Dana Miller"})
	})
	same(t, "cases", fmt.Sprint(g.count("case", "list")), "2")
}
