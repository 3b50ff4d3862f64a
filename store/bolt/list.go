package bolt

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"iter"

	"github.com/casegate/casegate/store"
)

// maxScan is how many rows one page may look at: a filter that hardly matches
// gives a short page and a cursor, instead of a long view.
const maxScan = 10_000

func cursor(key []byte) store.Cursor {
	return store.Cursor(base64.RawURLEncoding.EncodeToString(key))
}

func cursorKey(c store.Cursor) ([]byte, error) {
	if c == "" {
		return nil, nil
	}
	key, err := base64.RawURLEncoding.DecodeString(string(c))
	if err != nil || len(key) == 0 {
		return nil, fmt.Errorf("cursor %q: not one of ours", c)
	}
	return key, nil
}

// order picks a direction: rows or newest.
type order func(b bucket, prefix, from []byte) iter.Seq2[[]byte, []byte]

// list fills a page from the rows of a bucket. take reads one row; ok is false
// for a row that the filter leaves out.
func list[T any](walk order, b bucket, prefix []byte, p store.Page, take func(k, v []byte) (T, bool, error)) ([]T, store.Cursor, error) {
	from, err := cursorKey(p.After)
	if err != nil {
		return nil, "", err
	}
	var out []T
	var last []byte
	scanned := 0
	for k, v := range walk(b, prefix, from) {
		if len(out) == p.Max() || scanned == maxScan {
			return out, cursor(last), nil
		}
		row, ok, err := take(k, v)
		if err != nil {
			return nil, "", err
		}
		if ok {
			out = append(out, row)
		}
		scanned++
		last = append(last[:0], k...)
	}
	return out, "", nil
}

// records lists whole records whose keys are those of the bucket.
func records[T any](r *reader, walk order, b bucket, prefix []byte, p store.Page, keep func(T) bool) ([]T, store.Cursor, error) {
	return list(walk, b, prefix, p, func(k, v []byte) (T, bool, error) {
		if isUnder(b, k) {
			var none T
			return none, false, nil
		}
		rec, err := record[T](r, b, k, v)
		return rec, err == nil && keep(rec), err
	})
}

func record[T any](r *reader, b bucket, k, sealed []byte) (rec T, err error) {
	v, err := r.unseal(b, k, sealed)
	if err == nil {
		err = r.decode(b, k, v, &rec)
	}
	return rec, err
}

// behindPrefix lists the records that an index bucket leads to: what follows
// the prefix in its keys is the record's own key.
func behindPrefix[T any](r *reader, walk order, index, b bucket, prefix []byte, p store.Page, keep func(T) bool) ([]T, store.Cursor, error) {
	return list(walk, index, prefix, p, func(k, _ []byte) (T, bool, error) {
		key := bytes.Clone(k[len(prefix):])
		rec, err := get[T](r, b, key, b.String(), fmt.Sprintf("%x", key))
		return rec, err == nil && keep(rec), err
	})
}

func all[T any](T) bool { return true }
