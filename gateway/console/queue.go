package console

import (
	"context"
	"errors"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casegate/casegate/store"
)

func (a *api) queueRoutes(h huma.API) {
	handle(h, get("list-deliveries", "/queue", "List the outbox", 403), a.listDeliveries)
	handle(h, get("show-delivery", "/queue/{id}", "Show a delivery", 403, 404), a.showDelivery)
}

type queueQuery struct {
	Paging
	Case    uint64              `query:"case" doc:"only deliveries of this case"`
	State   store.DeliveryState `query:"state" enum:"queued,held,delivered,failed" doc:"only deliveries in this state"`
	Address string              `query:"address" doc:"only deliveries to this address"`
	BCC     bool                `query:"bcc" doc:"show Bcc too; local socket only"`
}

func (a *api) listDeliveries(ctx context.Context, in *queueQuery) (*list[store.Delivery], error) {
	bcc, err := a.mayBCC(in.BCC)
	if err != nil {
		return nil, err
	}
	filter := store.DeliveryFilter{Case: in.Case, State: in.State}
	if in.Address != "" {
		filter.Address = store.Key(in.Address)
	}
	return fetch(ctx, a, &in.Paging, func(rd store.Reader) ([]store.Delivery, store.Cursor, error) {
		rows, next, err := rd.Deliveries(filter, in.page())
		if err != nil {
			return nil, "", err
		}
		shown := rows[:0:0]
		for _, d := range rows {
			v, err := veilOf(rd, d, bcc)
			if err != nil {
				return nil, "", err
			}
			if filter.Address == "" || !v.hides(filter.Address) { // the filter must not tell what the row hides
				shown = append(shown, v.delivery(d))
			}
		}
		return shown, next, nil
	})
}

// veilOf is the veil of a delivery's message.
func veilOf(rd store.Reader, d store.Delivery, seesBCC bool) (veil, error) {
	if seesBCC {
		return veil{}, nil
	}
	m, err := rd.Message(d.Message)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return veil{}, err
	}
	return veilFor(seesBCC, m), nil
}

// ByID asks for one record.
type ByID struct {
	ID  string `path:"id"`
	BCC bool   `query:"bcc" doc:"show Bcc too; local socket only"`
}

func (a *api) showDelivery(ctx context.Context, in *ByID) (*one[store.Delivery], error) {
	bcc, err := a.mayBCC(in.BCC)
	if err != nil {
		return nil, err
	}
	id, err := store.ParseID(in.ID)
	if err != nil {
		return nil, problem(404, "casegate queue list shows the ids", "%q is not the id of a delivery", in.ID)
	}
	var out one[store.Delivery]
	err = a.Store.View(ctx, func(rd store.Reader) error {
		d, err := rd.Delivery(id)
		if errors.Is(err, store.ErrNotFound) {
			return problem(404, "casegate queue list shows what there is", "no delivery %s", id)
		}
		if err != nil {
			return err
		}
		v, err := veilOf(rd, d, bcc)
		out.Body = v.delivery(d)
		return err
	})
	return &out, err
}
