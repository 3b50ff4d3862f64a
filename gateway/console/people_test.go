package console

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/casegate/casegate/store"
)

// TestRemoveAgent: his address is free, his name stays with old mail.
func TestRemoveAgent(t *testing.T) {
	d := newDesk(t)
	h := d.handler(Operator)
	none := id(77).String()
	for path, want := range map[string]string{
		"/agents/" + none:        "404 no user " + none + " | casegate user list shows the agents",
		"/agents/ana@x.example":  "404 no user ana@x.example | casegate user list shows the agents",
		"/agents/Kim":            "404 no user Kim | casegate user list shows the agents",
		"/agents/elm1@x.example": "404 no user elm1@x.example | casegate user list shows the agents",
	} {
		if said := d.does(t, "DELETE", path, ""); said != want {
			t.Errorf("%s: %s", path, said)
		}
	}
	gone := read[store.Agent](t, h, "DELETE", "/api/v1/agents/KIM@city.example", "", 200)
	if gone.ID != d.kim || gone.Name != "Kim" || len(gone.EmailAddresses) != 0 {
		t.Errorf("%+v", gone)
	}
	if got := ask(h, "GET", "/api/v1/agents", "").Body.String(); got != "[]\n" {
		t.Error(got)
	}
	if said := d.does(t, "DELETE", "/agents/"+d.kim.String(), ""); said != "404 no user "+d.kim.String()+" | casegate user list shows the agents" {
		t.Error(said)
	}
	c := read[CaseDetail](t, h, "GET", "/api/v1/cases/1", "", 200)
	if who := c.Timeline[1].Parties[0].Party; who == nil || who.Name != "Kim" {
		t.Errorf("%+v", who)
	}
	read[store.Agent](t, h, "POST", "/api/v1/agents", `{"name":"Kim II","email_addresses":["kim@city.example"]}`, 201)
	log := d.logged(t, 0)
	if len(log) != 2 || log[0] != "Installation changed, cli: removed agent Kim "+d.kim.String() {
		t.Error(log)
	}
}

// TestAddAudited: who is added stands in the installation's log.
func TestAddAudited(t *testing.T) {
	d := newDesk(t)
	h := d.handler(Operator)
	account := read[store.Account](t, h, "POST", "/api/v1/accounts", `{"name":"Acme","email_addresses":["info@acme.example"]}`, 201)
	c := read[store.Contact](t, h, "POST", "/api/v1/contacts", `{"name":"Eva","email_addresses":["eva@x.example"]}`, 201)
	a := read[store.Agent](t, h, "POST", "/api/v1/agents", `{"name":"Lee","email_addresses":["lee@city.example"]}`, 201)
	want := []string{
		"Installation changed, cli: added account Acme (business) " + account.ID.String(),
		"Installation changed, cli: added contact Eva (registered) " + c.ID.String(),
		"Installation changed, cli: added agent Lee " + a.ID.String(),
	}
	if diff := cmp.Diff(want, d.logged(t, 0)); diff != "" {
		t.Error(diff)
	}
}
