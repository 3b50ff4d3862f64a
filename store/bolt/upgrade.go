package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/casegate/casegate/store"
)

// moved is a bucket of schema 1 whose rows are kept elsewhere now.
type moved struct {
	name  string
	place func(old []byte) (to bucket, key []byte)
}

// movedSince1: the rows of a case lie together, the cases of a customer and the
// deliveries of a message under its record. cases stays, and comes first: while
// it holds nothing else its rows are found at once.
func movedSince1() []moved {
	return []moved{
		{cases.String(), func(k []byte) (bucket, []byte) { return cases, join(k, []byte{ofRecord}) }},
		{"timeline", ofCaseBy(ofMessages)},
		{"ordinals", ofCaseBy(ofOrdinals)},
		{"used", ofCaseBy(ofUse)},
		{"delivery-cases", ofCaseBy(ofDeliveries)},
		{"log", ofCaseBy(ofLog)},
		{"case-customers", underIDIn(contacts)},
		{"delivery-messages", underIDIn(messages)},
	}
}

func ofCaseBy(sort byte) func([]byte) (bucket, []byte) {
	return func(k []byte) (bucket, []byte) { return cases, ofCase(caseOf(k), sort, k[8:]) }
}

func underIDIn(to bucket) func([]byte) (bucket, []byte) {
	return func(k []byte) (bucket, []byte) { return to, join(under(store.ID(k)), k[16:]) }
}

// rowsPerMove keeps a transaction of the upgrade small.
const rowsPerMove = 20_000

// upgrade brings a file of schema 1 forward, some rows at a time: a crash in
// between leaves it at schema 1, and the next start goes on.
func (s *Store) upgrade() error {
	from, err := s.schema()
	if err != nil || from == schema {
		return err
	}
	m := s.db.Load()
	if !m.damage.sound() {
		return fmt.Errorf("%w: so it can't be brought forward from schema %d to %d: open it with the program that wrote it, or take the latest backup", ErrDamaged, from, schema)
	}
	s.log.Info("bringing the store forward: this is done once", "file", s.path, "from schema", from, "to", schema)
	for _, b := range movedSince1() {
		for more := true; more; {
			if more, err = s.move(m, b); err != nil {
				return fmt.Errorf("moving the rows of %s: %w", b.name, err)
			}
		}
	}
	return s.change(m, func(w *writer) error {
		return w.putSealed(meta, []byte(keySchema), binary.AppendUvarint(nil, schema))
	})
}

func (s *Store) schema() (v uint64, err error) {
	err = s.view(context.Background(), func(r *reader) error {
		sealed, err := r.sealed(meta, []byte(keySchema))
		v = newFields(sealed).uint()
		return err
	})
	return v, err
}

// change runs a transaction before the committer does.
func (s *Store) change(m *mounted, fn func(*writer) error) error {
	tx, err := m.db.Begin(true)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	return errors.Join(guard(func() error {
		if err := fn(&writer{reader: *s.reader(m, tx)}); err != nil {
			return err
		}
		return full(tx.Commit())
	}))
}

// move moves some rows of a bucket of schema 1, and removes it when it is
// empty. A value is sealed with its key, so it is sealed anew.
func (s *Store) move(m *mounted, b moved) (more bool, err error) {
	err = s.change(m, func(w *writer) error {
		old := w.bolt.Bucket([]byte(b.name))
		if old == nil {
			return nil
		}
		keys := oldKeys(old, b.name)
		for _, k := range keys {
			to, key := b.place(k)
			v := bytes.Clone(old.Get(k))
			if len(v) > 0 {
				data, err := w.unseal(to, k, v)
				if err != nil {
					return err
				}
				v = w.seal(key, data[:len(data):len(data)])
			}
			if err := errors.Join(w.bucket(to).Put(key, v), old.Delete(k)); err != nil {
				return err
			}
		}
		if more = len(keys) > 0; more || b.name == cases.String() {
			return nil
		}
		return w.bolt.DeleteBucket([]byte(b.name))
	})
	return more, err
}

// oldKeys are the keys of some rows that are to be moved: in cases, which stays,
// those that are nothing but a number.
func oldKeys(b *bbolt.Bucket, name string) (keys [][]byte) {
	c := b.Cursor()
	for k, _ := c.First(); k != nil && len(keys) < rowsPerMove; k, _ = c.Next() {
		if name != cases.String() || len(k) == 8 {
			keys = append(keys, bytes.Clone(k))
		}
	}
	return keys
}
