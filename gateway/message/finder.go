package message

import "bytes"

// MaxHeader is the largest header block that is read. A caller that streams a
// message stops collecting there; Parse reads no field of a larger block.
const MaxHeader = 1 << 20

// Finder finds the end of the header while a message streams by. The header
// block includes the empty line that ends it (RFC 5322 §2.1); a bare LF is
// taken for a line end too. The zero Finder is ready for a new message.
type Finder struct {
	line lineState
	done bool
}

// lineState is what the current line, not yet ended, consists of.
type lineState uint8

const (
	lineEmpty lineState = iota
	lineCR              // a CR and nothing else
	lineText
)

// Feed takes the next bytes of the message and returns how many of them belong
// to the header block, and whether the block is complete. Once it is, nothing
// more belongs to it. A message that ends before its empty line is all header.
func (f *Finder) Feed(p []byte) (n int, done bool) {
	for n < len(p) && !f.done {
		i := bytes.IndexByte(p[n:], '\n')
		if i < 0 {
			f.partial(p[n:])
			return len(p), false
		}
		f.partial(p[n : n+i])
		n += i + 1
		f.done = f.line != lineText
		f.line = lineEmpty
	}
	return n, f.done
}

// partial takes a piece of a line, without its LF.
func (f *Finder) partial(p []byte) {
	switch {
	case len(p) == 0:
	case f.line == lineEmpty && len(p) == 1 && p[0] == '\r':
		f.line = lineCR
	default:
		f.line = lineText
	}
}
