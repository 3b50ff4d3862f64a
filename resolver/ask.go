package resolver

import (
	"slices"

	"github.com/casegate/casegate/store"
)

// Ask names everything that a decision on the message needs to know.
func Ask(m Mail, s Settings) store.Query {
	var q store.Query
	for _, c := range signed(m, s) {
		if tok, ok := readToken(c.token); ok {
			q.Cases = append(q.Cases, tok.Case)
		}
	}
	for _, id := range []string{m.MessageID, m.DerivedID} {
		if id != "" {
			q.MessageIDs = append(q.MessageIDs, id)
		}
	}
	for _, c := range unsigned(m) {
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
	q.Cases, q.MessageIDs, q.Addresses = unique(q.Cases), unique(q.MessageIDs), unique(q.Addresses)
	return q
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
	q.Parents = true
	return q
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
