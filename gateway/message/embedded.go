package message

import (
	"bufio"
	"bytes"
	"io"
	"strings"
)

// Embedded looks for messages among the parts of a message, at any depth but
// not inside of one another: what "forward as attachment" makes (RFC 2046
// §5.2.1). n is how many there are, counted up to 2. If there is exactly one,
// inner is its header, and its body, with the transfer encoding undone, was
// written to content.
//
// It fails as Walker.Next does, with ErrHeaderTooLarge if the header of the
// embedded message meets the caps, or as content does.
func Embedded(h Header, body io.Reader, content io.Writer) (inner Header, n int, err error) {
	w := NewWalker(h, body)
	for n < 2 {
		p, err := w.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return Header{}, n, err
		}
		if !p.IsMessage() {
			continue
		}
		if n++; n > 1 {
			return Header{}, n, nil
		}
		if inner, err = readEmbedded(p, content); err != nil {
			return Header{}, n, err
		}
	}
	return inner, n, nil
}

func readEmbedded(p *Part, content io.Writer) (Header, error) {
	r := openMessage(p)
	block, whole, err := readHeader(r, MaxHeader)
	if err != nil {
		return Header{}, err
	}
	h := Parse(block)
	if !whole || h.TooLarge() {
		return h, ErrHeaderTooLarge
	}
	_, err = io.Copy(content, r)
	return h, err
}

// openMessage gives the bytes of the message that a part is. Some mailers copy
// base64 from the inner header to the part: it is only undone if it is there.
func openMessage(p *Part) *bufio.Reader {
	raw := bufio.NewReader(p)
	const line = 80
	start, _ := raw.Peek(line)
	encoding := p.Header.Get("Content-Transfer-Encoding")
	if strings.HasPrefix(strings.ToLower(encoding), "base64") && bytes.IndexByte(start, ':') >= 0 {
		return raw
	}
	plain := decodeTransfer(encoding, raw)
	if plain == io.Reader(raw) {
		return raw
	}
	return bufio.NewReader(plain)
}

// readHeader takes the header block from the start of a message, passing over
// empty lines before it. A block longer than limit isn't whole: it is cut at
// the end of a line.
func readHeader(r *bufio.Reader, limit int) (block []byte, whole bool, err error) {
	if err := skipEmptyLines(r); err != nil {
		return nil, true, noEOF(err)
	}
	var f Finder
	for {
		if _, err := r.Peek(1); err != nil {
			return block, true, noEOF(err)
		}
		piece, _ := r.Peek(r.Buffered())
		n, done := f.Feed(piece)
		if over := len(block) + n - limit; over > 0 {
			block = append(block, piece[:n-over]...)
			return block[:bytes.LastIndexByte(block, '\n')+1], false, nil
		}
		block = append(block, piece[:n]...)
		r.Discard(n)
		if done {
			return block, true, nil
		}
	}
}

func skipEmptyLines(r *bufio.Reader) error {
	for {
		start, err := r.Peek(2)
		n := lineEnd(string(start))
		if n == 0 {
			if len(start) > 0 {
				err = nil
			}
			return err
		}
		r.Discard(n)
	}
}

// noEOF: that a message ends is no failure.
func noEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}
