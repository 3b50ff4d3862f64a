package resolver

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/casegate/casegate/store"
)

// opener is the address that new cases are counted by: the sender's, or, where
// From is not one, that of the envelope.
func (m Mail) opener() string {
	if from, ok := m.Sender(); ok {
		return from.Key()
	}
	return store.Key(m.EnvelopeFrom)
}

// isFlood: the sender's address has opened as many cases as it may (rule I21).
func (in *inbound) isFlood() bool {
	opened := in.facts.Tallies[store.TallyKey{Kind: store.TallyOpened, Address: in.mail.opener()}]
	return exceeds(opened, in.mail.Received, in.settings.FloodHour, in.settings.FloodDay)
}

// exceeds: one more event would pass a bound; 0 is no bound.
func exceeds(events []time.Time, now time.Time, perHour, perDay int) bool {
	hour, day := 0, 0
	for _, at := range events {
		if age := now.Sub(at); age < time.Hour {
			hour++
		} else if age >= 24*time.Hour {
			continue
		}
		day++
	}
	return perHour > 0 && hour >= perHour || perDay > 0 && day >= perDay
}

// enough holds what is more than a person writes (O14): two machines that answer
// each other would go on for ever, and where they do not say what they are only
// the rate tells (RFC 3834 §2). What is held is not counted.
func (o *outbound) enough() *Refusal {
	hour, day := o.settings.AnswersHour, o.settings.AnswersDay
	n, what := o.d.Case.Number, "mails of this case as flood.answers allows"
	if o.d.Opens {
		hour, day = o.settings.FloodHour, o.settings.FloodDay
		n, what = 0, "mails that open a case as flood.new_cases allows"
	}
	if !o.cased || o.d.Hold != "" || hour == 0 && day == 0 {
		return nil
	}
	to := o.foremost()
	key := store.TallyKey{Kind: store.TallySent, Case: n, Address: to.Address.Key()}
	if !exceeds(o.facts.Tallies[key], o.sub.Received, hour, day) {
		o.d.Sent = []store.TallyKey{key}
		return nil
	}
	o.rule("O14", "%s was sent as many %s: held", to.called(), what)
	o.hold(fmt.Sprintf("%s was sent as many %s; perhaps two machines answer each other (rule O14)", to.called(), what))
	o.d.Case.Flags = appendNew(slices.Clone(o.d.Case.Flags), "answers-held")
	return nil
}

// foremost is the recipient by whom a mail is counted: Case.Customer if he gets
// it, else the first.
func (o *outbound) foremost() (to Entry) {
	o.each(func(e *Entry) {
		if e.Deliver && (!to.Deliver || o.isCustomer(e.Address) && !o.isCustomer(to.Address)) {
			to = *e
		}
	})
	return to
}

// acknowledge says who gets an acknowledgement of the new case (rules §5): a
// person whose reply path is real, and not too often.
func (in *inbound) acknowledge() {
	if !in.settings.Ack || in.d.Action != Open || in.d.Direction == store.Outgoing {
		return
	}
	to, why := in.ackTo()
	if why != "" {
		in.note("no acknowledgement: %s", why)
		return
	}
	in.d.Ack = to
	in.note("acknowledged to %s", to)
}

// ackTo is the reverse-path (RFC 3834 §4), or whom a trusted form speaks for;
// or why nobody is answered.
func (in *inbound) ackTo() (to, whyNot string) {
	to = in.mail.EnvelopeFrom
	if in.mail.TrustedForm {
		to = in.sender.address.Address
	}
	_, own := in.settings.Own(to)
	sent := in.facts.Tallies[store.TallyKey{Kind: store.TallyAcknowledged, Address: store.Key(to)}]
	switch {
	case !in.is(Human):
		return "", "it is not a person's mail"
	case in.from(Forged):
		return "", "the sender is forged"
	case to == "":
		return "", "the reverse-path is null"
	case own || len(in.facts.Holders[store.Key(to)].Agents) > 0:
		return "", "the reverse-path is ours"
	case noReply(to) || noReply(in.sender.address.Address):
		return "", "the sender takes no replies"
	case suppressed(in.mail.Header):
		return "", "X-Auto-Response-Suppress"
	case in.d.Customer.DoNotEmail:
		return "", "the customer does not want e-mail"
	case exceeds(sent, in.mail.Received, in.settings.AckPerHour, in.settings.AckPerDay):
		return "", "the address was sent enough of them"
	}
	return to, ""
}

// noReply: an address by which nobody reads.
func noReply(address string) bool {
	local, _, _ := cutLast(store.Key(address), "@")
	plain := plainLocal(address)
	for _, name := range []string{"noreply", "donotreply", "mailerdaemon", "postmaster", "bounce", "bounces"} {
		if plain == name || strings.HasPrefix(plain, name+"+") {
			return true
		}
	}
	return strings.HasPrefix(local, "owner-") || strings.HasSuffix(local, "-request") || strings.HasSuffix(local, "-bounces")
}

// suppressed: the sender's system asks for no automatic answers.
func suppressed(h Header) bool {
	v := strings.ToLower(first(h, "X-Auto-Response-Suppress"))
	for _, word := range strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' || r == ';' }) {
		if word == "all" || word == "autoreply" {
			return true
		}
	}
	return false
}
