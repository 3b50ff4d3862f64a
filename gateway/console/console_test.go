package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/casegate/casegate/store"
)

// TestShowCase holds the JSON of a case to the contract, word by word.
func TestShowCase(t *testing.T) {
	d := newDesk(t)
	got := read[any](t, d.handler(Operator), "GET", "/api/v1/cases/1?bcc=1", "", 200)
	text, err := os.ReadFile("testdata/case.json")
	if err != nil {
		t.Fatal(err)
	}
	var want any
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		pretty, _ := json.MarshalIndent(got, "", "  ")
		t.Errorf("(-want +got):\n%s\n%s", diff, pretty)
	}
}

func TestLists(t *testing.T) {
	d := newDesk(t)
	h := d.handler(Reader)
	cases := read[[]Case](t, h, "GET", "/api/v1/cases?state=Active&queue=general", "", 200)
	if len(cases) != 1 || cases[0].Number != 1 || cases[0].Customer.Name != "Ana" {
		t.Errorf("%+v", cases)
	}
	if got := ask(h, "GET", "/api/v1/cases?state=Resolved", "").Body.String(); got != "[]\n" {
		t.Errorf("an empty list is %q", got)
	}
	rows := read[[]MessageRow](t, h, "GET", "/api/v1/messages", "", 200)
	if len(rows) != 3 || rows[0].ID != d.odd || rows[2].ID != d.first {
		t.Errorf("newest first: %+v", rows)
	}
	rows = read[[]MessageRow](t, h, "GET", "/api/v1/messages?case=1", "", 200)
	if len(rows) != 2 || rows[0].ID != d.first || rows[1].ID != d.answer {
		t.Errorf("of one case oldest first: %+v", rows)
	}
	rows = read[[]MessageRow](t, h, "GET", "/api/v1/exceptions", "", 200)
	if len(rows) != 1 || *rows[0].Exception != "loop" {
		t.Errorf("%+v", rows)
	}
	contacts := read[[]store.Contact](t, h, "GET", "/api/v1/contacts?address=ANA@X.example&kind=registered", "", 200)
	if len(contacts) != 1 || contacts[0].Name != "Ben" {
		t.Errorf("%+v", contacts)
	}
	queue := read[[]store.Delivery](t, h, "GET", "/api/v1/queue?state=queued", "", 200)
	if len(queue) != 1 || queue[0].ID != d.firstOut {
		t.Errorf("%+v", queue)
	}
}

func TestPaging(t *testing.T) {
	d := newDesk(t)
	h := d.handler(Reader)
	var seen []store.ID
	for path := "/api/v1/messages?limit=1"; path != ""; {
		w := ask(h, "GET", path, "")
		var rows []MessageRow
		if err := json.Unmarshal(w.Body.Bytes(), &rows); err != nil {
			t.Fatal(err, w.Body)
		}
		for _, r := range rows {
			seen = append(seen, r.ID)
		}
		path, _, _ = strings.Cut(strings.TrimPrefix(w.Header().Get("Link"), "<"), ">")
		if len(seen) > 5 {
			t.Fatal("it never ends")
		}
	}
	if diff := cmp.Diff([]store.ID{d.odd, d.answer, d.first}, seen); diff != "" {
		t.Error(diff)
	}
}

// TestLinksKeepTheirTime: an address that moves to another contact leaves old
// mail its old links.
func TestLinksKeepTheirTime(t *testing.T) {
	d := newDesk(t)
	d.update(t, func(tx store.Tx) error {
		c, err := tx.Contact(d.ben)
		if err != nil {
			return err
		}
		c.EmailAddresses[0].To = monday.Add(1)
		if err := tx.PutContact(c); err != nil {
			return err
		}
		return tx.PutContact(store.Contact{ID: id(40), Name: "New", Kind: store.Registered, CreatedAt: monday,
			EmailAddresses: []store.EmailAddress{{Address: "ana@x.example", From: monday.Add(1)}}})
	})
	c := read[CaseDetail](t, d.handler(Reader), "GET", "/api/v1/cases/1", "", 200)
	names := func(links []ContactLink) (list []string) {
		for _, l := range links {
			list = append(list, l.Name)
		}
		return list
	}
	if diff := cmp.Diff([][]string{{"Ana", "Ben"}, {"Ana", "New"}}, [][]string{names(c.Timeline[0].Links), names(c.Timeline[1].Links)}); diff != "" {
		t.Error(diff)
	}
}

// TestBCC: what only Bcc says is in no answer without the right to see it, and
// in all of these with it.
func TestBCC(t *testing.T) {
	d := newDesk(t)
	pages := map[string]bool{ // page: does it tell of Bcc
		"/api/v1/cases/1":                                        true,
		"/api/v1/messages/" + d.answer.String():                  true,
		"/api/v1/messages/" + d.answer.String() + "/eml":         true,
		"/api/v1/messages/" + d.answer.String() + "/explain":     true,
		"/api/v1/queue":                                          true,
		"/api/v1/queue/" + d.answerOut.String():                  true,
		"/api/v1/messages":                                       false,
		"/api/v1/cases":                                          false,
		"/api/v1/messages/" + d.answer.String() + "/eml?as=sent": false,
	}
	for path, tells := range pages {
		for _, access := range []Access{Reader, Operator} {
			w := ask(d.handler(access), "GET", path, "")
			if text := strings.ToLower(w.Body.String()); w.Code != 200 || strings.Contains(text, "canary") || strings.Contains(text, `"bcc"`) {
				t.Errorf("%s, access %d: %d %s", path, access, w.Code, text)
			}
		}
		if !tells {
			continue
		}
		if w := ask(d.handler(Operator), "GET", path+"?bcc=1", ""); !strings.Contains(w.Body.String(), canary) {
			t.Errorf("%s with the right: %s", path, w.Body)
		}
		if w := ask(d.handler(Reader), "GET", path+"?bcc=1", ""); w.Code != 403 || strings.Contains(w.Body.String(), canary) {
			t.Errorf("%s without the right: %d %s", path, w.Code, w.Body)
		}
	}
	if rows := read[[]store.Delivery](t, d.handler(Operator), "GET", "/api/v1/queue?address="+canary, "", 200); len(rows) != 0 {
		t.Errorf("the filter tells of Bcc: %+v", rows)
	}
	if rows := read[[]store.Delivery](t, d.handler(Operator), "GET", "/api/v1/queue?bcc=1&address="+canary, "", 200); len(rows) != 1 {
		t.Errorf("with the right: %+v", rows)
	}
}

// TestVeilWords: a hidden address is not cut out of a longer one, nor hidden
// where it is shown to all.
func TestVeilWords(t *testing.T) {
	v := veilFor(false, store.Message{Parties: []store.Party{{Role: store.RoleBCC, AddressUsed: "b@x.example"}}})
	if got := v.text("bob@x.example, b@x.example b@x.example;<B@X.example>"); got != "bob@x.example, [bcc] [bcc];<[bcc]>" {
		t.Error(got)
	}
	v = veilFor(false, store.Message{Parties: []store.Party{{Role: store.RoleBCC, AddressUsed: "b@x.example"}, {Role: store.RoleTo, AddressUsed: "B@x.example"}}})
	if got := v.text("b@x.example"); got != "b@x.example" {
		t.Error(got)
	}
}

// TestExport: both EMLs byte for byte, Bcc where it stood only on demand; a
// browser keeps them, under a name of ours, and does not show them.
func TestExport(t *testing.T) {
	kept := regexp.MustCompile(`^attachment; filename="[0-9a-f-]{36}-(received|sent)\.eml"$`)
	d := newDesk(t)
	h := d.handler(Operator)
	answer, first := "/api/v1/messages/"+d.answer.String()+"/eml", "/api/v1/messages/"+d.first.String()+"/eml"
	for path, want := range map[string]string{
		answer:                    "From: kim@city.example\r\nTo: ana@x.example\r\nSubject: Re: light\r\n\r\nSoon.\r\n",
		answer + "?bcc=1":         "From: kim@city.example\r\nTo: ana@x.example\r\nBcc: " + canary + "\r\nSubject: Re: light\r\n\r\nSoon.\r\n",
		answer + "?as=sent&bcc=1": "From: kim@city.example\r\nTo: ana@x.example\r\nSubject: Re: light\r\nX-Case-Ref: t\r\n\r\nSoon.\r\n",
		first + "?as=received":    "From: ana@x.example\r\nTo: 311@city.example\r\nSubject: light\r\n\r\nIt is dark.\r\n",
		first + "?as=sent":        "X-Case-Number: 1\r\nFrom: ana@x.example\r\nTo: 311@city.example\r\nSubject: light\r\n\r\nIT IS DARK.\r\n",
	} {
		w := ask(h, "GET", path, "")
		if w.Code != 200 || w.Body.String() != want {
			t.Errorf("%s: %d %q", path, w.Code, w.Body)
		}
		if head := w.Header(); head.Get("Content-Type") != "message/rfc822" || head.Get("X-Content-Type-Options") != "nosniff" || !kept.MatchString(head.Get("Content-Disposition")) {
			t.Errorf("%s: %v", path, head)
		}
	}
	p := read[Problem](t, h, "GET", "/api/v1/messages/"+d.odd.String()+"/eml?as=sent", "", 404)
	if p.Detail != "message "+d.odd.String()+" was never sent on" {
		t.Error(p)
	}
}

func TestRestore(t *testing.T) {
	got, err := restore([]byte("abef"), []store.Apart{{Offset: 2, Bytes: []byte("cd")}, {Offset: 6, Bytes: []byte("gh")}})
	if err != nil || string(got) != "abcdefgh" {
		t.Errorf("%q, %v", got, err)
	}
	for _, apart := range [][]store.Apart{{{Offset: 9}}, {{Offset: 3, Bytes: []byte("x")}, {Offset: 1}}} {
		if got, err := restore([]byte("abef"), apart); err == nil {
			t.Errorf("%q", got)
		}
	}
}

func TestAdd(t *testing.T) {
	d := newDesk(t)
	h := d.handler(Operator)
	account := read[store.Account](t, h, "POST", "/api/v1/accounts", `{"name":"Acme","email_addresses":["info@acme.example"]}`, 201)
	if account.Kind != store.Business {
		t.Errorf("%+v", account)
	}
	c := read[store.Contact](t, h, "POST", "/api/v1/contacts",
		fmt.Sprintf(`{"name":" Eva ","kind":"guest","account":%q,"email_addresses":["eva@x.example","EVA@x.example","Ana@x.example"]}`, account.ID), 201)
	want := store.Contact{ID: c.ID, Kind: store.Guest, Name: "Eva", Account: account.ID, CreatedAt: monday.AddDate(0, 0, 2)}
	for _, address := range []string{"eva@x.example", "Ana@x.example"} {
		want.EmailAddresses = append(want.EmailAddresses, store.EmailAddress{Address: address, From: want.CreatedAt})
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
	listed := read[[]store.Contact](t, h, "GET", "/api/v1/contacts?address=ana@x.example", "", 200)
	if len(listed) != 3 {
		t.Errorf("several contacts share an address: %+v", listed)
	}
	agent := read[store.Agent](t, h, "POST", "/api/v1/agents", `{"name":"Lee","email_addresses":["lee@city.example"],"send_as":["311@city.example"]}`, 201)
	if agents := read[[]store.Agent](t, h, "GET", "/api/v1/agents", "", 200); len(agents) != 2 || agents[1].ID != agent.ID || agents[1].SendAs[0] != "311@city.example" {
		t.Errorf("%+v", agents)
	}
}

func TestProblems(t *testing.T) {
	d := newDesk(t)
	h := d.handler(Operator)
	for _, tc := range []struct {
		method, path, body string
		status             int
		detail             string
	}{
		{"GET", "/api/v1/cases/7", "", 404, "no case 7"},
		{"GET", "/api/v1/cases/x", "", 422, "validation failed; path.number invalid integer"},
		{"GET", "/api/v1/cases?state=Open", "", 422, `validation failed; query.state expected value to be one of "Active, Resolved, Cancelled"`},
		{"GET", "/api/v1/cases?stat=Active", "", 422, "validation failed; query.stat unknown query parameter"},
		{"GET", "/api/v1/cases?limit=501", "", 422, "validation failed; query.limit expected number <= 500"},
		{"GET", "/api/v1/messages/x", "", 404, `"x" is not the id of a message`},
		{"GET", "/api/v1/messages/" + id(77).String(), "", 404, "no message " + id(77).String()},
		{"GET", "/api/v1/exceptions/" + d.first.String(), "", 404, "message " + d.first.String() + " is not on the exceptions list"},
		{"GET", "/api/v1/queue/" + d.first.String(), "", 404, "no delivery " + d.first.String()},
		{"GET", "/nothing", "", 404, "no page /nothing"},
		{"DELETE", "/api/v1/cases", "", 405, "/api/v1/cases is not for DELETE"},
		{"POST", "/api/v1/contacts", `{"name":"A","email_addresses":["a"]}`, 422, `"a" is not an e-mail address: it has no @`},
		{"POST", "/api/v1/contacts", `{"name":" ","email_addresses":["a@x.example"]}`, 422, "the name is blank"},
		{"POST", "/api/v1/contacts", `{"name":"A","email_addresses":["a@x.example"],"account":"` + id(77).String() + `"}`, 422, "no account " + id(77).String()},
		{"POST", "/api/v1/contacts", `{"name":"A","email_addresses":["a@x.example"],"account":"acme"}`, 422, `"acme" is not the id of an account`},
		{"POST", "/api/v1/contacts", `{"name":"A","email_addresses":["a@x.example"],"kind":"friend"}`, 422, `validation failed; body.kind expected value to be one of "registered, guest"`},
		{"POST", "/api/v1/contacts", `{"name":"A"}`, 422, "validation failed; body expected required property email_addresses to be present"},
		{"POST", "/api/v1/agents", `{"name":"K","email_addresses":["KIM@city.example"]}`, 409, `KIM@city.example is the address of agent "Kim" already`},
		{"POST", "/api/v1/explain", "From: a@b", 501, "this program cannot explain mail yet"},
	} {
		w := ask(h, tc.method, tc.path, tc.body)
		var p Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != tc.status || p.Status != tc.status || p.Detail != tc.detail || p.Title == "" {
			t.Errorf("%s %s: %d %+v, %v", tc.method, tc.path, w.Code, p, err)
		}
		if p.Hint == "" && tc.status != 501 {
			t.Errorf("%s %s: no hint", tc.method, tc.path)
		}
		if ct := w.Header().Get("Content-Type"); ct != "application/problem+json" {
			t.Errorf("%s %s: %s", tc.method, tc.path, ct)
		}
	}
}

// failing is a store whose every transaction fails.
type failing struct {
	store.Store
	err error
}

func (f failing) View(context.Context, func(store.Reader) error) error { return f.err }
func (f failing) Update(context.Context, func(store.Tx) error) error   { return f.err }

func TestStoreErrors(t *testing.T) {
	for err, status := range map[error]int{
		store.ErrNotFound: 404, store.ErrFull: 507, store.ErrUnavailable: 503, store.ErrInUse: 503, store.ErrSchema: 500,
		context.Canceled: 503, errors.New("odd"): 500,
	} {
		h := New(Service{Store: failing{err: fmt.Errorf("reading: %w", err)}}, Options{Access: Operator})
		if w := ask(h, "GET", "/api/v1/contacts", ""); w.Code != status || !strings.Contains(w.Body.String(), err.Error()) {
			t.Errorf("%v: %d %s", err, w.Code, w.Body)
		}
		if w := ask(h, "POST", "/api/v1/accounts", `{"name":"A","email_addresses":["a@x.example"]}`); w.Code != status {
			t.Errorf("%v: %d %s", err, w.Code, w.Body)
		}
		if w := ask(h, "GET", "/readyz", ""); w.Code != 503 {
			t.Errorf("%v: ready: %d", err, w.Code)
		}
		if w := ask(h, "GET", "/healthz", ""); w.Code != 200 {
			t.Errorf("%v: healthy: %d", err, w.Code)
		}
	}
}

func TestOpenAPI(t *testing.T) {
	d := newDesk(t)
	api := read[map[string]any](t, d.handler(Operator), "GET", "/openapi.json", "", 200)
	schemas := api["components"].(map[string]any)["schemas"].(map[string]any)
	if _, ok := schemas["ErrorModel"].(map[string]any)["properties"].(map[string]any)["hint"]; !ok {
		t.Error("problems have no hint")
	}
	for _, name := range []string{"CaseDetail", "Activity", "ActivityParty", "ContactLink", "MessageRow", "Delivery", "Contact", "Verification"} {
		if _, ok := schemas[name]; !ok {
			t.Errorf("no schema %s", name)
		}
	}
}

// broken is a store in which verify finds something, and stops early.
type broken struct{ store.Store }

func (broken) Verify(_ context.Context, report func(store.Finding)) (store.Counts, error) {
	report(store.Finding{Record: "message 1", What: "its body is gone"})
	report(store.Finding{Record: "case 2", What: "no customer"})
	return store.Counts{Cases: 3, Findings: 2}, errors.New("a page could not be read")
}

func TestVerify(t *testing.T) {
	got := read[Verification](t, New(Service{Store: broken{}}, Options{Access: Operator}), "GET", "/api/v1/verify", "", 200)
	want := Verification{
		Findings: []store.Finding{{Record: "message 1", What: "its body is gone"}, {Record: "case 2", What: "no customer"}},
		Counts:   store.Counts{Cases: 3, Findings: 2}, Error: "a page could not be read",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	d := newDesk(t)
	if v := read[Verification](t, d.handler(Operator), "GET", "/api/v1/verify", "", 200); v.Counts.Messages != 3 || v.Counts.Cases != 1 || v.Findings == nil {
		t.Errorf("%+v", v)
	}
}

func TestExplain(t *testing.T) {
	d := newDesk(t)
	svc := d.service()
	var asked ExplainRequest
	var eml string
	svc.Explain = func(_ context.Context, r ExplainRequest) (Explanation, error) {
		text, err := io.ReadAll(r.EML)
		asked, eml = r, string(text)
		asked.EML = nil
		return Explanation{Role: r.Role, Outcome: "send", Decision: store.Decision{Reasons: []string{"Bcc " + canary}}, Recipients: r.Recipients,
			Parties: []ActivityParty{{Role: store.RoleBCC, AddressUsed: canary}, {Role: store.RoleTo, Party: &PartyRef{Kind: store.PartyContact, ID: d.ben}}}}, err
	}
	h := New(svc, Options{Access: Operator})
	stored := read[Explanation](t, h, "GET", "/api/v1/messages/"+d.first.String()+"/explain", "", 200)
	if !stored.Stored || stored.Outcome != "on the case" || stored.Case != 1 || stored.Decision.Rules[1] != "I26" || len(stored.Parties) != 3 || asked.Role != "" {
		t.Errorf("%+v", stored)
	}
	today := ask(h, "GET", "/api/v1/messages/"+d.answer.String()+"/explain?today=1", "").Body.String()
	want := ExplainRequest{Role: "outbound", Listener: "smarthost", From: "<kim@city.example>", Recipients: []string{"ana@x.example", canary}, Stored: d.answer}
	if diff := cmp.Diff(want, asked); diff != "" || !strings.Contains(eml, "Bcc: "+canary) {
		t.Error(diff, eml)
	}
	if strings.Contains(today, "canary") || !strings.Contains(today, "[bcc]") || !strings.Contains(today, `"name":"Ben"`) {
		t.Error(today)
	}
	read[Explanation](t, h, "POST", "/api/v1/explain?role=inbound&from=a@x.example&rcpt=b@x.example&rcpt=c@x.example", "From: a\r\n\r\nbody", 200)
	want = ExplainRequest{Role: "inbound", From: "a@x.example", Recipients: []string{"b@x.example", "c@x.example"}}
	if diff := cmp.Diff(want, asked); diff != "" || eml != "From: a\r\n\r\nbody" {
		t.Error(diff, eml)
	}
	for mail, from := range map[string]string{
		"From: Ana <a@x.example>\r\n\r\nbody":                                                                        "a@x.example",
		"Return-Path: <b@x.example>\r\nFrom: Ana <a@x.example>\r\n\r\n":                                              "b@x.example",
		"Return-Path: <>\r\nFrom: Ana <a@x.example>\r\n\r\n":                                                         "<>",
		"Subject: " + strings.Repeat("long ", 3000) + "\r\nFrom: a@x.example\r\n\r\n" + strings.Repeat("body", 9000): "a@x.example",
		"no header at all": "<>",
		"":                 "<>",
	} {
		read[Explanation](t, h, "POST", "/api/v1/explain", mail, 200)
		if asked.From != from || eml != mail || asked.Role != "inbound" || len(asked.Recipients) != 0 {
			t.Errorf("%.40q: %+v", mail, asked)
		}
	}
	read[Explanation](t, h, "POST", "/api/v1/explain?from=%3C%3E", "From: a@x.example\r\n\r\n", 200)
	if asked.From != "<>" {
		t.Errorf("%+v", asked)
	}
	read[Problem](t, h, "POST", "/api/v1/explain?rcpt=who", "x", 422)
}

func TestCheckAddress(t *testing.T) {
	for _, good := range []string{"a@b.example", "311@city.example", "o'neil+x@b.example", "jürgen@städte.example", "a.b-c_d@b", "{x}@b.example"} {
		if err := CheckAddress(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "a", "@b", "a@", "a b@c.example", `"a b"@c.example`, "a@b@c.example", "a..b@c.example", ".a@c.example", "a@[127.0.0.1]", "a@b..example", "a@-b.example", "a\r\n@b.example", "<a@b.example>", "a,b@c.example", "a@b.example.", strings.Repeat("a", 65) + "@b.example", "a\u202e@b.example", "a@b.example\n"} {
		if err := CheckAddress(bad); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
}
