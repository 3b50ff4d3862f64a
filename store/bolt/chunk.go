package bolt

import (
	"encoding/binary"
	"fmt"

	"github.com/klauspost/compress/s2"

	"github.com/casegate/casegate/store"
)

// chunkSize is the largest piece of a body in one value, and what a body keeps
// in memory. A chunk is alone in a bucket of its own: two page element headers
// fit before it so that it fills its pages, and no commit has to write its
// neighbours again (bbolt never splits a page of fewer than five keys).
const chunkSize = 256<<10 - 64 - sealSize

// The one key of a chunk's bucket says in which form it is kept.
const (
	chunkPlain  = "c" // as it came
	chunkPacked = "s" // as an S2 block, where that saves an eighth or more
)

// chunk is a piece of a body ready to be written.
type chunk struct {
	key   string
	value []byte
}

// pack puts a chunk into the form that it is kept in. What is read from the
// store is what was written to it, byte for byte: the form is the store's own.
func (b *body) pack() chunk {
	if need := s2.MaxEncodedLen(len(b.buf)) + sealSize; cap(b.packed) < need {
		b.unpacked()
		if p, ok := b.st.packs.Get().(*[]byte); ok && cap(*p) >= need {
			b.packed = *p
		} else {
			b.packed = make([]byte, need)
		}
	}
	if packed := s2.Encode(b.packed[:cap(b.packed)], b.buf); len(packed) <= len(b.buf)/8*7 {
		return chunk{chunkPacked, packed}
	}
	return chunk{chunkPlain, b.buf}
}

// unpacked gives the room of the packed form back.
func (b *body) unpacked() {
	if room := b.packed; room != nil {
		b.packed = nil
		b.st.packs.Put(&room)
	}
}

func chunkName(id store.ID, n uint32) []byte {
	return binary.BigEndian.AppendUint32(append(make([]byte, 0, len(id)+4), id[:]...), n)
}

// putChunk stores a chunk as it is: it has room for the checksum, and stays
// the body's until the commit is over.
func (w *writer) putChunk(id store.ID, n uint32, c chunk) error {
	name := chunkName(id, n)
	b, err := w.bucket(bodies).CreateBucketIfNotExists(name)
	if err != nil {
		return err
	}
	w.mail = true
	w.puts++
	w.bytes += len(c.value)
	w.large += len(c.value)
	return b.Put([]byte(c.key), w.seal(name, c.value))
}

// readChunk copies from a chunk, and says how long it is. The checksum is
// looked at once, with the first byte. Of a packed chunk it returns all, in
// room where that is large enough: the next reads need no store.
func (r *reader) readChunk(id store.ID, n uint32, off int, p, room []byte) (copied, size int, whole []byte, err error) {
	name := chunkName(id, n)
	b := r.bucket(bodies).Bucket(name)
	if b == nil {
		return 0, 0, nil, fmt.Errorf("%w: chunk %d is missing", ErrDamaged, n)
	}
	if v := b.Get([]byte(chunkPacked)); v != nil {
		if whole, err = r.unpackChunk(name, v, room); err != nil {
			return 0, 0, nil, err
		}
		return copy(p, whole[off:]), len(whole), whole, nil
	}
	v := b.Get([]byte(chunkPlain))
	if size = len(v) - sealSize; off >= size {
		return 0, 0, nil, fmt.Errorf("%w: chunk %d is too short", ErrDamaged, n)
	}
	if off == 0 {
		if v, err = r.unseal(bodies, name, v); err != nil {
			return 0, 0, nil, err
		}
	}
	return copy(p, v[off:size]), size, nil, nil
}

func (r *reader) unpackChunk(name, v, room []byte) ([]byte, error) {
	v, err := r.unseal(bodies, name, v)
	if err != nil {
		return nil, err
	}
	if n, err := s2.DecodedLen(v); err != nil || n == 0 || n > chunkSize {
		return nil, fmt.Errorf("%w: chunk %x is packed wrongly", ErrDamaged, name)
	}
	whole, err := s2.Decode(room[:cap(room)], v)
	if err != nil {
		return nil, fmt.Errorf("%w: chunk %x: %v", ErrDamaged, name, err)
	}
	return whole, nil
}
