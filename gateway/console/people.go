package console

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casegate/casegate/store"
)

func (a *api) peopleRoutes(h huma.API) {
	handle(h, get("list-contacts", "/contacts", "List contacts, oldest first"), a.listContacts)
	handle(h, post("add-contact", "/contacts", "Add a contact", 422, 507), a.addContact)
	handle(h, get("list-accounts", "/accounts", "List accounts, oldest first"), a.listAccounts)
	handle(h, post("add-account", "/accounts", "Add an account", 422, 507), a.addAccount)
	handle(h, get("list-agents", "/agents", "List agents, oldest first"), a.listAgents)
	handle(h, post("add-agent", "/agents", "Add an agent", 409, 422, 507), a.addAgent)
}

type contactsQuery struct {
	Paging
	Address string            `query:"address" doc:"only contacts that have this address now"`
	Kind    store.ContactKind `query:"kind" enum:"registered,guest" doc:"only contacts of this kind"`
}

func (a *api) listContacts(ctx context.Context, in *contactsQuery) (*list[store.Contact], error) {
	filter := store.ContactFilter{Kind: in.Kind}
	if in.Address != "" {
		filter.Address = store.Key(in.Address)
	}
	return fetch(ctx, a, &in.Paging, func(rd store.Reader) ([]store.Contact, store.Cursor, error) {
		return rd.Contacts(filter, in.page())
	})
}

func (a *api) listAccounts(ctx context.Context, in *Paging) (*list[store.Account], error) {
	return fetch(ctx, a, in, func(rd store.Reader) ([]store.Account, store.Cursor, error) { return rd.Accounts(in.page()) })
}

func (a *api) listAgents(ctx context.Context, in *Paging) (*list[store.Agent], error) {
	return fetch(ctx, a, in, func(rd store.Reader) ([]store.Agent, store.Cursor, error) { return rd.Agents(in.page()) })
}

// fetch answers with records as the store has them.
func fetch[T any](ctx context.Context, a *api, p *Paging, read func(store.Reader) ([]T, store.Cursor, error)) (*list[T], error) {
	var rows []T
	var next store.Cursor
	err := a.Store.View(ctx, func(rd store.Reader) (err error) {
		rows, next, err = read(rd)
		return err
	})
	return listed(p, rows, next), err
}

// NewContact is what a contact is made of.
type NewContact struct {
	Name           string            `json:"name" minLength:"1" maxLength:"500"`
	EmailAddresses []string          `json:"email_addresses" minItems:"1" doc:"several contacts may share an address"`
	Kind           store.ContactKind `json:"kind,omitempty" enum:"registered,guest" default:"registered"`
	Account        string            `json:"account,omitempty" doc:"id of the parent account"`
}

func (a *api) addContact(ctx context.Context, in *one[NewContact]) (*one[store.Contact], error) {
	now := a.now()
	c := store.Contact{ID: store.NewID(), Kind: in.Body.Kind, Name: strings.TrimSpace(in.Body.Name), CreatedAt: now}
	addresses, err := a.addresses(c.Name, in.Body.EmailAddresses)
	if err != nil {
		return nil, err
	}
	for _, address := range addresses {
		c.EmailAddresses = append(c.EmailAddresses, store.EmailAddress{Address: address, From: now})
	}
	if in.Body.Account != "" {
		if c.Account, err = store.ParseID(in.Body.Account); err != nil {
			return nil, Invalid("casegate account list shows the ids", "%q is not the id of an account", in.Body.Account)
		}
	}
	err = a.Store.Update(ctx, func(tx store.Tx) error {
		if in.Body.Account != "" {
			if _, err := tx.Account(c.Account); errors.Is(err, store.ErrNotFound) {
				return Invalid("casegate account list shows the ids", "no account %s", c.Account)
			} else if err != nil {
				return err
			}
		}
		return tx.PutContact(c)
	})
	return &one[store.Contact]{c}, err
}

// NewAccount is what an account is made of.
type NewAccount struct {
	Name           string            `json:"name" minLength:"1" maxLength:"500"`
	EmailAddresses []string          `json:"email_addresses" minItems:"1"`
	Kind           store.AccountKind `json:"kind,omitempty" enum:"business,property" default:"business"`
}

func (a *api) addAccount(ctx context.Context, in *one[NewAccount]) (*one[store.Account], error) {
	r := store.Account{ID: store.NewID(), Kind: in.Body.Kind, Name: strings.TrimSpace(in.Body.Name), CreatedAt: a.now()}
	var err error
	if r.EmailAddresses, err = a.addresses(r.Name, in.Body.EmailAddresses); err != nil {
		return nil, err
	}
	err = a.Store.Update(ctx, func(tx store.Tx) error { return tx.PutAccount(r) })
	return &one[store.Account]{r}, err
}

// NewAgent is what an agent is made of.
type NewAgent struct {
	Name           string   `json:"name" minLength:"1" maxLength:"500"`
	EmailAddresses []string `json:"email_addresses" minItems:"1" doc:"an address belongs to one agent only"`
	SendAs         []string `json:"send_as,omitempty" doc:"addresses allowed in From; none: every mailbox"`
}

func (a *api) addAgent(ctx context.Context, in *one[NewAgent]) (*one[store.Agent], error) {
	r := store.Agent{ID: store.NewID(), Name: strings.TrimSpace(in.Body.Name), CreatedAt: a.now()}
	var err error
	if r.EmailAddresses, err = a.addresses(r.Name, in.Body.EmailAddresses); err != nil {
		return nil, err
	}
	if len(in.Body.SendAs) > 0 {
		if r.SendAs, err = a.addresses(r.Name, in.Body.SendAs); err != nil {
			return nil, err
		}
	}
	err = a.Store.Update(ctx, func(tx store.Tx) error {
		for _, address := range r.EmailAddresses {
			holders, err := tx.Holders(store.Key(address))
			if err != nil {
				return err
			}
			if len(holders.Agents) > 0 {
				return problem(409, "casegate user list shows the agents", "%s is the address of agent %q already", address, holders.Agents[0].Name)
			}
		}
		return tx.PutAgent(r)
	})
	return &one[store.Agent]{r}, err
}

// addresses checks what was typed for a person; an address said twice counts
// once.
func (a *api) addresses(name string, typed []string) ([]string, error) {
	if name == "" {
		return nil, Invalid("give a name", "the name is blank")
	}
	var list []string
	for _, address := range typed {
		address = strings.TrimSpace(address)
		if err := CheckAddress(address); err != nil {
			return nil, Invalid("write such as ana@example.org", "%v", err)
		}
		if !slices.ContainsFunc(list, func(had string) bool { return store.Key(had) == store.Key(address) }) {
			list = append(list, address)
		}
	}
	return list, nil
}
