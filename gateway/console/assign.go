package console

import (
	"context"
	"fmt"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

func (a *api) assignRoute(h huma.API) {
	handle(h, act("assign-exception", "/exceptions/{id}/assign", "Put a message of the exceptions list on a case", 404, 409, 422, 501, 507), a.assign)
}

// AssignOrder says where a message belongs.
type AssignOrder struct {
	Case    uint64 `json:"case,omitempty" doc:"to this case; if it was merged, where its merges end"`
	New     bool   `json:"new,omitempty" doc:"to a new case"`
	Contact string `json:"contact,omitempty" doc:"id of the new case's customer; none: a new guest"`
}

// AssignRequest is what Service.Assign is asked: the case and the contact
// exist, and the message was on the exceptions list a moment ago.
type AssignRequest struct {
	By      string
	Message store.ID
	Case    uint64   // 0: a new one
	Contact store.ID // customer of the new case; zero: a new guest
}

// Assigned is a message on the case where a person put it.
type Assigned struct {
	Message store.ID `json:"message"`
	Case    uint64   `json:"case"`
	Already bool     `json:"already" doc:"it was there before: nothing was changed"`
	Said    string   `json:"said" doc:"what was done, in a sentence"`
}

type assignQuery struct {
	ID   string `path:"id" doc:"of the message"`
	Body AssignOrder
}

func (a *api) assign(ctx context.Context, in *assignQuery) (*one[Assigned], error) {
	switch {
	case in.Body.New == (in.Body.Case != 0):
		return nil, Invalid("say case or new", "a message goes to one case, or to a new one")
	case in.Body.Contact != "" && !in.Body.New:
		return nil, Invalid("casegate case set-customer changes the customer of a case", "a contact can only be named for a new case")
	case a.Assign == nil:
		return nil, problem(501, "", "this program cannot assign exceptions yet")
	}
	req, there, err := a.assignRequest(ctx, in)
	if err != nil {
		return nil, err
	}
	if there {
		return &one[Assigned]{Assigned{req.Message, req.Case, true, fmt.Sprintf("message %s is on case %d already", req.Message, req.Case)}}, nil
	}
	done, err := a.Assign(ctx, req)
	if err != nil {
		return nil, err
	}
	which := "case"
	if in.Body.New {
		which = "the new case"
	}
	done.Said = fmt.Sprintf("message %s is on %s %d", done.Message, which, done.Case)
	return &one[Assigned]{done}, nil
}

// assignRequest looks up what the order names; there is true when the message
// is on that case already.
func (a *api) assignRequest(ctx context.Context, in *assignQuery) (req AssignRequest, there bool, err error) {
	err = a.Store.View(ctx, func(rd store.Reader) error {
		req, there = AssignRequest{By: by(ctx)}, false
		m, err := findMessage(rd, in.ID)
		if err != nil {
			return err
		}
		req.Message = m.ID
		if in.Body.Case != 0 {
			end, err := caseEnd(rd, in.Body.Case)
			if err != nil {
				return err
			}
			req.Case, there = end.Number, m.Case == end.Number
		}
		if in.Body.Contact != "" {
			contact, err := findContact(rd, in.Body.Contact)
			if err != nil {
				return err
			}
			req.Contact = contact.ID
		}
		if m.Exception == "" && !there {
			return settledMessage(m)
		}
		return nil
	})
	return req, there, err
}

func settledMessage(m store.Message) error {
	if m.Case == 0 {
		return problem(409, "casegate exceptions list shows what there is", "message %s is not on the exceptions list", m.ID)
	}
	return problem(409, fmt.Sprintf("casegate case merge %d --into N joins two cases", m.Case), "message %s is on case %d, not on the exceptions list", m.ID, m.Case)
}

// caseEnd reads the case that one goes on in.
func caseEnd(rd store.Reader, number uint64) (store.Case, error) {
	c, err := findCase(rd, number)
	if err != nil {
		return c, err
	}
	return resolver.MergedTo(c, rd.Case)
}
