package console

import (
	"net/http"
	"regexp"
	"slices"

	"github.com/casegate/casegate/store"
)

// veil keeps what only Bcc says about a message from those without the right
// to see it: the party rows, and the addresses wherever else they turn up
// (envelope, deliveries, the words of a next hop or of a reason). The zero veil
// hides nothing.
type veil struct {
	on     bool
	secret []string // canonical keys
	words  *regexp.Regexp
}

// hidden stands where an address was.
const hidden = "[bcc]"

// veilFor covers the Bcc of messages, unless the caller may see it.
func veilFor(seesBCC bool, messages ...store.Message) veil {
	v := veil{on: !seesBCC}
	if seesBCC {
		return v
	}
	var words []string
	for _, m := range messages {
		for _, address := range blind(m) {
			key := store.Key(address)
			if key == "" || shown(m, key) || slices.Contains(v.secret, key) {
				continue
			}
			v.secret = append(v.secret, key)
			words = append(words, regexp.QuoteMeta(address), regexp.QuoteMeta(key))
		}
	}
	if words != nil {
		v.words = wordsOf(words)
	}
	return v
}

// blind lists the addresses of a message that may be known by Bcc alone: those
// of its Bcc parties and, of one that we sent, every recipient it was given
// for, also those whom a rule then dropped.
func blind(m store.Message) []string {
	var list []string
	for _, p := range m.Parties {
		if p.Role == store.RoleBCC && p.Party.Kind != store.PartyMailbox {
			list = append(list, p.AddressUsed)
		}
	}
	if m.Direction == store.Outgoing {
		list = append(list, m.Envelope.Recipients...)
	}
	return list
}

// wordsOf matches any of the addresses where no longer one stands.
func wordsOf(quoted []string) *regexp.Regexp {
	any := quoted[0]
	for _, q := range quoted[1:] {
		any += "|" + q
	}
	return regexp.MustCompile(`(?i)(^|[^\pL\pN._%+-])(?:` + any + `)`)
}

// shown reports whether an address stands in the message for all to see.
func shown(m store.Message, key string) bool {
	return slices.ContainsFunc(m.Parties, func(p store.Party) bool {
		return p.Role != store.RoleBCC && store.Key(p.AddressUsed) == key
	})
}

func (v veil) hides(address string) bool { return slices.Contains(v.secret, store.Key(address)) }

// text takes hidden addresses out of a sentence.
func (v veil) text(s string) string {
	if v.words == nil {
		return s
	}
	return v.words.ReplaceAllString(s, "${1}"+hidden)
}

func (v veil) texts(list []string) []string {
	if v.words == nil {
		return list
	}
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = v.text(s)
	}
	return out
}

func (v veil) addresses(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), v.hides)
}

func (v veil) parties(list []store.Party) []store.Party {
	return slices.DeleteFunc(slices.Clone(list), func(p store.Party) bool { return v.covers(p.Role, p.AddressUsed) })
}

// covers reports whether a party row is Bcc's.
func (v veil) covers(role store.Role, address string) bool {
	return v.on && role == store.RoleBCC || v.hides(address)
}

func (v veil) activityParties(list []ActivityParty) []ActivityParty {
	return slices.DeleteFunc(list, func(p ActivityParty) bool { return v.covers(p.Role, p.AddressUsed) })
}

// delivery hides recipients and what a next hop said about them.
func (v veil) delivery(d store.Delivery) store.Delivery {
	if v.words == nil {
		return d
	}
	recipients := []store.Recipient{}
	for _, r := range d.Recipients {
		if !v.hides(r.Address) {
			r.Reply, r.ORcpt = v.text(r.Reply), v.text(r.ORcpt)
			recipients = append(recipients, r)
		}
	}
	d.Recipients = recipients
	d.Attempts = slices.Clone(d.Attempts)
	for i := range d.Attempts {
		d.Attempts[i].Reply = v.text(d.Attempts[i].Reply)
	}
	return d
}

// events hides all but what reports tell of the addresses that the message
// shows: a blind one may have passed the mail on to one that nobody knows here.
func (v veil) events(m store.Message) []store.DeliveryEvent {
	if v.words == nil {
		return m.Events
	}
	var list []store.DeliveryEvent
	for _, e := range m.Events {
		if shown(m, store.Key(e.Recipient)) {
			e.Diagnostic = v.text(e.Diagnostic)
			list = append(list, e)
		}
	}
	return list
}

// mayBCC reports whether Bcc is to be shown: asked for, and with the right.
func (a *api) mayBCC(asked bool) (bool, error) {
	if asked && a.Access < Operator {
		return false, problem(http.StatusForbidden, "ask on the gateway itself, with the casegate command", "bcc may be seen over the local socket only")
	}
	return asked, nil
}
