package storetest

import (
	"fmt"
	"time"

	"github.com/casegate/casegate/store"
)

func recordPromises() []promise {
	return []promise{
		{"CasesAreListedNewestFirstByStateAndQueue", listCases},
		{"AContactIsFoundByItsAddressesAndNoOthers", contactAddresses},
		{"AnAddressMayBelongToMany", sharedAddress},
		{"AnAddressIsHeldForItsTime", heldForATime},
		{"HoldersAreBoundedAndKeepTheRegistered", manyHolders},
		{"AccountsAndAgentsAreFoundByAddress", accountsAndAgents},
		{"RecordsComeBackAsTheyWere", roundTrip},
		{"TheLogOfACaseIsInOrder", logOrder},
		{"AStrangeCursorIsAnError", strangeCursor},
	}
}

func listCases(s *suite) {
	ana := s.registered("Ana", "ana@x.example")
	var all, resolved, water []uint64
	for n := uint64(1); n <= 8; n++ {
		c := s.newCase(n, ana)
		if n%2 == 0 {
			c.Queue = "water"
		}
		s.update(func(tx store.Tx) error {
			if err := tx.PutContact(ana); err != nil {
				return err
			}
			return tx.PutCase(c)
		})
		all = append(all, n)
		if n%2 == 0 && n%4 != 0 {
			water = append(water, n)
		}
		if n%4 == 0 {
			c.State = store.Resolved
			s.update(func(tx store.Tx) error { return tx.PutCase(c) })
			resolved = append(resolved, n)
		}
	}
	s.same("all", s.cases(store.CaseFilter{}), reverse(all))
	s.same("resolved", s.cases(store.CaseFilter{State: store.Resolved}), reverse(resolved))
	s.same("active in water", s.cases(store.CaseFilter{State: store.Active, Queue: "water"}), reverse(water))
	s.same("in water", s.cases(store.CaseFilter{Queue: "water"}), []uint64{8, 6, 4, 2})
	s.same("cancelled", s.cases(store.CaseFilter{State: store.Cancelled}), []uint64(nil))
}

func contactAddresses(s *suite) {
	ana := s.contact("Ana", "Ana@X.example", "ana@y.example", "ana@x.example")
	s.update(func(tx store.Tx) error { return tx.PutContact(ana) })
	s.same("by key", s.contacts(store.ContactFilter{Address: "ana@x.example"}), []string{"Ana"})
	s.same("by the other", s.contacts(store.ContactFilter{Address: "ana@y.example"}), []string{"Ana"})
	ana.EmailAddresses = ana.EmailAddresses[1:2]
	ana.Kind = store.Registered
	s.update(func(tx store.Tx) error { return tx.PutContact(ana) })
	s.same("after it was taken away", s.contacts(store.ContactFilter{Address: "ana@x.example"}), []string(nil))
	s.same("by what is left", s.contacts(store.ContactFilter{Address: "ana@y.example"}), []string{"Ana"})
	s.same("as guest", s.contacts(store.ContactFilter{Address: "ana@y.example", Kind: store.Guest}), []string(nil))
	s.same("as registered", s.contacts(store.ContactFilter{Kind: store.Registered}), []string{"Ana"})
}

func sharedAddress(s *suite) {
	var names []string
	for i := range 7 {
		c := s.contact(fmt.Sprint(i), "family@x.example")
		if i%2 == 1 {
			c.Kind = store.Registered
		}
		names = append(names, c.Name)
		s.update(func(tx store.Tx) error { return tx.PutContact(c) })
	}
	s.same("all, oldest first", s.contacts(store.ContactFilter{Address: "family@x.example"}), names)
	s.same("guests", s.contacts(store.ContactFilter{Address: "family@x.example", Kind: store.Guest}), []string{"0", "2", "4", "6"})
	s.same("without a filter", s.contacts(store.ContactFilter{}), names)
	s.view(func(r store.Reader) error {
		h, err := r.Holders("family@x.example")
		var got []string
		for _, c := range h.Contacts {
			got = append(got, c.Name)
		}
		s.same("holders, oldest first", got, names)
		return err
	})
}

func heldForATime(s *suite) {
	old, heir := s.contact("Old"), s.contact("Heir")
	moved := s.now.Add(-time.Hour)
	old.EmailAddresses = []store.EmailAddress{{Address: "room5@x.example", To: moved}}
	heir.EmailAddresses = []store.EmailAddress{{Address: "room5@x.example", From: moved}, {Address: "later@x.example", From: s.now.Add(24 * time.Hour)}}
	s.update(func(tx store.Tx) error {
		if err := tx.PutContact(old); err != nil {
			return err
		}
		return tx.PutContact(heir)
	})
	f := s.facts(store.Query{Addresses: []string{"room5@x.example", "later@x.example"}})
	s.same("now", f.Holders["room5@x.example"].Contacts, []store.Contact{heir})
	s.same("not yet", f.Holders["later@x.example"].Contacts, []store.Contact(nil))
	s.same("listed now", s.contacts(store.ContactFilter{Address: "room5@x.example"}), []string{"Heir"})
	s.view(func(r store.Reader) error {
		before, err := r.HeldBy("room5@x.example", moved.Add(-time.Minute))
		s.same("before", before, []store.Contact{old})
		return err
	})
}

func manyHolders(s *suite) {
	for i := range store.MaxHolders + 10 {
		c := s.contact(fmt.Sprint(i), "robot@x.example")
		if i == store.MaxHolders+9 {
			c = s.registered("owner", "robot@x.example")
		}
		s.update(func(tx store.Tx) error { return tx.PutContact(c) })
	}
	firm := store.Account{ID: store.NewID(), Kind: store.Business, Name: "Firm", EmailAddresses: []string{"robot@x.example"}, CreatedAt: s.now}
	s.update(func(tx store.Tx) error { return tx.PutAccount(firm) })
	s.view(func(r store.Reader) error {
		h, err := r.Holders("robot@x.example")
		s.same("account behind them", h.Accounts, []store.Account{firm})
		if len(h.Contacts) != store.MaxHolders || !h.More {
			s.Errorf("%d holders, more %v", len(h.Contacts), h.More)
		}
		if last := h.Contacts[len(h.Contacts)-1]; last.Name != "owner" {
			s.Errorf("the registered one is missing, the newest is %s", last.Name)
		}
		all, err2 := r.HeldBy("robot@x.example", s.now)
		if len(all) != store.MaxHolders+10 || err2 != nil {
			s.Errorf("held by %d, %v", len(all), err2)
		}
		return err
	})
}

func accountsAndAgents(s *suite) {
	firm := store.Account{ID: store.NewID(), Kind: store.Business, Name: "Firm", EmailAddresses: []string{"Info@Firm.example", "shop@firm.example"}, CreatedAt: s.now}
	house := store.Account{ID: store.NewID(), Kind: store.Property, Name: "House", EmailAddresses: []string{"info@firm.example"}, CreatedAt: s.now}
	ann := store.Agent{ID: store.NewID(), Name: "Ann", EmailAddresses: []string{"ann@city.example"}, SendAs: []string{"311@city.example"}, CreatedAt: s.now}
	s.update(func(tx store.Tx) error {
		for _, a := range []store.Account{firm, house} {
			if err := tx.PutAccount(a); err != nil {
				return err
			}
		}
		return tx.PutAgent(ann)
	})
	firm.EmailAddresses = firm.EmailAddresses[:1]
	s.update(func(tx store.Tx) error { return tx.PutAccount(firm) })
	f := s.facts(store.Query{Addresses: []string{"info@firm.example", "shop@firm.example", "ann@city.example"}})
	s.same("two accounts", f.Holders["info@firm.example"].Accounts, []store.Account{firm, house})
	s.same("taken away", f.Holders["shop@firm.example"], store.Holders{})
	s.same("agent", f.Holders["ann@city.example"].Agents, []store.Agent{ann})
	s.view(func(r store.Reader) error {
		list := pages(s, 1, r.Accounts)
		s.same("accounts", list, []store.Account{firm, house})
		agents := pages(s, 1, r.Agents)
		s.same("agents", agents, []store.Agent{ann})
		a, err := r.Account(firm.ID)
		s.same("account", a, firm)
		return err
	})
}

func roundTrip(s *suite) {
	at := time.Date(2024, 2, 29, 23, 59, 59, 987654321, time.FixedZone("", 3600))
	ana := s.registered("Ana \xff", "ana@x.example")
	ana.Account, ana.DoNotEmail, ana.Unverified = store.NewID(), true, true
	c := s.newCase(1, ana)
	c.Accounts, c.Flags, c.ReopenedAt, c.ResolvedAt = []store.ID{ana.Account}, []string{"late-reply"}, []time.Time{at}, at
	c.Ordinal, c.Mailbox, c.CreatedAt = 4_000_000_000, "311@city.example", at
	s.update(func(tx store.Tx) error {
		if err := tx.PutContact(ana); err != nil {
			return err
		}
		return tx.PutCase(c)
	})
	s.view(func(r store.Reader) error {
		got, err := r.Case(1)
		s.same("case", got, c)
		contact, err2 := r.Contact(ana.ID)
		s.same("contact", contact, ana)
		s.ok(err2)
		return err
	})
}

func logOrder(s *suite) {
	ana := s.registered("Ana", "ana@x.example")
	var want []store.LogEntry
	s.update(func(tx store.Tx) error {
		want = nil
		if err := tx.PutContact(ana); err != nil {
			return err
		}
		for _, n := range []uint64{1, 2} {
			if err := tx.PutCase(s.newCase(n, ana)); err != nil {
				return err
			}
			for i := range 5 {
				e := store.LogEntry{ID: store.NewID(), Case: n, At: s.now, By: "agent", SourceType: "Case changed", Text: fmt.Sprint(n, i)}
				if i == 3 {
					e.Document = &store.Document{FileName: "a.eml", FileType: "eml", Size: 7}
				}
				if err := tx.Record(e); err != nil {
					return err
				}
				if n == 1 {
					want = append(want, e)
				}
			}
		}
		return nil
	})
	s.view(func(r store.Reader) error {
		got := pages(s, 2, func(p store.Page) ([]store.LogEntry, store.Cursor, error) { return r.Log(1, p) })
		s.same("log", got, want)
		return nil
	})
}

func strangeCursor(s *suite) {
	s.view(func(r store.Reader) error {
		if _, _, err := r.Cases(store.CaseFilter{}, store.Page{After: "!!"}); err == nil {
			s.Error("no error")
		}
		rows, _, err := r.Contacts(store.ContactFilter{}, store.Page{After: "AAAA"})
		s.same("rows", rows, []store.Contact(nil))
		return err
	})
}
