package gateway

import (
	"bytes"
	"io"
	"log/slog"
	"runtime/debug"
	"time"
)

const (
	bodyLineMax = 1 << 20          // a line of a body, without its CRLF
	rateGrace   = 30 * time.Second // of waiting, before the minimum rate counts
)

// BodyFacts is what the bytes of a message showed on their way in.
type BodyFacts struct {
	Size         int64 // bytes of the message, dots unstuffed
	BareCR       bool  // a CR without LF
	BareLF       bool  // an LF without CR
	NUL          bool
	NULBesideDot bool // may hide or make an end of data for a reader that skips NUL
	NoFinalCRLF  bool // not empty and doesn't end with CRLF; by BDAT only
	LongLine     bool // a line of more than 1 MiB
}

// body is one message body on its way from the wire into a sink.
type body struct {
	sink Sink      // nil: there is none
	out  io.Writer // the sink, until nothing more is wanted
	err  error     // why the sink takes no more
	max  int64     // of the size; 0: no matter
	done bool      // discard was called

	facts  BodyFacts
	inLine bool    // the next byte doesn't stand behind a CRLF
	begun  bool    // prev holds a byte
	prev   [2]byte // the last two bytes on the wire, dots not unstuffed
	length int64   // of the line so far
	crs    int64
	crlfs  int64
	crcrlf bool // the last line ended in CR CR LF

	waited time.Duration // for the client, in all
	came   int64         // bytes on the wire
}

// tooLarge reports a message over the limit.
func (b *body) tooLarge() bool { return b.max > 0 && b.facts.Size > b.max }

// dotted takes the next bytes of DATA: it unstuffs, in place, and writes to the
// sink. n bytes are used up; what is left may be the beginning of the end.
func (b *body) dotted(p []byte) (n int, done bool) {
	before := b.prev
	from, to := 0, 0 // p[:to] is ready for the sink, p[from:n] follows it
	for n < len(p) {
		if !b.inLine && p[n] == '.' {
			if done = bytes.HasPrefix(p[n:], endOfData); done || bytes.HasPrefix(endOfData, p[n:]) {
				break
			}
			b.note(p[from : n+1])
			to += move(p, to, from, n)
			n++
			from = n
		}
		n = b.line(p, n, before)
	}
	b.note(p[from:n])
	to += move(p, to, from, n)
	b.write(p[:to])
	if done {
		n += len(endOfData)
		b.finish()
	}
	return n, done
}

func move(p []byte, to, from, end int) int {
	if to == from {
		return end - from
	}
	return copy(p[to:], p[from:end])
}

// chunk takes the next bytes of a BDAT chunk.
func (b *body) chunk(p []byte) {
	before := b.prev
	for n := 0; n < len(p); {
		n = b.line(p, n, before)
	}
	b.note(p)
	b.write(p)
}

// line looks at p[n:] up to and with its first LF and returns where the next
// line begins. before are the two bytes in front of p.
func (b *body) line(p []byte, n int, before [2]byte) int {
	lf := bytes.IndexByte(p[n:], '\n')
	if lf < 0 {
		b.inLine = true
		b.grown(int64(len(p)-n), 1)
		return len(p)
	}
	lf += n
	crlf := at(p, lf-1, before) == '\r'
	if crlf {
		b.crlfs++
		b.crcrlf = at(p, lf-2, before) == '\r'
		b.grown(int64(lf-n), 1)
	} else {
		b.facts.BareLF = true
		b.grown(int64(lf-n), 0)
	}
	b.inLine = !crlf
	b.length = 0
	return lf + 1
}

func at(p []byte, i int, before [2]byte) byte {
	if i < 0 {
		return before[2+i]
	}
	return p[i]
}

// grown adds to the length of the line; cr of its bytes may be the CR of its
// end.
func (b *body) grown(n, cr int64) {
	b.length += n
	if b.length > bodyLineMax+cr {
		b.facts.LongLine = true
		b.out = nil
	}
}

// note counts what the lines don't tell.
func (b *body) note(p []byte) {
	if len(p) == 0 {
		return
	}
	b.crs += int64(bytes.Count(p, []byte("\r")))
	nul := bytes.IndexByte(p, 0) >= 0
	b.facts.NUL = b.facts.NUL || nul
	if nul && (bytes.Contains(p, []byte("\x00.")) || bytes.Contains(p, []byte(".\x00"))) ||
		b.begun && (b.prev[1] == 0 && p[0] == '.' || b.prev[1] == '.' && p[0] == 0) {
		b.facts.NULBesideDot = true
	}
	if b.begun = true; len(p) == 1 {
		b.prev = [2]byte{b.prev[1], p[0]}
		return
	}
	b.prev = [2]byte(p[len(p)-2:])
}

func (b *body) write(p []byte) {
	b.facts.Size += int64(len(p))
	if b.out == nil || len(p) == 0 {
		return
	}
	if b.tooLarge() {
		b.out = nil
		return
	}
	if _, err := b.out.Write(p); err != nil {
		b.err, b.out = err, nil
	}
}

func (b *body) finish() {
	b.facts.BareCR = b.crs != b.crlfs
	b.facts.NoFinalCRLF = b.inLine
}

// discard gives the sink back, once.
func (b *body) discard(log *slog.Logger) {
	if b.sink == nil || b.done {
		return
	}
	b.done, b.out = true, nil
	defer func() {
		if r := recover(); r != nil {
			log.Error("panic while discarding a body", "panic", r, "stack", string(debug.Stack()))
		}
	}()
	b.sink.Discard()
}

// receive takes the body of DATA from the raw connection. An error means that
// the connection is at its end.
func (w *wire) receive(b *body) error {
	for w.state == stateData {
		if !w.trickles() {
			n, done := b.dotted(w.unread())
			w.pos += n
			if done {
				w.state, w.hand, w.ambiguous = stateCommand, endOfData, b.crcrlf
				return nil
			}
		}
		if err := w.fillBody(b); err != nil {
			w.failed(err)
			return err
		}
	}
	return io.EOF // the 354 never went out
}

// trickles reports that too little is here to be worth a write. It waits in the
// small buffer: a sink need not hold memory for a client that keeps it waiting.
func (w *wire) trickles() bool {
	return w.buffered() < smallBuffer && !bytes.Contains(w.unread(), endOfData)
}

// chunk takes the n bytes of a BDAT chunk, as slowly as receive. An error means that the connection
// is at its end.
func (w *wire) chunk(b *body, n int64) error {
	for n > 0 {
		if int64(w.buffered()) < min(n, smallBuffer) {
			if err := w.fillBody(b); err != nil {
				w.failed(err)
				return err
			}
			continue
		}
		part := w.unread()
		part = part[:min(int64(len(part)), n)]
		b.chunk(part)
		w.pos += len(part)
		n -= int64(len(part))
	}
	return nil
}

// fillBody reads more of a body. Only the time spent waiting for the client
// counts against it.
func (w *wire) fillBody(b *body) error {
	if err := w.flush(); err != nil {
		return err
	}
	start := time.Now()
	wait := min(w.opts.BodyIdle, w.opts.BodyTotal-b.waited)
	n, err := w.read(w.room(), start.Add(wait), false)
	w.end += n
	w.flowing = n >= smallBuffer
	b.waited += time.Since(start)
	b.came += int64(n)
	if err == nil && w.tooSlow(b) {
		return errSlow
	}
	return err
}

func (w *wire) tooSlow(b *body) bool {
	if b.waited < min(rateGrace, w.opts.BodyIdle) {
		return false
	}
	return b.waited > w.opts.BodyTotal || float64(b.came) < float64(w.opts.MinRate)*b.waited.Seconds()
}
