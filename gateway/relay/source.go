package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/casegate/casegate/store"
)

// blockSize is how much of a message is read, and written, at a time.
const blockSize = 64 << 10

// block is the working memory of one transaction; pooled.
type block struct {
	in  [blockSize]byte
	out []byte
}

// letter is a message about to be sent, perhaps in several transactions: how
// to read it, not what is in it.
type letter struct {
	st         store.Store
	blocks     *sync.Pool
	transform  func(io.Reader, []string) io.Reader
	id         store.ID
	size       int64 // in octets, as sent; 0: unknown
	transforms []string
	header     int64 // length of the header block; known if there are transforms
}

// letterOf is a letter of a message known already, but for the length of its
// header.
func (r *Relay) letterOf(m *store.Message) *letter {
	return &letter{st: r.st, blocks: &r.blocks, transform: r.opts.Transform, id: m.ID, size: m.Archived.SentSize, transforms: m.Archived.Transforms}
}

// letter looks the message of a delivery up, unless all that is needed is known.
func (r *Relay) letter(ctx context.Context, d *store.Delivery) (*letter, error) {
	if d.Size > 0 {
		return &letter{st: r.st, blocks: &r.blocks, id: d.Message, size: d.Size}, nil
	}
	id := d.Message
	var l *letter
	err := r.st.View(ctx, func(rd store.Reader) error {
		msg, err := rd.Message(id)
		if err != nil {
			return err
		}
		msg.ID = id
		if l = r.letterOf(&msg); len(l.transforms) == 0 {
			return nil
		}
		block, _, err := rd.Header(id, store.AsSent)
		l.header = int64(len(block))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("looking up message %s: %w", id, err)
	}
	if len(l.transforms) > 0 && l.transform == nil {
		return nil, errors.New("the message needs transforms and none are set up")
	}
	return l, nil
}

// read opens the message as it is sent: the header block, and the body behind
// its transforms.
func (l *letter) read(ctx context.Context) (io.ReadCloser, error) {
	rc, err := l.st.Open(ctx, l.id, store.AsSent)
	if err != nil {
		return nil, fmt.Errorf("opening message %s: %w", l.id, err)
	}
	if len(l.transforms) == 0 {
		return rc, nil
	}
	body := &late{open: func() io.Reader { return l.transform(rc, l.transforms) }}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(rc, l.header), body), rc}, nil
}

// late opens its reader when it is first read: a transform may read ahead, and
// must not meet the header block.
type late struct {
	open func() io.Reader
	r    io.Reader
}

func (l *late) Read(p []byte) (int, error) {
	if l.r == nil {
		l.r = l.open()
	}
	return l.r.Read(p)
}

// eightBit reports whether the message has octets above 127. It reads it all;
// asked only for a next hop that does not offer 8BITMIME.
func (l *letter) eightBit(ctx context.Context) (bool, error) {
	rc, err := l.read(ctx)
	if err != nil {
		return false, err
	}
	defer rc.Close()
	b := l.blocks.Get().(*block)
	defer l.blocks.Put(b)
	for {
		n, err := rc.Read(b.in[:])
		for _, c := range b.in[:n] {
			if c >= 0x80 {
				return true, nil
			}
		}
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("reading message %s: %w", l.id, err)
		}
	}
}

// source is a letter being read for one transaction, as it goes over the wire.
// Its first block is read at once: what is wrong with a short message is known
// before the next hop hears of it.
type source struct {
	letter *letter
	rc     io.ReadCloser
	stuff  stuffer
	block  *block
	size   int64 // octets read so far
	ended  bool  // block.out ends with the final dot
}

func (l *letter) source(ctx context.Context) (*source, error) {
	rc, err := l.read(ctx)
	if err != nil {
		return nil, err
	}
	s := &source{letter: l, rc: rc, block: l.blocks.Get().(*block)}
	if err := s.next(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// next fills block.out with what is to be written next.
func (s *source) next() error {
	b := s.block
	n, end, err := fill(s.rc, b.in[:])
	if err != nil {
		return fmt.Errorf("reading message %s: %w", s.letter.id, err)
	}
	s.size += int64(n)
	if b.out, err = s.stuff.append(b.out[:0], b.in[:n]); err != nil || !end {
		return err
	}
	if want := s.letter.size; want != 0 && s.size != want {
		return fmt.Errorf("message %s has %d octets where %d were archived", s.letter.id, s.size, want)
	}
	s.ended = true
	b.out, err = s.stuff.end(b.out)
	return err
}

// fill reads until p is full or r ends. io.ReadFull won't do: it says
// io.ErrUnexpectedEOF for a short read, as a torn archive might too.
func fill(r io.Reader, p []byte) (n int, end bool, err error) {
	for n < len(p) {
		m, err := r.Read(p[n:])
		n += m
		if err == io.EOF {
			return n, true, nil
		}
		if err != nil {
			return n, false, err
		}
	}
	return n, false, nil
}

func (s *source) close() {
	s.rc.Close()
	s.letter.blocks.Put(s.block)
	s.block = nil
}

// unclean reports whether err is about line ends: trying again is no use.
func unclean(err error) bool {
	return errors.Is(err, errBareCR) || errors.Is(err, errBareLF) || errors.Is(err, errNoFinal)
}
