package bolt

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/storetest"
)

// model is what the store should hold, kept plainly: no index, everything is
// found by looking at everything.
type model struct {
	contacts   map[store.ID]store.Contact
	cases      map[uint64]store.Case
	messages   map[store.ID]store.Message
	deliveries map[store.ID]store.Delivery
	leases     map[store.ID]time.Time
}

func sorted[T any](all map[store.ID]T) (ids []store.ID) {
	return slices.SortedFunc(maps.Keys(all), compareIDs)
}

func (m *model) onCase(n uint64) (list []store.Message) {
	for _, id := range sorted(m.messages) {
		if msg := m.messages[id]; msg.Case == n {
			list = append(list, msg)
		}
	}
	return list
}

func (m *model) external(id string) (store.Contact, bool) {
	for _, c := range m.contacts {
		if id != "" && c.External == id {
			return c, true
		}
	}
	return store.Contact{}, false
}

// byOrdinal is the oldest.
func (m *model) byOrdinal(n uint64, ordinal uint32) store.Message {
	for _, msg := range m.onCase(n) {
		if msg.Ordinal == ordinal && ordinal != 0 {
			return msg
		}
	}
	return store.Message{}
}

func (m *model) unresolved() (ids []store.ID) {
	for _, id := range sorted(m.messages) {
		msg := m.messages[id]
		if msg.Case != 0 && slices.ContainsFunc(msg.Parties, func(p store.Party) bool {
			return p.Role != store.RoleRelated && p.Party.Kind == ""
		}) {
			ids = append(ids, id)
		}
	}
	return ids
}

func (m *model) holders(address string, now time.Time) (list []store.Contact) {
	for _, id := range sorted(m.contacts) {
		if c := m.contacts[id]; c.HeldAt(address, now) {
			list = append(list, c)
		}
	}
	return list
}

func (m *model) refs(id string) (list []store.MessageRef) {
	named := map[uint64]bool{}
	for _, key := range sorted(m.messages) {
		msg := m.messages[key]
		ref := store.MessageRef{ID: msg.ID, Case: msg.Case, Direction: msg.Direction, ReceivedAt: msg.ReceivedAt}
		own, other := ref, slices.Contains(msg.References, id) && msg.Case != 0 && !named[msg.Case]
		if msg.MessageID == id || msg.DerivedID == id {
			own.Own, own.ContentHash, own.SubmitHash = true, msg.ContentHash, msg.SubmitHash
			list = append(list, own)
		}
		if other {
			named[msg.Case] = true
			list = append(list, ref)
		}
	}
	return list
}

func (m *model) usage(n uint64, address string) (u store.Usage, ok bool) {
	for _, msg := range m.onCase(n) {
		forged := func(a string) bool {
			return msg.Identity == "forged" && slices.ContainsFunc(msg.Parties, func(p store.Party) bool {
				return p.Role == store.RoleSender && store.Key(p.AddressUsed) == a
			})
		}
		for _, p := range msg.Parties {
			if store.Key(p.AddressUsed) != address || p.Role == store.RoleRelated || forged(address) {
				continue
			}
			if !ok || msg.ReceivedAt.Before(u.First) {
				u.First = msg.ReceivedAt
			}
			if !ok || msg.ReceivedAt.After(u.Last) {
				u.Last = msg.ReceivedAt
			}
			u.Sender = u.Sender || p.Role == store.RoleSender
			ok = true
		}
	}
	return u, ok
}

// machine drives the store and the model alike.
type machine struct {
	t     *rapid.T
	path  string
	st    *Store
	model *model
	now   time.Time
}

// pool draws from few values, so that they meet.
func pool(t *rapid.T, what string, n int) string {
	return fmt.Sprintf("%s%d", what, rapid.IntRange(0, n-1).Draw(t, what))
}

func (m *machine) address() string {
	a := pool(m.t, "a", 6)
	if rapid.Bool().Draw(m.t, "capital") {
		return "A" + a[1:] + "@X.example"
	}
	return a + "@x.example"
}

func existing[T any](t *rapid.T, all map[store.ID]T) (v T, ok bool) {
	if len(all) == 0 {
		return v, false
	}
	return all[rapid.SampledFrom(sorted(all)).Draw(t, "which")], true
}

// update does the same to both, and sometimes undoes it by failing.
func (m *machine) update(write func(store.Tx) error, note func(*model)) {
	fail := rapid.IntRange(0, 9).Draw(m.t, "fail") == 0
	meant := errors.New("meant to fail")
	err := m.st.Update(context.Background(), func(tx store.Tx) error {
		if err := write(tx); err != nil {
			return err
		}
		if fail {
			return meant
		}
		return nil
	})
	if fail && err == meant {
		return
	}
	if err != nil {
		m.t.Fatal(err)
	}
	note(m.model)
}

func (m *machine) putContact() {
	c, ok := existing(m.t, m.model.contacts)
	if !ok || rapid.Bool().Draw(m.t, "new") {
		c = store.Contact{ID: store.NewID(), CreatedAt: m.now}
	}
	c.Kind = rapid.SampledFrom([]store.ContactKind{store.Guest, store.Registered}).Draw(m.t, "kind")
	c.External = ""
	if rapid.Bool().Draw(m.t, "outside") {
		c.External = pool(m.t, "crm", 4)
	}
	if other, taken := m.model.external(c.External); taken && other.ID != c.ID {
		m.refuse(c)
		c.External = ""
	}
	c.EmailAddresses = nil
	for range rapid.IntRange(0, 3).Draw(m.t, "addresses") {
		e := store.EmailAddress{Address: m.address()}
		switch rapid.IntRange(0, 3).Draw(m.t, "when") {
		case 0:
			e.To = m.now.Add(-time.Hour)
		case 1:
			e.From = m.now.Add(time.Hour)
		}
		c.EmailAddresses = append(c.EmailAddresses, e)
	}
	m.update(func(tx store.Tx) error { return tx.PutContact(c) }, func(w *model) { w.contacts[c.ID] = c })
}

// refuse: what another contact has.
func (m *machine) refuse(c store.Contact) {
	err := m.st.Update(context.Background(), func(tx store.Tx) error { return tx.PutContact(c) })
	if !errors.Is(err, store.ErrTaken) {
		m.t.Fatalf("external id %q had by two: %v", c.External, err)
	}
}

func (m *machine) putCase() {
	customer, ok := existing(m.t, m.model.contacts)
	if !ok {
		return
	}
	n := rapid.Uint64Range(1, 5).Draw(m.t, "number")
	c := m.model.cases[n]
	c.Number, c.Customer = n, customer.ID
	c.State = rapid.SampledFrom([]store.CaseState{store.Active, store.Resolved, store.Cancelled}).Draw(m.t, "state")
	c.Queue = pool(m.t, "queue", 2)
	c.MergedInto = 0
	if into := rapid.Uint64Range(0, 5).Draw(m.t, "into"); m.model.cases[into].Number != 0 {
		c.MergedInto = into
	}
	m.update(func(tx store.Tx) error { return tx.PutCase(c) }, func(w *model) { w.cases[n] = c })
}

func (m *machine) putMessage() {
	msg, old := existing(m.t, m.model.messages)
	if !old || rapid.Bool().Draw(m.t, "new") {
		msg, old = store.Message{ID: store.NewID()}, false
	}
	msg.Case = rapid.Uint64Range(0, 5).Draw(m.t, "case")
	if m.model.cases[msg.Case].Number == 0 {
		msg.Case = 0
	}
	msg.Exception = ""
	if msg.Case == 0 && rapid.Bool().Draw(m.t, "excepted") {
		msg.Exception = pool(m.t, "reason", 2)
	}
	msg.Ordinal = rapid.Uint32Range(0, 2).Draw(m.t, "ordinal")
	msg.MessageID, msg.DerivedID = pool(m.t, "id", 5), ""
	if rapid.Bool().Draw(m.t, "derived") {
		msg.MessageID, msg.DerivedID = "", pool(m.t, "id", 5)
	}
	msg.References, msg.Parties = nil, nil
	for range rapid.IntRange(0, 3).Draw(m.t, "references") {
		msg.References = append(msg.References, pool(m.t, "id", 5))
	}
	for range rapid.IntRange(0, 4).Draw(m.t, "parties") {
		role := rapid.SampledFrom([]store.Role{store.RoleSender, store.RoleTo, store.RoleCC, store.RoleBCC, store.RoleRelated}).Draw(m.t, "role")
		p := store.Party{Role: role, AddressUsed: m.address()}
		if rapid.IntRange(0, 2).Draw(m.t, "resolved") > 0 {
			p.Party = store.PartyRef{Kind: store.PartyAccount, ID: store.NewID()}
		}
		msg.Parties = append(msg.Parties, p)
	}
	msg.Identity = rapid.SampledFrom([]string{"forged", "unknown"}).Draw(m.t, "identity")
	msg.Direction = rapid.SampledFrom([]store.Direction{store.Incoming, store.Outgoing}).Draw(m.t, "direction")
	msg.Archived.ReceivedSHA256 = fmt.Sprintf("%x", sha256.Sum256(nil)) // of nothing: they have no bytes
	msg.ContentHash = pool(m.t, "content", 3)
	msg.ReceivedAt = m.now.Add(time.Duration(rapid.IntRange(-5, 5).Draw(m.t, "at")) * time.Minute)
	m.update(func(tx store.Tx) error {
		if err := tx.PutMessage(msg); err != nil || old {
			return err
		}
		return tx.Archive(msg.ID, nil, nil, nil, nil)
	}, func(w *model) { w.messages[msg.ID] = msg })
}

func (m *machine) enqueue() {
	msg, ok := existing(m.t, m.model.messages)
	if !ok {
		return
	}
	d, old := existing(m.t, m.model.deliveries)
	if !old || rapid.Bool().Draw(m.t, "new") {
		d = store.Delivery{ID: store.NewID()}
	}
	d.Message, d.Case = msg.ID, msg.Case
	d.State = rapid.SampledFrom([]store.DeliveryState{store.Queued, store.Queued, store.Held, store.Failed, store.Delivered}).Draw(m.t, "state")
	d.Due = m.now.Add(time.Duration(rapid.IntRange(-30, 30).Draw(m.t, "due")) * time.Minute)
	d.Lane = rapid.SampledFrom([]string{"", "", "a", "b"}).Draw(m.t, "lane")
	m.update(func(tx store.Tx) error { return tx.Enqueue(d) }, func(w *model) { w.deliveries[d.ID] = d })
}

func (m *machine) claim() {
	n := rapid.IntRange(1, 3).Draw(m.t, "n")
	room := store.Room{}
	for _, lane := range []string{"a", "b"} {
		if rapid.Bool().Draw(m.t, "full") {
			room[lane] = rapid.IntRange(0, 2).Draw(m.t, "room")
		}
	}
	got, err := m.st.Claim(context.Background(), m.now, 10*time.Minute, n, room)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, d := range got {
		until, leased := m.model.leases[d.ID]
		want := m.model.deliveries[d.ID]
		want.Interrupted = leased
		if leased && until.After(m.now) || !leased && want.Due.After(m.now) || want.State != store.Queued {
			m.t.Fatalf("claimed %v, leased until %v, at %v", want, until, m.now)
		}
		m.same("claimed", d, want)
		if left, bounded := room[d.Lane]; bounded && !leased {
			if room[d.Lane]--; left == 0 {
				m.t.Fatalf("claimed %v from a lane without room", want)
			}
		}
		m.model.leases[d.ID] = m.now.Add(10 * time.Minute)
	}
	if len(got) == n {
		return
	}
	for id, d := range m.model.deliveries {
		until, leased := m.model.leases[id]
		if ended := leased && !until.After(m.now); ended && d.State != store.Queued {
			delete(m.model.leases, id)
		} else if left, bounded := room[d.Lane]; !ended && bounded && left == 0 {
			continue
		} else if d.State == store.Queued && (ended || !leased && !d.Due.After(m.now)) {
			m.t.Fatalf("delivery %s was left out", id)
		}
	}
}

func (m *machine) settle() {
	id, ok := existing(m.t, m.leased())
	if !ok {
		return
	}
	d := m.model.deliveries[id]
	d.State = rapid.SampledFrom([]store.DeliveryState{store.Queued, store.Delivered, store.Failed}).Draw(m.t, "state")
	d.Due = m.now.Add(20 * time.Minute)
	if err := storetest.Settle(context.Background(), m.st, d); err != nil {
		m.t.Fatal(err)
	}
	m.model.deliveries[id] = d
	delete(m.model.leases, id)
}

func (m *machine) leased() map[store.ID]store.ID {
	all := map[store.ID]store.ID{}
	for id := range m.model.leases {
		all[id] = id
	}
	return all
}

// reopen ends all leases.
func (m *machine) reopen() {
	m.st.Close()
	m.open()
	for id := range m.model.leases {
		m.model.leases[id] = m.now
	}
}

func (m *machine) open() {
	st, err := Open(m.path, Options{Logger: quiet(), Now: func() time.Time { return m.now }})
	if err != nil {
		m.t.Fatal(err)
	}
	m.st = st
}

func (m *machine) same(what string, got, want any) {
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		m.t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

// check asks for everything at once and compares it with the model.
func (m *machine) check() {
	q := store.Query{Cases: []uint64{1, 2, 3, 4, 5}}
	for i := range 6 {
		q.Addresses = append(q.Addresses, fmt.Sprintf("a%d@x.example", i))
		q.MessageIDs = append(q.MessageIDs, fmt.Sprintf("id%d", i))
	}
	err := m.st.View(context.Background(), func(r store.Reader) error {
		f, err := r.Facts(q)
		if err != nil {
			return err
		}
		for _, a := range q.Addresses {
			m.same("holders of "+a, f.Holders[a].Contacts, m.model.holders(a, m.now))
		}
		for _, id := range q.MessageIDs {
			m.same("where "+id+" leads", f.MessageIDs[id], m.model.refs(id))
		}
		for _, n := range q.Cases {
			m.checkCase(r, f, n, q.Addresses)
		}
		m.checkLists(r)
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) checkCase(r store.Reader, f store.Facts, n uint64, addresses []string) {
	cf, ok := f.Cases[n]
	if _, want := m.model.cases[n]; ok != want {
		m.t.Fatalf("case %d: known %v", n, ok)
	}
	if !ok {
		return
	}
	m.same("case", cf.Case, m.model.cases[n])
	m.same("customer", cf.Customer, m.model.contacts[cf.Case.Customer])
	want := map[string]store.Usage{}
	for _, a := range addresses {
		if u, ok := m.model.usage(n, a); ok {
			want[a] = u
		}
	}
	m.same(fmt.Sprintf("used on case %d", n), cf.Used, want)
	list, _, err := r.Messages(store.MessageFilter{Case: n}, store.Page{Limit: 1000})
	if err != nil {
		m.t.Fatal(err)
	}
	m.same("timeline", list, m.model.onCase(n))
	for ordinal := range uint32(3) {
		msg, err := r.ByOrdinal(n, ordinal)
		want := m.model.byOrdinal(n, ordinal)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			m.t.Fatal(err)
		}
		m.same(fmt.Sprintf("message %d of case %d", ordinal, n), msg, want)
	}
}

func (m *machine) checkLists(r store.Reader) {
	var excepted, held []store.ID
	for _, id := range sorted(m.model.messages) {
		if m.model.messages[id].Exception != "" {
			excepted = append([]store.ID{id}, excepted...)
		}
	}
	list, _, err := r.Messages(store.MessageFilter{Exceptions: true}, store.Page{Limit: 1000})
	if err != nil {
		m.t.Fatal(err)
	}
	var got []store.ID
	for _, msg := range list {
		got = append(got, msg.ID)
	}
	m.same("exceptions", got, excepted)
	got = nil
	list, _, err = r.Messages(store.MessageFilter{Unresolved: true, OldestFirst: true}, store.Page{Limit: 1000})
	if err != nil {
		m.t.Fatal(err)
	}
	for _, msg := range list {
		got = append(got, msg.ID)
	}
	m.same("unresolved", got, m.model.unresolved())
	m.checkContacts(r)
	for _, id := range sorted(m.model.deliveries) {
		if m.model.deliveries[id].State == store.Held {
			held = append(held, id)
		}
	}
	rows, _, err := r.Deliveries(store.DeliveryFilter{State: store.Held}, store.Page{Limit: 1000})
	if err != nil {
		m.t.Fatal(err)
	}
	got = nil
	for _, d := range rows {
		got = append(got, d.ID)
	}
	m.same("held", got, held)
	for _, state := range []store.CaseState{store.Active, store.Resolved, store.Cancelled} {
		var want []uint64
		for n := uint64(5); n > 0; n-- {
			if c := m.model.cases[n]; c.State == state && c.Queue == "queue1" {
				want = append(want, n)
			}
		}
		cases, _, err := r.Cases(store.CaseFilter{State: state, Queue: "queue1"}, store.Page{})
		if err != nil {
			m.t.Fatal(err)
		}
		var numbers []uint64
		for _, c := range cases {
			numbers = append(numbers, c.Number)
		}
		m.same("cases", numbers, want)
	}
}

func (m *machine) checkContacts(r store.Reader) {
	for i := range 4 {
		id := fmt.Sprintf("crm%d", i)
		got, err := r.ContactByExternal(id)
		want, ok := m.model.external(id)
		if ok == (err != nil) {
			m.t.Fatalf("contact of %s: %v", id, err)
		}
		m.same("contact of "+id, got, want)
	}
	for _, id := range sorted(m.model.contacts) {
		var want, numbers []uint64
		for n := uint64(5); n > 0; n-- {
			if c := m.model.cases[n]; c.Number != 0 && c.Customer == id {
				want = append(want, n)
			}
		}
		list, _, err := r.Cases(store.CaseFilter{Customer: id}, store.Page{})
		if err != nil {
			m.t.Fatal(err)
		}
		for _, c := range list {
			numbers = append(numbers, c.Number)
		}
		m.same("cases of a customer", numbers, want)
	}
}

func (m *machine) verify() {
	counts, err := m.st.Verify(context.Background(), func(f store.Finding) { m.t.Errorf("verify: %s: %s", f.Record, f.What) })
	if err != nil {
		m.t.Fatal(err)
	}
	m.same("counted", []int{counts.Cases, counts.Contacts, counts.Messages, counts.Deliveries},
		[]int{len(m.model.cases), len(m.model.contacts), len(m.model.messages), len(m.model.deliveries)})
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "model")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		m := &machine{t: t, path: filepath.Join(dir, "casegate.db"), now: time.Now().UTC().Truncate(time.Second), model: &model{
			map[store.ID]store.Contact{}, map[uint64]store.Case{}, map[store.ID]store.Message{}, map[store.ID]store.Delivery{}, map[store.ID]time.Time{},
		}}
		m.open()
		defer func() { m.st.Close() }()
		steps := []func(){m.putContact, m.putContact, m.putCase, m.putMessage, m.putMessage, m.enqueue, m.claim, m.settle}
		for range rapid.IntRange(5, 60).Draw(t, "steps") {
			switch n := rapid.IntRange(0, len(steps)+1).Draw(t, "step"); {
			case n < len(steps):
				steps[n]()
			case n == len(steps):
				m.now = m.now.Add(7 * time.Minute)
			case rapid.IntRange(0, 4).Draw(t, "restart") == 0:
				m.reopen()
			}
		}
		m.check()
		m.verify()
	})
}
