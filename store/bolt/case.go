package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"iter"

	"github.com/casegate/casegate/store"
)

func (r *reader) Case(n uint64) (store.Case, error) {
	return get[store.Case](r, cases, ofCase(n, ofRecord), "case", n)
}

// Cases are found by customer or by state where one is asked. The rows by
// state name the queue, so only what is wanted is decoded.
func (r *reader) Cases(f store.CaseFilter, p store.Page) ([]store.Case, store.Cursor, error) {
	keep := func(c store.Case) bool {
		return (f.State == "" || c.State == f.State) && (f.Queue == "" || c.Queue == f.Queue)
	}
	switch {
	case f.Customer != (store.ID{}):
		return list(r.newest, contacts, under(f.Customer), p, r.caseAt(keep))
	case f.State == "":
		return records(r, r.newestCases, cases, nil, p, keep)
	}
	at := r.caseAt(all[store.Case])
	return list(r.newest, caseStates, named(string(f.State), nil), p, func(k, queue []byte) (store.Case, bool, error) {
		if f.Queue != "" && f.Queue != string(queue) {
			return store.Case{}, false, nil
		}
		return at(k, nil)
	})
}

// caseAt reads the case whose number ends a row.
func (r *reader) caseAt(keep func(store.Case) bool) func(k, _ []byte) (store.Case, bool, error) {
	return func(k, _ []byte) (store.Case, bool, error) {
		c, err := r.Case(binary.BigEndian.Uint64(k[len(k)-8:]))
		return c, err == nil && keep(c), err
	}
}

// newestCases yields the records among the rows of cases, the last one first:
// from each it steps to the last row of the case before.
func (r *reader) newestCases(b bucket, _, before []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		for from := before; ; {
			n := uint64(0)
			for k := range r.newest(b, nil, from) {
				n = caseOf(k)
				break
			}
			last := from
			from = ofCase(n, ofRecord)
			// Number 0 is the installation. In a damaged page a key may come out of
			// order: never go back.
			if n == 0 || last != nil && bytes.Compare(from, last) >= 0 {
				return
			}
			if v := r.row(b, from); v != nil && !yield(from, v) {
				return
			}
		}
	}
}

func caseState(c *store.Case) []byte { return named(string(c.State), number(c.Number)) }

func caseCustomer(c *store.Case) []byte { return join(under(c.Customer), number(c.Number)) }

func (w *writer) PutCase(c store.Case) error {
	key := ofCase(c.Number, ofRecord)
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
		if err := w.drop(contacts, caseCustomer(old)); err != nil {
			return err
		}
	}
	if old == nil || old.Customer != c.Customer {
		if err := w.mark(contacts, caseCustomer(&c)); err != nil {
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
		for last := range r.newestCases(cases, nil, nil) {
			s.lastCase.Store(caseOf(last))
			break
		}
		return nil
	})
}

func (r *reader) Log(n uint64, p store.Page) ([]store.LogEntry, store.Cursor, error) {
	return records(r, r.rows, cases, ofCase(n, ofLog), p, all[store.LogEntry])
}

func (w *writer) Record(e store.LogEntry) error {
	if e.ID == (store.ID{}) {
		e.ID = store.NewID()
	}
	return w.putRecord(cases, ofCase(e.Case, ofLog, e.ID[:]), &e)
}
