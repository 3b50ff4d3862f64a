package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
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
	remove := huma.Operation{OperationID: "remove-agent", Method: http.MethodDelete, Path: "/agents/{id}", Summary: "Remove an agent; old mail still says who wrote it", Errors: []int{404, 507}}
	handle(h, remove, a.removeAgent)
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
	return fetch(ctx, a, in, func(rd store.Reader) ([]store.Agent, store.Cursor, error) {
		agents, next, err := rd.Agents(in.page())
		return slices.DeleteFunc(agents, removed), next, err
	})
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
	addresses, err := checkAddresses(c.Name, in.Body.EmailAddresses)
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
		if err := tx.PutContact(c); err != nil {
			return err
		}
		return a.audit(ctx, tx, fmt.Sprintf("added contact %s %s", named(person(c)), c.ID))
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
	if r.EmailAddresses, err = checkAddresses(r.Name, in.Body.EmailAddresses); err != nil {
		return nil, err
	}
	err = a.Store.Update(ctx, func(tx store.Tx) error {
		if err := tx.PutAccount(r); err != nil {
			return err
		}
		return a.audit(ctx, tx, fmt.Sprintf("added account %s (%s) %s", r.Name, r.Kind, r.ID))
	})
	return &one[store.Account]{r}, err
}

// NewAgent is what an agent is made of.
type NewAgent struct {
	Name           string   `json:"name" minLength:"1" maxLength:"500"`
	EmailAddresses []string `json:"email_addresses" minItems:"1" doc:"an address belongs to one agent only"`
	SendAs         []string `json:"send_as,omitempty" doc:"addresses allowed in From; none: every mailbox"`
	Password       string   `json:"password,omitempty" minLength:"12" maxLength:"500" doc:"to sign in by SMTP AUTH; none: only by address"`
}

func (a *api) addAgent(ctx context.Context, in *one[NewAgent]) (*one[store.Agent], error) {
	r := store.Agent{ID: store.NewID(), Name: strings.TrimSpace(in.Body.Name), CreatedAt: a.now()}
	var err error
	if r.EmailAddresses, err = checkAddresses(r.Name, in.Body.EmailAddresses); err != nil {
		return nil, err
	}
	if len(in.Body.SendAs) > 0 {
		if r.SendAs, err = checkAddresses(r.Name, in.Body.SendAs); err != nil {
			return nil, err
		}
	}
	if in.Body.Password != "" {
		if a.HashPassword == nil {
			return nil, problem(501, "", "this program keeps no passwords")
		}
		if r.PasswordHash, err = a.HashPassword(in.Body.Password); err != nil {
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
		if err := tx.PutAgent(r); err != nil {
			return err
		}
		return a.audit(ctx, tx, fmt.Sprintf("added agent %s %s", r.Name, r.ID))
	})
	return &one[store.Agent]{r}, err
}

// removed reports whether an agent was removed: he keeps his id and name, for
// the mail he wrote, but no address is his.
func removed(r store.Agent) bool { return len(r.EmailAddresses) == 0 }

type agentQuery struct {
	ID string `path:"id" doc:"of the agent, or an address of his"`
}

func (a *api) removeAgent(ctx context.Context, in *agentQuery) (*one[store.Agent], error) {
	var out one[store.Agent]
	err := a.Store.Update(ctx, func(tx store.Tx) error {
		r, err := findAgent(tx, in.ID)
		if err != nil {
			return err
		}
		r.EmailAddresses, r.SendAs, r.PasswordHash = []string{}, nil, ""
		out.Body = r
		if err := tx.PutAgent(r); err != nil {
			return err
		}
		return a.audit(ctx, tx, fmt.Sprintf("removed agent %s %s", r.Name, r.ID))
	})
	return &out, err
}

// findAgent reads an agent by his id or one of his addresses.
func findAgent(rd store.Reader, text string) (store.Agent, error) {
	none := problem(404, "casegate user list shows the agents", "no user %s", text)
	id, err := store.ParseID(text)
	if err != nil {
		holders, err := rd.Holders(store.Key(text))
		switch {
		case err != nil:
			return store.Agent{}, err
		case len(holders.Agents) == 0:
			return store.Agent{}, none
		}
		return holders.Agents[0], nil
	}
	r, err := rd.Agent(id)
	if errors.Is(err, store.ErrNotFound) || err == nil && removed(r) {
		return r, none
	}
	return r, err
}

// checkAddresses checks what was typed for a person; an address said twice counts
// once.
func checkAddresses(name string, typed []string) ([]string, error) {
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
