package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/casegate/casegate/store"
)

// later is the time of the desk's handlers.
var later = monday.Add(48*time.Hour + 1234567)

// more adds cases 2 and 3: Ben's and Ana's.
func (d *desk) more(t *testing.T) {
	d.update(t, func(tx store.Tx) error {
		return errors.Join(
			tx.PutCase(store.Case{ID: id(6), Number: 2, Title: "noise", State: store.Active, Customer: d.ben, CreatedAt: monday, UpdatedAt: monday}),
			tx.PutCase(store.Case{ID: id(7), Number: 3, Title: "snow", State: store.Active, Customer: d.ana, CreatedAt: monday, UpdatedAt: monday}),
		)
	})
}

func (d *desk) view(t *testing.T, fn func(store.Reader) error) {
	t.Helper()
	if err := d.st.View(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

// logged are who did what, of a case or (0) the installation, but for what the
// desk began with.
func (d *desk) logged(t *testing.T, number uint64) (list []string) {
	t.Helper()
	d.view(t, func(rd store.Reader) error {
		rows, _, err := rd.Log(number, store.Page{})
		for _, r := range rows {
			if r.SourceType != "Case email-out" {
				list = append(list, fmt.Sprintf("%s, %s: %s", r.SourceType, r.By, r.Text))
			}
			if r.SourceType != "Case email-out" && !r.At.Equal(later) {
				t.Errorf("%s at %s", r.Text, r.At)
			}
		}
		return err
	})
	return list
}

func (d *desk) numbered(t *testing.T, number uint64) (c store.Case) {
	t.Helper()
	d.view(t, func(rd store.Reader) (err error) { c, err = rd.Case(number); return err })
	return c
}

// does asks as Kim, and returns what is said: of success, or a problem as
// "status detail | hint".
func (d *desk) does(t *testing.T, method, path, body string) string {
	t.Helper()
	r := httptest.NewRequest(method, "http://casegate/api/v1"+path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(UserHeader, "kim")
	w := httptest.NewRecorder()
	d.handler(Operator).ServeHTTP(w, r)
	var v struct {
		Said, Detail, Hint string
		Already            bool
	}
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatal(err, w.Body)
	}
	switch {
	case w.Code != 200:
		return fmt.Sprintf("%d %s | %s", w.Code, v.Detail, v.Hint)
	case v.Already:
		return "already: " + v.Said
	}
	return v.Said
}

// step is one act, and what is said to it.
type step struct{ path, body, said string }

func (d *desk) play(t *testing.T, steps ...step) {
	t.Helper()
	for _, s := range steps {
		if said := d.does(t, "POST", s.path, s.body); said != s.said {
			t.Errorf("%s %s:\n got %s\nwant %s", s.path, s.body, said, s.said)
		}
	}
}

func TestStates(t *testing.T) {
	d := newDesk(t)
	d.play(t,
		step{"/cases/1/resolve", "", "case 1 is Resolved, was Active"},
		step{"/cases/1/resolve", "", "already: case 1 is Resolved already"},
		step{"/cases/1/cancel", "", "409 case 1 is Resolved: only an active case can become Cancelled | casegate case reopen 1 comes first"},
	)
	if c := d.numbered(t, 1); c.State != store.Resolved || !c.ResolvedAt.Equal(later) || !c.UpdatedAt.Equal(later) || c.Customer != d.ana || c.Ordinal != 2 {
		t.Errorf("%+v", c)
	}
	d.play(t,
		step{"/cases/1/reopen", "", "case 1 is Active, was Resolved"},
		step{"/cases/1/reopen", "", "already: case 1 is Active already"},
	)
	if c := d.numbered(t, 1); c.State != store.Active || !c.ResolvedAt.IsZero() || c.ReopenedAt != nil {
		t.Errorf("%+v", c)
	}
	d.play(t,
		step{"/cases/1/cancel", "", "case 1 is Cancelled, was Active"},
		step{"/cases/1/cancel", "", "already: case 1 is Cancelled already"},
		step{"/cases/1/resolve", "", "409 case 1 is Cancelled: only an active case can become Resolved | casegate case reopen 1 comes first"},
		step{"/cases/1/reopen", "", "case 1 is Active, was Cancelled"},
		step{"/cases/9/resolve", "", "404 no case 9 | casegate case list shows what there is"},
	)
	want := []string{
		"Case changed, kim: case 1 is Resolved, was Active", "Case changed, kim: case 1 is Active, was Resolved",
		"Case changed, kim: case 1 is Cancelled, was Active", "Case changed, kim: case 1 is Active, was Cancelled",
	}
	if diff := cmp.Diff(want, d.logged(t, 1)); diff != "" {
		t.Error(diff)
	}
	if got := read[CaseAct](t, d.handler(Operator), "POST", "/api/v1/cases/1/resolve", "", 200); got.Number != 1 || got.State != store.Resolved || got.Customer.Name != "Ana" {
		t.Errorf("%+v", got)
	}
}

func TestUnflag(t *testing.T) {
	d := newDesk(t)
	d.more(t)
	d.update(t, func(tx store.Tx) error {
		c, err := tx.Case(1)
		c.Flags = []string{"customer-bounced", "answers-held"}
		return errors.Join(err, tx.PutCase(c))
	})
	d.play(t,
		step{"/cases/1/unflag", `{"flag":"hand-on-failed"}`, "already: case 1 is not flagged hand-on-failed; it has customer-bounced, answers-held"},
		step{"/cases/1/unflag", `{"flag":"customer-bounced","reason":" it is empty again "}`, "flag customer-bounced is taken off case 1: it is empty again"},
		step{"/cases/1/unflag", `{"flag":"answers-held"}`, "flag answers-held is taken off case 1"},
		step{"/cases/1/unflag", `{"flag":"answers-held"}`, "already: case 1 has no flags"},
		step{"/cases/1/unflag", `{}`, "422 validation failed; body expected required property flag to be present | see /openapi.json"},
		step{"/cases/9/unflag", `{"flag":"answers-held"}`, "404 no case 9 | casegate case list shows what there is"},
		step{"/cases/2/merge", `{"into":1}`, "case 2 is merged into case 1; its customer is now Ana (guest), no longer Ben (registered)"},
		step{"/cases/2/unflag", `{"flag":"answers-held"}`, "409 case 2 was merged into case 1 | it goes on there: casegate case show 1"},
	)
	if c := d.numbered(t, 1); len(c.Flags) != 0 || !c.UpdatedAt.Equal(later) {
		t.Errorf("%+v", c)
	}
	want := []string{
		"Case changed, kim: flag customer-bounced is taken off case 1: it is empty again",
		"Case changed, kim: flag answers-held is taken off case 1",
		"Case changed, kim: case 2 was merged into this case",
	}
	if diff := cmp.Diff(want, d.logged(t, 1)); diff != "" {
		t.Error(diff)
	}
}

func TestMerge(t *testing.T) {
	d := newDesk(t)
	d.more(t)
	d.play(t,
		step{"/cases/2/merge", `{"into":2}`, "409 case 2 cannot be merged into itself | name the case that it should go on in"},
		step{"/cases/2/merge", `{"into":9}`, "404 no case 9 | casegate case list shows what there is"},
		step{"/cases/2/merge", `{}`, "422 validation failed; body expected required property into to be present | see /openapi.json"},
		step{"/cases/2/merge", `{"into":1}`, "case 2 is merged into case 1; its customer is now Ana (guest), no longer Ben (registered)"},
		step{"/cases/2/merge", `{"into":1}`, "already: case 2 is merged into case 1 already"},
		step{"/cases/2/merge", `{"into":3}`, "409 case 2 was merged into case 1 | it goes on there: casegate case show 1"},
		step{"/cases/2/merge", `{"into":2}`, "409 case 2 cannot be merged into itself | name the case that it should go on in"},
		step{"/cases/1/merge", `{"into":2}`, "409 case 2 was merged into case 1: the other way round it would go in a circle | casegate case show 1"},
		step{"/cases/2/resolve", "", "409 case 2 was merged into case 1 | it goes on there: casegate case show 1"},
		step{"/cases/2/reopen", "", "409 case 2 was merged into case 1 | it goes on there: casegate case show 1"},
		step{"/cases/2/cancel", "", "409 case 2 was merged into case 1 | it goes on there: casegate case show 1"},
		step{"/cases/2/set-customer", `{"contact":"` + d.ana.String() + `"}`, "409 case 2 was merged into case 1 | it goes on there: casegate case show 1"},
		step{"/cases/3/merge", `{"into":2}`, "case 3 is merged into case 1, where case 2 went"},
	)
	for number, into := range map[uint64]uint64{1: 0, 2: 1, 3: 1} {
		c := d.numbered(t, number)
		if c.MergedInto != into || (c.State == store.Cancelled) != (into != 0) || !c.UpdatedAt.Equal(later) {
			t.Errorf("%+v", c)
		}
	}
	want := []string{"Case changed, kim: case 2 was merged into this case", "Case changed, kim: case 3 was merged into this case"}
	if diff := cmp.Diff(want, d.logged(t, 1)); diff != "" {
		t.Error(diff)
	}
	want = []string{"Case changed, kim: case 3 is merged into case 1, where case 2 went"}
	if diff := cmp.Diff(want, d.logged(t, 3)); diff != "" {
		t.Error(diff)
	}
}

// TestMergeChain: a case that was merged on is named with where it ends, and
// nothing goes on in a cancelled case.
func TestMergeChain(t *testing.T) {
	d := newDesk(t)
	d.more(t)
	d.play(t,
		step{"/cases/3/merge", `{"into":2}`, "case 3 is merged into case 2; its customer is now Ben (registered), no longer Ana (guest)"},
		step{"/cases/2/merge", `{"into":1}`, "case 2 is merged into case 1; its customer is now Ana (guest), no longer Ben (registered)"},
		step{"/cases/3/reopen", "", "409 case 3 was merged into case 2, which goes on in case 1 | it goes on there: casegate case show 1"},
		step{"/cases/3/merge", `{"into":1}`, "already: case 3 is merged into case 1 already"},
		step{"/cases/1/merge", `{"into":3}`, "409 case 3 was merged into case 1: the other way round it would go in a circle | casegate case show 1"},
	)
	d = newDesk(t)
	d.more(t)
	d.play(t,
		step{"/cases/1/cancel", "", "case 1 is Cancelled, was Active"},
		step{"/cases/3/merge", `{"into":1}`, "409 case 1 is Cancelled: nothing can go on there | casegate case reopen 1 comes first"},
		step{"/cases/1/merge", `{"into":3}`, "case 1 is merged into case 3"},
	)
}

func TestSetCustomer(t *testing.T) {
	d := newDesk(t)
	d.update(t, func(tx store.Tx) error {
		return errors.Join(
			tx.PutAccount(store.Account{ID: id(50), Kind: store.Business, Name: "Work", CreatedAt: monday}),
			tx.PutContact(store.Contact{ID: id(51), Kind: store.Registered, Name: "Eva", Account: id(50), CreatedAt: monday}),
		)
	})
	eva, ana := id(51).String(), d.ana.String()
	d.play(t,
		step{"/cases/1/set-customer", `{"contact":"eva"}`, `422 "eva" is not the id of a contact | casegate contact list shows the ids`},
		step{"/cases/1/set-customer", `{"contact":"` + id(77).String() + `"}`, "422 no contact " + id(77).String() + " | casegate contact list shows the ids"},
		step{"/cases/1/set-customer", `{"contact":"` + ana + `"}`, "already: Ana (guest) is the customer of case 1 already"},
		step{"/cases/1/set-customer", `{"contact":"` + eva + `","reason":" she called "}`,
			"the customer of case 1 is Eva (registered) " + eva + ", was Ana (guest) " + ana + ": she called"},
		step{"/cases/1/set-customer", `{"contact":"` + ana + `"}`, "the customer of case 1 is Ana (guest) " + ana + ", was Eva (registered) " + eva},
		step{"/cases/1/set-customer", `{"contact":"` + eva + `"}`, "the customer of case 1 is Eva (registered) " + eva + ", was Ana (guest) " + ana},
	)
	if c := d.numbered(t, 1); c.Customer != id(51) || !cmp.Equal(c.Accounts, []store.ID{d.acme, id(50)}) || !c.UpdatedAt.Equal(later) {
		t.Errorf("%+v", c)
	}
	if log := d.logged(t, 1); len(log) != 3 || log[0] != "Case changed, kim: the customer of case 1 is Eva (registered) "+eva+", was Ana (guest) "+ana+": she called" {
		t.Error(log)
	}
}

// TestActsUndone: an act whose audit row cannot be written leaves nothing.
func TestActsUndone(t *testing.T) {
	d := newDesk(t)
	d.more(t)
	h := New(Service{Store: deaf{d.st}}, Options{Access: Operator, Now: func() time.Time { return later }})
	for path, body := range map[string]string{
		"/cases/1/resolve": "", "/cases/2/merge": `{"into":1}`, "/cases/1/set-customer": `{"contact":"` + d.ben.String() + `"}`,
		"/cases/1/link": `{"address":"both@x.example","contact":"` + d.ben.String() + `","force":true}`, "/keys": "",
	} {
		if w := ask(h, "POST", "/api/v1"+path, body); w.Code != 507 {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	for n := uint64(1); n <= 2; n++ {
		if c := d.numbered(t, n); c.State != store.Active || c.HandLinks != nil || !c.UpdatedAt.Equal(monday) || c.Customer != map[uint64]store.ID{1: d.ana, 2: d.ben}[n] {
			t.Errorf("%+v", c)
		}
	}
	d.view(t, func(rd store.Reader) error {
		in, err := rd.Installation()
		m, _ := rd.Message(d.first)
		if len(in.Keys) != 1 || m.Parties[2].ByHand {
			t.Errorf("%+v %+v", in, m.Parties)
		}
		return err
	})
}

// deaf is a store that records nothing in a log.
type deaf struct{ store.Store }

func (s deaf) Update(ctx context.Context, fn func(store.Tx) error) error {
	return s.Store.Update(ctx, func(tx store.Tx) error { return fn(deafTx{tx}) })
}

type deafTx struct{ store.Tx }

func (deafTx) Record(store.LogEntry) error { return store.ErrFull }

// TestActor: who acts is a name that can be printed, else cli; and nobody else's
// words count where a handler knows better.
func TestActor(t *testing.T) {
	for said, want := range map[string]string{"kim": "kim", " kim ": "kim", "": "cli", "a\tb": "cli", "k\u202em": "cli", "\xff": "cli", strings.Repeat("k", 101): "cli", "Jürgen": "Jürgen"} {
		r := httptest.NewRequest("POST", "/", nil)
		r.Header.Set(UserHeader, said)
		if got := saidBy(r); got != want {
			t.Errorf("%q: %q", said, got)
		}
	}
	d := newDesk(t)
	h := New(d.service(), Options{Access: Operator, Now: func() time.Time { return later }, By: func(*http.Request) string { return "login kim" }})
	r := httptest.NewRequest("POST", "http://casegate/api/v1/cases/1/resolve", nil)
	r.Header.Set(UserHeader, "mallory")
	h.ServeHTTP(httptest.NewRecorder(), r)
	if log := d.logged(t, 1); len(log) != 1 || !strings.HasPrefix(log[0], "Case changed, login kim: ") {
		t.Error(log)
	}
}
