package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/casegate/casegate/store"
)

// Directory asks an outside directory of contacts (a CRM) over HTTP and keeps
// what it says as registered contacts of ours, so that a decision rests on the
// store alone. A contact is found again by its id there. Contacts that are not
// the directory's own stay as they are.
type Directory struct {
	Store   store.Store
	URL     string // holds {address}
	Token   string // sent as a bearer token, if not empty
	Timeout time.Duration
	Client  *http.Client
}

// listing is the directory's answer about one address.
type listing struct {
	Contacts []entry `json:"contacts"`
}

type entry struct {
	ID             string   `json:"id"`
	Name           string   `json:"name"`
	EmailAddresses []string `json:"email_addresses"`
	DoNotEmail     bool     `json:"do_not_email"`
}

const (
	maxListing = 1 << 20 // bytes of an answer
	maxListed  = 200     // contacts of an answer that are read
	maxLookups = 8       // questions at a time
)

// Refresh brings our contacts up to date with what the directory says of the
// addresses (canonical keys), from the time on that a message came. An error means that it cannot be asked: unknown is
// not nobody (rule I20).
func (d *Directory) Refresh(ctx context.Context, at time.Time, addresses []string) error {
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	answers := make([]listing, len(addresses))
	errs := make([]error, len(addresses))
	slots, done := make(chan struct{}, maxLookups), make(chan struct{})
	for i, address := range addresses {
		go func() {
			slots <- struct{}{}
			answers[i], errs[i] = d.ask(ctx, address)
			<-slots
			done <- struct{}{}
		}()
	}
	for range addresses {
		<-done
	}
	if err := cmp.Or(errs...); err != nil {
		return err
	}
	for i, address := range addresses {
		if err := d.keep(ctx, at, address, answers[i]); err != nil {
			return err
		}
	}
	return nil
}

func (d *Directory) ask(ctx context.Context, address string) (l listing, err error) {
	target := strings.ReplaceAll(d.URL, "{address}", url.QueryEscape(address))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return l, err
	}
	req.Header.Set("Accept", "application/json")
	if d.Token != "" {
		req.Header.Set("Authorization", "Bearer "+d.Token)
	}
	resp, err := d.Client.Do(req)
	var where *url.Error
	if errors.As(err, &where) {
		err = where.Err // without the address, which may be a blind recipient's
	}
	if err != nil {
		return l, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusNotFound:
		return l, nil
	case http.StatusOK:
	default:
		return l, fmt.Errorf("the directory answers %s", resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxListing)).Decode(&l); err != nil {
		return l, fmt.Errorf("the directory's answer cannot be read: %w", err)
	}
	l.Contacts = l.Contacts[:min(len(l.Contacts), maxListed)]
	return l, nil
}

// keep stores what the directory says of an address, if it is news.
func (d *Directory) keep(ctx context.Context, at time.Time, address string, l listing) error {
	news := false
	look := func(r store.Reader, put func(store.Contact) error) error {
		for _, listed := range l.Contacts {
			c, changed, err := d.merge(r, at, listed)
			if err != nil {
				return err
			}
			if !changed {
				continue
			}
			if news = true; put != nil {
				if err := put(c); err != nil {
					return err
				}
			}
		}
		return d.release(r, at, address, l, func(c store.Contact) error {
			if news = true; put != nil {
				return put(c)
			}
			return nil
		})
	}
	err := d.Store.View(ctx, func(r store.Reader) error { return look(r, nil) })
	if err != nil || !news {
		return err
	}
	return d.Store.Update(ctx, func(tx store.Tx) error { return look(tx, tx.PutContact) })
}

// merge is our record of a listed contact, and whether it has changed.
func (d *Directory) merge(r store.Reader, at time.Time, l entry) (store.Contact, bool, error) {
	if l.ID == "" {
		return store.Contact{}, false, errors.New("the directory lists a contact without an id")
	}
	c, err := r.ContactByExternal(l.ID)
	isNew := errors.Is(err, store.ErrNotFound)
	if err != nil && !isNew {
		return c, false, err
	}
	now := at
	if isNew {
		c = store.Contact{ID: store.NewID(), Kind: store.Registered, External: l.ID, CreatedAt: now}
	}
	changed := isNew || c.Name != l.Name || c.DoNotEmail != l.DoNotEmail
	c.Name, c.DoNotEmail = l.Name, l.DoNotEmail
	c.EmailAddresses = slices.Clone(c.EmailAddresses)
	for _, a := range l.EmailAddresses {
		if key := store.Key(a); key != "" && !c.HeldAt(key, now) {
			held := store.EmailAddress{Address: a, From: now}
			if isNew {
				held.From = time.Time{} // since when is not known
			}
			c.EmailAddresses = append(c.EmailAddresses, held)
			changed = true
		}
	}
	for i, e := range c.EmailAddresses {
		gone := !slices.ContainsFunc(l.EmailAddresses, func(a string) bool { return store.Key(a) == store.Key(e.Address) })
		if gone && e.To.IsZero() {
			c.EmailAddresses[i].To = now
			changed = true
		}
	}
	return c, changed, nil
}

// release ends what a contact of the directory had, if the directory no longer
// lists him under the address.
func (d *Directory) release(r store.Reader, at time.Time, address string, l listing, put func(store.Contact) error) error {
	holders, err := r.Holders(address)
	if err != nil {
		return err
	}
	for _, c := range holders.Contacts {
		still := slices.ContainsFunc(l.Contacts, func(one entry) bool { return one.ID == c.External })
		if c.External == "" || still {
			continue
		}
		c.EmailAddresses = slices.Clone(c.EmailAddresses)
		for i, e := range c.EmailAddresses {
			if store.Key(e.Address) == address && e.To.IsZero() {
				c.EmailAddresses[i].To = at
			}
		}
		if err := put(c); err != nil {
			return err
		}
	}
	return nil
}
