package mailauth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"hash"
	"io"
	"strings"

	"github.com/casegate/casegate/gateway/message"
)

// canon is a canonicalisation (RFC 6376 §3.4).
type canon string

const (
	simple  canon = "simple"
	relaxed canon = "relaxed"
)

// header writes a field as it is hashed, with its CRLF; raw is the whole field.
// A lone LF counts as a line end.
func (c canon) header(raw string) string {
	name, value, _ := strings.Cut(raw, ":")
	if c == simple {
		if strings.Count(raw, "\n") == strings.Count(raw, "\r\n") && strings.HasSuffix(raw, "\r\n") {
			return raw
		}
		raw = strings.TrimSuffix(strings.ReplaceAll(raw, "\r\n", "\n"), "\n")
		return strings.ReplaceAll(raw, "\n", "\r\n") + "\r\n"
	}
	var b strings.Builder
	b.Grow(len(raw) + 2)
	b.WriteString(strings.ToLower(strings.TrimRight(name, " \t")) + ":")
	first := true
	for word := range strings.FieldsFuncSeq(value, func(r rune) bool { return r == ' ' || r == '\t' || r == '\r' || r == '\n' }) {
		if !first {
			b.WriteByte(' ')
		}
		b.WriteString(word)
		first = false
	}
	b.WriteString("\r\n")
	return b.String()
}

// bodyWriter hashes a body as one canonicalisation has it (RFC 6376 §3.4.3,
// §3.4.4). It holds no part of the body: white space and line ends that may
// have to go are only counted.
type bodyWriter struct {
	canon canon
	hash  hash.Hash
	out   []byte
	ends  int  // line ends held back
	blank bool // white space held back
	cr    bool // a CR that may be half a line end
	any   bool // there is content
}

func newBodyWriter(c canon) *bodyWriter {
	return &bodyWriter{canon: c, hash: sha256.New(), out: make([]byte, 0, 4<<10)}
}

var (
	endings  = map[canon]*[256]bool{simple: {'\r': true, '\n': true}, relaxed: {'\r': true, '\n': true, ' ': true, '\t': true}}
	emptyRun = bytes.Repeat([]byte("\r\n"), 512)
	oneBlank = []byte(" ")
)

func (w *bodyWriter) Write(p []byte) (int, error) {
	n, special := len(p), endings[w.canon]
	for len(p) > 0 {
		i := 0
		for i < len(p) && (!special[p[i]] || i > 0 && p[i] == ' ' && i+1 < len(p) && !special[p[i+1]]) { // one blank between words stays
			i++
		}
		if i > 0 {
			w.content(p[:i])
			p = p[i:]
			continue
		}
		switch c := p[0]; {
		case c == '\n':
			w.cr, w.blank = false, false
			w.ends++
		case c == '\r':
			w.flushCR()
			w.cr = true
		default:
			w.flushCR()
			w.blank = true
		}
		p = p[1:]
	}
	return n, nil
}

// put hashes bytes, small ones many at a time.
func (w *bodyWriter) put(p []byte) {
	if len(w.out)+len(p) > cap(w.out) {
		w.hash.Write(w.out)
		w.out = w.out[:0]
	}
	if len(p) > cap(w.out) {
		w.hash.Write(p)
		return
	}
	w.out = append(w.out, p...)
}

func (w *bodyWriter) flushCR() {
	if w.cr {
		w.cr = false
		w.content(emptyRun[:1])
	}
}

func (w *bodyWriter) content(p []byte) {
	w.flushCR()
	for w.ends > 0 {
		n := min(w.ends, len(emptyRun)/2)
		w.put(emptyRun[:2*n])
		w.ends -= n
	}
	if w.blank {
		w.blank = false
		w.put(oneBlank)
	}
	w.put(p)
	w.any = true
}

// sum ends the body with one CRLF; an empty one stays empty when relaxed.
func (w *bodyWriter) sum() []byte {
	w.flushCR()
	w.hash.Write(w.out)
	if w.any || w.canon == simple {
		io.WriteString(w.hash, "\r\n")
	}
	return w.hash.Sum(nil)
}

// hashBody reads a body once for all that want its hash.
func hashBody(ctx context.Context, body io.Reader, wanted map[canon]bool) (map[canon][]byte, error) {
	writers := map[canon]*bodyWriter{}
	for c := range wanted {
		writers[c] = newBodyWriter(c)
	}
	if body == nil || len(writers) == 0 {
		return sums(writers), nil
	}
	buf := make([]byte, 32<<10)
	for idle := 0; ; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := body.Read(buf)
		for _, w := range writers {
			w.Write(buf[:n])
		}
		if err == io.EOF {
			break
		}
		if idle++; n > 0 {
			idle = 0
		}
		switch {
		case err != nil:
			return nil, err
		case idle > 100:
			return nil, io.ErrNoProgress
		}
	}
	return sums(writers), nil
}

func sums(writers map[canon]*bodyWriter) map[canon][]byte {
	list := map[canon][]byte{}
	for c, w := range writers {
		list[c] = w.sum()
	}
	return list
}

// picker finds the fields that signatures cover (RFC 6376 §5.4.2).
type picker map[string][]message.Field

func newPicker(h message.Header) picker {
	p := picker{}
	for _, f := range h.Fields() {
		name := strings.ToLower(f.Name)
		p[name] = append(p[name], f)
	}
	return p
}

// write hashes the fields named, from the bottom up for one name; what isn't
// there adds nothing.
func (p picker) write(w io.Writer, c canon, names []string) {
	taken := map[string]int{}
	for _, name := range names {
		name = strings.ToLower(name)
		fields := p[name]
		n := taken[name]
		if n >= len(fields) {
			continue
		}
		taken[name]++
		io.WriteString(w, c.header(fields[len(fields)-1-n].Raw()))
	}
}
