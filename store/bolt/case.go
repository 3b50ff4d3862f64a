package bolt

import (
	"context"
	"encoding/binary"

	"github.com/casegate/casegate/store"
)

func (r *reader) Case(n uint64) (store.Case, error) {
	return get[store.Case](r, cases, number(n), "case", n)
}

// Cases are found by customer or by state where one is asked. The rows by
// state name the queue, so only what is wanted is decoded.
func (r *reader) Cases(f store.CaseFilter, p store.Page) ([]store.Case, store.Cursor, error) {
	keep := func(c store.Case) bool {
		return (f.State == "" || c.State == f.State) && (f.Queue == "" || c.Queue == f.Queue)
	}
	switch {
	case f.Customer != (store.ID{}):
		return behindPrefix(r, r.newest, caseCustomers, cases, f.Customer[:], p, keep)
	case f.State == "":
		return records(r, r.newest, cases, nil, p, keep)
	}
	prefix := named(string(f.State), nil)
	return list(r.newest, caseStates, prefix, p, func(k, queue []byte) (store.Case, bool, error) {
		if f.Queue != "" && f.Queue != string(queue) {
			return store.Case{}, false, nil
		}
		c, err := r.Case(binary.BigEndian.Uint64(k[len(prefix):]))
		return c, err == nil, err
	})
}

func caseState(c *store.Case) []byte { return named(string(c.State), number(c.Number)) }

func caseCustomer(c *store.Case) []byte { return join(c.Customer[:], number(c.Number)) }

func (w *writer) PutCase(c store.Case) error {
	key := number(c.Number)
	old, err := lookup[store.Case](&w.reader, cases, key)
	if err != nil {
		return err
	}
	if old != nil && old.State != c.State {
		if err := w.drop(caseStates, caseState(old)); err != nil {
			return err
		}
	}
	if old == nil || old.State != c.State || old.Queue != c.Queue {
		if err := w.putRow(caseStates, caseState(&c), []byte(c.Queue)); err != nil {
			return err
		}
	}
	if old != nil && old.Customer != c.Customer {
		if err := w.drop(caseCustomers, caseCustomer(old)); err != nil {
			return err
		}
	}
	if old == nil || old.Customer != c.Customer {
		if err := w.mark(caseCustomers, caseCustomer(&c)); err != nil {
			return err
		}
	}
	return w.putRecord(cases, key, &c)
}

// ReserveCase counts in memory. What makes a number taken for good is the case
// stored under it: no case is ever deleted.
func (s *Store) ReserveCase(ctx context.Context) (uint64, error) {
	return s.lastCase.Add(1), ctx.Err()
}

// readLastCase finds where to go on counting.
func (s *Store) readLastCase() error {
	return s.view(context.Background(), func(r *reader) error {
		for last := range r.newest(cases, nil, nil) {
			s.lastCase.Store(binary.BigEndian.Uint64(last))
			break
		}
		return nil
	})
}

func (r *reader) Log(n uint64, p store.Page) ([]store.LogEntry, store.Cursor, error) {
	return records(r, r.rows, caseRows, ofCase(n, ofLog), p, all[store.LogEntry])
}

func (w *writer) Record(e store.LogEntry) error {
	if e.ID == (store.ID{}) {
		e.ID = store.NewID()
	}
	return w.putRecord(caseRows, ofCase(e.Case, ofLog, e.ID[:]), &e)
}
