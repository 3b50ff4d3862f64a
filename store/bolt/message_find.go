package bolt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"time"

	"github.com/casegate/casegate/store"
)

func (r *reader) Message(id store.ID) (store.Message, error) {
	return get[store.Message](r, messages, id[:], "message", id)
}

func (r *reader) ByOrdinal(n uint64, ordinal uint32) (store.Message, error) {
	prefix := ofCase(n, ofOrdinals, binary.BigEndian.AppendUint32(nil, ordinal))
	for k := range r.rows(cases, prefix, nil) {
		return r.Message(store.ID(k[len(prefix):]))
	}
	return store.Message{}, fmt.Errorf("message %d of case %d: %w", ordinal, n, store.ErrNotFound)
}

// Messages walks the index that leaves out most. Every one ends with the id
// of the message, which holds a time: where to begin, or to end.
func (r *reader) Messages(f store.MessageFilter, p store.Page) ([]store.Message, store.Cursor, error) {
	index, prefix := messages, []byte(nil)
	switch {
	case f.Case != 0:
		index, prefix, f.OldestFirst = cases, ofCase(f.Case, ofMessages), true
	case f.Unresolved:
		index = unresolved
	case f.Exceptions || f.Exception != "":
		index = exceptions
	}
	walk := r.since(f, prefix)
	return list(walk, index, prefix, p, func(k, v []byte) (m store.Message, ok bool, err error) {
		switch {
		case index == exceptions && f.Exception != "" && f.Exception != string(v):
			return m, false, nil // not decoded
		case isUnder(index, k):
			return m, false, nil
		case index == messages:
			m, err = record[store.Message](r, messages, k, v)
		default:
			m, err = r.Message(store.ID(k[len(prefix):]))
		}
		return m, err == nil && selects(f, m), err
	})
}

func selects(f store.MessageFilter, m store.Message) bool {
	return (!f.Exceptions || m.Exception != "") && (f.Exception == "" || m.Exception == f.Exception) &&
		(!f.Unresolved || hasUnresolved(&m)) && !m.ReceivedAt.Before(f.Since)
}

// idSlack is how long before a message was received its id may have been made.
const idSlack = 24 * time.Hour

// since is the walk that a filter asks for, without what is too old.
func (r *reader) since(f store.MessageFilter, prefix []byte) order {
	oldest := bytes.Clone(prefix)
	if ms := f.Since.Add(-idSlack).UnixMilli(); ms > 0 { // UUIDv7 begins with 48 bits of it
		oldest = append(oldest, binary.BigEndian.AppendUint64(nil, uint64(ms)<<16)[:6]...)
	}
	return func(b bucket, prefix, from []byte) iter.Seq2[[]byte, []byte] {
		if f.OldestFirst {
			if bytes.Compare(from, oldest) < 0 {
				from = oldest
			}
			return r.rows(b, prefix, from)
		}
		return func(yield func(k, v []byte) bool) {
			for k, v := range r.newest(b, prefix, from) {
				if bytes.Compare(k, oldest) < 0 || !yield(k, v) {
					return
				}
			}
		}
	}
}
