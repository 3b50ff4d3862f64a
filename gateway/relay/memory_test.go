package relay

import (
	"bytes"
	"context"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing/iotest"
	"time"

	"github.com/casegate/casegate/store"
)

// memory is the outbox part of a store, honest but in memory: what must work
// in virtual time, or fail on request, is tested on it.
type memory struct {
	store.Store // what the relay has no business with panics

	mu     sync.Mutex
	rows   map[store.ID]*row
	mails  map[store.ID]mail
	settle func() error // what the next Settle fails with
	update func() error // and Update
	claims int
	lookup int // NextDue
}

type row struct {
	d      store.Delivery
	leased time.Time // until when; zero: nobody's
}

type mail struct {
	msg    store.Message
	header string
	body   string
	torn   error // strikes behind the body
}

func newMemory() *memory {
	return &memory{rows: map[store.ID]*row{}, mails: map[store.ID]mail{}}
}

func clone(d store.Delivery) store.Delivery {
	d.Recipients, d.Attempts = slices.Clone(d.Recipients), slices.Clone(d.Attempts)
	return d
}

// add archives a message and enqueues it.
func (m *memory) add(eml string, now time.Time, to ...string) store.ID {
	header, body, _ := strings.Cut(eml, "\r\n\r\n")
	return m.put(mail{header: header + "\r\n\r\n", body: body}, now, to...)
}

func (m *memory) put(l mail, now time.Time, to ...string) store.ID {
	d := store.Delivery{
		ID: store.NewID(), Message: store.NewID(), Role: "outbound", From: "desk@city.example",
		State: store.Queued, Due: now, CreatedAt: now,
	}
	for _, a := range to {
		d.Recipients = append(d.Recipients, store.Recipient{Address: a, State: store.Queued})
	}
	l.msg.ID = d.Message
	if l.torn == nil && l.msg.Archived.SentSize == 0 && len(l.msg.Archived.Transforms) == 0 {
		l.msg.Archived.SentSize = int64(len(l.header) + len(l.body))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mails[d.Message] = l
	m.rows[d.ID] = &row{d: d}
	return d.ID
}

// change edits a delivery behind the relay's back.
func (m *memory) change(id store.ID, f func(*store.Delivery)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(&m.rows[id].d)
}

func (m *memory) get(id store.ID) store.Delivery {
	m.mu.Lock()
	defer m.mu.Unlock()
	return clone(m.rows[id].d)
}

// calls counts the Claims and NextDues.
func (m *memory) calls() (claims, lookups int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.claims, m.lookup
}

func (m *memory) leased(id store.ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.rows[id].leased.IsZero()
}

// crash forgets who claimed what, as a new start would.
func (m *memory) crash() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.rows {
		if !r.leased.IsZero() {
			r.leased = time.Unix(0, 1)
		}
	}
}

func (m *memory) Claim(_ context.Context, now time.Time, lease time.Duration, n int, room store.Room) ([]store.Delivery, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.claims++
	var due []*row
	for _, r := range m.rows {
		if r.d.State == store.Queued && !r.d.Due.After(now) && !now.Before(r.leased) {
			due = append(due, r)
		}
	}
	slices.SortFunc(due, func(a, b *row) int { return a.d.Due.Compare(b.d.Due) })
	var out []store.Delivery
	room = maps.Clone(room)
	for _, r := range due {
		if left, bounded := room[r.d.Lane]; len(out) == n || bounded && left <= 0 && r.leased.IsZero() {
			continue
		} else if bounded {
			room[r.d.Lane]--
		}
		d := clone(r.d)
		d.Interrupted = !r.leased.IsZero()
		r.leased = now.Add(lease)
		out = append(out, d)
	}
	return out, nil
}

func (m *memory) Settle(_ context.Context, fn func(store.Delivery) (store.Delivery, error), claimed ...store.ID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.settle != nil {
		if err := m.settle(); err != nil {
			return err
		}
	}
	var done []store.Delivery
	for _, id := range claimed {
		d, err := fn(clone(m.rows[id].d))
		if err != nil {
			return err
		}
		done = append(done, d)
	}
	for _, d := range done {
		d.Interrupted = false // for Claim to say
		m.rows[d.ID].d, m.rows[d.ID].leased = clone(d), time.Time{}
	}
	return nil
}

func (m *memory) NextDue(_ context.Context, room store.Room) (due time.Time, ok bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lookup++
	for _, r := range m.rows {
		at := r.d.Due
		if r.leased.After(at) {
			at = r.leased
		}
		left, bounded := room[r.d.Lane]
		if bounded && left == 0 && r.leased.IsZero() {
			continue
		}
		if r.d.State == store.Queued && (!ok || at.Before(due)) {
			due, ok = at, true
		}
	}
	return due, ok, nil
}

func (m *memory) View(_ context.Context, fn func(store.Reader) error) error {
	return fn(memoryReader{m: m})
}

func (m *memory) Open(_ context.Context, id store.ID, as store.As) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l, ok := m.mails[id]
	if !ok || as != store.AsSent {
		return nil, store.ErrNotFound
	}
	r := io.Reader(strings.NewReader(l.header + l.body))
	if l.torn != nil {
		r = io.MultiReader(r, iotest.ErrReader(l.torn))
	}
	return io.NopCloser(r), nil
}

func (m *memory) Update(_ context.Context, fn func(store.Tx) error) error {
	if m.update != nil {
		if err := m.update(); err != nil {
			return err
		}
	}
	return fn(memoryTx{memoryReader: memoryReader{m: m}})
}

func (m *memory) Stage(context.Context) (store.Body, error) { return new(memoryBody), nil }

type memoryBody struct{ bytes.Buffer }

func (b *memoryBody) Size() int64                { return int64(b.Len()) }
func (b *memoryBody) Seal(context.Context) error { return nil }
func (b *memoryBody) Discard()                   {}

// memoryTx writes at once: what is tested here doesn't fail half way.
type memoryTx struct {
	memoryReader
	store.Tx
}

func (t memoryTx) Delivery(id store.ID) (store.Delivery, error) { return t.memoryReader.Delivery(id) }
func (t memoryTx) Message(id store.ID) (store.Message, error)   { return t.memoryReader.Message(id) }
func (t memoryTx) Deliveries(f store.DeliveryFilter, p store.Page) ([]store.Delivery, store.Cursor, error) {
	return t.memoryReader.Deliveries(f, p)
}

func (t memoryTx) Header(id store.ID, as store.As) ([]byte, []store.Apart, error) {
	return t.memoryReader.Header(id, as)
}

func (t memoryTx) Enqueue(d store.Delivery) error {
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	if t.m.rows[d.ID] == nil {
		t.m.rows[d.ID] = &row{}
	}
	t.m.rows[d.ID].d = clone(d)
	return nil
}

func (t memoryTx) PutMessage(m store.Message) error {
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	l := t.m.mails[m.ID]
	l.msg = m
	t.m.mails[m.ID] = l
	return nil
}

func (t memoryTx) Archive(id store.ID, _, sent []byte, _ []store.Apart, body store.Body) error {
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	l := t.m.mails[id]
	l.header, l.body = string(sent), body.(*memoryBody).String()
	t.m.mails[id] = l
	return nil
}

type memoryReader struct {
	store.Reader
	m *memory
}

func (r memoryReader) Delivery(id store.ID) (store.Delivery, error) {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	row, ok := r.m.rows[id]
	if !ok {
		return store.Delivery{}, store.ErrNotFound
	}
	return clone(row.d), nil
}

// Deliveries knows states, and has one page.
func (r memoryReader) Deliveries(f store.DeliveryFilter, _ store.Page) (list []store.Delivery, _ store.Cursor, _ error) {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	for _, row := range r.m.rows {
		if row.d.State == f.State {
			list = append(list, clone(row.d))
		}
	}
	return list, "", nil
}

func (r memoryReader) Message(id store.ID) (store.Message, error) {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	l, ok := r.m.mails[id]
	if !ok {
		return store.Message{}, store.ErrNotFound
	}
	return l.msg, nil
}

func (r memoryReader) Header(id store.ID, _ store.As) ([]byte, []store.Apart, error) {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	return []byte(r.m.mails[id].header), nil, nil
}
