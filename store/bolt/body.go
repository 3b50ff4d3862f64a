package bolt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/casegate/casegate/store"
)

// body is a message body on its way in. What fits one chunk stays in memory
// and goes with the transaction that archives it. The rest is staged chunk by
// chunk; until a message owns them a row in staged says whose they are.
type body struct {
	st     *Store
	ctx    context.Context
	id     store.ID
	buf    []byte // not staged yet; from st.buffers
	last   chunk  // of buf, once sealed, where it does not go inline
	packed []byte // room for a chunk in its packed form
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

// widen makes room for more: a larger buffer while there is one to be had,
// else by staging what there is.
func (b *body) widen() error {
	if next, ok := b.st.buffers.widen(b.buf); ok {
		b.buf = next
		return nil
	}
	return b.stage()
}

// stage writes the buffer as a chunk, in a commit shared with others.
func (b *body) stage() error {
	c := b.pack()
	err := b.st.update(b.ctx, func(w *writer) error {
		if b.chunks == 0 {
			if err := w.mark(staged, b.id[:]); err != nil {
				return err
			}
		}
		return w.putChunk(b.id, b.chunks, c)
	})
	if err != nil {
		return fmt.Errorf("staging a body: %w", err)
	}
	b.chunks++
	b.buf = b.buf[:0]
	return nil
}

// Seal packs the last chunk, so that the transaction need not.
func (b *body) Seal(context.Context) error {
	if !b.sealed && len(b.buf) > 0 && !b.inline() {
		b.last = b.pack()
	}
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
	if err != nil || len(b.buf) == 0 {
		return n, err
	}
	m, err := to.Write(b.buf)
	return n + int64(m), err
}

// Discard does not wait: what is to be swept is swept with a later commit.
func (b *body) Discard() {
	b.st.buffers.free(b.buf)
	b.unpacked()
	b.buf, b.last, b.sealed = nil, chunk{}, true
	if b.err == nil {
		b.err = errSealed
	}
	if b.chunks > 0 && !b.kept {
		b.kept = true
		b.st.sweepLater(b.id)
	}
}

// inline reports that the body lives in the archive row.
func (b *body) inline() bool { return b.size <= inlineBody && b.chunks == 0 }

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
