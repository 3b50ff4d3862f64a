package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"time"

	"go.etcd.io/bbolt"

	"github.com/casegate/casegate/store"
)

// reader is a snapshot.
type reader struct {
	*codec
	bolt   *bbolt.Tx
	now    func() time.Time
	broken map[string]bool // buckets that must not be touched
	open   [bucketCount]*bbolt.Bucket
	idle   [bucketCount]*bbolt.Cursor // to be used again
}

// writer is a write transaction, shared by all calls of a batch.
type writer struct {
	reader
	slab  []byte       // values put live here until the commit
	buf   bytes.Buffer // CBOR on its way into the slab
	puts  int          // rows put or deleted so far
	bytes int          // of keys and values put so far
	large int          // bytes of values that need pages in a row
	mail  bool         // it archives: the file will be larger for good
	epoch store.ID     // whose leases are alive
	after []func()     // to run once all of it is durable
}

// bucket opens a bucket. One that was found damaged when the file was opened
// is not touched: following its pages may never end. The panic becomes an
// error where the transaction began, like bbolt's own over a damaged page.
func (r *reader) bucket(b bucket) *bbolt.Bucket {
	if r.open[b] == nil {
		name := b.String()
		if r.broken[name] {
			panic(fmt.Errorf("%w: bucket %s", ErrDamaged, name))
		}
		if r.open[b] = r.bolt.Bucket([]byte(name)); r.open[b] == nil {
			panic(fmt.Errorf("%w: bucket %s is missing", ErrDamaged, name))
		}
		r.open[b].FillPercent = b.fill()
	}
	return r.open[b]
}

// row returns what an index row holds, nil if there is no such row. Valid
// until the transaction ends.
func (r *reader) row(b bucket, key []byte) []byte {
	c := r.cursor(b)
	k, v := c.Seek(key)
	r.idle[b] = c
	if !bytes.Equal(k, key) {
		return nil
	}
	return v
}

// cursor lends a cursor of a bucket: put it into idle afterwards. A loop within
// a loop over the same bucket gets another one.
func (r *reader) cursor(b bucket) *bbolt.Cursor {
	if c := r.idle[b]; c != nil {
		r.idle[b] = nil
		return c
	}
	return r.bucket(b).Cursor()
}

// sealed returns a checked value, nil if there is no such key.
func (r *reader) sealed(b bucket, key []byte) ([]byte, error) {
	v := r.row(b, key)
	if v == nil {
		return nil, nil
	}
	return r.unseal(b, key, v)
}

// find reads a record into v.
func (r *reader) find(b bucket, key []byte, v any) (bool, error) {
	data, err := r.sealed(b, key)
	if data == nil || err != nil {
		return false, err
	}
	return true, r.decode(b, key, data, v)
}

func (r *reader) decode(b bucket, key, data []byte, v any) error {
	if err := r.dec.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: decoding %s %x: %v", ErrDamaged, b, key, err)
	}
	return nil
}

// rows yields the rows whose keys begin with prefix, oldest first, behind the
// key after (from the first if nil).
func (r *reader) rows(b bucket, prefix, after []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		c := r.cursor(b)
		defer func() { r.idle[b] = c }()
		from := prefix
		if bytes.Compare(after, prefix) > 0 {
			from = after
		}
		k, v := seek(c, from)
		if after != nil && bytes.Equal(k, after) {
			k, v = c.Next()
		}
		for ; k != nil && bytes.HasPrefix(k, prefix) && yield(k, v); k, v = c.Next() {
		}
	}
}

func seek(c *bbolt.Cursor, key []byte) (k, v []byte) {
	if len(key) == 0 {
		return c.First()
	}
	return c.Seek(key)
}

// newest is rows from the other end: those before the key before.
func (r *reader) newest(b bucket, prefix, before []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		c := r.cursor(b)
		defer func() { r.idle[b] = c }()
		end := behind(prefix)
		if before != nil && (end == nil || bytes.Compare(before, end) < 0) {
			end = before
		}
		var k, v []byte
		if end == nil {
			k, v = c.Last()
		} else if k, _ = c.Seek(end); k == nil {
			k, v = c.Last()
		} else {
			k, v = c.Prev()
		}
		for ; k != nil && bytes.HasPrefix(k, prefix) && yield(k, v); k, v = c.Prev() {
		}
	}
}

// behind is the first key after all that begin with prefix; nil is the end.
func behind(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// slabSize holds the values of an ordinary batch.
const slabSize = 256 << 10

// room returns an empty slice with room for n bytes that lives until the
// transaction ends: bbolt keeps what it is given, it does not copy.
func (w *writer) room(n int) []byte {
	if n > slabSize/8 {
		return make([]byte, 0, n)
	}
	if cap(w.slab)-len(w.slab) < n {
		w.slab = make([]byte, 0, slabSize)
	}
	at := len(w.slab)
	w.slab = w.slab[:at+n]
	return w.slab[at : at : at+n]
}

// putRecord stores the record that v points at.
func (w *writer) putRecord(b bucket, key []byte, v any) error {
	w.buf.Reset()
	if err := w.enc.MarshalToBuffer(v, &w.buf); err != nil {
		return fmt.Errorf("encoding %s %x: %w", b, key, err)
	}
	return w.putSealed(b, key, w.buf.Bytes())
}

// putSealed copies a value and stores it with its checksum.
func (w *writer) putSealed(b bucket, key, value []byte) error {
	room := append(w.room(len(value)+sealSize), value...)
	return w.putRow(b, key, w.seal(key, room))
}

// putRow stores a row whose value must stay as it is until the commit.
func (w *writer) putRow(b bucket, key, value []byte) error {
	w.puts++
	w.bytes += len(key) + len(value)
	if len(value) >= largeValue {
		w.large += len(value)
	}
	return w.bucket(b).Put(key, value)
}

// largeValue is from what size on a value needs many pages in a row.
const largeValue = 32 << 10

// mark stores an index row that is nothing but its key.
func (w *writer) mark(b bucket, key []byte) error { return w.putRow(b, key, nothing) }

var nothing = []byte{}

func (w *writer) drop(b bucket, key []byte) error {
	w.puts++
	return w.bucket(b).Delete(key)
}

// swap replaces one set of marks by another.
func (w *writer) swap(b bucket, old, now [][]byte) error {
	for _, key := range old {
		if !has(now, key) {
			if err := w.drop(b, key); err != nil {
				return err
			}
		}
	}
	for _, key := range now {
		if !has(old, key) {
			if err := w.mark(b, key); err != nil {
				return err
			}
		}
	}
	return nil
}

func has(keys [][]byte, key []byte) bool {
	for _, k := range keys {
		if bytes.Equal(k, key) {
			return true
		}
	}
	return false
}

// lookup reads a record that may be there; nil if it is not.
func lookup[T any](r *reader, b bucket, key []byte) (*T, error) {
	data, err := r.sealed(b, key)
	if data == nil || err != nil {
		return nil, err
	}
	rec := new(T)
	return rec, r.decode(b, key, data, rec)
}

// get reads the record that must be there.
func get[T any](r *reader, b bucket, key []byte, kind string, name any) (T, error) {
	var v T
	ok, err := r.find(b, key, &v)
	if err == nil && !ok {
		err = fmt.Errorf("%s %v: %w", kind, name, store.ErrNotFound)
	}
	return v, err
}

// ErrDamaged: bytes of the file are not what was written. Verify says which.
var ErrDamaged = errors.New("the store is damaged")
