package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing/iotest"
	"time"

	"github.com/casegate/casegate/store"
)

func mailPromises() []promise {
	return []promise{
		{"MessagesAreListedOnTheirCaseAndOnTheExceptionsList", listMessages},
		{"AMessageMovesWithAllThatLeadsToIt", moveMessage},
		{"AMessageIDLeadsToItsActivities", messageIDs},
		{"MessageIDsOfStrangersLeadToAFewCases", manyCases},
		{"MergedCasesAreFollowed", merged},
		{"AddressesUsedOnACaseAreKnown", usedAddresses},
		{"AddressesUsedOnACaseAreKnownAmongMany", usedAmongMany},
		{"AForgedSenderTakesNoPart", forged},
		{"FactsHoldWhatWasAskedByName", factsByName},
		{"ParentsAreWholeMessages", parents},
		{"EMLsComeBackByteForByte", bytesComeBack},
		{"FieldsKeptApartStayApart", apart},
		{"AMessageIsArchivedOnce", archivedOnce},
		{"ABodyCanBeReadBackWhileItIsStaged", readBack},
		{"OneBodyMayServeTwoMessages", sharedBody},
		{"AnOrphanedBodyLeavesNothing", orphan},
		{"ABodyOutlivesAFailedUpdate", bodyAfterFailure},
		{"ManyBodiesAtOnce", manyBodies},
	}
}

func listMessages(s *suite) {
	first := s.mail("ana@x.example", 10)
	n := first.accept(s)
	onCase := []store.ID{first.msg.ID}
	all := []store.ID{first.msg.ID}
	var excepted []store.ID
	for i := range 9 {
		m := s.mail("ana@x.example", 10)
		switch i % 3 {
		case 0:
			m.join(s, n)
			onCase = append(onCase, m.msg.ID)
		case 1:
			m.msg.Exception = "flood"
			m.join(s, 0)
			excepted = append(excepted, m.msg.ID)
		default:
			m.accept(s)
		}
		all = append(all, m.msg.ID)
	}
	s.same("all", s.messages(store.MessageFilter{}), reverse(all))
	s.same("of the case", s.messages(store.MessageFilter{Case: n}), onCase)
	s.same("exceptions", s.messages(store.MessageFilter{Exceptions: true}), reverse(excepted))
}

func moveMessage(s *suite) {
	one, two := s.mail("ana@x.example", 10), s.mail("ben@x.example", 10)
	a, b := one.accept(s), two.accept(s)
	m := s.mail("eve@x.example", 10)
	m.msg.Exception, m.msg.References = "flood", []string{"thread@x"}
	m.join(s, 0)
	m.msg.Exception, m.msg.Case = "", a
	s.update(func(tx store.Tx) error { return tx.PutMessage(m.msg) })
	s.same("exceptions", s.messages(store.MessageFilter{Exceptions: true}), []store.ID(nil))
	s.same("on the first", s.messages(store.MessageFilter{Case: a}), []store.ID{one.msg.ID, m.msg.ID})
	f := s.facts(store.Query{MessageIDs: []string{"thread@x", m.msg.MessageID}, Addresses: []string{"eve@x.example"}})
	s.same("thread leads to", f.MessageIDs["thread@x"][0].Case, a)
	s.same("its own id leads to", f.MessageIDs[m.msg.MessageID][0].Case, a)
	if _, used := f.Cases[a].Used["eve@x.example"]; !used {
		s.Error("the sender takes no part in the case")
	}
	m.msg.Case = b
	s.update(func(tx store.Tx) error { return tx.PutMessage(m.msg) })
	f = s.facts(store.Query{Cases: []uint64{a, b}, MessageIDs: []string{"thread@x"}, Addresses: []string{"eve@x.example"}})
	s.same("thread leads to", f.MessageIDs["thread@x"][0].Case, b)
	if _, used := f.Cases[a].Used["eve@x.example"]; used {
		s.Error("the sender still takes part in the first case")
	}
	if _, used := f.Cases[b].Used["eve@x.example"]; !used {
		s.Error("the sender takes no part in the second case")
	}
}

func messageIDs(s *suite) {
	first := s.mail("ana@x.example", 10)
	first.msg.DerivedID = "derived@x"
	first.msg.ContentHash = "0badc0de"
	n := first.accept(s)
	reply := s.mail("ben@x.example", 10)
	reply.msg.References = []string{first.msg.MessageID, "unknown@x"}
	reply.join(s, n)
	second := s.mail("cle@x.example", 10)
	second.msg.References = []string{"unknown@x"}
	second.join(s, n)
	uncased := s.mail("dee@x.example", 10)
	uncased.msg.References = []string{"unknown@x"}
	uncased.msg.SubmitHash, uncased.msg.Direction = "submitted", store.Outgoing
	uncased.join(s, 0)
	f := s.facts(store.Query{MessageIDs: []string{first.msg.MessageID, "derived@x", "unknown@x", "nobody@x", uncased.msg.MessageID}})
	ref := func(m *mail, own bool) store.MessageRef {
		r := store.MessageRef{ID: m.msg.ID, Case: m.msg.Case, Own: own, Direction: m.msg.Direction, ReceivedAt: s.now}
		if own {
			r.ContentHash, r.SubmitHash = m.msg.ContentHash, m.msg.SubmitHash
		}
		return r
	}
	s.same("refs", f.MessageIDs, map[string][]store.MessageRef{
		first.msg.MessageID:   {ref(first, true), ref(reply, false)},
		"derived@x":           {ref(first, true)},
		"unknown@x":           {ref(reply, false)}, // the oldest of its case
		uncased.msg.MessageID: {ref(uncased, true)},
	})
	s.same("case", f.Cases[n].Case.Number, n)
	s.same("cases", len(f.Cases), 1)
}

func manyCases(s *suite) {
	var ids []string
	for i := range store.MaxLedTo + 4 {
		m := s.mail("eve@x.example", 10)
		m.msg.References = []string{"everywhere@x"}
		m.accept(s)
		ids = append(ids, m.msg.MessageID)
		if i == 0 {
			ids = append(ids, "everywhere@x")
		}
	}
	f := s.facts(store.Query{MessageIDs: ids, Cases: []uint64{store.MaxLedTo + 4}})
	s.same("refs", len(f.MessageIDs["everywhere@x"]), store.MaxLedTo+4)
	s.same("cases", len(f.Cases), store.MaxLedTo+1)
	for range store.MaxMessageRefs {
		m := s.mail("eve@x.example", 10)
		m.msg.MessageID = "same@x"
		m.join(s, 0)
	}
	last := s.mail("eve@x.example", 10)
	last.msg.MessageID = "same@x"
	last.join(s, 0)
	refs := s.facts(store.Query{MessageIDs: []string{"same@x"}}).MessageIDs["same@x"]
	s.same("the newest", []any{len(refs), refs[len(refs)-1].ID}, []any{store.MaxMessageRefs, last.msg.ID})
}

func merged(s *suite) {
	var numbers []uint64
	for i := range 4 {
		numbers = append(numbers, s.mail(fmt.Sprintf("%d@x.example", i), 10).accept(s))
	}
	s.update(func(tx store.Tx) error {
		for i, n := range numbers[:3] {
			c, err := tx.Case(n)
			if err != nil {
				return err
			}
			c.State, c.MergedInto = store.Cancelled, numbers[(i+1)%3] // a circle of three
			if err := tx.PutCase(c); err != nil {
				return err
			}
		}
		return nil
	})
	f := s.facts(store.Query{Cases: []uint64{numbers[0], 9999}})
	s.same("all of the circle", len(f.Cases), 3)
	s.same("customer", f.Cases[numbers[1]].Customer.EmailAddresses[0].Address, "1@x.example")
}

func usedAddresses(s *suite) {
	first := s.mail("Ana@X.example", 10)
	n := first.accept(s)
	later := s.mail("ben@x.example", 10)
	later.msg.ReceivedAt = s.now.Add(time.Hour)
	later.msg.Parties = append(later.msg.Parties, store.Party{Role: store.RoleCC, AddressUsed: "ana@x.example"},
		store.Party{Role: store.RoleBCC, AddressUsed: "hidden@x.example"}, store.Party{Role: store.RoleRelated, AddressUsed: "kin@x.example"})
	later.join(s, n)
	friend := s.contact("Friend", "friend@x.example", "ben@x.example")
	s.update(func(tx store.Tx) error { return tx.PutContact(friend) })
	f := s.facts(store.Query{Cases: []uint64{n}, Addresses: []string{"311@city.example", "hidden@x.example", "kin@x.example", "friend@x.example"}})
	s.same("used", f.Cases[n].Used, map[string]store.Usage{
		"ana@x.example":    {First: s.now, Last: s.now.Add(time.Hour), Sender: true}, // the customer's
		"ben@x.example":    {First: s.now.Add(time.Hour), Last: s.now.Add(time.Hour), Sender: true},
		"311@city.example": {First: s.now, Last: s.now.Add(time.Hour)},
		"hidden@x.example": {First: s.now.Add(time.Hour), Last: s.now.Add(time.Hour)},
	})
}

func usedAmongMany(s *suite) {
	m := s.mail("ana@x.example", 10)
	for i := range 200 {
		m.msg.Parties = append(m.msg.Parties, store.Party{Role: store.RoleCC, AddressUsed: fmt.Sprintf("%d@x.example", i)})
	}
	n := m.accept(s)
	kin := s.contact("Kin", "7@x.example", "8@x.example", "1000@x.example")
	s.update(func(tx store.Tx) error { return tx.PutContact(kin) })
	once := store.Usage{First: s.now, Last: s.now}
	want := map[string]store.Usage{
		"3@x.example": once, "7@x.example": once, "8@x.example": once, // a holder's other address too
		"ana@x.example": {First: s.now, Last: s.now, Sender: true},
	}
	f := s.facts(store.Query{Cases: []uint64{n}, Addresses: []string{"3@x.example", "7@x.example", "999@x.example"}})
	s.same("used", f.Cases[n].Used, want)
}

func forged(s *suite) {
	m := s.mail("boss@x.example", 10)
	m.msg.Identity = "forged"
	m.msg.Parties = append(m.msg.Parties, store.Party{Role: store.RoleCC, AddressUsed: "Boss@x.example"})
	n := m.accept(s)
	f := s.facts(store.Query{Cases: []uint64{n}, Addresses: []string{"boss@x.example", "311@city.example"}})
	s.same("used", f.Cases[n].Used, map[string]store.Usage{"311@city.example": {First: s.now, Last: s.now}})
}

func factsByName(s *suite) {
	ana := s.registered("Ana", "ana@x.example")
	s.update(func(tx store.Tx) error { return tx.PutContact(ana) })
	f := s.facts(store.Query{Contacts: []store.ID{ana.ID, store.NewID()}, Addresses: []string{"nobody@x.example"}, Cases: []uint64{7}})
	s.same("contacts", f.Contacts, map[store.ID]store.Contact{ana.ID: ana})
	s.same("holders", f.Holders, map[string]store.Holders{"nobody@x.example": {}})
	s.same("cases", f.Cases, map[uint64]store.CaseFacts{})
	if f.Installation.ID == (store.ID{}) {
		s.Error("no installation")
	}
}

func parents(s *suite) {
	m := s.mail("ana@x.example", 10)
	m.accept(s)
	q := store.Query{MessageIDs: []string{m.msg.MessageID, "nobody@x"}}
	s.same("not asked", s.facts(q).Parents, map[store.ID]store.Message{})
	q.Parents = true
	s.same("asked", s.facts(q).Parents, map[store.ID]store.Message{m.msg.ID: m.msg})
}

func bytesComeBack(s *suite) {
	for _, size := range []int{0, 1, 1000, 16 << 10, 16<<10 + 1, 100_000, 256<<10 - 69, 256<<10 - 68, 256<<10 - 67, 256 << 10, 1 << 20, 3_000_000} {
		m := s.mail("ana@x.example", size)
		if size == 1000 {
			m.sent = nil
			m.seal()
		}
		m.accept(s)
		got := s.read(m.msg.ID, store.AsReceived)
		if !bytes.Equal(got, m.received()) {
			s.Errorf("body of %d bytes: %d came back, want %d", size, len(got), len(m.received()))
		}
		if m.sent == nil {
			if _, err := s.Open(s.ctx, m.msg.ID, store.AsSent); !errors.Is(err, store.ErrNotFound) {
				s.Errorf("never sent: %v", err)
			}
			continue
		}
		if got := s.read(m.msg.ID, store.AsSent); !bytes.Equal(got, m.asSent()) {
			s.Errorf("body of %d bytes as sent: %d came back", size, len(got))
		}
		if size > 100_000 {
			continue // the test reader goes byte by byte
		}
		r, err := s.Open(s.ctx, m.msg.ID, store.AsReceived)
		s.ok(err)
		s.ok(iotest.TestReader(r, m.received()))
		s.ok(r.Close())
	}
}

func apart(s *suite) {
	m := s.mail("ana@x.example", 10)
	m.apart = []store.Apart{{Offset: 0, Bytes: []byte("Bcc: first@x\r\n")}, {Offset: 20, Bytes: []byte("Bcc: second@x\r\n")}}
	m.seal()
	m.accept(s)
	if got := s.read(m.msg.ID, store.AsReceived); !bytes.Equal(got, m.received()) {
		s.Errorf("exported: %q", got)
	}
	s.view(func(r store.Reader) error {
		block, parts, err := r.Header(m.msg.ID, store.AsReceived)
		s.same("block", block, m.header)
		s.same("apart", parts, m.apart)
		block, parts, err2 := r.Header(m.msg.ID, store.AsSent)
		s.same("sent block", block, m.sent)
		s.same("nothing apart as sent", parts, []store.Apart(nil))
		return errors.Join(err, err2)
	})
}

func archivedOnce(s *suite) {
	for _, size := range []int{100, 600_000} {
		m := s.mail("ana@x.example", size)
		body := s.staged(m.body)
		m.msg.Case = 0
		put := func(tx store.Tx) error { return m.put(tx, body) }
		s.update(put)
		s.update(put) // as after an ErrUnavailable
		other := s.staged([]byte("other"))
		if err := s.Update(s.ctx, func(tx store.Tx) error { return tx.Archive(m.msg.ID, m.header, nil, nil, other) }); err == nil {
			s.Error("archived over")
		}
		body.Discard()
		other.Discard()
		s.sameBytes("bytes", s.read(m.msg.ID, store.AsReceived), m.received())
	}
}

func readBack(s *suite) {
	for _, size := range []int{0, 10, 100_000, 700_000} {
		m := s.mail("ana@x.example", size)
		body := s.staged(m.body)
		s.same("size", body.Size(), int64(size))
		var outside, inside bytes.Buffer
		_, err := body.WriteTo(&outside)
		s.ok(err)
		s.update(func(tx store.Tx) error {
			inside.Reset()
			if _, err := body.WriteTo(&inside); err != nil {
				return err
			}
			return m.put(tx, body)
		})
		if !bytes.Equal(outside.Bytes(), m.body) || !bytes.Equal(inside.Bytes(), m.body) {
			s.Errorf("body of %d bytes: %d and %d came back", size, outside.Len(), inside.Len())
		}
		if _, err := body.Write([]byte("more")); err == nil {
			s.Error("a sealed body was written to")
		}
		body.Discard()
	}
}

func sharedBody(s *suite) {
	for _, size := range []int{100, 600_000} {
		one := s.mail("ana@x.example", size)
		two := s.mail("ana@x.example", size)
		body := s.staged(one.body)
		s.update(func(tx store.Tx) error {
			if err := one.put(tx, body); err != nil {
				return err
			}
			return two.put(tx, body)
		})
		body.Discard()
		s.sameBytes("one", s.read(one.msg.ID, store.AsReceived), one.received())
		s.sameBytes("two", s.read(two.msg.ID, store.AsReceived), two.received())
	}
}

func orphan(s *suite) {
	s.staged(make([]byte, 700_000)) // never discarded: a crash
	gone := s.staged(make([]byte, 700_000))
	gone.Discard()
	gone.Discard()
	err := s.Update(s.ctx, func(tx store.Tx) error { return tx.Archive(store.NewID(), nil, nil, nil, gone) })
	if err == nil {
		s.Error("a discarded body was archived")
	}
	s.restart()
}

func bodyAfterFailure(s *suite) {
	m := s.mail("ana@x.example", 600_000)
	body := s.staged(m.body)
	defer body.Discard()
	err := s.Update(s.ctx, func(tx store.Tx) error {
		if err := m.put(tx, body); err != nil {
			return err
		}
		return errMeant
	})
	if !errors.Is(err, errMeant) {
		s.Errorf("error %v", err)
	}
	s.update(func(tx store.Tx) error { return m.put(tx, body) })
	s.sameBytes("bytes", s.read(m.msg.ID, store.AsReceived), m.received())
}

func manyBodies(s *suite) {
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	const n = 40
	done := make(chan error, n)
	for i := range n {
		go func() {
			m := s.mail("ana@x.example", i*20_000)
			body, err := s.Stage(ctx)
			if err == nil {
				defer body.Discard()
				_, err = body.Write(m.body)
			}
			if err == nil {
				err = body.Seal(ctx)
			}
			if err == nil {
				err = s.Update(ctx, func(tx store.Tx) error { return m.put(tx, body) })
			}
			if err == nil && !bytes.Equal(s.read(m.msg.ID, store.AsReceived), m.received()) {
				err = fmt.Errorf("body %d came back different", i)
			}
			done <- err
		}()
	}
	for range n {
		s.ok(<-done)
	}
}
