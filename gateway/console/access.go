package console

import (
	"context"
	"errors"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

func (a *api) accessRoutes(h huma.API) {
	handle(h, get("ask-access", "/access", "May this contact see this case? Answered by the case's customer alone", 404, 422), a.askAccess)
	handle(h, get("list-cases-of-contact", "/contacts/{id}/cases", "List the cases that a contact may see, newest first: for a portal", 404), a.listCasesOf)
}

type accessQuery struct {
	Contact string `query:"contact" required:"true" doc:"id of the contact"`
	Case    uint64 `query:"case" required:"true" doc:"the case number"`
}

func (a *api) askAccess(ctx context.Context, in *accessQuery) (*one[resolver.Access], error) {
	var out one[resolver.Access]
	err := a.Store.View(ctx, func(rd store.Reader) error {
		contact, err := findContact(rd, in.Contact)
		if err != nil {
			return err
		}
		c, err := findCase(rd, in.Case)
		if err != nil {
			return err
		}
		out.Body, err = resolver.MaySee(contact.ID, c, rd.Case)
		return err
	})
	return &out, err
}

type casesOfQuery struct {
	Paging
	ID    string          `path:"id" doc:"of the contact"`
	State store.CaseState `query:"state" enum:"Active,Resolved,Cancelled" doc:"only cases in this state"`
}

// listCasesOf lists by the customer, and asks MaySee of each: a merged case
// goes on in another that may have another customer.
func (a *api) listCasesOf(ctx context.Context, in *casesOfQuery) (*list[Case], error) {
	return fetch(ctx, a, &in.Paging, func(rd store.Reader) ([]Case, store.Cursor, error) {
		contact, err := shownContact(rd, in.ID)
		if err != nil {
			return nil, "", err
		}
		cases, next, err := rd.Cases(store.CaseFilter{Customer: contact.ID, State: in.State}, in.page())
		if err != nil {
			return nil, "", err
		}
		var seen []store.Case
		for _, c := range cases {
			access, err := resolver.MaySee(contact.ID, c, rd.Case)
			if err != nil {
				return nil, "", err
			}
			if access.Allowed {
				seen = append(seen, c)
			}
		}
		rows, err := caseRows(rd, seen)
		return rows, next, err
	})
}

// shownContact reads the contact that a path names.
func shownContact(rd store.Reader, text string) (store.Contact, error) {
	c, err := findContact(rd, text)
	var p *Problem
	if errors.As(err, &p) {
		p.Status, p.Title = 404, "Not Found"
	}
	return c, err
}
