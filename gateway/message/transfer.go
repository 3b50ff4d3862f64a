package message

import (
	"io"
	"strings"
)

// decodeTransfer undoes a Content-Transfer-Encoding (RFC 2045 §6) while its
// bytes stream by. It never fails on what stands there: base64 passes over
// what is no digit, quoted-printable leaves a wrong escape as it is, an unknown
// encoding is none.
func decodeTransfer(encoding string, r io.Reader) io.Reader {
	encoding, _, _ = strings.Cut(encoding, ";")
	switch strings.ToLower(strings.Trim(encoding, " \t")) {
	case "base64":
		return &transferReader{src: r, codec: &base64Codec{}}
	case "quoted-printable":
		return &transferReader{src: r, codec: &quotedCodec{}}
	}
	return r
}

// transferCodec turns encoded bytes into plain ones, keeping what a piece
// leaves unfinished.
type transferCodec interface {
	decode(dst, piece []byte) []byte
	finish(dst []byte) []byte
}

// transferReader decodes in pieces; its memory is two of them.
type transferReader struct {
	src   io.Reader
	codec transferCodec
	in    [4096]byte
	room  []byte // what plain is cut from
	plain []byte
	err   error
}

func (t *transferReader) Read(p []byte) (int, error) {
	for len(t.plain) == 0 && t.err == nil {
		var n int
		n, t.err = t.src.Read(t.in[:])
		t.room = t.codec.decode(t.room[:0], t.in[:n])
		if t.err == io.EOF {
			t.room = t.codec.finish(t.room)
		}
		t.plain = t.room
	}
	if len(t.plain) == 0 {
		return 0, t.err
	}
	n := copy(p, t.plain)
	t.plain = t.plain[n:]
	return n, nil
}

// base64Codec is RFC 2045 §6.8; padding may be missing, and may stand between
// two texts.
type base64Codec struct {
	bits   uint32
	digits int
}

func (c *base64Codec) decode(dst, piece []byte) []byte {
	for _, b := range piece {
		v, ok := base64Value(b)
		switch {
		case ok:
			c.bits = c.bits<<6 | uint32(v)
			if c.digits++; c.digits == 4 {
				dst = append(dst, byte(c.bits>>16), byte(c.bits>>8), byte(c.bits))
				c.digits = 0
			}
		case b == '=':
			dst = c.finish(dst)
		}
	}
	return dst
}

func (c *base64Codec) finish(dst []byte) []byte {
	switch c.digits {
	case 2:
		dst = append(dst, byte(c.bits>>4))
	case 3:
		dst = append(dst, byte(c.bits>>10), byte(c.bits>>2))
	}
	c.digits = 0
	return dst
}

func base64Value(b byte) (byte, bool) {
	switch {
	case 'A' <= b && b <= 'Z':
		return b - 'A', true
	case 'a' <= b && b <= 'z':
		return b - 'a' + 26, true
	case '0' <= b && b <= '9':
		return b - '0' + 52, true
	case b == '+':
		return 62, true
	case b == '/':
		return 63, true
	}
	return 0, false
}

// quotedCodec is RFC 2045 §6.7. A soft line break may have white space before
// its line end.
type quotedCodec struct {
	held []byte // an escape that isn't complete, with its "="
}

func (c *quotedCodec) decode(dst, piece []byte) []byte {
	const maxHeld = 80 // a line
	for _, b := range piece {
		switch {
		case len(c.held) == 0 && b != '=':
			dst = append(dst, b)
			continue
		case b == '\n' && strings.Trim(string(c.held), " \t\r") == "=":
			c.held = c.held[:0]
			continue
		case b == '=' || len(c.held) == maxHeld:
			dst = c.finish(dst)
		}
		c.held = append(c.held, b)
		dst = c.settle(dst)
	}
	return dst
}

// settle gives out what is held once it is known to be an escape, or none.
func (c *quotedCodec) settle(dst []byte) []byte {
	switch last := c.held[len(c.held)-1]; {
	case len(c.held) == 3:
		if v, ok := hexByte(string(c.held[1:])); ok {
			c.held = c.held[:0]
			return append(dst, v)
		}
	case last == '=' && len(c.held) == 1:
		return dst
	case len(c.held) == 2:
		if _, ok := hexDigit(last); ok {
			return dst
		}
	}
	if strings.Trim(string(c.held[1:]), " \t\r") != "" {
		return c.finish(dst)
	}
	return dst
}

func (c *quotedCodec) finish(dst []byte) []byte {
	dst = append(dst, c.held...)
	c.held = c.held[:0]
	return dst
}
