package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casegate/casegate/store"
)

// MaxImport is the most rows that one request imports.
const MaxImport = 200

func (a *api) importRoute(h huma.API) {
	op := act("import-contacts", "/contacts/import", "Add or update contacts, each row whole or not at all", 507)
	op.Description = "A row is the contact with its external id; without one, the registered contact (or guest) of the same name with one of its addresses; else a new contact. An import adds and never takes away."
	op.MaxBodyBytes = 8 << 20
	handle(h, op, a.importContacts)
}

// ImportRow is a contact as a file tells it. What is empty is left as it is.
type ImportRow struct {
	Line           int      `json:"line" doc:"where it begins in the file"`
	Name           string   `json:"name"`
	EmailAddresses []string `json:"email_addresses"`
	Kind           string   `json:"kind,omitempty" doc:"registered or guest; none: registered, if it is new"`
	Account        string   `json:"account,omitempty" doc:"id or e-mail address of the parent account"`
	External       string   `json:"external_id,omitempty" doc:"its id in an outside directory"`
	DoNotEmail     string   `json:"do_not_email,omitempty" doc:"yes or no"`
	Wrong          string   `json:"wrong,omitempty" doc:"what its reader found wrong with it: the row is refused"`
}

// ImportAction is what becomes of a row.
type ImportAction string

// The actions.
const (
	ImportAdd    ImportAction = "add"
	ImportUpdate ImportAction = "update"
	ImportSame   ImportAction = "same"
	ImportRefuse ImportAction = "refuse"
)

// ImportResult tells what was done with a row, or would be.
type ImportResult struct {
	Line   int          `json:"line"`
	Action ImportAction `json:"action" enum:"add,update,same,refuse"`
	ID     store.ID     `json:"id,omitzero"`
	Name   string       `json:"name"`
	Said   string       `json:"said" doc:"what changes, or why it is refused"`
}

type importQuery struct {
	DryRun bool `query:"dry_run" doc:"say what would be done, and write nothing"`
	Body   struct {
		Rows []ImportRow `json:"rows" minItems:"1" maxItems:"200"`
	}
}

// errPreview undoes what a preview wrote.
var errPreview = errors.New("only a preview")

// importContacts takes the rows in one transaction, so that a later row finds
// an earlier one; one that is refused has written nothing.
func (a *api) importContacts(ctx context.Context, in *importQuery) (*one[[]ImportResult], error) {
	var out one[[]ImportResult]
	at := a.now()
	err := a.Store.Update(ctx, func(tx store.Tx) error {
		out.Body = make([]ImportResult, 0, len(in.Body.Rows))
		for _, row := range in.Body.Rows {
			result, err := importRow(tx, row, at)
			if err != nil {
				return err
			}
			out.Body = append(out.Body, result)
		}
		if in.DryRun {
			return errPreview
		}
		return a.auditImport(ctx, tx, out.Body)
	})
	if errors.Is(err, errPreview) {
		err = nil
	}
	return &out, err
}

func (a *api) auditImport(ctx context.Context, tx store.Tx, results []ImportResult) error {
	n := map[ImportAction]int{}
	for _, r := range results {
		n[r.Action]++
	}
	if n[ImportAdd]+n[ImportUpdate] == 0 {
		return nil
	}
	return a.audit(ctx, tx, fmt.Sprintf("imported contacts: %d added, %d updated", n[ImportAdd], n[ImportUpdate]))
}

// importRow does what one row asks. An error is the store's; what is wrong with
// the row is a result.
func importRow(tx store.Tx, row ImportRow, at time.Time) (ImportResult, error) {
	result := ImportResult{Line: row.Line, Name: row.Name}
	wanted, err := readRow(tx, row)
	var found *store.Contact
	if err == nil {
		found, err = match(tx, wanted)
	}
	var p *Problem
	if errors.As(err, &p) {
		result.Action, result.Said = ImportRefuse, p.Detail
		return result, nil
	}
	if err != nil {
		return result, err
	}
	var c store.Contact
	if found == nil {
		c = store.Contact{ID: store.NewID(), Kind: cmp.Or(wanted.Kind, store.Registered), Name: wanted.Name, CreatedAt: at}
	} else {
		c = *found
		c.EmailAddresses = slices.Clone(c.EmailAddresses)
	}
	changes := wanted.into(&c, at)
	result.ID, result.Said = c.ID, strings.Join(changes, ", ")
	switch {
	case found == nil:
		result.Action = ImportAdd
	case len(changes) == 0:
		result.Action, result.Said = ImportSame, "nothing to change"
		return result, nil
	default:
		result.Action = ImportUpdate
	}
	return result, tx.PutContact(c)
}

// rowContact is what a row says of a contact, checked.
type rowContact struct {
	store.Contact
	addresses  []string
	doNotEmail *bool
}

func readRow(rd store.Reader, row ImportRow) (rowContact, error) {
	c := rowContact{Contact: store.Contact{Name: strings.TrimSpace(row.Name), External: strings.TrimSpace(row.External)}}
	var err error
	switch {
	case row.Wrong != "":
		return c, Invalid("", "%s", row.Wrong)
	case utf8.RuneCountInString(c.Name) > 500:
		return c, Invalid("", "the name is longer than 500 characters")
	case len(c.External) > 500:
		return c, Invalid("", "the external id is longer than 500 bytes")
	case len(row.EmailAddresses) == 0:
		return c, Invalid("", "it has no e-mail address")
	case len(row.EmailAddresses) > 100:
		return c, Invalid("", "it has more than 100 e-mail addresses")
	}
	if c.addresses, err = checkAddresses(c.Name, row.EmailAddresses); err != nil {
		return c, err
	}
	switch kind := store.ContactKind(strings.ToLower(row.Kind)); kind {
	case "", store.Registered, store.Guest:
		c.Kind = kind
	default:
		return c, Invalid("", "%q is no kind: write registered or guest", row.Kind)
	}
	if c.doNotEmail, err = readBool(row.DoNotEmail); err != nil {
		return c, err
	}
	c.Account, err = rowAccount(rd, strings.TrimSpace(row.Account))
	return c, err
}

// readBool reads yes or no; nil is neither.
func readBool(text string) (*bool, error) {
	yes := slices.Contains([]string{"yes", "true", "1", "y"}, strings.ToLower(text))
	no := slices.Contains([]string{"no", "false", "0", "n"}, strings.ToLower(text))
	switch {
	case text == "":
		return nil, nil
	case !yes && !no:
		return nil, Invalid("", "do_not_email is %q: write yes or no", text)
	}
	return &yes, nil
}

// rowAccount finds the account that a row names, by id or address.
func rowAccount(rd store.Reader, text string) (store.ID, error) {
	if text == "" {
		return store.ID{}, nil
	}
	if id, err := store.ParseID(text); err == nil {
		_, err := rd.Account(id)
		if errors.Is(err, store.ErrNotFound) {
			return id, Invalid("", "no account %s", id)
		}
		return id, err
	}
	holders, err := rd.Holders(store.Key(text))
	switch {
	case err != nil:
		return store.ID{}, err
	case len(holders.Accounts) > 1:
		return store.ID{}, Invalid("", "%d accounts have the address %s: write the id", len(holders.Accounts), text)
	case len(holders.Accounts) == 0:
		return store.ID{}, Invalid("", "no account %s: write its id or e-mail address", text)
	}
	return holders.Accounts[0].ID, nil
}

// match finds the contact that a row is about; nil is a new one. An address
// alone is no identity, and a guest, whom any mail makes, never becomes
// registered by his name.
func match(rd store.Reader, wanted rowContact) (*store.Contact, error) {
	if wanted.External != "" {
		c, err := rd.ContactByExternal(wanted.External)
		if err == nil {
			return &c, nil
		}
		if !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
	}
	var found []store.Contact
	for _, address := range wanted.addresses {
		holders, err := rd.Holders(store.Key(address))
		if err != nil {
			return nil, err
		}
		for _, c := range holders.Contacts {
			known := slices.ContainsFunc(found, func(f store.Contact) bool { return f.ID == c.ID })
			if !known && wanted.same(c) {
				found = append(found, c)
			}
		}
	}
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		return &found[0], nil
	}
	return nil, Invalid("", "%d contacts named %s have the address: give it an external_id", len(found), wanted.Name)
}

// same reports whether a holder of one of the addresses is the row's contact.
func (w rowContact) same(c store.Contact) bool {
	return c.Kind == cmp.Or(w.Kind, store.Registered) && strings.EqualFold(c.Name, w.Name) && (c.External == "" || w.External == "")
}

// into writes what a row says into a contact, and says what that changes.
func (w rowContact) into(c *store.Contact, at time.Time) (changes []string) {
	if c.Name != w.Name {
		c.Name = w.Name
		changes = append(changes, "name "+w.Name)
	}
	if w.Kind != "" && c.Kind != w.Kind {
		c.Kind = w.Kind
		changes = append(changes, "kind "+string(w.Kind))
	}
	for _, address := range w.addresses {
		if !c.HeldAt(store.Key(address), at) {
			c.EmailAddresses = append(c.EmailAddresses, store.EmailAddress{Address: address, From: at})
			changes = append(changes, "address "+address)
		}
	}
	if w.Account != (store.ID{}) && c.Account != w.Account {
		c.Account = w.Account
		changes = append(changes, "account "+w.Account.String())
	}
	if w.External != "" && c.External != w.External {
		c.External = w.External
		changes = append(changes, "external id "+w.External)
	}
	if w.doNotEmail != nil && c.DoNotEmail != *w.doNotEmail {
		c.DoNotEmail = *w.doNotEmail
		changes = append(changes, map[bool]string{true: "do not e-mail", false: "may be e-mailed"}[c.DoNotEmail])
	}
	return changes
}
