package gateway

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// slowBody is the reference: RFC 5321 §4.5.2 read byte by byte, slowly. ended
// is whether the end of data was seen, used how many bytes that took.
func slowBody(raw []byte, dotted bool) (content []byte, used int, ended bool, f BodyFacts, ambiguous bool) {
	wire := []byte{}
	prev := func(i int) byte { // byte i of the wire, a CRLF before its beginning
		if i < 0 {
			return map[int]byte{-1: '\n', -2: '\r'}[i]
		}
		return wire[i]
	}
	var line int
	end := func() {
		if line > bodyLineMax {
			f.LongLine = true
		}
		line = 0
	}
	for used < len(raw) {
		i := len(wire)
		atLine := prev(i-1) == '\n' && prev(i-2) == '\r'
		if dotted && atLine && raw[used] == '.' {
			if len(raw)-used >= 3 && raw[used+1] == '\r' && raw[used+2] == '\n' {
				used += 3
				ended = true
				break
			}
			if string(raw[used:]) == "." || string(raw[used:]) == ".\r" {
				break // not known yet
			}
			wire = append(wire, '.')
			used++
			continue
		}
		c := raw[used]
		used++
		wire = append(wire, c)
		content = append(content, c)
		switch {
		case c == '\n' && i > 0 && wire[i-1] == '\r':
			line--
			end()
			ambiguous = i > 1 && wire[i-2] == '\r'
		case c == '\n':
			f.BareLF = true
			end()
		default:
			line++
		}
	}
	for i, c := range wire {
		f.NUL = f.NUL || c == 0
		f.BareCR = f.BareCR || c == '\r' && (i+1 == len(wire) || wire[i+1] != '\n')
		f.NULBesideDot = f.NULBesideDot || i > 0 && (c == 0 && wire[i-1] == '.' || c == '.' && wire[i-1] == 0)
	}
	if line > 0 && wire[len(wire)-1] == '\r' {
		line--
	}
	end()
	f.Size = int64(len(content))
	n := len(wire)
	f.NoFinalCRLF = n > 0 && !(n > 1 && wire[n-2] == '\r' && wire[n-1] == '\n')
	return content, used, ended, f, ambiguous && ended
}

// feed runs raw through a body in pieces, keeping back what a piece left over.
func feed(raw []byte, dotted bool, cuts func(rest int) int) (content []byte, used int, ended bool, f BodyFacts, ambiguous bool) {
	var sink bytes.Buffer
	b := &body{out: &sink}
	var have []byte
	for rest := raw; ; {
		n := min(max(cuts(len(rest)), 1), len(rest))
		have = append(have, rest[:n]...)
		rest = rest[n:]
		took := len(have)
		if dotted {
			took, ended = b.dotted(have)
		} else {
			b.chunk(have)
		}
		used += took
		have = append([]byte(nil), have[took:]...)
		if ended || len(rest) == 0 {
			break
		}
	}
	b.finish()
	return sink.Bytes(), used, ended, b.facts, ended && b.crcrlf
}

func compareBody(t *testing.T, raw []byte, dotted bool, cuts func(int) int) {
	t.Helper()
	c1, u1, e1, f1, a1 := slowBody(raw, dotted)
	c2, u2, e2, f2, a2 := feed(raw, dotted, cuts)
	if f1.LongLine { // the sink gets no more, and where it stops is free
		c1, c2 = nil, nil
	}
	if !bytes.Equal(c1, c2) || u1 != u2 || e1 != e2 || f1 != f2 || a1 != a2 {
		t.Errorf("%.60q dotted=%v:\nwant %.60q %d %v %+v %v\n got %.60q %d %v %+v %v", raw, dotted, c1, u1, e1, f1, a1, c2, u2, e2, f2, a2)
	}
}

var bodySamples = []string{
	".\r\n", "a\r\n.\r\n", "..\r\n.\r\n", "..a\r\n...\r\n.\r\nMAIL FROM:<x@y>\r\n", ".a\r\n.\r\n", ".\ra\r\n.\r\n",
	"\n.\n", "a\n.\r\n.\r\n", "a\r.\r\n.\r\n", "a\r\r\n.\r\nrest", "\r\n\x00.\r\n.\r\n", "\r\n.\x00\r\n.\r\n", "a\x00b\r\n.\r\n",
	"\r\n.\r\r\n.\r\n", "no end", "no end\r\n.", "no end\r\n.\r", "\r", "\n", "\r\r\r\n", "..", "\r\n..\r\n.\r\n", ".\n.\r\n.\r\n", "\xff\xfe8bit\r\n.\r\n",
}

func TestBodyAgainstReference(t *testing.T) {
	for _, s := range bodySamples {
		raw := []byte(s)
		for _, dotted := range []bool{true, false} {
			for cut := range len(raw) + 1 {
				first := true
				compareBody(t, raw, dotted, func(rest int) int {
					if first {
						first = false
						return cut
					}
					return rest
				})
			}
			compareBody(t, raw, dotted, func(int) int { return 1 })
		}
	}
}

// FuzzBody: of any bytes, cut anywhere, the framing makes what the slow reading of
// RFC 5321 §4.5.2 makes of them: the same content, the same end, the same facts.
func FuzzBody(f *testing.F) {
	for _, s := range bodySamples {
		f.Add([]byte(s), true, uint16(1))
		f.Add([]byte(s), false, uint16(3))
	}
	f.Fuzz(func(t *testing.T, raw []byte, dotted bool, seed uint16) {
		state := uint32(seed) + 1
		compareBody(t, raw, dotted, func(int) int {
			state = state*1664525 + 1013904223
			return int(state>>24) % 9
		})
	})
}

func TestBodyLineLimit(t *testing.T) {
	line := strings.Repeat("x", bodyLineMax)
	for _, end := range []string{"\r\n", "\n"} {
		for _, extra := range []string{"", "x"} {
			raw := []byte("a\r\n" + line + extra + end + "b\r\n.\r\n")
			for _, block := range []int{len(raw), bigBuffer, bodyLineMax + 3, bodyLineMax + 4, bodyLineMax + 5} {
				compareBody(t, raw, true, func(int) int { return block })
			}
		}
	}
}

func TestBodyStopsAtFailedWrite(t *testing.T) {
	full := errors.New("full")
	calls := 0
	b := &body{out: writerFunc(func(p []byte) (int, error) { calls++; return 0, full })}
	for range 3 {
		b.dotted([]byte("a\r\n"))
	}
	if _, done := b.dotted([]byte(".\r\n")); !done || calls != 1 || b.err != full || b.facts.Size != 9 {
		t.Errorf("done %v, %d writes, %v, %+v", done, calls, b.err, b.facts)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestBodyAllocatesNothing(t *testing.T) {
	block := []byte(strings.Repeat("a line of some length, as they are in mail\r\n..dots\r\n", 1000))
	p := make([]byte, len(block))
	b := &body{out: writerFunc(func(p []byte) (int, error) { return len(p), nil })}
	if n := testing.AllocsPerRun(100, func() { copy(p, block); b.dotted(p) }); n > 0 {
		t.Errorf("%v allocations for a block", n)
	}
}
