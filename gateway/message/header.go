package message

import (
	"strings"
	"unsafe"
)

// MaxFields is how many fields of a header are read; what follows is junk.
const MaxFields = 10_000

// Header is a header block with the spans of its fields. It is read-only; an
// Editor makes a changed copy.
type Header struct {
	block  []byte
	text   string // the same bytes
	fields []Field
	junk   []Span
	end    int // where the terminating empty line starts, or would
	over   bool
}

// Span is a range of bytes, End excluded.
type Span struct{ Start, End int }

// Field is one header field with its folded lines.
type Field struct {
	Name string // as written, without white space before the colon

	raw   string // the field's lines, with their line ends
	start int32  // of raw in the block
	value int32  // of the value in raw, after the colon
}

// Parse scans a header block (RFC 5322 §2.2) and never fails: a line that is
// no field (an mbox "From " line, a line without a colon, a first line that
// starts with white space) becomes junk with the lines folded under it. Parse
// doesn't copy: the block belongs to the Header from now on and must not
// change.
func Parse(block []byte) Header {
	h := Header{block: block, text: unsafe.String(unsafe.SliceData(block), len(block))}
	if len(block) > MaxHeader {
		h.scan(0)
	} else {
		h.scan(MaxFields)
	}
	return h
}

// Opaque is a header block of which nothing is read: all of it is junk, and it
// counts as TooLarge.
func Opaque(block []byte) Header {
	h := Header{block: block, text: unsafe.String(unsafe.SliceData(block), len(block))}
	h.scan(0)
	return h
}

// scan reads as many fields as it may; the others become junk.
func (h *Header) scan(limit int) {
	h.fields = make([]Field, 0, min(strings.Count(h.text, "\n")+1, limit))
	h.over = limit == 0
	for h.end < len(h.text) && lineEnd(h.text[h.end:]) == 0 {
		start, end := h.end, foldedEnd(h.text, h.end)
		name, value, ok := splitField(h.text[start:end])
		switch {
		case ok && len(h.fields) < limit:
			h.fields = append(h.fields, Field{name, h.text[start:end], int32(start), int32(value)})
			h.end = end
		default:
			h.over = h.over || ok
			h.skip(start, end)
		}
	}
}

// skip adds bytes to the junk, joining them with what touches them.
func (h *Header) skip(start, end int) {
	h.end = end
	if n := len(h.junk); n > 0 && h.junk[n-1].End == start {
		h.junk[n-1].End = end
		return
	}
	h.junk = append(h.junk, Span{start, end})
}

// foldedEnd returns the end of the line at i and of those folded under it:
// lines that start with white space (RFC 5322 §2.2.3).
func foldedEnd(s string, i int) int {
	for {
		n := strings.IndexByte(s[i:], '\n')
		if n < 0 {
			return len(s)
		}
		i += n + 1
		if i == len(s) || !isBlank(s[i]) {
			return i
		}
	}
}

// splitField reads `name ":"`; white space before the colon is tolerated
// (RFC 5322 §4.5). value is the offset behind the colon.
func splitField(line string) (name string, value int, ok bool) {
	n := 0
	for n < len(line) && isNameByte(line[n]) {
		n++
	}
	colon := n
	for colon < len(line) && isBlank(line[colon]) {
		colon++
	}
	if n == 0 || colon == len(line) || line[colon] != ':' {
		return "", 0, false
	}
	return line[:n], colon + 1, true
}

// isNameByte is ftext: printable ASCII except the colon (RFC 5322 §3.6.8).
func isNameByte(c byte) bool { return '!' <= c && c <= '~' && c != ':' }

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// lineEnd returns the length of the line end that s starts with, or 0.
func lineEnd(s string) int {
	switch {
	case strings.HasPrefix(s, "\r\n"):
		return 2
	case strings.HasPrefix(s, "\n"):
		return 1
	}
	return 0
}

// Bytes returns the block as it came. It must not be changed.
func (h Header) Bytes() []byte { return h.block }

// Fields returns all fields, top to bottom. The slice must not be changed.
func (h Header) Fields() []Field { return h.fields }

// Len returns the number of fields.
func (h Header) Len() int { return len(h.fields) }

// Empty reports that not a single field was found: the message is unparsable.
func (h Header) Empty() bool { return len(h.fields) == 0 }

// TooLarge reports that the block exceeds MaxHeader or MaxFields, so that
// Fields doesn't tell all: the message is unparsable.
func (h Header) TooLarge() bool { return h.over }

// Junk returns the spans that are no fields, in order, the terminating empty
// line aside.
func (h Header) Junk() []Span { return h.junk }

// Named returns all fields of a name, in any case, top to bottom.
func (h Header) Named(name string) []Field {
	var found []Field
	for _, f := range h.fields {
		if f.is(name) {
			found = append(found, f)
		}
	}
	return found
}

// Values returns the text of all fields of a name, in any case, top to bottom.
func (h Header) Values(name string) []string {
	var found []string
	for _, f := range h.fields {
		if f.is(name) {
			found = append(found, f.Text())
		}
	}
	return found
}

// Get returns the text of the first field of a name, or "".
func (h Header) Get(name string) string {
	f, _ := h.First(name)
	return f.Text()
}

// First returns the first field of a name, in any case. Its Text is "" if there
// is none.
func (h Header) First(name string) (f Field, ok bool) {
	for _, f := range h.fields {
		if f.is(name) {
			return f, true
		}
	}
	return Field{}, false
}

func (f Field) is(name string) bool {
	return len(f.Name) == len(name) && strings.EqualFold(f.Name, name)
}

// Raw returns the whole field as it came, with its line ends.
func (f Field) Raw() string { return f.raw }

// Span returns where Raw stands in the block.
func (f Field) Span() Span { return Span{int(f.start), int(f.start) + len(f.raw)} }

// Value returns the raw value: everything behind the colon, still folded,
// without the last line end. ParseList and Editor.Splice count in it.
func (f Field) Value() string {
	v := f.raw[f.value:]
	v, lf := strings.CutSuffix(v, "\n")
	if lf {
		v = strings.TrimSuffix(v, "\r")
	}
	return v
}

// Text returns the value unfolded and trimmed. It holds no CR and no LF.
func (f Field) Text() string { return strings.Trim(Unfold(f.Value()), " \t") }

// Unfold removes the line ends that are followed by white space (RFC 5322
// §2.2.3) and makes any other CR or LF a space.
func Unfold(s string) string {
	i := strings.IndexAny(s, "\r\n")
	if i < 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for ; i >= 0; i = strings.IndexAny(s, "\r\n") {
		b.WriteString(s[:i])
		n := lineEnd(s[i:])
		if n == 0 || i+n == len(s) || !isBlank(s[i+n]) {
			b.WriteByte(' ')
		}
		s = s[i+max(n, 1):]
	}
	b.WriteString(s)
	return b.String()
}
