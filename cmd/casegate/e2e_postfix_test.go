package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/casegate/casegate/gateway/testbed"
)

// postfix takes mail from customers at mx, and hands it to casegate by LMTP, to
// the world by SMTP; its relay, behind the smarthost, gives every mail a
// Message-ID of its own.
type postfix struct {
	*testbed.Postfix
	mx, relay string // addresses
}

const replacedID = "<0102018f3c@relay.example>"

// newPostfix picks its addresses; start runs it.
func newPostfix(t *testing.T) *postfix {
	t.Helper()
	p, at := testbed.NewPostfix(t), testbed.Free(t, 2)
	return &postfix{p, at[0], at[1]}
}

const mainCF = `smtpd_relay_restrictions = permit_mynetworks, reject
smtp_tls_security_level = none
recipient_delimiter = +
relayhost = [127.0.0.1]:%[1]s
transport_maps = inline:{ {parks@city.example = lmtp:unix:%[2]s}, {city.example = lmtp:inet:%[3]s} }
`

const masterCF = `%[1]s inet n - n - - smtpd
%[2]s inet n - n - - smtpd
  -o cleanup_service_name=replacing
replacing unix n - n - 0 cleanup
  -o header_checks=regexp:%[3]s
`

// start runs Postfix between a gate and the world.
func (p *postfix) start(g *gate, world *nextHop) {
	g.t.Helper()
	p.Start(p.relay, map[string]string{
		"main.cf":   fmt.Sprintf(mainCF, testbed.Port(world.url), g.at["lmtp-unix"], g.at["lmtp"]),
		"master.cf": fmt.Sprintf(masterCF, p.mx, p.relay, p.Path("etc/replacing")),
		"replacing": "/^Message-ID:/ REPLACE Message-ID: " + replacedID + "\n",
	})
}

// TestPostfix: a real MTA in front of us, by LMTP over TCP and over a UNIX
// socket, and a real relay behind us that replaces Message-IDs.
func TestPostfix(t *testing.T) {
	p := newPostfix(t)
	crm, world := startHop(t), startHop(t)
	g := newGate(t, crm.url, "smtp://"+p.relay)
	p.Admit(filepath.Join(g.dir, "run"))
	g.start()
	g.directory()
	p.start(g, world)

	const sent = `to=<%s>, (?:orig_to=\S+ )?relay=\S+, .*dsn=2\.0\.0, status=sent \(250 2\.0\.0 <%s> accepted (\S+) case (\d+)\)$`
	given := parseEML(bytes.ReplaceAll(bytes.ReplaceAll(customerMail, []byte("x-case-ref :"), []byte("x-case-ref:")), []byte("X-Odd :"), []byte("X-Odd:"))) // Postfix does that
	var number string
	t.Run("LMTP over TCP", func(t *testing.T) {
		swaks(t, p.mx, "dana@example.net", "311@city.example", customerMail)
		reply := p.Said(sent, "311@city.example", "311@city.example")
		number = reply[2]
		m := onCase(t, g, number)
		same(t, "id", m.ID, reply[1])
		same(t, "listener", m.Envelope.Listener, "lmtp")
		received := parseEML(g.run("message", "export", m.ID))
		same(t, "the body", received.body, given.body)
		same(t, "the fields below Postfix's own", received.fields[1:], given.fields)
		stamped := crm.take(t, "Street light out")
		same(t, "the body at the next hop", stamped.body, given.body)
		same(t, "Postfix's Received", stamped.named("Received")[1], received.fields[0])
	})
	t.Run("LMTP over a UNIX socket", func(t *testing.T) {
		mail := simpleMail("by-socket", "dana@example.net", "parks@city.example")
		swaks(t, p.mx, "dana@example.net", "parks@city.example", mail)
		reply := p.Said(sent, "parks@city.example", "parks@city.example")
		m := g.newest(t)
		same(t, "id", m.ID, reply[1])
		same(t, "listener", m.Envelope.Listener, "lmtp-unix")
		if received := g.run("message", "export", m.ID); !bytes.HasSuffix(received, mail) {
			t.Errorf("not what was sent:\n%s", received)
		}
		same(t, "queue", g.caseOf(reply[2]).Queue, "parks")
	})
	t.Run("two mailboxes, two transactions, one case", func(t *testing.T) {
		mail := simpleMail("both-mailboxes", "ed@example.net", "311@city.example, parks@city.example")
		swaks(t, p.mx, "ed@example.net", "311@city.example,parks@city.example", mail)
		queued := p.Said(`(\w+): message-id=<both-mailboxes@mail\.example>`)[1]
		one := p.Said(queued+`: `+sent, "311@city.example", "311@city.example")
		two := p.Said(queued+`: `+sent, "parks@city.example", "parks@city.example")
		same(t, "id and case", one[1:], two[1:])
		same(t, "activities", len(g.caseOf(one[2]).Timeline), 1)
	})
	t.Run("unknown recipient", func(t *testing.T) {
		before := g.count("message", "list")
		swaks(t, p.mx, "dana@example.net", "nobody@city.example", simpleMail("nobody", "dana@example.net", "nobody@city.example"))
		p.Said(`to=<nobody@city\.example>, .*dsn=5\.1\.1, status=bounced \(host \S+ said: 550 5\.1\.1 .* \(in reply to RCPT TO command\)\)$`)
		bounce := world.take(t, "Undelivered Mail Returned to Sender")
		same(t, "who is told", bounce.to, []string{"dana@example.net"})
		same(t, "messages", g.count("message", "list"), before)
	})

	desk := person{"City 311", "311@city.example", g.at["smarthost"]}
	dana := person{"Dana Miller", "dana@example.net", p.mx}
	first := g.run("message", "export", g.caseOf(number).Timeline[0].ID, "--as", "sent")
	desk.nailReply(t, "reply", arrived{from: "dana@example.net", eml: parseEML(first)}, nil, "We send a crew.")
	answer := world.take(t, "Re: Street light out")
	t.Run("the answer behind the relay", func(t *testing.T) {
		m := onCase(t, g, number)
		if "<"+m.MessageID+">" == answer.get("Message-ID") {
			t.Error("the relay did not replace the Message-ID")
		}
		same(t, "Message-ID", answer.get("Message-ID"), replacedID)
		same(t, "RCPT TO", sorted(answer.to), []string{"dana@example.net", "hall@example.org", "paul@miller.example.net"})
		asSent := parseEML(g.run("message", "export", m.ID, "--as", "sent"))
		same(t, "what the relay left alone", answer.without("Message-ID", "Received"), asSent.without("Message-ID", "Received"))
		same(t, "the body", answer.body, asSent.body)
		same(t, "MAIL FROM", answer.from, m.Delivery[0].From)
	})
	for i, c := range []struct {
		name, method string
		reply        func(t *testing.T)
	}{
		{"s-nail, to From and all", "references", func(t *testing.T) {
			dana.nailReply(t, "reply", answer, []string{"reply-to-honour=no"}, "It works again.")
		}},
		{"mutt, to From and all", "references", func(t *testing.T) {
			dana.muttReply(t, "group-reply", answer, []string{"set reply_to=no"}, "It works again.")
		}},
		{"mutt, to Reply-To and all", "plus_address", func(t *testing.T) {
			dana.muttReply(t, "group-reply", answer, []string{"set reply_to=yes"}, "It works again.")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.reply(t)
			stamped := crm.take(t, "Re: Street light out")
			m := onCase(t, g, number)
			same(t, "evidence", m.CorrelationMethod, c.method)
			same(t, "rules", m.Decision.Rules, []string{"T1", "I16"})
			same(t, "In-Reply-To", stamped.get("In-Reply-To"), replacedID)
			same(t, "activities", len(g.caseOf(number).Timeline), 3+i)
			same(t, "what the others get", sorted(world.take(t, "Re: Street light out").to), []string{"hall@example.org", "paul@miller.example.net"})
		})
	}
	t.Run("the return path", func(t *testing.T) { // the fifth carrier
		cases := g.count("case", "list")
		desk.nailReply(t, "reply", answer, []string{"reply-to-honour=no"}, "To somebody who is gone.", "~c gone"+refusedDomain)
		lost := p.Said(`(\w+): to=<gone%s>, .*status=bounced \(host \S+ said: 550 5\.1\.1 no such user`, refusedDomain)[1]
		report := p.Said(`%s: sender non-delivery notification: (\w+)$`, lost)[1]
		p.Said(`%s: to=<311\+\w{36}@city\.example>, .*status=sent \(250 2\.0\.0 <311\+\w{36}@city\.example> accepted \S+ `, report)
		m := g.newest(t)
		same(t, "class", m.Class, "dsn")
		same(t, "evidence", m.CorrelationMethod, "plus_address")
		same(t, "rules", m.Decision.Rules, []string{"T1", "I5"})
		same(t, "cases", g.count("case", "list"), cases)
	})
	same(t, "the customer", g.caseOf(number).Customer.Name, "Dana Miller")
	if log := p.Log(); regexp.MustCompile(`(?m): (fatal|panic|warning): `).MatchString(log) {
		t.Errorf("Postfix complains:\n%s", log)
	}
}
