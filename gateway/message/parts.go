package message

import (
	"bufio"
	"errors"
	"io"
	"strconv"
	"strings"
)

// What a walk through the parts of a message ends at, whatever follows.
const (
	MaxDepth = 100    // containers around a part
	MaxParts = 10_000 // the message itself counts
	// and at the header of a part beyond MaxHeader or MaxFields
)

// A walk that meets a cap ends with one of these; what came before it stands.
var (
	ErrTooDeep        = errors.New("message: parts are nested more than 100 deep")
	ErrTooManyParts   = errors.New("message: more than 10 000 parts")
	ErrHeaderTooLarge = errors.New("message: the header of a part is too large")
)

// maxBoundary is the longest boundary that is looked for (RFC 2046 §5.1.1 has
// 70). A multipart with a longer one is a leaf.
const maxBoundary = 998

// Walker goes through the parts of a message in their order while the body
// streams by, once:
//
//	w := message.NewWalker(h, body)
//	p, err := w.Next() // the message itself; then its parts; io.EOF at the end
//	io.Copy(dst, p)    // the raw bytes of the part, if wanted
//
// It reads what real mail holds beyond RFC 2046: bare LF, white space behind a
// boundary, closing boundaries that are missing, a boundary given twice. A
// multipart without a usable boundary is a leaf.
//
// Time is linear in the body: a line is looked up among the open boundaries,
// not compared with each. Memory is a piece of a line, the header of one part
// and the open boundaries.
type Walker struct {
	src     *bufio.Reader
	offset  int64 // of what comes next from src
	at      int64 // of what came last
	midLine bool  // it doesn't start a line

	root      Header
	maxHeader int
	stack     []container
	open      map[string]int // boundary → the innermost container that has it
	parts     int
	enter     bool // Next goes into the message that the part is
	err       error

	part *Part
	end  ending
	room []byte  // what out is cut from
	out  []byte  // of the part, not yet given away
	held heldEnd // the part's, unless a delimiter follows (RFC 2046 §5.1.1)
}

// heldEnd is a line end that was read and not given away.
type heldEnd struct {
	bytes [2]byte
	n     int
}

// container is a multipart, or a message that was entered.
type container struct {
	boundary string // "" for a message
	outer    int    // the container around it with the same boundary, or -1
	path     string
	children int
	digest   bool // its parts are messages unless they say otherwise (RFC 2046 §5.1.5)
}

// ending says what ended a part.
type ending struct {
	reached bool
	to      int  // the container whose delimiter it was, or -1: the body ended
	closing bool // it was the last one of that container
}

// Part is a part of a message. It can be read until the Walker moves on.
type Part struct {
	Header Header
	MediaType
	Path  string // "" for the message itself, then "2", "2.1" and so on
	Depth int    // containers around it

	Offset int64 // where its raw bytes start in the body
	Size   int64 // how many they are, once they are read or the Walker moved on

	Multipart bool // its parts follow; its own bytes are the preamble

	w *Walker
}

// NewWalker walks through a message by its header and its raw body.
func NewWalker(h Header, body io.Reader) *Walker {
	const pieceSize = 8 << 10
	return &Walker{src: bufio.NewReaderSize(body, pieceSize), root: h, maxHeader: MaxHeader, open: map[string]int{}}
}

// Next moves on to the next part, whether or not the last one was read. It
// returns io.EOF at the end, ErrTooDeep, ErrTooManyParts or ErrHeaderTooLarge
// at a cap, or what reading the body fails with; and the same ever after.
func (w *Walker) Next() (*Part, error) {
	if w.err == nil {
		w.part, w.err = w.next()
	}
	if w.err != nil {
		w.part = nil
		return nil, w.err
	}
	return w.part, nil
}

func (w *Walker) next() (*Part, error) {
	if w.parts == 0 {
		return w.begin(w.root)
	}
	if !w.enter {
		if err := w.toPart(); err != nil {
			return nil, err
		}
	}
	h, start, err := w.header()
	if err != nil {
		return nil, err
	}
	p, err := w.begin(h)
	if err == nil {
		p.Offset, p.Size = start, int64(len(w.out))
	}
	return p, err
}

// Enter has Next go into the part: a message (RFC 2046 §5.2.1) that isn't
// encoded and of which nothing was read yet. It reports whether that is so; the
// message itself becomes the one part of this one.
func (w *Walker) Enter() bool {
	p := w.part
	if p == nil || w.enter || !p.IsMessage() || p.isEncoded() || p.Size > 0 || w.end.reached {
		return false
	}
	w.enter = true
	w.stack = append(w.stack, container{outer: -1, path: p.Path})
	return true
}

// begin makes the part that has a header.
func (w *Walker) begin(h Header) (*Part, error) {
	w.enter = false
	if w.parts++; w.parts > MaxParts {
		return nil, ErrTooManyParts
	}
	p := &Part{Header: h, Depth: len(w.stack), Offset: w.offset, w: w}
	if p.Depth > MaxDepth {
		return nil, ErrTooDeep
	}
	kind, _ := h.First("Content-Type")
	p.MediaType = ParseMediaType(kind.Value())
	standard := "text/plain" // RFC 2045 §5.2, for what can't be read too
	if p.Depth > 0 {
		in := &w.stack[p.Depth-1]
		in.children++
		p.Path = strings.TrimPrefix(in.path+"."+strconv.Itoa(in.children), ".")
		if in.digest {
			standard = "message/rfc822"
		}
	}
	if !strings.Contains(p.Type, "/") {
		p.Type = standard
	}
	w.push(p)
	return p, nil
}

// push opens a multipart.
func (w *Walker) push(p *Part) {
	boundary := strings.TrimRight(p.Param("boundary"), " \t")
	if !strings.HasPrefix(p.Type, "multipart/") || boundary == "" || len(boundary) > maxBoundary {
		return
	}
	p.Multipart = true
	outer, again := w.open[boundary]
	if !again {
		outer = -1
	}
	w.open[boundary] = len(w.stack)
	w.stack = append(w.stack, container{boundary, outer, p.Path, 0, p.Type == "multipart/digest"})
}

// pop closes containers until n are left.
func (w *Walker) pop(n int) {
	for len(w.stack) > n {
		c := w.stack[len(w.stack)-1]
		w.stack = w.stack[:len(w.stack)-1]
		switch {
		case c.outer >= 0:
			w.open[c.boundary] = c.outer
		case c.boundary != "":
			delete(w.open, c.boundary)
		}
	}
}

// toPart passes over the rest of the part, and over epilogues, to where a part
// begins.
func (w *Walker) toPart() error {
	for {
		for !w.end.reached {
			if err := w.fill(); err != nil {
				return err
			}
		}
		end := w.end
		if end.to < 0 {
			return io.EOF
		}
		w.part, w.end, w.out, w.held = nil, ending{}, nil, heldEnd{}
		if !end.closing {
			w.pop(end.to + 1)
			return nil
		}
		w.pop(end.to)
	}
}

// header reads the header block that stands here and returns where the body
// behind it starts. A part whose first line is no field has none: it is all
// body. A message may have empty lines before its header.
func (w *Walker) header() (h Header, start int64, err error) {
	var block []byte
	for start = -1; start < 0; {
		piece, first, err := w.piece()
		blank := first && isEmptyLine(piece)
		switch {
		case err != nil:
			return h, 0, err
		case w.end.reached:
			start = w.at
		case blank && w.enter && len(block) == 0:
		case len(block) == 0 && !blank && !w.enter && !startsField(piece):
			w.take(piece)
			start = w.at
		case len(block)+len(piece) > w.maxHeader:
			return h, 0, ErrHeaderTooLarge
		default:
			block = append(block, piece...)
			if blank {
				start = w.offset
			}
		}
	}
	if h = Parse(block); h.TooLarge() {
		err = ErrHeaderTooLarge
	}
	return h, start, err
}

func isEmptyLine(line []byte) bool {
	return len(line) <= 2 && len(line) > 0 && lineEnd(string(line)) == len(line)
}

func startsField(line []byte) bool {
	_, _, ok := splitField(string(line))
	return ok
}

// fill makes the next bytes of the part ready, or finds its end.
func (w *Walker) fill() error {
	piece, _, err := w.piece()
	w.out = nil
	switch {
	case err != nil:
		return err
	case !w.end.reached:
		w.take(piece)
	case w.end.to < 0:
		w.out = append(w.room[:0], w.held.bytes[:w.held.n]...)
	}
	if w.part != nil {
		w.part.Size += int64(len(w.out))
	}
	return nil
}

// take makes a piece ready, apart from its line end.
func (w *Walker) take(piece []byte) {
	w.room = append(append(w.room[:0], w.held.bytes[:w.held.n]...), piece...)
	n := len(w.room)
	if n > 0 && w.room[n-1] == '\n' {
		n--
	}
	if n > 0 && w.room[n-1] == '\r' {
		n--
	}
	w.held.n = copy(w.held.bytes[:], w.room[n:])
	w.out = w.room[:n]
}

// piece reads a line or, if it is long, a piece of one; first says that it
// starts the line. At a delimiter and at the end of the body it sets w.end.
func (w *Walker) piece() (piece []byte, first bool, err error) {
	piece, err = w.src.ReadSlice('\n')
	if err != nil && err != io.EOF && err != bufio.ErrBufferFull {
		return nil, false, err
	}
	first, w.midLine = !w.midLine, err == bufio.ErrBufferFull
	w.at = w.offset
	w.offset += int64(len(piece))
	switch {
	case len(piece) == 0:
		w.end = ending{reached: true, to: -1}
	case first && !w.midLine:
		w.delimiter(piece)
	}
	return piece, first, nil
}

// delimiter sets w.end if the line is a boundary of an open multipart (RFC 2046
// §5.1.1). The innermost one counts.
func (w *Walker) delimiter(line []byte) {
	const closing = "--"
	n := len(line)
	for n > 0 && (isBlank(line[n-1]) || line[n-1] == '\r' || line[n-1] == '\n') {
		n--
	}
	if n < 3 || line[0] != '-' || line[1] != '-' || n > len("--")+maxBoundary+len(closing) {
		return
	}
	line = line[2:n]
	if to, ok := w.open[string(line)]; ok {
		w.end = ending{reached: true, to: to}
		return
	}
	if n := len(line) - len(closing); n > 0 && string(line[n:]) == closing {
		if to, ok := w.open[string(line[:n])]; ok {
			w.end = ending{reached: true, to: to, closing: true}
		}
	}
}

// Read gives the raw bytes of the part: encoded as they are, without the line
// end that belongs to the delimiter behind them.
func (p *Part) Read(b []byte) (int, error) {
	w := p.w
	for {
		switch {
		case w.part != p || w.enter:
			return 0, io.EOF
		case len(w.out) > 0:
			n := copy(b, w.out)
			w.out = w.out[n:]
			return n, nil
		case w.end.reached:
			return 0, io.EOF
		case w.err != nil:
			return 0, w.err
		}
		w.err = w.fill()
	}
}

// Decoded gives the bytes of the part with its transfer encoding undone.
func (p *Part) Decoded() io.Reader {
	return decodeTransfer(p.Header.Get("Content-Transfer-Encoding"), p)
}

// IsMessage reports that the part is a whole message (RFC 2046 §5.2.1, RFC
// 6532 §3.7).
func (p *Part) IsMessage() bool { return p.Type == "message/rfc822" || p.Type == "message/global" }

// isEncoded reports that Decoded differs from the raw bytes.
func (p *Part) isEncoded() bool { return p.Decoded() != io.Reader(p) }
