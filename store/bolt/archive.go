package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/casegate/casegate/store"
)

// archived is a row of the archive: the header blocks of a message, and its
// body or where the body is. The sent block is kept as what it does not share
// with the received one; mostly that is what was stamped on top.
type archived struct {
	received []byte
	sent     []byte // nil: never handed on
	apart    []store.Apart
	size     uint64 // of the body
	inline   []byte // the body, when chunks is 0
	body     store.ID
	chunks   uint32
}

const (
	archivedSent   = 1 << iota // a sent block follows
	archivedChunks             // the body is elsewhere
)

func (a *archived) flags() (f byte) {
	if a.sent != nil {
		f |= archivedSent
	}
	if a.chunks > 0 {
		f |= archivedChunks
	}
	return f
}

// pack appends the row: flags, received, sent, apart, body.
func (a *archived) pack(b []byte) []byte {
	b = appendBytes(append(b, a.flags()), a.received)
	if a.sent != nil {
		head, tail := shared(a.received, a.sent)
		b = binary.AppendUvarint(b, uint64(head))
		b = binary.AppendUvarint(b, uint64(tail))
		b = appendBytes(b, a.sent[head:len(a.sent)-tail])
	}
	b = binary.AppendUvarint(b, uint64(len(a.apart)))
	for _, p := range a.apart {
		b = appendBytes(binary.AppendUvarint(b, uint64(p.Offset)), p.Bytes)
	}
	b = binary.AppendUvarint(b, a.size)
	if a.chunks == 0 {
		return append(b, a.inline...)
	}
	return binary.AppendUvarint(append(b, a.body[:]...), uint64(a.chunks))
}

// shared is how many bytes the two begin and end with in common.
func shared(a, b []byte) (head, tail int) {
	n := min(len(a), len(b))
	for head < n && a[head] == b[head] {
		head++
	}
	for tail < n-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	return head, tail
}

// packedSize is enough room for a row.
func (a *archived) packedSize() int {
	n := 64 + len(a.received) + len(a.sent) + len(a.inline)
	for _, p := range a.apart {
		n += 16 + len(p.Bytes)
	}
	return n
}

// unpack reads a row; what it returns shares v's memory, but for sent.
func unpack(v []byte) (*archived, error) {
	f := newFields(v)
	flags := f.byte()
	a := &archived{received: f.bytes()}
	if flags&archivedSent != 0 {
		head, tail, middle := f.uint(), f.uint(), f.bytes()
		if n := uint64(len(a.received)); head > n || tail > n {
			return nil, errors.New("sent header out of bounds")
		}
		a.sent = join(a.received[:head], middle, a.received[uint64(len(a.received))-tail:])
	}
	for n := f.uint(); n > 0 && f.ok; n-- {
		a.apart = append(a.apart, store.Apart{Offset: int(f.uint()), Bytes: f.bytes()})
	}
	a.size = f.uint()
	if flags&archivedChunks != 0 {
		a.body, a.chunks = f.id(), uint32(f.uint())
	} else {
		a.inline = f.rest
	}
	if !f.ok {
		return nil, errors.New("row is too short")
	}
	return a, nil
}

// archivedRow reads a message's row; valid until the transaction ends.
func (r *reader) archivedRow(id store.ID) (*archived, error) {
	v, err := r.sealed(archive, id[:])
	if err != nil {
		return nil, err
	}
	if v == nil {
		return nil, fmt.Errorf("archive of message %s: %w", id, store.ErrNotFound)
	}
	a, err := unpack(v)
	if err != nil {
		return nil, fmt.Errorf("%w: archive of message %s: %v", ErrDamaged, id, err)
	}
	return a, nil
}

func (r *reader) Header(id store.ID, as store.As) ([]byte, []store.Apart, error) {
	a, err := r.archivedRow(id)
	if err != nil {
		return nil, nil, err
	}
	return a.header(id, as)
}

// header returns a block that outlives the transaction.
func (a *archived) header(id store.ID, as store.As) ([]byte, []store.Apart, error) {
	if as == store.AsSent {
		if a.sent == nil {
			return nil, nil, fmt.Errorf("message %s as sent: %w", id, store.ErrNotFound)
		}
		return a.sent, nil, nil
	}
	for i := range a.apart {
		a.apart[i].Bytes = bytes.Clone(a.apart[i].Bytes)
	}
	return bytes.Clone(a.received), a.apart, nil
}

// inlineBody is up to what size a body lives in the archive row itself; pages
// of its own would waste half a page on average.
const inlineBody = 16 << 10

// Archive may be repeated with the same bytes after an ErrUnavailable.
func (w *writer) Archive(id store.ID, received, sent []byte, apart []store.Apart, b store.Body) error {
	bd, err := w.bodyOf(b)
	if err != nil {
		return fmt.Errorf("archiving message %s: %w", id, err)
	}
	a := &archived{received: received, sent: sent, apart: apart, size: uint64(bd.size)}
	if bd.size <= inlineBody && bd.chunks == 0 {
		a.inline = bd.buf
	} else {
		a.body, a.chunks = bd.id, bd.chunks
		a.chunks += uint32(len(bd.unstaged()))
	}
	value := a.pack(w.room(a.packedSize() + sealSize))
	if old, err := w.sealed(archive, id[:]); err != nil || old != nil {
		if err == nil && !bytes.Equal(old, value) {
			err = fmt.Errorf("message %s is archived already, with other bytes", id)
		}
		return err
	}
	w.mail = true
	if err := w.putRow(archive, id[:], w.seal(id[:], value)); err != nil {
		return err
	}
	if a.chunks == 0 {
		return nil
	}
	return w.keepBody(id, bd)
}

// ArchiveSent may be repeated with the same bytes, as Archive may.
func (w *writer) ArchiveSent(id store.ID, sent []byte) error {
	if sent == nil {
		return nil
	}
	a, err := w.archivedRow(id)
	switch {
	case err != nil:
		return err
	case a.sent != nil && bytes.Equal(a.sent, sent):
		return nil
	case a.sent != nil:
		return fmt.Errorf("message %s is archived as sent already, with other bytes", id)
	}
	a.sent = sent
	w.mail = true
	value := a.pack(w.room(a.packedSize() + sealSize))
	return w.putRow(archive, id[:], w.seal(id[:], value))
}

// keepBody puts what is left in memory of a body behind its staged chunks and
// makes it the message's.
func (w *writer) keepBody(id store.ID, b *body) error {
	if err := w.putChunks(b.id, b.chunks, b.unstaged()); err != nil {
		return err
	}
	if err := w.drop(staged, b.id[:]); err != nil {
		return err
	}
	w.after = append(w.after, func() { b.kept = true })
	return w.mark(bodyOwners, join(b.id[:], id[:]))
}

// eml streams an archived message. Each Read is a view of its own: no
// transaction is open while the caller waits for his peer.
type eml struct {
	st     *Store
	ctx    context.Context
	id     store.ID
	header []byte
	apart  []store.Apart
	front  []byte // of the header, what is yet to be read
	rest   []byte // and of a body that is in memory
	body   store.ID
	count  uint32 // of chunks
	chunk  uint32
	off    int
}

// Open leaves out the fields kept apart: who may see them composes them.
func (s *Store) Open(ctx context.Context, id store.ID, as store.As) (io.ReadCloser, error) {
	e, err := s.open(ctx, id, as)
	if err != nil {
		return nil, err
	}
	e.front = e.header
	return e, nil
}

// open returns a message whose reader yields only the body.
func (s *Store) open(ctx context.Context, id store.ID, as store.As) (*eml, error) {
	e := &eml{st: s, ctx: ctx, id: id}
	err := s.view(ctx, func(r *reader) error {
		a, err := r.archivedRow(id)
		if err != nil {
			return err
		}
		e.rest = bytes.Clone(a.inline)
		e.body, e.count = a.body, a.chunks
		e.header, e.apart, err = a.header(id, as)
		return err
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

func (e *eml) Read(p []byte) (int, error) {
	if len(e.front)+len(e.rest) > 0 {
		n := copy(p, e.front)
		m := copy(p[n:], e.rest)
		e.front, e.rest = e.front[n:], e.rest[m:]
		return n + m, nil
	}
	if e.chunk == e.count {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	var n, size int
	err := e.st.view(e.ctx, func(r *reader) (err error) {
		n, size, err = r.readChunk(e.body, e.chunk, e.off, p)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("body of message %s: %w", e.id, err)
	}
	if e.off += n; e.off == size {
		e.chunk, e.off = e.chunk+1, 0
	}
	return n, nil
}

func (e *eml) Close() error { return nil }
