package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/casegate/casegate/store"
)

// Who a row of addresses points at. Registered contacts come first: a list
// that is cut short must not lose them among guests.
const (
	heldRegistered = 'a'
	heldGuest      = 'b'
	heldAccount    = 'c'
	heldAgent      = 'd'
)

func (r *reader) Contact(id store.ID) (store.Contact, error) {
	return get[store.Contact](r, contacts, id[:], "contact", id)
}

// ContactByExternal looks at the record too: what leads to it is a hash.
func (r *reader) ContactByExternal(external string) (store.Contact, error) {
	for k := range r.rows(externals, externalKey(external, nil), nil) {
		c, err := r.Contact(store.ID(k[hashSize:]))
		if err != nil || c.External == external {
			return c, err
		}
	}
	return store.Contact{}, fmt.Errorf("contact with external id %q: %w", external, store.ErrNotFound)
}

func externalKey(external string, id []byte) []byte {
	h := hashKey(external)
	return append(h[:], id...)
}

func externalRow(c *store.Contact) [][]byte {
	if c == nil || c.External == "" {
		return nil
	}
	return [][]byte{externalKey(c.External, c.ID[:])}
}

// free reports who else has the External of a contact.
func (r *reader) free(c *store.Contact) error {
	if c.External == "" {
		return nil
	}
	other, err := r.ContactByExternal(c.External)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err == nil && other.ID != c.ID:
		return fmt.Errorf("external id %q: contact %s: %w", c.External, other.ID, store.ErrTaken)
	}
	return err
}

func (r *reader) Account(id store.ID) (store.Account, error) {
	return get[store.Account](r, accounts, id[:], "account", id)
}

func (r *reader) Agent(id store.ID) (store.Agent, error) {
	return get[store.Agent](r, agents, id[:], "agent", id)
}

func (r *reader) Accounts(p store.Page) ([]store.Account, store.Cursor, error) {
	return records(r, r.rows, accounts, nil, p, all[store.Account])
}

func (r *reader) Agents(p store.Page) ([]store.Agent, store.Cursor, error) {
	return records(r, r.rows, agents, nil, p, all[store.Agent])
}

// Contacts are found by address where one is asked; else registered ones by
// their own list, because guests outnumber them.
func (r *reader) Contacts(f store.ContactFilter, p store.Page) ([]store.Contact, store.Cursor, error) {
	switch {
	case f.Address != "":
		return r.contactsAt(f, p)
	case f.Kind == store.Registered:
		return behindPrefix(r, r.rows, registered, contacts, nil, p, all[store.Contact])
	}
	return records(r, r.rows, contacts, nil, p, func(c store.Contact) bool {
		return f.Kind == "" || c.Kind == f.Kind
	})
}

// contactsAt merges the registered contacts and the guests of an address by
// age. Its cursor is the id of the last one.
func (r *reader) contactsAt(f store.ContactFilter, p store.Page) ([]store.Contact, store.Cursor, error) {
	after, err := cursorKey(p.After)
	if err != nil {
		return nil, "", err
	}
	var ids []store.ID
	for _, kind := range heldAs(f.Kind) {
		prefix := held(f.Address, kind, nil)
		n := 0
		for k := range r.rows(addresses, prefix, join(prefix, after)) {
			if n++; n > p.Max()+1 {
				break
			}
			ids = append(ids, store.ID(k[len(prefix):]))
		}
	}
	slices.SortFunc(ids, compareIDs)
	var out []store.Contact
	for i, id := range ids {
		if i == p.Max() {
			return out, cursor(ids[i-1][:]), nil
		}
		c, err := r.Contact(id)
		if err != nil {
			return nil, "", err
		}
		if c.HeldAt(f.Address, r.now()) {
			out = append(out, c)
		}
	}
	return out, "", nil
}

func heldAs(kind store.ContactKind) []byte {
	switch kind {
	case "":
		return []byte{heldRegistered, heldGuest}
	case store.Registered:
		return []byte{heldRegistered}
	}
	return []byte{heldGuest}
}

func compareIDs(a, b store.ID) int { return bytes.Compare(a[:], b[:]) }

// held is a row of addresses.
func held(address string, as byte, id []byte) []byte {
	h := hashKey(address)
	key := make([]byte, 0, hashSize+1+len(id))
	return append(append(append(key, h[:]...), as), id...)
}

// Holders walks the rows of an address once: mostly there are none, or one.
func (r *reader) Holders(address string) (h store.Holders, err error) {
	hash := hashKey(address)
	for k := range r.rows(addresses, hash[:], nil) {
		if h.More = len(h.Contacts) == store.MaxHolders && isContact(k); h.More {
			break
		}
		if err := r.holder(&h, k, address); err != nil {
			return h, err
		}
	}
	if h.More { // what is left of the contacts may be long
		for k := range r.rows(addresses, hash[:], append(hash[:hashSize:hashSize], heldAccount)) {
			if err := r.holder(&h, k, address); err != nil {
				return h, err
			}
		}
	}
	slices.SortFunc(h.Contacts, func(a, b store.Contact) int { return compareIDs(a.ID, b.ID) })
	return h, nil
}

func isContact(row []byte) bool { return row[hashSize] == heldRegistered || row[hashSize] == heldGuest }

// holder adds whom a row of addresses points at.
func (r *reader) holder(h *store.Holders, row []byte, address string) error {
	id := store.ID(row[hashSize+1:])
	switch row[hashSize] {
	case heldAccount:
		a, err := r.Account(id)
		h.Accounts = append(h.Accounts, a)
		return err
	case heldAgent:
		a, err := r.Agent(id)
		h.Agents = append(h.Agents, a)
		return err
	}
	c, err := r.Contact(id)
	if err == nil && c.HeldAt(address, r.now()) {
		h.Contacts = append(h.Contacts, c)
	}
	return err
}

func (r *reader) HeldBy(address string, at time.Time) (list []store.Contact, err error) {
	hash := hashKey(address)
	for k := range r.rows(addresses, hash[:], nil) {
		if !isContact(k) {
			break
		}
		c, err := r.Contact(store.ID(k[hashSize+1:]))
		if err != nil {
			return nil, err
		}
		if c.HeldAt(address, at) {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b store.Contact) int { return compareIDs(a.ID, b.ID) })
	return list, nil
}

func contactRows(c *store.Contact) [][]byte {
	if c == nil {
		return nil
	}
	as := byte(heldGuest)
	if c.Kind == store.Registered {
		as = heldRegistered
	}
	var list []string
	for _, e := range c.EmailAddresses {
		list = append(list, e.Address)
	}
	return addressRows(list, as, c.ID)
}

func addressRows(list []string, as byte, id store.ID) (rows [][]byte) {
	for _, address := range list {
		if row := held(store.Key(address), as, id[:]); !has(rows, row) {
			rows = append(rows, row)
		}
	}
	return rows
}

func (w *writer) PutContact(c store.Contact) error {
	old, err := lookup[store.Contact](&w.reader, contacts, c.ID[:])
	if err != nil {
		return err
	}
	if err := w.free(&c); err != nil {
		return err
	}
	if err := w.swap(externals, externalRow(old), externalRow(&c)); err != nil {
		return err
	}
	if err := w.swap(addresses, contactRows(old), contactRows(&c)); err != nil {
		return err
	}
	if err := w.swap(registered, registeredRow(old), registeredRow(&c)); err != nil {
		return err
	}
	return w.putRecord(contacts, c.ID[:], &c)
}

func registeredRow(c *store.Contact) [][]byte {
	if c == nil || c.Kind != store.Registered {
		return nil
	}
	return [][]byte{c.ID[:]}
}

func (w *writer) PutAccount(a store.Account) error {
	var old store.Account
	if _, err := w.find(accounts, a.ID[:], &old); err != nil {
		return err
	}
	before := addressRows(old.EmailAddresses, heldAccount, a.ID)
	if err := w.swap(addresses, before, addressRows(a.EmailAddresses, heldAccount, a.ID)); err != nil {
		return err
	}
	return w.putRecord(accounts, a.ID[:], &a)
}

func (w *writer) PutAgent(a store.Agent) error {
	var old store.Agent
	if _, err := w.find(agents, a.ID[:], &old); err != nil {
		return err
	}
	before := addressRows(old.EmailAddresses, heldAgent, a.ID)
	if err := w.swap(addresses, before, addressRows(a.EmailAddresses, heldAgent, a.ID)); err != nil {
		return err
	}
	return w.putRecord(agents, a.ID[:], &a)
}
