package console

import (
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casegate/casegate/store"
)

func (a *api) unresolvedRoute(h huma.API) {
	handle(h, get("list-unresolved", "/unresolved", "List the addresses on cases that nobody is known by, newest message first", 403), a.listUnresolved)
}

// UnresolvedParty is an address of a message that should be linked by hand.
type UnresolvedParty struct {
	AddressUsed string     `json:"address_used"`
	Role        store.Role `json:"role"`
	Name        string     `json:"unresolved_party_name,omitempty"`
	Candidates  []Person   `json:"candidates" doc:"contacts that share the address"`
	Why         string     `json:"why"`
	Message     store.ID   `json:"message"`
	Case        uint64     `json:"case"`
	Subject     string     `json:"subject"`
	ReceivedAt  time.Time  `json:"received_at"`
}

type unresolvedQuery struct {
	Paging
	Case uint64 `query:"case" doc:"only of this case, oldest first"`
	BCC  bool   `query:"bcc" doc:"show Bcc too; local socket only"`
}

// listUnresolved pages by message, so a page has more rows than its limit where
// a message has several.
func (a *api) listUnresolved(ctx context.Context, in *unresolvedQuery) (*list[UnresolvedParty], error) {
	bcc, err := a.mayBCC(in.BCC)
	if err != nil {
		return nil, err
	}
	filter := store.MessageFilter{Unresolved: true, Case: in.Case}
	return fetch(ctx, a, &in.Paging, func(rd store.Reader) ([]UnresolvedParty, store.Cursor, error) {
		messages, next, err := rd.Messages(filter, in.page())
		if err != nil {
			return nil, "", err
		}
		var rows []UnresolvedParty
		names := assemble(rd, bcc)
		for _, m := range messages {
			more, err := names.unresolved(m)
			if err != nil {
				return nil, "", err
			}
			rows = append(rows, more...)
		}
		return rows, next, nil
	})
}

func (a *assembler) unresolved(m store.Message) (rows []UnresolvedParty, err error) {
	parties, err := a.parties(veilFor(a.seesBCC, m).parties(m.Parties))
	for _, p := range parties {
		if p.Party != nil {
			continue
		}
		row := UnresolvedParty{
			AddressUsed: p.AddressUsed, Role: p.Role, Name: p.Name, Candidates: p.Candidates, Why: p.Why,
			Message: m.ID, Case: m.Case, Subject: m.Subject, ReceivedAt: m.ReceivedAt,
		}
		if row.Candidates == nil {
			row.Candidates = []Person{}
		}
		rows = append(rows, row)
	}
	return rows, err
}
