package console

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// TestAccessOfContacts: user by object. Eva shares the customer's address, wrote
// on the case, is linked on its timeline and by hand, and has the same account;
// none of that lets her see it.
func TestAccessOfContacts(t *testing.T) {
	d := newDesk(t)
	d.more(t)
	eva := id(51)
	d.update(t, func(tx store.Tx) error {
		m := d.firstMail()
		m.ID, m.MessageID, m.Archived = id(14), "d@x.example", store.Archived{}
		m.Parties = append(m.Parties, store.Party{Role: store.RoleRelated, AddressUsed: "ana@x.example", Party: store.PartyRef{Kind: store.PartyContact, ID: eva}})
		m.Parties[0].Party.ID = eva
		if err := tx.PutMessage(m); err != nil {
			return err
		}
		return tx.PutContact(store.Contact{ID: eva, Kind: store.Registered, Name: "Eva", Account: d.acme, CreatedAt: before,
			EmailAddresses: []store.EmailAddress{{Address: "ana@x.example", From: before}, {Address: "both@x.example", From: before}}})
	})
	d.play(t,
		step{"/cases/1/link", link("both@x.example", eva, ""), "both@x.example linked by hand to Eva (registered) " + eva.String() + " in case 1: 2 messages, and later mail"},
		step{"/cases/2/merge", `{"into":1}`, "case 2 is merged into case 1; its customer is now Ana (guest), no longer Ben (registered)"},
	)
	h := d.handler(Reader)
	is, not := "the contact is the customer of ", "the contact is not the customer of "
	for who, answers := range map[store.ID]map[uint64]resolver.Access{
		d.ana: {1: {Allowed: true, Reason: is + "case 1"}, 2: {Allowed: true, Reason: is + "case 1, which case 2 was merged into"}, 3: {Allowed: true, Reason: is + "case 3"}},
		d.ben: {1: {Reason: not + "case 1"}, 2: {Reason: not + "case 1, which case 2 was merged into"}, 3: {Reason: not + "case 3"}},
		eva:   {1: {Reason: not + "case 1"}, 2: {Reason: not + "case 1, which case 2 was merged into"}, 3: {Reason: not + "case 3"}},
	} {
		listed := read[[]Case](t, h, "GET", "/api/v1/contacts/"+who.String()+"/cases", "", 200)
		for _, c := range listed {
			if !answers[c.Number].Allowed {
				t.Errorf("%s lists case %d", who, c.Number)
			}
		}
		for number, want := range answers {
			got := read[resolver.Access](t, h, "GET", fmt.Sprintf("/api/v1/access?contact=%s&case=%d", who, number), "", 200)
			if got != want {
				t.Errorf("%s, case %d: %+v", who, number, got)
			}
		}
	}
	numbers := func(path string) (list []uint64) {
		for _, c := range read[[]Case](t, h, "GET", path, "", 200) {
			list = append(list, c.Number)
		}
		return list
	}
	for path, want := range map[string][]uint64{
		"/api/v1/contacts/" + d.ana.String() + "/cases":              {3, 1},
		"/api/v1/contacts/" + d.ana.String() + "/cases?state=Active": {3, 1},
		"/api/v1/contacts/" + d.ben.String() + "/cases":              nil,
		"/api/v1/cases?customer=" + d.ben.String():                   {2},
		"/api/v1/cases?state=Active&customer=" + d.ben.String():      nil,
		"/api/v1/cases?customer=" + d.ana.String():                   {3, 1},
	} {
		if diff := cmp.Diff(want, numbers(path)); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}
	none := id(77).String()
	for path, want := range map[string]string{
		"/access?case=1": "422 validation failed; query.contact required query parameter is missing | see /openapi.json",
		"/access?contact=" + d.ana.String() + "&case=9": "404 no case 9 | casegate case list shows what there is",
		"/access?contact=ana&case=1":                    `422 "ana" is not the id of a contact | casegate contact list shows the ids`,
		"/access?contact=" + none + "&case=1":           "422 no contact " + none + " | casegate contact list shows the ids",
		"/contacts/" + none + "/cases":                  "404 no contact " + none + " | casegate contact list shows the ids",
		"/contacts/ana/cases":                           `404 "ana" is not the id of a contact | casegate contact list shows the ids`,
		"/cases?customer=ana":                           `422 "ana" is not the id of a contact | casegate contact list shows the ids`,
	} {
		if said := d.does(t, "GET", path, ""); said != want {
			t.Errorf("%s: %s", path, said)
		}
	}
}
