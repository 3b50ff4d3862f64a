package relay

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// stuffAll stuffs a text in blocks of the given sizes (the rest as one). On
// error it returns what was sent by then.
func stuffAll(text string, sizes ...int) (string, error) {
	var s stuffer
	var out []byte
	var err error
	for _, n := range append(sizes, len(text)) {
		n = min(n, len(text))
		sent := string(out)
		if out, err = s.append(out, []byte(text[:n])); err != nil {
			return sent, err
		}
		text = text[n:]
	}
	out, err = s.end(out)
	return string(out), err
}

// unstuff reads a message as a receiver does (RFC 5321 §4.5.2), and what is
// left behind its final dot.
func unstuff(wire string) (text, rest string) {
	for {
		line, after, _ := strings.Cut(wire, "\r\n")
		if line == "." {
			return text, after
		}
		text, wire = text+strings.TrimPrefix(line, ".")+"\r\n", after
	}
}

// isClean is the rule that the stuffer enforces, said in another way.
func isClean(text string) bool {
	return !strings.ContainsAny(strings.ReplaceAll(text, "\r\n", ""), "\r\n") &&
		(text == "" || strings.HasSuffix(text, "\r\n"))
}

// TestStuffEveryShortText tries all texts of up to seven octets that matter,
// cut at every place: what is clean arrives as it is and ends once, for a
// strict and for a lax reader; what is not never gets a final dot, and none of
// its bare line ends leaves.
func TestStuffEveryShortText(t *testing.T) {
	var try func(text string)
	try = func(text string) {
		for cut := range len(text) + 1 {
			wire, err := stuffAll(text, cut)
			if (err == nil) != isClean(text) {
				t.Fatalf("%q cut at %d: error %v", text, cut, err)
			}
			if err != nil {
				if strings.ContainsAny(strings.ReplaceAll(wire, "\r\n", ""), "\r\n") || laxEnds(wire) > 0 {
					t.Fatalf("%q cut at %d: %q was sent", text, cut, wire)
				}
				continue
			}
			if got, rest := unstuff(wire); got != text || rest != "" {
				t.Fatalf("%q cut at %d: arrived as %q, then %q", text, cut, got, rest)
			}
			if n := laxEnds(wire); n != 1 {
				t.Fatalf("%q cut at %d: %q ends %d times for a lax reader", text, cut, wire, n)
			}
		}
		if len(text) == 7 {
			return
		}
		for _, c := range []string{"\r", "\n", ".", "a"} {
			try(text + c)
		}
	}
	try("")
}

// laxEnds counts the ends of data that a reader sees who takes a CR, an LF or
// both for the end of a line.
func laxEnds(wire string) (n int) {
	wire = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace("\n" + wire)
	for i := range wire {
		if strings.HasPrefix(wire[i:], "\n.\n") {
			n++
		}
	}
	return n
}

func TestStuffAcrossEverySplit(t *testing.T) {
	line := rapid.StringOfN(rapid.SampledFrom([]rune(".a ü\x00")), 0, 6, -1)
	rapid.Check(t, func(t *rapid.T) {
		text := ""
		for _, l := range rapid.SliceOfN(line, 0, 40).Draw(t, "lines") {
			text += l + "\r\n"
		}
		sizes := rapid.SliceOfN(rapid.IntRange(0, 9), 0, 60).Draw(t, "blocks")
		wire, err := stuffAll(text, sizes...)
		if err != nil {
			t.Fatal(err)
		}
		if got, rest := unstuff(wire); got != text || rest != "" {
			t.Fatalf("%q arrived as %q, then %q", text, got, rest)
		}
	})
}

func BenchmarkStuff(b *testing.B) {
	text := bytes.Repeat([]byte(strings.Repeat("x", 76)+"\r\n"), blockSize/78)
	out := make([]byte, 0, 2*blockSize)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		var s stuffer
		if _, err := s.append(out, text); err != nil {
			b.Fatal(err)
		}
	}
}
