package console

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/casegate/casegate/store"
)

func TestAssign(t *testing.T) {
	d := newDesk(t)
	d.more(t)
	odd := "/exceptions/" + d.odd.String() + "/assign"
	d.play(t, step{odd, `{"new":true}`, "501 this program cannot assign exceptions yet | "},
		step{"/cases/3/merge", `{"into":1}`, "case 3 is merged into case 1"})
	svc := d.service()
	var asked AssignRequest
	svc.Assign = func(_ context.Context, r AssignRequest) (Assigned, error) {
		asked = r
		if r.Case == 2 {
			return Assigned{}, store.ErrFull
		}
		if r.Case == 0 {
			r.Case = 9
		}
		return Assigned{Message: r.Message, Case: r.Case}, nil
	}
	h := New(svc, Options{Access: Operator})
	for _, tc := range []struct {
		path, body string
		status     int
		said       string
		asked      AssignRequest
	}{
		{odd, `{"case":1}`, 200, "message " + d.odd.String() + " is on case 1", AssignRequest{By: "cli", Message: d.odd, Case: 1}},
		{odd, `{"case":3}`, 200, "message " + d.odd.String() + " is on case 1", AssignRequest{By: "cli", Message: d.odd, Case: 1}},
		{odd, `{"new":true}`, 200, "message " + d.odd.String() + " is on the new case 9", AssignRequest{By: "cli", Message: d.odd}},
		{odd, fmt.Sprintf(`{"new":true,"contact":%q}`, d.ben), 200, "message " + d.odd.String() + " is on the new case 9", AssignRequest{By: "cli", Message: d.odd, Contact: d.ben}},
		{"/exceptions/" + d.first.String() + "/assign", `{"case":3}`, 200, "message " + d.first.String() + " is on case 1 already", AssignRequest{}},
		{odd, `{"case":2}`, 507, "storage is full", AssignRequest{By: "cli", Message: d.odd, Case: 2}},
		{odd, `{}`, 422, "a message goes to one case, or to a new one", AssignRequest{}},
		{odd, `{"case":1,"new":true}`, 422, "a message goes to one case, or to a new one", AssignRequest{}},
		{odd, fmt.Sprintf(`{"case":1,"contact":%q}`, d.ben), 422, "a contact can only be named for a new case", AssignRequest{}},
		{odd, `{"case":8}`, 404, "no case 8", AssignRequest{}},
		{odd, `{"new":true,"contact":"ben"}`, 422, `"ben" is not the id of a contact`, AssignRequest{}},
		{"/exceptions/x/assign", `{"case":1}`, 404, `"x" is not the id of a message`, AssignRequest{}},
		{"/exceptions/" + d.first.String() + "/assign", `{"case":2}`, 409, "message " + d.first.String() + " is on case 1, not on the exceptions list", AssignRequest{}},
		{"/exceptions/" + d.first.String() + "/assign", `{"new":true}`, 409, "message " + d.first.String() + " is on case 1, not on the exceptions list", AssignRequest{}},
	} {
		asked = AssignRequest{}
		w := ask(h, "POST", "/api/v1"+tc.path, tc.body)
		var v struct{ Said, Detail string }
		json.Unmarshal(w.Body.Bytes(), &v)
		if w.Code != tc.status || v.Said+v.Detail != tc.said {
			t.Errorf("%s: %d %s", tc.body, w.Code, w.Body)
		}
		if diff := cmp.Diff(tc.asked, asked); diff != "" {
			t.Errorf("%s: %s", tc.body, diff)
		}
	}
}
