package message_test

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/casegate/casegate/gateway/message"
)

func TestFinder(t *testing.T) {
	for _, c := range []struct{ mail, header string }{
		{"", ""},
		{"A: b\r\n\r\nbody", "A: b\r\n\r\n"},
		{"A: b\n\nbody", "A: b\n\n"},
		{"A: b\r\n\nbody", "A: b\r\n\n"},
		{"A: b\n\r\nbody", "A: b\n\r\n"},
		{"\r\nbody", "\r\n"},
		{"\nbody", "\n"},
		{"A: b\r\n \r\nC: d\r\n\r\n", "A: b\r\n \r\nC: d\r\n\r\n"}, // white space is no empty line
		{"A: b\r\n\r\r\nC: d", "A: b\r\n\r\r\nC: d"},               // nor is CR CR LF
		{"A: b\r\rC: d", "A: b\r\rC: d"},
		{"no end at all", "no end at all"},
	} {
		for chunk := 1; chunk <= len(c.mail)+1; chunk++ {
			header, body := split([]byte(c.mail), chunk)
			if string(header) != c.header || string(header)+string(body) != c.mail {
				t.Errorf("%q in chunks of %d: header %q, want %q", c.mail, chunk, header, c.header)
			}
		}
	}
}

func TestFinderIsDone(t *testing.T) {
	var f message.Finder
	if n, done := f.Feed([]byte("A: b\r\n\r\nX")); n != 8 || !done {
		t.Errorf("got %d, %v", n, done)
	}
	if n, done := f.Feed([]byte("more")); n != 0 || !done {
		t.Errorf("after the end: got %d, %v", n, done)
	}
}

// However the bytes are cut, the header ends at the first empty line.
func TestFinderChunks(t *testing.T) {
	end := regexp.MustCompile(`^\r?\n|\n\r?\n`)
	rapid.Check(t, func(t *rapid.T) {
		mail := rapid.StringOfN(rapid.RuneFrom([]rune("a:\r\n ")), 0, 40, -1).Draw(t, "mail")
		want := mail
		if at := end.FindStringIndex(mail); at != nil {
			want = mail[:at[1]]
		}
		header, _ := split([]byte(mail), rapid.IntRange(1, 8).Draw(t, "chunk"))
		if string(header) != want {
			t.Fatalf("header %q, want %q", header, want)
		}
	})
}

func TestParse(t *testing.T) {
	block := "From someone@x Mon Jan  1 00:00:00 2024\r\n" +
		"Received: by a;\r\n\tMon, 1 Jan 2024\r\n" +
		"this is no field\r\n and its fold\r\n" +
		"Subject : hello\n" +
		" \n" +
		" world\n" +
		"received:by b\r\n" +
		": no name\r\n" +
		"Empty:\r\n" +
		"B\xc3\xa4d: name\r\n" +
		"Last: no line end"
	h := message.Parse([]byte(block))
	var got []string
	for _, f := range h.Fields() {
		got = append(got, fmt.Sprintf("%s=%q", f.Name, f.Text()))
	}
	want := []string{`Received="by a;\tMon, 1 Jan 2024"`, `Subject="hello  world"`, `received="by b"`, `Empty=""`, `Last="no line end"`}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if len(h.Junk()) != 4 {
		t.Errorf("junk: %v", h.Junk())
	}
	if d := cmp.Diff([]string{"by a;\tMon, 1 Jan 2024", "by b"}, h.Values("RECEIVED")); d != "" {
		t.Error(d)
	}
	if h.Get("subject") != "hello  world" || h.Get("nothing") != "" || h.Len() != 5 || h.Empty() {
		t.Errorf("Get, Len, Empty: %q %q %d %v", h.Get("subject"), h.Get("nothing"), h.Len(), h.Empty())
	}
	if f := h.Named("subject")[0]; f.Value() != " hello\n \n world" || f.Raw() != "Subject : hello\n \n world\n" {
		t.Errorf("subject: %q %q", f.Value(), f.Raw())
	}
	checkSpans(t, h)
}

// One bad line must not cost the others (go-message loses the whole header).
func TestParseKeepsTheRest(t *testing.T) {
	for _, bad := range []string{"From x@y\r\n", ">From x@y\r\n", "no colon\r\n", " leading\r\n", "\tleading\r\n", "\x00\r\n", ":\r\n", "\r\r\n", "a b: c\r\n"} {
		h := message.Parse([]byte(bad + "To: a@b\r\n" + strings.TrimLeft(bad, " \t") + "Cc: c@d\r\n\r\n"))
		if h.Get("To") != "a@b" || h.Get("Cc") != "c@d" || h.Len() != 2 {
			t.Errorf("%q: got %d fields, To %q, Cc %q", bad, h.Len(), h.Get("To"), h.Get("Cc"))
		}
	}
}

func TestParseNoField(t *testing.T) {
	for _, block := range []string{"", "\r\n", "\n", "hello\r\n\r\n", " a: b\r\n"} {
		if h := message.Parse([]byte(block)); !h.Empty() || h.TooLarge() {
			t.Errorf("%q: %d fields", block, h.Len())
		}
	}
}

func TestParseCaps(t *testing.T) {
	h := message.Parse([]byte(strings.Repeat("a:\n", message.MaxFields)))
	if h.Len() != message.MaxFields || h.TooLarge() {
		t.Errorf("at the cap: %d fields, %v", h.Len(), h.TooLarge())
	}
	h = message.Parse([]byte(strings.Repeat("a:\n", message.MaxFields+1)))
	if h.Len() != message.MaxFields || !h.TooLarge() {
		t.Errorf("over the cap: %d fields, %v", h.Len(), h.TooLarge())
	}
	checkSpans(t, h)
	block := bytes.Repeat([]byte("a: b\r\n"), message.MaxHeader/6+1)
	h = message.Parse(block)
	if !h.Empty() || !h.TooLarge() {
		t.Errorf("too many bytes: %d fields, %v", h.Len(), h.TooLarge())
	}
	checkSpans(t, h)
}

func TestUnfold(t *testing.T) {
	for in, want := range map[string]string{
		"":                 "",
		"a b":              "a b",
		"a\r\n b":          "a b",
		"a\n\tb":           "a\tb",
		"a\r\nb":           "a b",
		"a\rb":             "a b",
		"a\r\r\n b":        "a  b",
		"a\r\n":            "a ",
		"\r\n \r\n b\r\n ": "  b ",
	} {
		if got := message.Unfold(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// checkSpans: fields and junk concatenated are the block, up to the empty line.
func checkSpans(t testing.TB, h message.Header) {
	t.Helper()
	spans := slices.Clone(h.Junk())
	for _, f := range h.Fields() {
		spans = append(spans, f.Span())
		if got := string(h.Bytes()[f.Span().Start:f.Span().End]); got != f.Raw() {
			t.Errorf("Raw is %q, its span holds %q", f.Raw(), got)
		}
		if f.Name == "" || !strings.HasPrefix(f.Raw(), f.Name) || !strings.Contains(f.Raw(), f.Value()) {
			t.Errorf("field %q: name %q, value %q", f.Raw(), f.Name, f.Value())
		}
	}
	slices.SortFunc(spans, func(a, b message.Span) int { return a.Start - b.Start })
	at := 0
	for _, s := range spans {
		if s.Start != at || s.End <= s.Start {
			t.Fatalf("span %v at %d", s, at)
		}
		at = s.End
	}
	if rest := string(h.Bytes()[at:]); rest != "" && !strings.HasPrefix(rest, "\n") && !strings.HasPrefix(rest, "\r\n") {
		t.Errorf("lost %q", rest)
	}
}

// Property: fields, junk and body are the input, byte for byte; and no text holds
// a line break.
func FuzzParse(f *testing.F) {
	f.Add([]byte("From x\r\nA: b\r\n c\r\nno\r\n\r\nbody"))
	f.Add([]byte(" \nA :b\n\n"))
	f.Add([]byte("=?utf-8?q?a?=: =?x?b?YQ?= =?x?b?YQ==?=\r\n"))
	f.Fuzz(func(t *testing.T, mail []byte) {
		header, body := split(mail, 3)
		if !bytes.Equal(append(slices.Clone(header), body...), mail) {
			t.Fatal("header and body are not the message")
		}
		h := message.Parse(header)
		checkSpans(t, h)
		for _, f := range h.Fields() {
			checkText(t, f.Text(), message.Decode(f.Value()))
		}
		checkSpans(t, message.Parse(mail))
		if o := message.Opaque(mail); !o.Empty() || !o.TooLarge() {
			t.Fatalf("%d fields of a block that isn't read", o.Len())
		} else {
			checkSpans(t, o)
		}
	})
}

func checkText(t testing.TB, text, decoded string) {
	t.Helper()
	if strings.ContainsAny(text, "\r\n") {
		t.Errorf("line break in text %q", text)
	}
	for _, r := range decoded {
		if r < ' ' || 0x7f <= r && r < 0xa0 || 0x202a <= r && r <= 0x202e || 0x2066 <= r && r <= 0x2069 {
			t.Errorf("%U in decoded text %q", r, decoded)
		}
	}
}
