package console

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/casegate/casegate/store"
)

// CustomerOrder says who a case is about.
type CustomerOrder struct {
	Contact string `json:"contact" doc:"id of the contact"`
	Reason  string `json:"reason,omitempty" maxLength:"1000" doc:"why, for the case's log"`
}

// setCustomer changes the customer: only a person ever does (invariant 8). The
// parent account joins the case's accounts; those it has stay, they are context.
func (d *deed) setCustomer(o CustomerOrder) error {
	if err := d.unmerged(); err != nil {
		return err
	}
	contact, err := findContact(d.tx, o.Contact)
	if err != nil {
		return err
	}
	is := person(contact)
	if d.c.Customer == contact.ID {
		return d.was("%s is the customer of case %d already", named(is), d.c.Number)
	}
	was, err := assemble(d.tx, false).person(store.PartyContact, d.c.Customer)
	if err != nil {
		return err
	}
	d.c.Customer = contact.ID
	d.c.Opener = "" // he was the former one (rule O4)
	if contact.Account != (store.ID{}) && !slices.Contains(d.c.Accounts, contact.Account) {
		d.c.Accounts = append(slices.Clone(d.c.Accounts), contact.Account)
	}
	text := fmt.Sprintf("the customer of case %d is %s, was %s", d.c.Number, identified(is), identified(was))
	if reason := strings.TrimSpace(o.Reason); reason != "" {
		text += ": " + reason
	}
	return d.done("%s", text)
}

// person is a contact as others point at it.
func person(c store.Contact) Person { return Person{c.ID, string(c.Kind), c.Name} }

// named is a person in a sentence.
func named(p Person) string { return fmt.Sprintf("%s (%s)", cmp.Or(p.Name, p.ID.String()), p.Kind) }

// identified is a person in a sentence that is kept: names change.
func identified(p Person) string {
	if p.Name == "" {
		return named(p)
	}
	return named(p) + " " + p.ID.String()
}

// contactID reads the id of a contact that a request names.
func contactID(text string) (store.ID, error) {
	id, err := store.ParseID(text)
	if err != nil {
		return id, Invalid("casegate contact list shows the ids", "%q is not the id of a contact", text)
	}
	return id, nil
}

// findContact reads a contact that a request names.
func findContact(rd store.Reader, text string) (store.Contact, error) {
	id, err := contactID(text)
	if err != nil {
		return store.Contact{}, err
	}
	c, err := rd.Contact(id)
	if errors.Is(err, store.ErrNotFound) {
		return c, Invalid("casegate contact list shows the ids", "no contact %s", id)
	}
	return c, err
}
