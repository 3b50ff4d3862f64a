package console

import (
	"context"
	"errors"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casegate/casegate/store"
)

func (a *api) caseRoutes(h huma.API) {
	handle(h, get("list-cases", "/cases", "List cases, newest first"), a.listCases)
	handle(h, get("show-case", "/cases/{number}", "Show a case with its timeline and log", 403, 404), a.showCase)
}

type casesQuery struct {
	Paging
	State    store.CaseState `query:"state" enum:"Active,Resolved,Cancelled" doc:"only cases in this state"`
	Queue    string          `query:"queue" doc:"only cases in this queue"`
	Customer string          `query:"customer" doc:"only cases of this contact: its id"`
}

func (a *api) listCases(ctx context.Context, in *casesQuery) (*list[Case], error) {
	filter := store.CaseFilter{State: in.State, Queue: in.Queue}
	if in.Customer != "" {
		var err error
		if filter.Customer, err = contactID(in.Customer); err != nil {
			return nil, err
		}
	}
	return fetch(ctx, a, &in.Paging, func(rd store.Reader) ([]Case, store.Cursor, error) {
		cases, next, err := rd.Cases(filter, in.page())
		if err != nil {
			return nil, "", err
		}
		rows, err := caseRows(rd, cases)
		return rows, next, err
	})
}

// caseRows tells cases with the names of their customers.
func caseRows(rd store.Reader, cases []store.Case) ([]Case, error) {
	var rows []Case
	names := assemble(rd, false)
	for _, c := range cases {
		row, err := names.caseRow(c)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

type caseQuery struct {
	Number uint64 `path:"number" doc:"the case number"`
	BCC    bool   `query:"bcc" doc:"show Bcc too; local socket only"`
}

func (a *api) showCase(ctx context.Context, in *caseQuery) (*one[CaseDetail], error) {
	bcc, err := a.mayBCC(in.BCC)
	if err != nil {
		return nil, err
	}
	var out one[CaseDetail]
	err = a.Store.View(ctx, func(rd store.Reader) error {
		c, err := findCase(rd, in.Number)
		if err != nil {
			return err
		}
		out.Body, err = assemble(rd, bcc).caseDetail(c)
		return err
	})
	return &out, err
}

// findCase reads a case by its number.
func findCase(rd store.Reader, number uint64) (store.Case, error) {
	c, err := rd.Case(number)
	if errors.Is(err, store.ErrNotFound) {
		return c, problem(404, "casegate case list shows what there is", "no case %d", number)
	}
	return c, err
}
