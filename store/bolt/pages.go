package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"

	"golang.org/x/sys/unix"

	"github.com/casegate/casegate/store"
)

// bbolt trusts its pages. One that is damaged makes it panic, in a goroutine
// that nobody can catch while it opens a file, or follow its pages in a circle
// for ever. So the pages are read here first, trusting nothing.
//
// The format (bbolt version 2, native byte order):
//
//	page    id u64, flags u16, count u16, overflow u32; then
//	branch  count × {pos u32, ksize u32, page u64}, then the keys
//	leaf    count × {flags u32, pos u32, ksize u32, vsize u32}, then key, value …
//	meta    magic, version, page size, flags u32; root {page, sequence}, freelist,
//	        first page never used, transaction, FNV-1a checksum u64
//
// pos counts from its own element. Keys and values follow in order without a
// gap, and what is left of the last page is zero. The value of a leaf element
// with flag 1 is a bucket {page, sequence u64}; with page 0 a leaf page follows
// in place.
const (
	pageHeader  = 16
	elementSize = 16
	flagBranch  = 1
	flagLeaf    = 2
	flagMeta    = 4
	flagBucket  = 1
	boltMagic   = 0xED0CDAED
	boltVersion = 2
	maxDepth    = 64
	maxFindings = 1000 // kept per look at the file
)

// damage is what a look at the pages found.
type damage struct {
	findings []store.Finding
	meta     error           // a meta page that can't be read; the other one can
	buckets  map[string]bool // top-level buckets that must not be followed
}

func (d *damage) sound() bool { return len(d.findings) == 0 }

// pageMeta is a meta page.
type pageMeta struct {
	pageSize         int
	root, next, txid uint64
}

// pages looks at the pages of a file.
type pages struct {
	data   []byte
	size   int
	next   uint64 // the first page never used
	seen   []uint64
	slack  bool // look at what is behind the last value too
	bucket string
	chunk  []byte // being looked at, in bodies
	sick   bool   // the bucket has a finding on the way to its rows
	report func(store.Finding)
}

// inspect checks the page tree of a file nobody writes to. An error means that
// it can't be opened at all.
func inspect(f *os.File) (*damage, error) {
	data, err := mapFile(f, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Munmap(data)
	metas, bad := readMetas(data)
	if len(metas) == 0 {
		return nil, bad
	}
	newest := metas[0]
	if len(metas) == 2 && metas[1].txid > newest.txid {
		newest = metas[1]
	}
	d := &damage{buckets: map[string]bool{}}
	if len(metas) == 1 {
		d.meta = bad
	}
	p := newPages(data, newest, func(found store.Finding) {
		if len(d.findings) < maxFindings {
			d.findings = append(d.findings, found)
		}
	})
	tops, err := p.root(newest.root)
	if err != nil {
		return nil, err
	}
	for _, top := range tops {
		if err := guard(func() error { p.top(top); return nil }); err != nil {
			p.fail("reading its pages: %v", err)
		}
		if p.sick {
			d.buckets[top.name] = true
		}
	}
	return d, nil
}

func newPages(data []byte, m pageMeta, report func(store.Finding)) *pages {
	return &pages{data: data, size: m.pageSize, next: m.next, seen: make([]uint64, m.next/64+1), report: report}
}

// mapFile maps the first n bytes of a file, all if n is 0.
func mapFile(f *os.File, n int64) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if n == 0 || n > info.Size() {
		n = info.Size()
	}
	if n == 0 {
		return nil, fmt.Errorf("%w: the file is empty", store.ErrSchema)
	}
	return unix.Mmap(int(f.Fd()), 0, int(n), unix.PROT_READ, unix.MAP_SHARED)
}

// readMetas reads the two meta pages. The first may be damaged and with it
// the page size, so the second is looked for where it can be.
func readMetas(data []byte) (valid []pageMeta, bad error) {
	bad = fmt.Errorf("%w: the file is not a casegate store", store.ErrSchema)
	m, err := readMeta(data, 0)
	if err == nil {
		valid = append(valid, m)
	} else if errors.Is(err, ErrDamaged) {
		bad = err
	}
	for size := 1024; size <= 1<<24; size <<= 1 {
		m, err := readMeta(data, size)
		if err == nil && m.pageSize == size {
			return append(valid, m), bad
		}
		if errors.Is(err, ErrDamaged) {
			bad = err
		}
	}
	return valid, bad
}

func readMeta(data []byte, at int) (m pageMeta, err error) {
	le := binary.NativeEndian
	if len(data) < at+pageHeader+64 {
		return m, store.ErrSchema
	}
	b := data[at+pageHeader:]
	if le.Uint32(b) != boltMagic || le.Uint32(b[4:]) != boltVersion {
		return m, store.ErrSchema
	}
	sum := fnv.New64a()
	sum.Write(b[:56])
	m = pageMeta{pageSize: int(le.Uint32(b[8:])), root: le.Uint64(b[16:]), next: le.Uint64(b[40:]), txid: le.Uint64(b[48:])}
	if sum.Sum64() != le.Uint64(b[56:]) {
		return m, fmt.Errorf("%w: meta page at %d", ErrDamaged, at)
	}
	return m, nil
}

// wholeMeta checks a meta page and that nothing else is on it.
func wholeMeta(data []byte, at, size int) error {
	m, err := readMeta(data, at)
	if err != nil {
		return err
	}
	page := data[at : at+size]
	n := node{id: binary.NativeEndian.Uint64(page), flags: int(binary.NativeEndian.Uint16(page[8:]))}
	empty := binary.NativeEndian.Uint16(page[10:]) == 0 && binary.NativeEndian.Uint32(page[12:]) == 0
	if m.pageSize != size || n.id != uint64(at/size) || n.flags != flagMeta || !empty || !isZero(page[pageHeader+64:]) {
		return fmt.Errorf("%w: meta page at %d", ErrDamaged, at)
	}
	return nil
}

func isZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// fail reports a finding on the way to the rows of the current bucket. Damage
// to a chunk does not keep from the others.
func (p *pages) fail(format string, args ...any) {
	p.sick = p.sick || p.chunk == nil
	p.note(format, args...)
}

func (p *pages) note(format string, args ...any) {
	record := "bucket " + p.bucket
	if p.chunk != nil {
		record = fmt.Sprintf("chunk %x", p.chunk)
	}
	p.report(store.Finding{Record: record, What: fmt.Sprintf(format, args...)})
}

// topBucket is an entry of the root page.
type topBucket struct {
	name  string
	value []byte
}

// root reads the list of buckets, which is one tree like any other.
func (p *pages) root(id uint64) (list []topBucket, err error) {
	p.bucket, p.chunk, p.sick = "(root)", nil, false
	err = guard(func() error {
		p.tree(id, span{}, 0, func(e element) {
			list = append(list, topBucket{string(e.key), e.value})
		})
		return nil
	})
	if err == nil && p.sick {
		err = fmt.Errorf("%w: the list of buckets can't be read", ErrDamaged)
	}
	return list, err
}

// top checks one bucket. Buckets inside it are chunks.
func (p *pages) top(t topBucket) {
	p.bucket, p.chunk, p.sick = t.name, nil, false
	p.inside(t.value, func(e element) {
		if e.flags != flagBucket {
			return
		}
		p.chunk = e.key
		if err := guard(func() error { p.inside(e.value, func(element) {}); return nil }); err != nil {
			p.fail("reading its pages: %v", err)
		}
		p.chunk = nil
	})
}

// inside checks the bucket that a value describes.
func (p *pages) inside(v []byte, each func(element)) {
	if len(v) < 16 {
		p.fail("a bucket of %d bytes", len(v))
		return
	}
	if seq := binary.NativeEndian.Uint64(v[8:]); seq != 0 {
		p.note("a sequence of %d, where none is used", seq)
	}
	root := binary.NativeEndian.Uint64(v)
	if root != 0 {
		p.tree(root, span{}, 0, each)
		return
	}
	n, err := readNode(v[16:])
	switch {
	case err != nil:
		p.fail("inline bucket: %v", err)
	case n.flags != flagLeaf || n.id != 0 || n.overflow != 0 || n.end != len(v)-16:
		p.fail("inline bucket: not a leaf of its size")
	default:
		p.elements(n, span{}, each)
	}
}

// span is what keys a page may have: from min up to, but without, max.
type span struct{ min, max []byte }

// tree checks a page and all below it, and returns its first key.
func (p *pages) tree(id uint64, s span, depth int, each func(element)) (first []byte) {
	n, err := p.page(id)
	if err == nil && depth > maxDepth {
		err = errors.New("too deep")
	}
	if err != nil {
		p.fail("page %d: %v", id, err)
		return nil
	}
	if n.flags == flagLeaf {
		return p.elements(n, s, each)
	}
	if n.count == 0 {
		p.fail("page %d: a branch to nowhere", id)
	}
	for i := range n.count {
		e := n.at(i)
		below := span{e.key, s.max}
		if i+1 < n.count {
			below.max = n.at(i + 1).key
		}
		if !s.holds(e.key) || below.max != nil && bytes.Compare(e.key, below.max) >= 0 {
			p.fail("page %d: key %x out of order", id, e.key)
			continue
		}
		if got := p.tree(e.page, below, depth+1, each); got != nil && !bytes.Equal(got, e.key) {
			p.note("page %d: key %x leads to a page that begins with %x", id, e.key, got)
		}
	}
	return n.first()
}

func (s span) holds(key []byte) bool {
	return bytes.Compare(key, s.min) >= 0 && (s.max == nil || bytes.Compare(key, s.max) < 0)
}

// elements checks the keys of a leaf.
func (p *pages) elements(n node, s span, each func(element)) (first []byte) {
	var last []byte
	for i := range n.count {
		e := n.at(i)
		switch {
		case len(e.key) == 0 || !s.holds(e.key) || last != nil && bytes.Compare(last, e.key) >= 0:
			p.fail("page %d: key %x out of order", n.id, e.key)
		case e.flags > flagBucket:
			p.fail("page %d: key %x has flags %x", n.id, e.key, e.flags)
		default:
			each(e)
		}
		last = e.key
	}
	return n.first()
}

// page reads a page that is used once and fills its room exactly.
func (p *pages) page(id uint64) (n node, err error) {
	if id < 2 || id >= p.next || (id+1)*uint64(p.size) > uint64(len(p.data)) {
		return n, errors.New("not in the file")
	}
	b := p.data[id*uint64(p.size):]
	room := (uint64(binary.NativeEndian.Uint32(b[12:])) + 1) * uint64(p.size)
	if room > uint64(len(b)) {
		return n, errors.New("reaches beyond the file")
	}
	if n, err = readNode(b[:room]); err != nil {
		return n, err
	}
	if n.id != id || n.flags != flagBranch && n.flags != flagLeaf {
		return n, fmt.Errorf("says it is page %d, flags %x", n.id, n.flags)
	}
	if want := (n.end - 1) / p.size; n.overflow != want {
		return n, fmt.Errorf("has %d pages more, and needs %d", n.overflow, want)
	}
	for i := id; i <= id+uint64(n.overflow); i++ {
		if p.seen[i/64]&(1<<(i%64)) != 0 {
			return n, errors.New("is used twice")
		}
		p.seen[i/64] |= 1 << (i % 64)
	}
	if p.slack && !isZero(b[n.end:room]) {
		p.note("page %d: bytes behind its end", id)
	}
	return n, nil
}

// node is a page whose elements lie within it.
type node struct {
	id       uint64
	flags    int
	count    int
	overflow int
	end      int // of the last value
	data     []byte
}

// element of a page; page is for branches, flags and value for leaves.
type element struct {
	key, value []byte
	flags      uint32
	page       uint64
}

func readNode(b []byte) (n node, err error) {
	if len(b) < pageHeader {
		return n, errors.New("is cut short")
	}
	ne := binary.NativeEndian
	n = node{id: ne.Uint64(b), flags: int(ne.Uint16(b[8:])), count: int(ne.Uint16(b[10:])), overflow: int(ne.Uint32(b[12:])), data: b}
	n.end = pageHeader + n.count*elementSize
	if n.end > len(b) {
		return n, fmt.Errorf("has %d elements, more than fit", n.count)
	}
	for i := range n.count {
		at, pos, size := n.place(i)
		if at+pos != n.end || size > len(b)-n.end {
			return n, fmt.Errorf("element %d is out of place", i)
		}
		n.end += size
	}
	return n, nil
}

// place is where element i is, how far from there its key, and how long key
// and value are.
func (n node) place(i int) (at, pos, size int) {
	ne := binary.NativeEndian
	at = pageHeader + i*elementSize
	if n.flags == flagBranch {
		return at, int(ne.Uint32(n.data[at:])), int(ne.Uint32(n.data[at+4:]))
	}
	return at, int(ne.Uint32(n.data[at+4:])), int(ne.Uint32(n.data[at+8:])) + int(ne.Uint32(n.data[at+12:]))
}

func (n node) at(i int) element {
	ne := binary.NativeEndian
	at, pos, size := n.place(i)
	b := n.data[at+pos : at+pos+size]
	if n.flags == flagBranch {
		return element{key: b, page: ne.Uint64(n.data[at+8:])}
	}
	k := ne.Uint32(n.data[at+8:])
	return element{key: b[:k], value: b[k:], flags: ne.Uint32(n.data[at:])}
}

func (n node) first() []byte {
	if n.count == 0 {
		return nil
	}
	return n.at(0).key
}
