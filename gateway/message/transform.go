package message

import (
	"bytes"
	"fmt"
	"io"
)

// The transforms that lead from an archived body to the bytes that were sent,
// by the names the archive notes.
const (
	BareNewlines = "bare-newlines" // Normalize
	FinalCRLF    = "final-crlf"    // EndWithCRLF
)

// Apply reads r through the transforms named, in order. A name it doesn't know
// makes every Read fail: bytes must not be guessed.
func Apply(r io.Reader, transforms []string) io.Reader {
	for _, name := range transforms {
		switch name {
		case BareNewlines:
			r = Normalize(r)
		case FinalCRLF:
			r = EndWithCRLF(r)
		default:
			return failed{fmt.Errorf("unknown transform %q", name)}
		}
	}
	return r
}

type failed struct{ err error }

func (f failed) Read([]byte) (int, error) { return 0, f.err }

// Normalize makes every CR and every LF that is not part of a CRLF a CRLF.
// CR CR LF becomes two; no other byte changes.
func Normalize(r io.Reader) io.Reader {
	return &normalizer{r: r}
}

type normalizer struct {
	r   io.Reader
	in  []byte
	buf []byte // output; out is its unread part
	out []byte
	cr  bool // the input so far ends with a CR that isn't written yet
	err error
}

const blockSize = 32 << 10

func (n *normalizer) Read(p []byte) (int, error) {
	for tries := 0; len(n.out) == 0; tries++ {
		if n.err != nil {
			return 0, n.err
		}
		if len(p) == 0 {
			return 0, nil
		}
		if tries == 100 {
			return 0, io.ErrNoProgress
		}
		n.fill()
	}
	k := copy(p, n.out)
	n.out = n.out[k:]
	return k, nil
}

// fill reads the next block.
func (n *normalizer) fill() {
	if n.in == nil {
		n.in = make([]byte, blockSize)
		n.buf = make([]byte, 0, blockSize+blockSize/8)
	}
	n.buf = n.buf[:0]
	k, err := n.r.Read(n.in)
	n.convert(n.in[:k])
	if err == io.EOF && n.cr {
		n.lineEnd()
		n.cr = false
	}
	n.err, n.out = err, n.buf
}

func (n *normalizer) lineEnd() { n.buf = append(n.buf, '\r', '\n') }

func (n *normalizer) convert(in []byte) {
	if n.cr && len(in) > 0 {
		in = bytes.TrimPrefix(in, []byte{'\n'})
		n.lineEnd()
		n.cr = false
	}
	for len(in) > 0 {
		i := bytes.IndexByte(in, '\n')
		if i < 0 {
			n.partial(in)
			return
		}
		n.text(bytes.TrimSuffix(in[:i], []byte{'\r'}))
		n.lineEnd()
		in = in[i+1:]
	}
}

// partial takes the end of a block; a CR there waits for the next one.
func (n *normalizer) partial(in []byte) {
	in, n.cr = bytes.CutSuffix(in, []byte{'\r'})
	n.text(in)
}

// text takes a piece without LF; every CR in it is a line end.
func (n *normalizer) text(in []byte) {
	for {
		i := bytes.IndexByte(in, '\r')
		if i < 0 {
			n.buf = append(n.buf, in...)
			return
		}
		n.buf = append(n.buf, in[:i]...)
		n.lineEnd()
		in = in[i+1:]
	}
}

// EndWithCRLF adds the CRLF that is missing at the end, or the LF of it. What
// is empty stays empty.
func EndWithCRLF(r io.Reader) io.Reader {
	return &ender{r: r}
}

type ender struct {
	r       io.Reader
	begun   bool
	last    [2]byte // of what went by
	missing string
	err     error
}

func (e *ender) Read(p []byte) (int, error) {
	if e.err != nil || len(p) == 0 {
		return e.rest(p)
	}
	n, err := e.r.Read(p)
	e.see(p[:n])
	if err == io.EOF {
		e.missing = e.lack()
	}
	e.err = err
	if n == 0 && err != nil {
		return e.rest(p)
	}
	return n, nil
}

// rest returns what is missing, then the error.
func (e *ender) rest(p []byte) (int, error) {
	n := copy(p, e.missing)
	e.missing = e.missing[n:]
	if n > 0 || len(p) == 0 {
		return n, nil
	}
	return 0, e.err
}

func (e *ender) see(p []byte) {
	if len(p) > 1 {
		copy(e.last[:], p[len(p)-2:])
	} else if len(p) == 1 {
		e.last[0], e.last[1] = e.last[1], p[0]
	}
	e.begun = e.begun || len(p) > 0
}

func (e *ender) lack() string {
	switch {
	case !e.begun || e.last == [2]byte{'\r', '\n'}:
		return ""
	case e.last[1] == '\r':
		return "\n"
	}
	return "\r\n"
}
