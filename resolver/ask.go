package resolver

import (
	"slices"

	"github.com/casegate/casegate/store"
)

// Ask names everything that a decision on the message needs to know, and on
// the one that it forwards.
func Ask(m Mail, s Settings) store.Query {
	q := ask(m, s)
	if m.Embedded != nil {
		e := ask(*m.Embedded, s)
		q.Cases, q.MessageIDs = append(q.Cases, e.Cases...), append(q.MessageIDs, e.MessageIDs...)
		q.Addresses, q.Tallies = append(q.Addresses, e.Addresses...), append(q.Tallies, e.Tallies...)
	}
	q.Cases, q.MessageIDs, q.Addresses = unique(q.Cases), unique(q.MessageIDs), unique(q.Addresses)
	return q
}

func ask(m Mail, s Settings) store.Query {
	q := store.Query{At: m.Received, Tallies: tallies(m, s)}
	reports := m.Header != nil && m.Reports()
	for _, c := range signed(m, s) {
		if tok, ok := readToken(c.token); ok {
			q.Cases = append(q.Cases, tok.Case)
			if reports && tok.Ordinal > 0 {
				q.Ordinals = append(q.Ordinals, store.CaseOrdinal{Case: tok.Case, Ordinal: tok.Ordinal})
			}
		}
	}
	for _, id := range []string{m.MessageID, m.DerivedID} {
		if id != "" {
			q.MessageIDs = append(q.MessageIDs, id)
		}
	}
	for _, c := range unsigned(m, s) {
		if c.number != 0 {
			q.Cases = append(q.Cases, c.number)
			continue
		}
		q.MessageIDs = append(q.MessageIDs, c.id)
	}
	for _, list := range [][]Address{m.From, m.To, m.CC, m.BCC} {
		for _, a := range list {
			q.Addresses = append(q.Addresses, a.Key())
		}
	}
	if id, err := store.ParseID(AssertedBy(m)); err == nil {
		q.Contacts = append(q.Contacts, id)
	}
	for _, a := range m.Recipients {
		q.Addresses = append(q.Addresses, store.Key(a))
	}
	if s.Ack && m.EnvelopeFrom != "" {
		q.Addresses = append(q.Addresses, store.Key(m.EnvelopeFrom))
	}
	return q
}

// tallies are the counts that bound what one address can set off.
func tallies(m Mail, s Settings) (keys []store.TallyKey) {
	sender, _ := m.Sender()
	if s.FloodHour > 0 || s.FloodDay > 0 {
		keys = append(keys, store.TallyKey{Kind: store.TallyOpened, Address: m.opener()})
	}
	if !s.Ack {
		return keys
	}
	for _, address := range []string{m.EnvelopeFrom, sender.Address} {
		if address != "" {
			keys = append(keys, store.TallyKey{Kind: store.TallyAcknowledged, Address: store.Key(address)})
		}
	}
	return keys
}

// unique keeps the first of each value; strangers choose how many there are.
func unique[T comparable](list []T) []T {
	seen := make(map[T]bool, len(list))
	return slices.DeleteFunc(list, func(v T) bool {
		was := seen[v]
		seen[v] = true
		return was
	})
}

// AskOutbound names everything that a decision on a submission needs to know.
func AskOutbound(sub Submission, s Settings) store.Query {
	q := Ask(sub.Mail, s)
	q.Parents, q.Tallies = true, nil
	return q
}

// AskSent names the count that bounds the submission (rule O14): whose it is
// shows only when all else is decided.
func AskSent(sub Submission, f store.Facts, s Settings) store.Query {
	return store.Query{Tallies: Outbound(sub, f, s).Sent, At: sub.Received}
}

// AskMore names the addresses by which those who hold an address of the
// submission took part in a case: whether they hold these alone tells who is
// only linked (rule O5).
func AskMore(f store.Facts) []string {
	used := map[string]bool{}
	for _, c := range f.Cases {
		for address := range c.Used {
			_, known := f.Holders[address]
			used[address] = !known
		}
	}
	var more []string
	for _, h := range f.Holders {
		for _, c := range h.Contacts {
			for _, e := range c.EmailAddresses {
				if key := store.Key(e.Address); used[key] {
					more = append(more, key)
				}
			}
		}
	}
	return unique(more)
}
