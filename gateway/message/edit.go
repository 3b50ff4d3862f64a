package message

import (
	"slices"
	"strings"
)

// Editor makes a changed copy of a header block. It works on spans: every byte
// that no call names stays where and as it is. Fields must come from the header
// being edited; others are ignored.
//
// On one field, Remove beats Replace beats Splice, in whatever order they are
// called.
type Editor struct {
	h       Header
	edits   map[int32]*fieldEdit // by where the field starts
	prepend []newField
	append  []newField
}

// fieldEdit is what is to become of one field.
type fieldEdit struct {
	removed  bool
	replaced bool
	value    string
	splices  []splice
}

// splice is new text for a span of a field's raw value.
type splice struct {
	Span
	repl string
}

type newField struct{ name, value string }

// NewEditor starts with nothing changed.
func NewEditor(h Header) *Editor {
	return &Editor{h: h, edits: map[int32]*fieldEdit{}}
}

// Remove takes a field out, with its folded lines.
func (e *Editor) Remove(f Field) { e.of(f).removed = true }

// Replace gives a field a new value. Its name and place are kept.
func (e *Editor) Replace(f Field, value string) {
	ed := e.of(f)
	ed.replaced, ed.value = true, value
}

// Splice puts repl in place of the bytes from start to end of f.Value(). It
// may be called several times per field; where two spans overlap, all that
// either of them names goes, and both texts come. A span that would cut a fold
// in two (and so begin a new field) takes the whole line end.
func (e *Editor) Splice(f Field, start, end int, repl string) {
	v := f.Value()
	start = min(max(start, 0), len(v))
	end = min(max(end, start), len(v))
	ed := e.of(f)
	ed.splices = append(ed.splices, splice{keepFolds(v, start, end), repl})
}

// Prepend adds a field at the top. The field of the first call ends up first.
// An mbox "From " line and lines that would be read as a continuation of the
// new field stay above it.
func (e *Editor) Prepend(name, value string) {
	e.prepend = append(e.prepend, newField{name, value})
}

// OnTop returns a block with whole fields, made elsewhere, where Prepend adds them.
func OnTop(block, fields []byte) []byte {
	top := NewEditor(Parse(block)).top()
	return slices.Concat(block[:top], fields, block[top:])
}

// Append adds a field at the end, in call order, before the empty line.
func (e *Editor) Append(name, value string) {
	e.append = append(e.append, newField{name, value})
}

// of returns the edit of a field, or one that counts for nothing.
func (e *Editor) of(f Field) *fieldEdit {
	i, ok := slices.BinarySearchFunc(e.h.fields, f.start, func(f Field, at int32) int { return int(f.start - at) })
	if !ok || e.h.fields[i] != f {
		return &fieldEdit{}
	}
	ed := e.edits[f.start]
	if ed == nil {
		ed = &fieldEdit{}
		e.edits[f.start] = ed
	}
	return ed
}

// Bytes returns the new block. Line ends written are CRLF. If fields were
// added to a block without an empty line at its end, it gets one, unless the
// block is TooLarge and may have been cut off.
func (e *Editor) Bytes() []byte {
	w := &headerWriter{b: make([]byte, 0, len(e.h.block)+e.room())}
	top := 0
	if len(e.prepend) > 0 {
		top = e.top()
	}
	w.text(e.h.text[:top])
	w.fields(e.prepend)
	e.body(w, top)
	w.fields(e.append)
	if e.h.end == len(e.h.text) && !e.h.over && len(e.prepend)+len(e.append) > 0 {
		w.endLine()
		w.text("\r\n")
	}
	w.text(e.h.text[e.h.end:])
	return w.b
}

// room estimates how much longer the block gets.
func (e *Editor) room() int {
	n := 0
	for _, added := range [][]newField{e.prepend, e.append} {
		for _, f := range added {
			n += len(f.name) + len(f.value) + len(f.value)/16 + len(": \r\n")
		}
	}
	return n + 2
}

// body writes the block's own fields and junk.
func (e *Editor) body(w *headerWriter, from int) {
	for _, f := range e.h.fields {
		ed := e.edits[f.start]
		if ed == nil {
			continue
		}
		span := f.Span()
		w.text(e.h.text[from:span.Start])
		ed.write(w, f)
		from = span.End
	}
	w.text(e.h.text[from:e.h.end])
}

// top returns where new first fields go: behind an mbox "From " line and
// behind lines that start with white space. Nothing from outside may become
// the continuation of a field of ours.
func (e *Editor) top() int {
	s := e.h.text[:e.h.end]
	if len(e.h.junk) == 0 || e.h.junk[0].Start > 0 {
		return 0
	}
	if isBlank(s[0]) || strings.HasPrefix(s, "From ") || strings.HasPrefix(s, ">From ") {
		return foldedEnd(s, 0)
	}
	return 0
}

func (ed *fieldEdit) write(w *headerWriter, f Field) {
	value := f.Value()
	switch {
	case ed.removed:
	case ed.replaced:
		w.text(f.raw[:f.value])
		w.value(ed.value)
		w.text(f.raw[int(f.value)+len(value):])
	default:
		w.text(f.raw[:f.value])
		ed.splice(w, value)
		w.text(f.raw[int(f.value)+len(value):])
	}
}

func (ed *fieldEdit) splice(w *headerWriter, value string) {
	slices.SortStableFunc(ed.splices, func(a, b splice) int { return a.Start - b.Start })
	from := 0
	for _, s := range ed.splices {
		if s.Start > from {
			w.text(value[from:s.Start])
		}
		w.splice(s.repl)
		from = max(from, s.End)
	}
	w.text(value[from:])
}

// keepFolds widens a span so that no line end loses the white space behind it
// and no CR its LF.
func keepFolds(value string, start, end int) Span {
	if start > 0 && value[start-1] == '\n' {
		start--
	}
	if splitsCRLF(value, start) {
		start--
	}
	if end > start && splitsCRLF(value, end) {
		end++
	}
	return Span{start, end}
}

func splitsCRLF(s string, i int) bool {
	return i > 0 && i < len(s) && s[i-1] == '\r' && s[i] == '\n'
}
