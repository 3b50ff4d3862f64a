package message_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/casegate/casegate/gateway/message"
)

const sample = "Received: by a;\r\n\tnow\r\nTo: Ana <a@x>,\r\n Ben <b@x>\r\nbroken line\r\nSubject : hi\nX: last\r\n\r\n"

func edit(block string, do func(message.Header, *message.Editor)) string {
	h := message.Parse([]byte(block))
	e := message.NewEditor(h)
	do(h, e)
	return string(e.Bytes())
}

func TestEditor(t *testing.T) {
	type do = func(h message.Header, e *message.Editor)
	to := func(h message.Header) message.Field { return h.Named("To")[0] }
	for _, c := range []struct {
		name, block string
		do          do
		want        string
	}{
		{"nothing", sample, func(message.Header, *message.Editor) {}, sample},
		{"remove", sample, func(h message.Header, e *message.Editor) { e.Remove(h.Fields()[0]) },
			strings.TrimPrefix(sample, "Received: by a;\r\n\tnow\r\n")},
		{"replace keeps the name and the line end", sample, func(h message.Header, e *message.Editor) { e.Replace(h.Named("subject")[0], "new") },
			strings.Replace(sample, "Subject : hi\n", "Subject : new\n", 1)},
		{"splice one mailbox", sample, func(h message.Header, e *message.Editor) {
			m := message.ParseList(to(h).Value())[1]
			e.Splice(to(h), m.Start, m.End, "c@y")
		}, strings.Replace(sample, "Ben <b@x>", "c@y", 1)},
		{"two splices, back to front", sample, func(h message.Header, e *message.Editor) {
			for _, m := range slices.Backward(message.ParseList(to(h).Value())) {
				e.Splice(to(h), m.AddrStart, m.AddrEnd, "z@"+m.Name)
			}
		}, strings.NewReplacer("a@x", "z@Ana", "b@x", "z@Ben").Replace(sample)},
		{"prepend and append in call order", "A: b\r\n\r\n", func(h message.Header, e *message.Editor) {
			e.Prepend("P", "1")
			e.Append("S", "1")
			e.Prepend("P", "2")
			e.Append("S", "2")
		}, "P: 1\r\nP: 2\r\nA: b\r\nS: 1\r\nS: 2\r\n\r\n"},
		{"no empty line, no line end", "A: b", func(h message.Header, e *message.Editor) { e.Append("S", "1") }, "A: b\r\nS: 1\r\n\r\n"},
		{"half a line end", "A: b\r", func(h message.Header, e *message.Editor) { e.Append("S", "1") }, "A: b\r\nS: 1\r\n\r\n"},
		{"half an empty line", "A: b\n\r", func(h message.Header, e *message.Editor) { e.Append("S", "1") }, "A: b\n\r\r\nS: 1\r\n\r\n"},
		{"prepend, no empty line", "A: b\n", func(h message.Header, e *message.Editor) { e.Prepend("P", "1") }, "P: 1\r\nA: b\n\r\n"},
		{"empty block", "", func(h message.Header, e *message.Editor) { e.Prepend("P", "1") }, "P: 1\r\n\r\n"},
		{"empty line only", "\n", func(h message.Header, e *message.Editor) { e.Append("S", "1") }, "S: 1\r\n\n"},
		{"below the mbox line", "From x\r\nA: b\r\n\r\n", func(h message.Header, e *message.Editor) { e.Prepend("P", "1") }, "From x\r\nP: 1\r\nA: b\r\n\r\n"},
		{"never above a stray continuation", " evil\r\n\tmore\r\nA: b\r\n\r\n", func(h message.Header, e *message.Editor) { e.Prepend("P", "1") },
			" evil\r\n\tmore\r\nP: 1\r\nA: b\r\n\r\n"},
		{"above other junk", "junk\r\n\r\n", func(h message.Header, e *message.Editor) { e.Prepend("P", "1") }, "P: 1\r\njunk\r\n\r\n"},
		{"controls can't inject", "A: b\r\n\r\n", func(h message.Header, e *message.Editor) {
			e.Replace(h.Fields()[0], "x\r\nBcc: evil\x00\u0085y")
			e.Append("S\r\nX", "\r\n\r\nbody")
		}, "A: x  Bcc: evil  y\r\nS--X: body\r\n\r\n"},
		{"splice can't inject", "A: b\r\n\r\n", func(h message.Header, e *message.Editor) { e.Splice(h.Fields()[0], 1, 2, "x\nBcc: evil") },
			"A: x Bcc: evil\r\n\r\n"},
		{"a splice between line end and white space", "A: b\r\n c\r\n\r\n", func(h message.Header, e *message.Editor) { e.Splice(h.Fields()[0], 4, 4, "Bcc: x") },
			"A: bBcc: x c\r\n\r\n"},
		{"a splice through a line end", "A: b\r\n c\r\n\r\n", func(h message.Header, e *message.Editor) { e.Splice(h.Fields()[0], 1, 3, "") },
			"A:  c\r\n\r\n"},
		{"remove beats the others", "A: b\r\nB: c\r\n\r\n", func(h message.Header, e *message.Editor) {
			e.Remove(h.Fields()[0])
			e.Replace(h.Fields()[0], "x")
			e.Splice(h.Fields()[1], 0, 2, " y")
			e.Replace(h.Fields()[1], "z")
		}, "B: z\r\n\r\n"},
		{"overlapping splices remove all", "A: bcdef\r\n\r\n", func(h message.Header, e *message.Editor) {
			e.Splice(h.Fields()[0], 2, 5, "2")
			e.Splice(h.Fields()[0], 1, 4, "1")
		}, "A: 12f\r\n\r\n"},
		{"offsets out of range", "A: b\r\n\r\n", func(h message.Header, e *message.Editor) { e.Splice(h.Fields()[0], -5, 99, " x") }, "A: x\r\n\r\n"},
		{"fields of another header", "A: b\r\n\r\n", func(h message.Header, e *message.Editor) {
			e.Remove(message.Field{})
			e.Remove(message.Parse([]byte("A: bc\r\n\r\n")).Fields()[0])
			e.Replace(message.Parse([]byte("X: 1\r\nA: bc\r\n\r\n")).Fields()[1], "x")
		}, "A: b\r\n\r\n"},
		{"empty value", "A: b\r\n\r\n", func(h message.Header, e *message.Editor) { e.Replace(h.Fields()[0], " ") }, "A:\r\n\r\n"},
	} {
		if got := edit(c.block, c.do); got != c.want {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.want)
		}
	}
}

// A block that may have been cut off gets no empty line: its body goes on.
func TestEditorTooLarge(t *testing.T) {
	block := strings.Repeat("a: b\r\n", message.MaxHeader/6+1)
	if got := edit(block, func(_ message.Header, e *message.Editor) { e.Prepend("P", "1") }); got != "P: 1\r\n"+block {
		t.Errorf("got %.20q… of %d bytes", got, len(got))
	}
	block += "\r\n"
	if got := edit(block, func(_ message.Header, e *message.Editor) { e.Append("S", "1") }); !strings.HasSuffix(got, "a: b\r\nS: 1\r\n\r\n") {
		t.Errorf("got %q", got[len(got)-30:])
	}
}

// Folding loses nothing, keeps to 78 columns where it can, to 998 always.
func TestFold(t *testing.T) {
	token := rapid.StringOfN(rapid.RuneFrom([]rune("aü<>,@")), 1, 90, -1)
	rapid.Check(t, func(t *rapid.T) {
		value := strings.Join(rapid.SliceOfN(token, 1, 12).Draw(t, "tokens"), rapid.SampledFrom([]string{" ", "  "}).Draw(t, "gap"))
		if rapid.Bool().Draw(t, "long") {
			value += " " + strings.Repeat(rapid.SampledFrom([]string{"x", "ü", "\x80"}).Draw(t, "long token"), 3000)
		}
		block := edit("A: b\r\n\r\n", func(_ message.Header, e *message.Editor) { e.Append("Name", value) })
		h := message.Parse([]byte(block))
		if h.Len() != 2 || squash(h.Get("Name")) != squash(value) {
			t.Fatalf("%q comes back as %q", value, h.Get("Name"))
		}
		if len(value) < 900 && h.Get("Name") != value {
			t.Fatalf("%q comes back as %q", value, h.Get("Name"))
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(block, "\r\n\r\n"), "\r\n") {
			words := len(strings.Fields(strings.TrimPrefix(line, "Name:")))
			if len(line) > 998 || len(line) > 78 && words > 1 || strings.TrimSpace(line) == "" {
				t.Fatalf("line of %d bytes and %d words: %q", len(line), words, line)
			}
		}
	})
}

// piece is a part of a header as the slow reference sees it.
type piece struct {
	name, value, end string // end: the line end
	junk             string
	field            bool
	text             string // what it becomes
}

func drawPieces(t *rapid.T) []piece {
	eol := rapid.SampledFrom([]string{"\r\n", "\r\n", "\n"})
	text := rapid.StringOfN(rapid.RuneFrom([]rune("ab,<@>:;\"(\x00ü \t")), 0, 12, -1)
	one := rapid.Custom(func(t *rapid.T) piece {
		if rapid.IntRange(0, 4).Draw(t, "kind") == 0 {
			junk := rapid.SampledFrom([]string{"From x y", "no colon", "B\xc3\xa4d: x", ":"}).Draw(t, "junk") + eol.Draw(t, "eol")
			return piece{junk: junk, text: junk}
		}
		p := piece{field: true, end: eol.Draw(t, "eol")}
		p.name = rapid.SampledFrom([]string{"To:", "Cc :", "X-Y:", "subject:"}).Draw(t, "name")
		p.value = text.Draw(t, "value")
		for range rapid.IntRange(0, 3).Draw(t, "folds") {
			p.value += eol.Draw(t, "fold") + rapid.SampledFrom([]string{" ", "\t"}).Draw(t, "blank") + text.Draw(t, "folded")
		}
		p.text = p.name + p.value + p.end
		return p
	})
	return rapid.SliceOfN(one, 0, 6).Draw(t, "pieces")
}

// drawEdit picks what happens to a field, tells the editor, and says what must
// come of it.
func (p *piece) drawEdit(t *rapid.T, f message.Field, e *message.Editor) {
	value := rapid.StringOfN(rapid.RuneFrom([]rune("xyz@<\r\n\x00")), 0, 6, -1).Draw(t, "new value")
	clean := strings.NewReplacer("\r", " ", "\n", " ", "\x00", " ").Replace(value)
	switch rapid.SampledFrom([]string{"keep", "remove", "replace", "splice"}).Draw(t, "edit") {
	case "remove":
		e.Remove(f)
		p.text = ""
	case "replace":
		e.Replace(f, value)
		p.text = p.name + p.end
		if clean = strings.TrimSpace(clean); clean != "" {
			p.text = p.name + " " + clean + p.end
		}
	case "splice":
		p.text = p.name + p.drawSplices(t, f, e, value, clean) + p.end
	}
}

// drawSplices cuts at up to three places, none of them inside a fold.
func (p *piece) drawSplices(t *rapid.T, f message.Field, e *message.Editor, value, clean string) string {
	var free []int
	for i := 0; i <= len(p.value); i++ {
		if i == 0 || p.value[i-1] != '\r' && p.value[i-1] != '\n' {
			free = append(free, i)
		}
	}
	cuts := rapid.SliceOfN(rapid.SampledFrom(free), 0, 6).Draw(t, "cuts")
	slices.Sort(cuts)
	var out strings.Builder
	from := 0
	for i := 0; i+1 < len(cuts); i += 2 {
		e.Splice(f, cuts[i], cuts[i+1], value)
		out.WriteString(p.value[from:cuts[i]] + clean)
		from = cuts[i+1]
	}
	return out.String() + p.value[from:]
}

// The proof that all bytes that aren't edited are the same: the editor against
// a reference that puts the pieces together again.
func TestEditorLikeSlow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pieces := drawPieces(t)
		empty := rapid.SampledFrom([]string{"\r\n", "\n", ""}).Draw(t, "empty line")
		var block strings.Builder
		for _, p := range pieces {
			block.WriteString(p.text)
		}
		h := message.Parse([]byte(block.String() + empty))
		e := message.NewEditor(h)
		fields := h.Fields()
		for i := range pieces {
			if pieces[i].field {
				pieces[i].drawEdit(t, fields[0], e)
				fields = fields[1:]
			}
		}
		want := wantBlock(pieces, empty, drawAdded(t, "prepend", e.Prepend), drawAdded(t, "append", e.Append))
		if got := string(e.Bytes()); got != want {
			t.Fatalf("%q\n got %q\nwant %q", block.String()+empty, got, want)
		}
	})
}

func drawAdded(t *rapid.T, what string, add func(name, value string)) (text string) {
	for i := range rapid.IntRange(0, 2).Draw(t, what) {
		add("New", fmt.Sprint(what, i))
		text += fmt.Sprintf("New: %s%d\r\n", what, i)
	}
	return text
}

func wantBlock(pieces []piece, empty, top, bottom string) string {
	var b strings.Builder
	if len(pieces) > 0 && strings.HasPrefix(pieces[0].junk, "From ") {
		b.WriteString(pieces[0].junk)
		pieces = pieces[1:]
	}
	b.WriteString(top)
	for _, p := range pieces {
		b.WriteString(p.text)
	}
	b.WriteString(bottom)
	if empty == "" && top+bottom != "" {
		empty = "\r\n"
	}
	return b.String() + empty
}

// checkEdit: a splice changes nothing outside of its span (a line end at its
// edges aside), and makes no new field; nor do the other edits.
func checkEdit(t testing.TB, h message.Header, i, start, end int, repl string) {
	t.Helper()
	f, block := h.Fields()[i], string(h.Bytes())
	at := f.Span().Start + strings.Index(f.Raw(), ":") + 1
	start, end = min(max(start, 0), len(f.Value())), min(max(end, 0), len(f.Value()))
	end = max(start, end)
	e := message.NewEditor(h)
	e.Splice(f, start, end, repl)
	out := e.Bytes()
	before, after := block[:max(at+start-2, at)], block[min(at+end+1, at+len(f.Value())):]
	if !strings.HasPrefix(string(out), before) || !strings.HasSuffix(string(out), after) {
		t.Errorf("%q: splicing %q into %d:%d of field %d gives %q", block, repl, start, end, i, out)
	}
	if n := message.Parse(out).Len(); n != h.Len() && len(out) <= message.MaxHeader {
		t.Errorf("%q: splicing %q makes %d fields of %d: %q", block, repl, n, h.Len(), out)
	}
	e.Remove(f)
	e.Prepend("Our-Stamp", repl)
	e.Append("Our-End", repl)
	checkStamps(t, h, message.Parse(e.Bytes()), repl)
}

func checkStamps(t testing.TB, before, after message.Header, value string) {
	t.Helper()
	if before.TooLarge() || after.TooLarge() {
		return
	}
	first, last := after.Fields()[0], after.Fields()[after.Len()-1]
	if first.Name != "Our-Stamp" || last.Name != "Our-End" || after.Len() != before.Len()+1 {
		t.Errorf("%q becomes %q", before.Bytes(), after.Bytes())
	}
	if len(value) < 900 && (squash(first.Text()) != squash(last.Text()) || strings.Contains(first.Text(), "evil")) {
		t.Errorf("stamped %q: %q, %q", value, first.Text(), last.Text())
	}
}

// Property: untouched bytes are identical, and no value makes a field.
func FuzzEdit(f *testing.F) {
	f.Add([]byte(sample), 1, 5, 9, "x\r\nBcc: y")
	f.Add([]byte(" a\nB:\r\n \r\n"), 0, 0, 3, "")
	f.Fuzz(func(t *testing.T, block []byte, i, start, end int, repl string) {
		h := message.Parse(block)
		if i >= 0 && i < h.Len() && !strings.Contains(string(block)+repl, "evil") {
			checkEdit(t, h, i, start, end, repl)
		}
	})
}

// What is made elsewhere goes where Prepend puts fields: nothing of the block may
// become a part of it.
func TestOnTop(t *testing.T) {
	for block, want := range map[string]string{
		"A: b\r\n\r\n":                     "X: y\r\nA: b\r\n\r\n",
		" From: a\r\n b\r\nA: b\r\n\r\n":   " From: a\r\n b\r\nX: y\r\nA: b\r\n\r\n",
		"From a Mon\r\n x\r\nA: b\r\n\r\n": "From a Mon\r\n x\r\nX: y\r\nA: b\r\n\r\n",
		"no field\r\nA: b\r\n\r\n":         "X: y\r\nno field\r\nA: b\r\n\r\n",
		"":                                 "X: y\r\n",
	} {
		if got := string(message.OnTop([]byte(block), []byte("X: y\r\n"))); got != want {
			t.Errorf("%q: %q, want %q", block, got, want)
		}
	}
}
