package storetest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/casegate/casegate/store"
)

func questionPromises() []promise {
	return []promise{
		{"WhatPeopleSaidComesBackAsItWas", saidByHand},
		{"WhatReportsToldComesBackAsItWas", deliveryEvents},
		{"ATokenLeadsToItsMessage", byOrdinal},
		{"FactsHoldTheMessagesThatTokensName", answered},
		{"ATallyCountsADay", tally},
		{"ATallyIsBounded", tallyBounded},
		{"CasesAreListedByCustomer", casesOfCustomer},
		{"ExceptionsAreListedByReason", exceptionsByReason},
		{"TheArchiveIsWalkedFromATime", walkSince},
		{"UnresolvedPartiesAreListedUntilTheyAreResolved", unresolvedParties},
		{"AnExternalIDIsHadByOne", externalID},
		{"TheInstallationHasALogOfItsOwn", installationLog},
		{"SigningKeysAreKeptInOrder", keyring},
		{"ASentHeaderMayComeLater", sentLater},
	}
}

func saidByHand(s *suite) {
	m := s.mail("ana@x.example", 10)
	m.msg.Observed = true
	m.msg.Parties = append(m.msg.Parties, store.Party{Role: store.RoleCC, AddressUsed: "kin@x.example", ByHand: true,
		Party: store.PartyRef{Kind: store.PartyContact, ID: m.guest.ID}, Why: "in this message, by ann"})
	n := m.accept(s)
	var c store.Case
	s.update(func(tx store.Tx) (err error) {
		if c, err = tx.Case(n); err != nil {
			return err
		}
		c.Opener = "Ana@X.example"
		c.HandLinks = []store.HandLink{{Address: "kin@x.example", Contact: m.guest.ID, By: "ann", At: s.now}}
		return tx.PutCase(c)
	})
	s.restart()
	s.view(func(r store.Reader) error {
		got, err := r.Case(n)
		s.same("case", got, c)
		msg, err2 := r.Message(m.msg.ID)
		s.same("message", msg, m.msg)
		return errors.Join(err, err2)
	})
	f := s.facts(store.Query{Cases: []uint64{n}})
	s.same("in facts", f.Cases[n].Case, c)
}

func deliveryEvents(s *suite) {
	m := s.mail("311@city.example", 10)
	m.msg.Direction, m.msg.Ordinal = store.Outgoing, 1
	n := m.accept(s)
	told := store.DeliveryEvent{At: s.now, Recipient: "ana@x.example", Action: "failed", Status: "5.1.1", Diagnostic: "smtp; 550 no \xe4 user", Report: store.NewID()}
	m.msg.Events = append(m.msg.Events, told)
	s.update(func(tx store.Tx) error { return tx.PutMessage(m.msg) })
	s.view(func(r store.Reader) error {
		got, err := r.ByOrdinal(n, 1)
		s.same("message", got, m.msg)
		return err
	})
}

func (s *suite) byOrdinal(n uint64, ordinal uint32) (id store.ID) {
	s.Helper()
	s.view(func(r store.Reader) error {
		m, err := r.ByOrdinal(n, ordinal)
		if errors.Is(err, store.ErrNotFound) {
			err = nil
		}
		id = m.ID
		return err
	})
	return id
}

func byOrdinal(s *suite) {
	first, second := s.mail("ana@x.example", 10), s.mail("ben@x.example", 10)
	first.msg.Ordinal, second.msg.Ordinal = 1, 256
	n := first.accept(s)
	second.join(s, n)
	other := s.mail("cle@x.example", 10).accept(s)
	none := store.ID{}
	for ordinal, want := range map[uint32]store.ID{0: none, 1: first.msg.ID, 2: none, 255: none, 256: second.msg.ID, 1 << 31: none} {
		s.same(fmt.Sprint("ordinal ", ordinal), s.byOrdinal(n, ordinal), want)
	}
	s.same("of another case", s.byOrdinal(other, 1), none)
	second.msg.Case, second.msg.Ordinal = other, 1
	s.update(func(tx store.Tx) error { return tx.PutMessage(second.msg) })
	s.same("after it moved", s.byOrdinal(n, 256), none)
	s.same("where it is", s.byOrdinal(other, 1), second.msg.ID)
	s.view(func(r store.Reader) error {
		if _, err := r.ByOrdinal(n, 7); !errors.Is(err, store.ErrNotFound) {
			s.Errorf("of none: %v", err)
		}
		return nil
	})
}

func answered(s *suite) {
	m := s.mail("ana@x.example", 10)
	m.msg.Ordinal = 3
	n := m.accept(s)
	at := store.CaseOrdinal{Case: n, Ordinal: 3}
	f := s.facts(store.Query{Ordinals: []store.CaseOrdinal{at, {Case: n, Ordinal: 4}, {Case: n}, {Case: 9999, Ordinal: 3}}})
	s.same("answered", f.Answered, map[store.CaseOrdinal]store.Message{at: m.msg})
	s.same("not asked", s.facts(store.Query{Cases: []uint64{n}}).Answered, map[store.CaseOrdinal]store.Message{})
}

func (s *suite) tally(k store.TallyKey, times ...time.Time) {
	s.Helper()
	s.update(func(tx store.Tx) error {
		for _, at := range times {
			if err := tx.Tally(k, at); err != nil {
				return err
			}
		}
		return nil
	})
}

func tally(s *suite) {
	ana := store.TallyKey{Kind: store.TallyOpened, Address: "ana@x.example"}
	acks := store.TallyKey{Kind: store.TallyAcknowledged, Address: "ana@x.example"}
	ben := store.TallyKey{Kind: store.TallyOpened, Address: "ben@x.example"}
	onCase, onOther := ana, ana
	onCase.Case, onOther.Case = 1, 11
	hours := func(n int) time.Time { return s.now.Add(time.Duration(n) * time.Hour) }
	s.tally(ana, hours(-24), hours(-23), hours(-1), hours(0), hours(0), hours(1))
	s.tally(acks, hours(-2))
	s.tally(onCase, hours(-3))
	s.tally(onOther, hours(-4))
	ask := func(at time.Time) map[store.TallyKey][]time.Time {
		return s.facts(store.Query{Tallies: []store.TallyKey{ana, acks, ben, ana, onCase, onOther}, At: at}).Tallies
	}
	s.same("now", ask(s.now), map[store.TallyKey][]time.Time{
		ana: {hours(1), hours(0), hours(0), hours(-1), hours(-23)}, acks: {hours(-2)},
		onCase: {hours(-3)}, onOther: {hours(-4)},
	})
	s.same("later", ask(hours(22)), map[store.TallyKey][]time.Time{ana: {hours(1), hours(0), hours(0), hours(-1)}})
	s.same("the day after", ask(hours(25)), map[store.TallyKey][]time.Time{})
	s.same("not asked", s.facts(store.Query{At: s.now}).Tallies, map[store.TallyKey][]time.Time{})
	err := s.Update(s.ctx, func(tx store.Tx) error { return errors.Join(tx.Tally(ben, s.now), errMeant) })
	if !errors.Is(err, errMeant) {
		s.Error(err)
	}
	s.same("undone", ask(s.now)[ben], []time.Time(nil))
	s.restart()
	s.same("after a restart", len(ask(s.now)[ana]), 5)
	for i := range 50 { // what is forgotten is nobody's who counts
		s.tally(ben, hours(60).Add(time.Duration(i)))
	}
	s.same("of another", len(ask(hours(61))[ben]), 50)
}

func tallyBounded(s *suite) {
	k := store.TallyKey{Kind: store.TallyOpened, Address: "robot@x.example"}
	var times []time.Time
	for i := range store.MaxTally + 10 {
		times = append(times, s.now.Add(time.Duration(i)*time.Second))
	}
	s.tally(k, times...)
	got := s.facts(store.Query{Tallies: []store.TallyKey{k}, At: s.now}).Tallies[k]
	s.same("the newest", got, reverse(times[10:]))
}

func casesOfCustomer(s *suite) {
	ana, ben := s.registered("Ana", "ana@x.example"), s.contact("Ben", "ben@x.example")
	s.update(func(tx store.Tx) error {
		if err := errors.Join(tx.PutContact(ana), tx.PutContact(ben)); err != nil {
			return err
		}
		for n := uint64(1); n <= 8; n++ {
			c := s.newCase(n, ana)
			if n%4 == 0 {
				c = s.newCase(n, ben)
			}
			if n%2 == 0 {
				c.State = store.Resolved
			}
			if err := tx.PutCase(c); err != nil {
				return err
			}
		}
		return nil
	})
	s.same("Ana's", s.cases(store.CaseFilter{Customer: ana.ID}), []uint64{7, 6, 5, 3, 2, 1})
	s.same("Ben's", s.cases(store.CaseFilter{Customer: ben.ID}), []uint64{8, 4})
	s.same("nobody's", s.cases(store.CaseFilter{Customer: store.NewID()}), []uint64(nil))
	s.same("Ana's active ones", s.cases(store.CaseFilter{Customer: ana.ID, State: store.Active, Queue: "general"}), []uint64{7, 5, 3, 1})
	s.same("in another queue", s.cases(store.CaseFilter{Customer: ana.ID, Queue: "water"}), []uint64(nil))
	s.update(func(tx store.Tx) error { // set-customer
		c, err := tx.Case(8)
		if err != nil {
			return err
		}
		c.Customer = ana.ID
		return tx.PutCase(c)
	})
	s.same("Ana's then", s.cases(store.CaseFilter{Customer: ana.ID}), []uint64{8, 7, 6, 5, 3, 2, 1})
	s.same("Ben's then", s.cases(store.CaseFilter{Customer: ben.ID}), []uint64{4})
}

func exceptionsByReason(s *suite) {
	var floods, loops []store.ID
	var last *mail
	for i := range 9 {
		m := s.mail("ana@x.example", 10)
		m.msg.Exception = "flood"
		if i%3 == 0 {
			m.msg.Exception = "loop"
			loops = append(loops, m.msg.ID)
		} else {
			floods = append(floods, m.msg.ID)
		}
		m.join(s, 0)
		last = m
	}
	s.mail("ana@x.example", 10).accept(s)
	s.same("floods", s.messages(store.MessageFilter{Exception: "flood"}), reverse(floods))
	s.same("loops, oldest first", s.messages(store.MessageFilter{Exception: "loop", OldestFirst: true}), loops)
	s.same("of no other reason", s.messages(store.MessageFilter{Exception: "floo"}), []store.ID(nil))
	last.msg.Exception = "loop"
	s.update(func(tx store.Tx) error { return tx.PutMessage(last.msg) })
	s.same("floods then", s.messages(store.MessageFilter{Exception: "flood"}), reverse(floods[:len(floods)-1]))
	s.same("loops then", s.messages(store.MessageFilter{Exceptions: true, Exception: "loop"}), reverse(append(loops, last.msg.ID)))
}

func walkSince(s *suite) {
	hours := func(n int) time.Time { return s.now.Add(time.Duration(n) * time.Hour) }
	var all, late []store.ID
	n := uint64(0)
	for i := -6; i <= 3; i++ {
		m := s.mail("ana@x.example", 10)
		m.msg.ReceivedAt = hours(i)
		switch {
		case i == -6:
			n = m.accept(s)
		case i%2 == 0:
			m.join(s, n)
		default:
			m.msg.Exception = "flood"
			m.join(s, 0)
		}
		all = append(all, m.msg.ID)
		if i >= -1 {
			late = append(late, m.msg.ID)
		}
	}
	since := hours(-1)
	s.same("oldest first", s.messages(store.MessageFilter{OldestFirst: true}), all)
	s.same("oldest first, since", s.messages(store.MessageFilter{OldestFirst: true, Since: since}), late)
	s.same("newest first, since", s.messages(store.MessageFilter{Since: since}), reverse(late))
	s.same("of the case, since", s.messages(store.MessageFilter{Case: n, Since: since}), []store.ID{late[1], late[3]})
	s.same("exceptions, since", s.messages(store.MessageFilter{Exceptions: true, Since: since}), []store.ID{late[4], late[2], late[0]})
	s.same("since long ago", s.messages(store.MessageFilter{OldestFirst: true, Since: hours(-10_000)}), all)
	s.same("since before there were clocks", s.messages(store.MessageFilter{OldestFirst: true, Since: time.Unix(1, 0)}), all)
	s.same("since tomorrow", s.messages(store.MessageFilter{Since: hours(12)}), []store.ID(nil))
	s.same("since next week", s.messages(store.MessageFilter{OldestFirst: true, Since: hours(200)}), []store.ID(nil))
}

func unresolvedParties(s *suite) {
	resolve := func(m *mail) {
		for i := range m.msg.Parties {
			m.msg.Parties[i].Party = store.PartyRef{Kind: store.PartyContact, ID: m.guest.ID}
		}
	}
	var open []*mail
	n := uint64(0)
	for i, role := range []store.Role{store.RoleSender, store.RoleTo, store.RoleCC, store.RoleBCC, store.RoleRelated} {
		m := s.mail("ana@x.example", 10)
		resolve(m)
		m.msg.Parties = append(m.msg.Parties, store.Party{Role: role, AddressUsed: "kin@x.example", Why: "two have it"})
		if i == 0 {
			n = m.accept(s)
		} else {
			m.join(s, n)
		}
		if role != store.RoleRelated {
			open = append(open, m)
		}
	}
	excepted := s.mail("eve@x.example", 10) // on no case: nobody is asked
	excepted.msg.Exception = "flood"
	excepted.join(s, 0)
	other := s.mail("ben@x.example", 10)
	other.accept(s)
	ids := func(list ...*mail) (ids []store.ID) {
		for _, m := range list {
			ids = append(ids, m.msg.ID)
		}
		return ids
	}
	s.same("all", s.messages(store.MessageFilter{Unresolved: true}), reverse(ids(append(slices.Clone(open), other)...)))
	s.same("of the case", s.messages(store.MessageFilter{Unresolved: true, Case: n}), ids(open...))
	s.same("oldest first", s.messages(store.MessageFilter{Unresolved: true, OldestFirst: true}), ids(append(slices.Clone(open), other)...))
	resolve(open[1])
	open[1].msg.Parties[2].ByHand = true
	excepted.msg.Exception, excepted.msg.Case = "", n
	s.update(func(tx store.Tx) error { return errors.Join(tx.PutMessage(open[1].msg), tx.PutMessage(excepted.msg)) })
	s.same("then", s.messages(store.MessageFilter{Unresolved: true, Case: n}), ids(open[0], open[2], open[3], excepted))
	s.same("all then", s.messages(store.MessageFilter{Unresolved: true}), reverse(ids(open[0], open[2], open[3], excepted, other)))
}

func externalID(s *suite) {
	ana, ben := s.registered("Ana", "ana@x.example"), s.registered("Ben")
	ana.External = "CRM-Ä/7"
	s.update(func(tx store.Tx) error { return errors.Join(tx.PutContact(ana), tx.PutContact(ben)) })
	find := func(external string) (name string) {
		s.view(func(r store.Reader) error {
			c, err := r.ContactByExternal(external)
			if errors.Is(err, store.ErrNotFound) {
				err = nil
			}
			name = c.Name
			return err
		})
		return name
	}
	s.same("found", find("CRM-Ä/7"), "Ana")
	s.same("as written only", find("crm-ä/7"), "")
	s.same("none is nobody's", find(""), "")
	s.update(func(tx store.Tx) error { return tx.PutContact(ana) }) // again
	ben.External = ana.External
	if err := s.Update(s.ctx, func(tx store.Tx) error { return tx.PutContact(ben) }); !errors.Is(err, store.ErrTaken) {
		s.Errorf("had by two: %v", err)
	}
	s.update(func(tx store.Tx) error {
		if err := tx.PutContact(ben); !errors.Is(err, store.ErrTaken) {
			s.Errorf("had by two: %v", err)
		}
		ana.External = "another"
		return errors.Join(tx.PutContact(ana), tx.PutContact(ben))
	})
	s.same("handed on", []string{find("CRM-Ä/7"), find("another")}, []string{"Ben", "Ana"})
	ben.External = ""
	s.update(func(tx store.Tx) error { return tx.PutContact(ben) })
	s.same("taken away", find("CRM-Ä/7"), "")
}

func installationLog(s *suite) {
	n := s.mail("ana@x.example", 10).accept(s)
	own := store.LogEntry{ID: store.NewID(), At: s.now, By: "ann", SourceType: "Key rotated", Text: "key 2 signs"}
	s.update(func(tx store.Tx) error {
		return errors.Join(tx.Record(own), tx.Record(store.LogEntry{Case: n, At: s.now, By: "ann", SourceType: "Case changed"}))
	})
	s.view(func(r store.Reader) error {
		got, _, err := r.Log(0, store.Page{})
		s.same("of the installation", got, []store.LogEntry{own})
		of, _, err2 := r.Log(n, store.Page{})
		s.same("of the case", len(of), 1)
		return errors.Join(err, err2)
	})
}

func keyring(s *suite) {
	var in store.Installation
	for id := byte(2); id < 5; id++ {
		s.update(func(tx store.Tx) (err error) {
			if in, err = tx.Installation(); err != nil {
				return err
			}
			in.Keys = append(in.Keys, store.SigningKey{ID: id, Secret: []byte{id}, CreatedAt: s.now})
			if err := tx.PutInstallation(in); err != nil {
				return err
			}
			f, err := tx.Facts(store.Query{})
			s.same("within the transaction", f.Installation, in)
			return err
		})
		s.same("in facts", s.facts(store.Query{}).Installation, in)
	}
	err := s.Update(s.ctx, func(tx store.Tx) error {
		return errors.Join(tx.PutInstallation(store.Installation{ID: in.ID, Keys: in.Keys[:1]}), errMeant)
	})
	if !errors.Is(err, errMeant) {
		s.Error(err)
	}
	s.same("undone", s.facts(store.Query{}).Installation, in)
	in.Keys[0].Secret[0]++ // whoever asked may change what he was given
	if got := s.facts(store.Query{}).Installation; slices.Equal(got.Keys[0].Secret, in.Keys[0].Secret) {
		s.Error("answers share memory")
	}
	in.Keys[0].Secret[0]--
	s.restart()
	s.same("after a restart", s.facts(store.Query{}).Installation, in)
}

func sentLater(s *suite) {
	for _, size := range []int{100, 600_000} {
		m := s.mail("ana@x.example", size)
		sent := m.sent
		m.sent = nil
		m.seal()
		m.accept(s)
		add := func(block []byte) error {
			return s.Update(s.ctx, func(tx store.Tx) error { return tx.ArchiveSent(m.msg.ID, block) })
		}
		s.ok(add(nil))
		if _, err := s.Open(s.ctx, m.msg.ID, store.AsSent); !errors.Is(err, store.ErrNotFound) {
			s.Errorf("nothing was added: %v", err)
		}
		m.sent = sent
		m.seal()
		s.update(func(tx store.Tx) error { return errors.Join(tx.PutMessage(m.msg), tx.ArchiveSent(m.msg.ID, sent)) })
		s.ok(add(sent)) // as after an ErrUnavailable
		if err := add([]byte("other\r\n\r\n")); err == nil {
			s.Error("archived over")
		}
		s.sameBytes("received", s.read(m.msg.ID, store.AsReceived), m.received())
		s.sameBytes("sent", s.read(m.msg.ID, store.AsSent), m.asSent())
	}
	err := s.Update(s.ctx, func(tx store.Tx) error { return tx.ArchiveSent(store.NewID(), []byte("x")) })
	if !errors.Is(err, store.ErrNotFound) {
		s.Errorf("of a message not archived: %v", err)
	}
}
