package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/casegate/casegate/store"
)

// chunkSize is the largest piece of a body in one value, and what a body keeps
// in memory. A chunk is alone in a bucket of its own: two page element headers
// fit before it so that it fills its pages, and no commit has to write its
// neighbours again (bbolt never splits a page of fewer than five keys).
const chunkSize = 256<<10 - 64 - sealSize

// chunkKey is the one key of a chunk's bucket.
const chunkKey = "c"

// body is a message body on its way in. What fits one chunk stays in memory
// and goes with the transaction that archives it. The rest is staged chunk by
// chunk; until a message owns them a row in staged says whose they are.
type body struct {
	st     *Store
	ctx    context.Context
	id     store.ID
	full   [][]byte // chunks not staged yet, before buf; from st.buffers
	buf    []byte   // not staged yet; from st.buffers
	size   int64
	chunks uint32 // staged
	sealed bool
	kept   bool // a message owns it
	err    error
}

// Stage takes up memory only with the first byte.
func (s *Store) Stage(ctx context.Context) (store.Body, error) {
	if s.db.Load() == nil {
		return nil, s.unavailable()
	}
	return &body{st: s, ctx: ctx, id: store.NewID()}, nil
}

func (b *body) Size() int64 { return b.size }

func (b *body) Write(p []byte) (n int, err error) {
	if b.sealed {
		return 0, errSealed
	}
	for len(p) > 0 && b.err == nil {
		if len(b.buf) == usable(b.buf) {
			if b.err = b.widen(); b.err != nil {
				break
			}
		}
		m := copy(b.buf[len(b.buf):usable(b.buf)], p)
		b.buf = b.buf[:len(b.buf)+m]
		b.size += int64(m)
		n, p = n+m, p[m:]
	}
	return n, b.err
}

// maxFull is how many full chunks a body may keep in memory: each commit that
// its sender need not wait for is time saved.
const maxFull = 7

// widen makes room for more: a larger buffer or another one while there is one
// to be had, else by staging what there is.
func (b *body) widen() error {
	if next, ok := b.st.buffers.widen(b.buf); ok {
		b.buf = next
		return nil
	}
	if len(b.buf) == chunkSize && len(b.full) < maxFull {
		if next, ok := b.st.buffers.another(); ok {
			b.full, b.buf = append(b.full, b.buf), next
			return nil
		}
	}
	return b.stage()
}

// unstaged are the chunks in memory.
func (b *body) unstaged() [][]byte {
	if len(b.buf) == 0 {
		return b.full
	}
	return append(b.full[:len(b.full):len(b.full)], b.buf)
}

// stage writes what is in memory as chunks, in a commit shared with others.
func (b *body) stage() error {
	chunks := b.unstaged()
	err := b.st.update(b.ctx, func(w *writer) error {
		if b.chunks == 0 {
			if err := w.mark(staged, b.id[:]); err != nil {
				return err
			}
		}
		return w.putChunks(b.id, b.chunks, chunks)
	})
	if err != nil {
		return fmt.Errorf("staging a body: %w", err)
	}
	b.chunks += uint32(len(chunks))
	b.buf = b.buf[:0]
	b.freeFull()
	return nil
}

func (b *body) freeFull() {
	for _, buf := range b.full {
		b.st.buffers.free(buf)
	}
	b.full = nil
}

func (b *body) Seal(context.Context) error {
	b.sealed = true
	return b.err
}

// WriteTo reads staged chunks through views, so it may be used inside Update.
func (b *body) WriteTo(to io.Writer) (n int64, err error) {
	if !b.sealed {
		return 0, errors.New("the body is not sealed")
	}
	if b.chunks > 0 {
		n, err = io.Copy(to, &eml{st: b.st, ctx: b.ctx, body: b.id, count: b.chunks})
	}
	for _, chunk := range b.unstaged() {
		if err != nil {
			break
		}
		var m int
		m, err = to.Write(chunk)
		n += int64(m)
	}
	return n, err
}

// Discard does not wait: what is to be swept is swept with a later commit.
func (b *body) Discard() {
	b.freeFull()
	b.st.buffers.free(b.buf)
	b.buf, b.sealed = nil, true
	if b.err == nil {
		b.err = errSealed
	}
	if b.chunks > 0 && !b.kept {
		b.kept = true
		b.st.sweepLater(b.id)
	}
}

var errSealed = errors.New("the body is sealed")

// bodyOf returns the body behind the interface; nil is an empty one.
func (w *writer) bodyOf(b store.Body) (*body, error) {
	if b == nil {
		return &body{}, nil
	}
	bd, ok := b.(*body)
	switch {
	case !ok:
		return nil, fmt.Errorf("a body of type %T is not from this store", b)
	case !bd.sealed:
		return nil, errors.New("the body is not sealed")
	case bd.err != nil:
		return nil, bd.err
	}
	return bd, nil
}

func chunkName(id store.ID, n uint32) []byte {
	return binary.BigEndian.AppendUint32(append(make([]byte, 0, len(id)+4), id[:]...), n)
}

// putChunks stores chunks from number n on.
func (w *writer) putChunks(id store.ID, n uint32, chunks [][]byte) error {
	for i, data := range chunks {
		if err := w.putChunk(id, n+uint32(i), data); err != nil {
			return err
		}
	}
	return nil
}

// putChunk stores a buffer as it is: it has room for the checksum, and stays
// the body's until the commit is over.
func (w *writer) putChunk(id store.ID, n uint32, data []byte) error {
	name := chunkName(id, n)
	b, err := w.bucket(bodies).CreateBucketIfNotExists(name)
	if err != nil {
		return err
	}
	w.mail = true
	w.puts++
	w.bytes += len(data)
	w.large += len(data)
	return b.Put([]byte(chunkKey), w.seal(name, data))
}

// readChunk copies from a chunk, and says how long it is. The checksum is
// looked at once, with the first byte.
func (r *reader) readChunk(id store.ID, n uint32, off int, p []byte) (copied, size int, err error) {
	name := chunkName(id, n)
	b := r.bucket(bodies).Bucket(name)
	if b == nil {
		return 0, 0, fmt.Errorf("%w: chunk %d is missing", ErrDamaged, n)
	}
	v := b.Get([]byte(chunkKey))
	if size = len(v) - sealSize; off >= size {
		return 0, 0, fmt.Errorf("%w: chunk %d is too short", ErrDamaged, n)
	}
	if off == 0 {
		if v, err = r.unseal(bodies, name, v); err != nil {
			return 0, 0, err
		}
	}
	return copy(p, v[off:size]), size, nil
}

// sweep removes the chunks of bodies that nobody came to own, up to a number
// of them; more says that there is more to do.
func (w *writer) sweep(ids []store.ID, limit int) (more bool, err error) {
	for _, id := range ids {
		if w.row(staged, id[:]) == nil {
			continue // a message owns it, or it is swept
		}
		var names [][]byte
		for k := range w.rows(bodies, id[:], nil) {
			if names = append(names, join(k)); len(names) == limit {
				break
			}
		}
		for _, name := range names {
			w.puts++
			if err := w.bucket(bodies).DeleteBucket(name); err != nil && !errors.Is(err, bolterrors.ErrBucketNotFound) {
				return false, err
			}
		}
		if limit -= len(names); limit <= 0 {
			return true, nil
		}
		if err := w.drop(staged, id[:]); err != nil {
			return false, err
		}
	}
	return false, nil
}

// buffers hands out what bodies are collected in. The larger sizes are given
// out only as long as all buffers together stay below limit; past it bodies
// are staged in smaller chunks, so that memory does not grow with load.
type buffers struct {
	limit int64
	inUse atomic.Int64
	pools [bufferSizes]sync.Pool
}

const bufferSizes = 3

func bufferSize(class int) int {
	return [bufferSizes]int{8 << 10, 64 << 10, chunkSize + sealSize}[class]
}

// usable is how much of a buffer may be filled: a chunk's checksum goes last.
func usable(buf []byte) int { return max(cap(buf)-sealSize, 0) }

// widen moves what is in a buffer to the next size.
func (b *buffers) widen(old []byte) ([]byte, bool) {
	class := 0
	for class < bufferSizes && bufferSize(class) <= cap(old) {
		class++
	}
	if class == bufferSizes {
		return nil, false
	}
	more := int64(bufferSize(class) - cap(old))
	if b.inUse.Add(more) > b.limit && class > 0 {
		b.inUse.Add(-more)
		return nil, false
	}
	next, ok := b.pools[class].Get().(*[]byte)
	if !ok {
		fresh := make([]byte, 0, bufferSize(class))
		next = &fresh
	}
	buf := append((*next)[:0], old...)
	b.put(old)
	return buf, true
}

// another hands out a second buffer of the largest size, as long as most of
// the limit is left for the first ones of others.
func (b *buffers) another() ([]byte, bool) {
	const class = bufferSizes - 1
	size := int64(bufferSize(class))
	if b.inUse.Add(size) > b.limit*3/4 {
		b.inUse.Add(-size)
		return nil, false
	}
	if next, ok := b.pools[class].Get().(*[]byte); ok {
		return (*next)[:0], true
	}
	return make([]byte, 0, size), true
}

func (b *buffers) free(buf []byte) {
	b.inUse.Add(-int64(cap(buf)))
	b.put(buf)
}

func (b *buffers) put(buf []byte) {
	for class := range bufferSizes {
		if cap(buf) == bufferSize(class) {
			b.pools[class].Put(&buf)
		}
	}
}
