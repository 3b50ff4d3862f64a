package bolt

import (
	"bytes"
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

func (r *reader) Holders(address string) (store.Holders, error) {
	var h store.Holders
	var err error
	if h.Contacts, h.More, err = r.holding(address, r.now(), store.MaxHolders); err != nil {
		return h, err
	}
	prefix := held(address, heldAccount, nil)
	for k := range r.rows(addresses, prefix, nil) {
		a, err := r.Account(store.ID(k[len(prefix):]))
		if err != nil {
			return h, err
		}
		h.Accounts = append(h.Accounts, a)
	}
	prefix = held(address, heldAgent, nil)
	for k := range r.rows(addresses, prefix, nil) {
		a, err := r.Agent(store.ID(k[len(prefix):]))
		if err != nil {
			return h, err
		}
		h.Agents = append(h.Agents, a)
	}
	return h, nil
}

func (r *reader) HeldBy(address string, at time.Time) ([]store.Contact, error) {
	list, _, err := r.holding(address, at, -1)
	return list, err
}

// holding lists the contacts that had an address at a time, oldest first; at
// most limit (none if negative), registered ones before guests.
func (r *reader) holding(address string, at time.Time, limit int) (list []store.Contact, more bool, err error) {
	for _, kind := range []byte{heldRegistered, heldGuest} {
		prefix := held(address, kind, nil)
		for k := range r.rows(addresses, prefix, nil) {
			if more = len(list) == limit; more {
				break
			}
			c, err := r.Contact(store.ID(k[len(prefix):]))
			if err != nil {
				return nil, false, err
			}
			if c.HeldAt(address, at) {
				list = append(list, c)
			}
		}
	}
	slices.SortFunc(list, func(a, b store.Contact) int { return compareIDs(a.ID, b.ID) })
	return list, more, nil
}

func contactRows(c store.Contact) [][]byte {
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
	var old store.Contact
	known, err := w.find(contacts, c.ID[:], &old)
	if err != nil {
		return err
	}
	var before [][]byte
	if known {
		before = contactRows(old)
	}
	if err := w.swap(addresses, before, contactRows(c)); err != nil {
		return err
	}
	if err := w.swap(registered, registeredRow(old), registeredRow(c)); err != nil {
		return err
	}
	return w.putRecord(contacts, c.ID[:], c)
}

func registeredRow(c store.Contact) [][]byte {
	if c.Kind != store.Registered {
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
	return w.putRecord(accounts, a.ID[:], a)
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
	return w.putRecord(agents, a.ID[:], a)
}
