package resolver

import "github.com/casegate/casegate/store"

// Ask names everything that a decision on the message needs to know.
func Ask(m Mail, s Settings) store.Query {
	var q store.Query
	for _, c := range signed(m, s) {
		if tok, ok := readToken(c.token); ok {
			q.Cases = appendNew(q.Cases, tok.Case)
		}
	}
	for _, id := range []string{m.MessageID, m.DerivedID} {
		if id != "" {
			q.MessageIDs = appendNew(q.MessageIDs, id)
		}
	}
	for _, c := range unsigned(m) {
		q.MessageIDs = appendNew(q.MessageIDs, c.id)
	}
	for _, list := range [][]Address{m.From, m.To, m.CC, m.BCC} {
		for _, a := range list {
			q.Addresses = appendNew(q.Addresses, a.Key())
		}
	}
	if id, err := store.ParseID(AssertedBy(m)); err == nil {
		q.Contacts = append(q.Contacts, id)
	}
	for _, a := range m.Recipients {
		q.Addresses = appendNew(q.Addresses, store.Key(a))
	}
	return q
}

// AskOutbound names everything that a decision on a submission needs to know.
func AskOutbound(sub Submission, s Settings) store.Query {
	q := Ask(sub.Mail, s)
	q.Parents = true
	return q
}
