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
	State store.CaseState `query:"state" enum:"Active,Resolved,Cancelled" doc:"only cases in this state"`
	Queue string          `query:"queue" doc:"only cases in this queue"`
}

func (a *api) listCases(ctx context.Context, in *casesQuery) (*list[Case], error) {
	var rows []Case
	var next store.Cursor
	err := a.Store.View(ctx, func(rd store.Reader) error {
		cases, after, err := rd.Cases(store.CaseFilter{State: in.State, Queue: in.Queue}, in.page())
		if err != nil {
			return err
		}
		rows, next = nil, after
		names := assemble(rd, false)
		for _, c := range cases {
			row, err := names.caseRow(c)
			if err != nil {
				return err
			}
			rows = append(rows, row)
		}
		return nil
	})
	return listed(&in.Paging, rows, next), err
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
		c, err := rd.Case(in.Number)
		if errors.Is(err, store.ErrNotFound) {
			return problem(404, "casegate case list shows what there is", "no case %d", in.Number)
		}
		if err != nil {
			return err
		}
		out.Body, err = assemble(rd, bcc).caseDetail(c)
		return err
	})
	return &out, err
}
