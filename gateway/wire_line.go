package gateway

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	smallBuffer = 1 << 10 // of a connection that waits or trickles
	bigBuffer   = 64 << 10
)

var bigBuffers = sync.Pool{New: func() any { return new([bigBuffer]byte) }}

// input is the read buffer over the raw connection. A connection that waits
// holds only the small one; the big one is borrowed while data flows, or while
// a line doesn't fit.
type input struct {
	small   [smallBuffer]byte
	big     *[bigBuffer]byte
	buf     []byte // small[:] or big[:]
	pos     int    // buf[pos:end] is not consumed yet
	end     int
	flowing bool // the last read filled at least a small buffer
}

func (in *input) buffered() int { return in.end - in.pos }

func (in *input) unread() []byte { return in.buf[in.pos:in.end] }

// room makes space behind what is buffered.
func (in *input) room() []byte {
	if in.buf == nil {
		in.buf = in.small[:]
	}
	kept := in.buffered()
	switch {
	case in.flowing || kept == len(in.buf):
		in.grow()
	case kept < smallBuffer:
		copy(in.small[:], in.unread())
		in.release()
	default:
		copy(in.buf, in.unread())
	}
	in.pos, in.end = 0, kept
	return in.buf[kept:]
}

func (in *input) grow() {
	kept := in.unread()
	if in.big == nil {
		in.big = bigBuffers.Get().(*[bigBuffer]byte)
	}
	in.buf = in.big[:]
	copy(in.buf, kept)
}

func (in *input) release() {
	in.buf = in.small[:]
	if in.big != nil {
		bigBuffers.Put(in.big)
		in.big = nil
	}
}

// fill reads more input for a command line. Replies that wait go out first.
func (w *wire) fill(deadline time.Time) error {
	if w.state == stateBDAT {
		return w.fillBody(w.body)
	}
	if err := w.flush(); err != nil {
		return err
	}
	w.flowing = false
	n, err := w.read(w.room(), deadline, true)
	w.end += n
	return err
}

// command returns the next line for go-smtp. Lines that we answer ourselves
// don't reach it.
func (w *wire) command() ([]byte, error) {
	for {
		line, err := w.readLine()
		if err == errLongLine {
			w.fault(ReasonLine, 500, "5.5.2", "Line too long")
			line = nil
		} else if err != nil {
			w.failed(err)
			return nil, io.EOF
		}
		var hand []byte
		if line != nil {
			hand = w.vet(line)
		}
		if w.state == stateClosing {
			return nil, io.EOF
		}
		if hand != nil {
			w.line = hand
			return hand, nil
		}
	}
}

// errLongLine is about a line that was dropped up to its LF; a client may have
// pipelined behind it, so the session goes on.
var errLongLine = errors.New("line too long")

// readLine returns a line with its LF.
func (w *wire) readLine() ([]byte, error) {
	deadline := time.Now().Add(w.opts.IdleTimeout)
	tooLong := false
	for {
		if w.state != stateBDAT && w.isDraining() {
			return nil, errDraining
		}
		if lf := bytes.IndexByte(w.unread(), '\n'); lf >= 0 {
			line := w.unread()[:lf+1]
			w.pos += lf + 1
			if tooLong || len(line) > lineMax {
				return nil, errLongLine
			}
			return line, nil
		}
		if w.buffered() >= lineMax {
			tooLong = true
		}
		if tooLong {
			w.pos = w.end
		}
		if err := w.fill(deadline); err != nil {
			return nil, err
		}
	}
}

// vet decides about a command line before go-smtp sees it: it returns what to
// hand over, or nil when the line has been answered.
func (w *wire) vet(line []byte) []byte {
	text := bytes.TrimRight(line, "\r\n")
	verb := strings.ToUpper(string(text[:min(4, len(text))]))
	switch {
	case verb == "BDAT":
		return w.bdat(string(text[4:]))
	case hasControl(text) || bytes.Count(line, []byte("\r")) > 1:
		w.fault(ReasonLine, 501, "5.5.2", "Control characters are not allowed")
		return nil
	case w.barred(verb, string(text)):
		w.deny(ReasonTLS, 530, "5.7.0", "Must issue a STARTTLS command first")
		return nil
	case w.extension(string(text)):
		return nil
	case verb == "MAIL" && w.hello == "":
		w.deny(ReasonCommand, 502, "5.5.1", "Please introduce yourself first.")
		return nil
	case verb == "MAIL" && beyond32(text):
		w.deny(ReasonSize, 552, "5.3.4", "Max message size exceeded")
		return nil
	case w.state == stateBDAT && (verb == "MAIL" || verb == "RCPT" || verb == "DATA"):
		w.deny(ReasonCommand, 502, "5.5.1", verb+" not allowed during message transfer")
		return nil
	case isGreeting(verb):
		w.greeting, w.helo = verb, ""
	}
	w.sealed = w.named
	return line
}

func isGreeting(verb string) bool { return verb == "EHLO" || verb == "HELO" || verb == "LHLO" }

func hasControl(line []byte) bool {
	for _, c := range line {
		if c < ' ' || c == 0x7f {
			return true
		}
	}
	return false
}

// beyond32 reports a declared size that go-smtp would call malformed.
func beyond32(line []byte) bool {
	for _, arg := range strings.Fields(strings.ToUpper(string(line))) {
		if digits, ok := strings.CutPrefix(arg, "SIZE="); ok {
			n, err := strconv.ParseUint(digits, 10, 64)
			return err == nil && n > 1<<32-1 || err != nil && isRange(err)
		}
	}
	return false
}

func isRange(err error) bool {
	e, ok := err.(*strconv.NumError)
	return ok && e.Err == strconv.ErrRange
}

// bdat takes a chunk and tells go-smtp what it needs to know of it.
func (w *wire) bdat(args string) []byte {
	size, last, ok := parseBDAT(args)
	if !ok {
		w.hangup(ReasonCommand, 501, "5.5.4", "BDAT needs a size, then perhaps LAST", true)
		return nil
	}
	if w.body == nil && w.host != nil {
		w.body = w.host.open()
	}
	if w.body == nil {
		return w.strayChunk(size)
	}
	b := w.body
	w.state = stateBDAT
	over := size > w.opts.MaxMessage-b.facts.Size
	if over {
		b.out = nil
	}
	if err := w.chunk(b, size); err != nil {
		return nil
	}
	switch {
	case over:
		w.deny(ReasonSize, 552, "5.3.4", "Max message size exceeded")
		w.bridge = bridgeReset
		return lineRSET
	case last:
		w.state, w.bridge = stateCommand, bridgeLast
		b.finish()
		return lineDATA
	}
	w.answer(250, "2.0.0", "Continue")
	return nil
}

// strayChunk drops a chunk that belongs to no transaction. go-smtp's answer to
// DATA is then the one to BDAT too.
func (w *wire) strayChunk(size int64) []byte {
	if err := w.chunk(&body{}, size); err != nil {
		return nil
	}
	w.bridge = bridgeRefuse
	return lineDATA
}

func parseBDAT(args string) (size int64, last, ok bool) {
	f := strings.Fields(args)
	if len(f) == 0 || len(f) > 2 || args[0] != ' ' {
		return 0, false, false
	}
	n, err := strconv.ParseUint(f[0], 10, 63)
	if err != nil || len(f) == 2 && !strings.EqualFold(f[1], "LAST") {
		return 0, false, false
	}
	return int64(n), len(f) == 2, true
}
