package relay

import (
	"bytes"
	"errors"
)

// What may not leave: another server could read it as the end of a line, or of
// the message (SMTP smuggling; RFC 5321 §2.3.8).
var (
	errBareCR  = errors.New("the message has a CR without LF")
	errBareLF  = errors.New("the message has an LF without CR")
	errNoFinal = errors.New("the message does not end in CRLF")
)

// stuffer doubles the dots that begin a line (RFC 5321 §4.5.2) of a message
// that comes in blocks, and lets nothing through but clean CRLF line ends.
type stuffer struct {
	begun  bool // some octet came
	inLine bool // the next octet is not the first of a line
	cr     bool // the last octet was a CR, and was kept back
}

// append appends the stuffed form of block to dst. On error nothing of the
// block may be sent. A CR at its end waits for the LF of the next.
func (s *stuffer) append(dst, block []byte) ([]byte, error) {
	if len(block) == 0 {
		return dst, nil
	}
	crs := bytes.Count(block, []byte{'\r'})
	if s.cr {
		dst = append(dst, '\r')
		crs++
	}
	last := block[len(block)-1] == '\r'
	if last {
		block = block[:len(block)-1]
		crs--
	}
	dst, lfs, ok := s.lines(dst, block)
	if !ok {
		return dst, errBareLF
	}
	// Each LF was seen to follow a CR of its own, so counting tells whether
	// any CR stands alone.
	if lfs != crs {
		return dst, errBareCR
	}
	s.begun, s.cr = true, last
	return dst, nil
}

// lines copies block line by line and counts the LFs; ok is false at one
// without a CR.
func (s *stuffer) lines(dst, block []byte) (_ []byte, lfs int, ok bool) {
	cr := s.cr
	for len(block) > 0 {
		if !s.inLine && block[0] == '.' {
			dst = append(dst, '.')
		}
		i := bytes.IndexByte(block, '\n')
		if s.inLine = i < 0; s.inLine {
			return append(dst, block...), lfs, true
		}
		if i > 0 {
			cr = block[i-1] == '\r'
		}
		if !cr {
			return dst, lfs, false
		}
		dst, block, cr = append(dst, block[:i+1]...), block[i+1:], false
		lfs++
	}
	return dst, lfs, true
}

// end appends the final dot, if the message ended as it must.
func (s *stuffer) end(dst []byte) ([]byte, error) {
	if s.cr {
		return dst, errBareCR
	}
	if s.begun && s.inLine {
		return dst, errNoFinal
	}
	return append(dst, ".\r\n"...), nil
}
