package bolt

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/casegate/casegate/store"
)

// codec turns records into values. A value is sealed: it ends with a CRC-32C
// over its key and itself, so that damage is noticed wherever it is read.
type codec struct {
	enc   cbor.UserBufferEncMode
	dec   cbor.DecMode
	table *crc32.Table
	kept  *kept
}

const sealSize = 4

func newCodec() (*codec, error) {
	enc, err := cbor.EncOptions{Time: cbor.TimeRFC3339NanoUTC, BinaryMarshaler: cbor.BinaryMarshalerNone}.UserBufferEncMode()
	if err != nil {
		return nil, err
	}
	dec, err := cbor.DecOptions{
		UTF8:              cbor.UTF8DecodeInvalid,     // a stranger's words, kept as they are
		BinaryUnmarshaler: cbor.BinaryUnmarshalerNone, // an id is 16 bytes either way
		MaxArrayElements:  math.MaxInt32,
	}.DecMode()
	if err != nil {
		return nil, err
	}
	return &codec{enc, dec, crc32.MakeTable(crc32.Castagnoli), &kept{}}, nil
}

// seal appends the checksum to a value.
func (c *codec) seal(key, value []byte) []byte {
	return binary.BigEndian.AppendUint32(value, c.sum(key, value))
}

func (c *codec) sum(key, value []byte) uint32 {
	return crc32.Update(crc32.Update(0, c.table, key), c.table, value)
}

// unseal checks a value and returns it without its checksum.
func (c *codec) unseal(b bucket, key, sealed []byte) ([]byte, error) {
	n := len(sealed) - sealSize
	if n < 0 || c.sum(key, sealed[:n]) != binary.BigEndian.Uint32(sealed[n:]) {
		return nil, fmt.Errorf("%w: checksum of %s %x", ErrDamaged, b, key)
	}
	return sealed[:n], nil
}

// hashSize is the length of a hashed address or Message-ID in a key: strangers
// choose those, so they are cut to one length, and no chosen pair collides.
const hashSize = 16

func hashKey(s string) [hashSize]byte {
	var room [256]byte // most fit: no allocation
	sum := sha256.Sum256(append(room[:0], s...))
	return [hashSize]byte(sum[:])
}

// number is a case number as a key.
func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// join makes a key of parts.
func join(parts ...[]byte) []byte {
	return bytes.Join(parts, nil)
}

// named is a key of a word and a part, such as a state and an id.
func named(word string, part []byte) []byte {
	key := make([]byte, 0, len(word)+1+len(part))
	key = append(key, word...)
	key = append(key, 0)
	return append(key, part...)
}

const timeSize = 12

// appendTime writes a time so that bytes sort as times do; zone and monotonic
// reading are dropped.
func appendTime(b []byte, t time.Time) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(t.Unix())^1<<63)
	return binary.BigEndian.AppendUint32(b, uint32(t.Nanosecond()))
}

func readTime(b []byte) time.Time {
	sec := int64(binary.BigEndian.Uint64(b) ^ 1<<63)
	return time.Unix(sec, int64(binary.BigEndian.Uint32(b[8:]))).UTC()
}

// fields reads a packed value front to back; after a short value ok is false
// and all that is read is empty.
type fields struct {
	rest []byte
	ok   bool
}

func newFields(b []byte) *fields { return &fields{rest: b, ok: true} }

func (f *fields) take(n uint64) []byte {
	if !f.ok || n > uint64(len(f.rest)) {
		f.ok, f.rest = false, nil
		return nil
	}
	b := f.rest[:n:n]
	f.rest = f.rest[n:]
	return b
}

func (f *fields) byte() byte {
	if b := f.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (f *fields) uint() uint64 {
	v, n := binary.Uvarint(f.rest)
	if n <= 0 {
		f.ok, f.rest = false, nil
		return 0
	}
	f.rest = f.rest[n:]
	return v
}

func (f *fields) bytes() []byte { return f.take(f.uint()) }

func (f *fields) time() time.Time {
	if b := f.take(timeSize); b != nil {
		return readTime(b)
	}
	return time.Time{}
}

func (f *fields) id() (id store.ID) {
	copy(id[:], f.take(uint64(len(id))))
	return id
}

func appendBytes(b, field []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(field))), field...)
}
