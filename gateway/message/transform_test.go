package message_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/casegate/casegate/gateway/message"
)

func TestNormalize(t *testing.T) {
	for in, want := range map[string]string{
		"":             "",
		"a\r\nb\r\n":   "a\r\nb\r\n",
		"a\nb":         "a\r\nb",
		"a\rb":         "a\r\nb",
		"a\r\r\nb":     "a\r\n\r\nb",
		"a\n\rb":       "a\r\n\r\nb",
		"a\r":          "a\r\n",
		"\r\r\r":       "\r\n\r\n\r\n",
		"\x00a\x00\n":  "\x00a\x00\r\n",
		"\r\n.\n\r.\r": "\r\n.\r\n\r\n.\r\n",
	} {
		for _, r := range []io.Reader{strings.NewReader(in), iotest.OneByteReader(strings.NewReader(in)), iotest.DataErrReader(strings.NewReader(in))} {
			if got, err := io.ReadAll(message.Normalize(r)); string(got) != want || err != nil {
				t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
			}
		}
	}
}

func TestEndWithCRLF(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a": "a\r\n", "a\r": "a\r\n", "a\r\n": "a\r\n", "\r\n": "\r\n", "\n": "\n\r\n", "a\n\r": "a\n\r\n",
	} {
		for _, r := range []io.Reader{strings.NewReader(in), iotest.OneByteReader(strings.NewReader(in)), iotest.DataErrReader(strings.NewReader(in))} {
			if got, err := io.ReadAll(iotest.OneByteReader(message.EndWithCRLF(r))); string(got) != want || err != nil {
				t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
			}
		}
	}
}

func TestApplyUnknown(t *testing.T) {
	if _, err := io.ReadAll(message.Apply(strings.NewReader("a"), []string{"rot13"})); err == nil {
		t.Error("an unknown transform must fail")
	}
}

// An error from below is passed on, and nothing is made up before it.
func TestTransformErrors(t *testing.T) {
	broken := errors.New("broken")
	for _, names := range [][]string{{message.BareNewlines}, {message.FinalCRLF}, {message.BareNewlines, message.FinalCRLF}} {
		r := io.MultiReader(strings.NewReader("a\r"), iotest.ErrReader(broken))
		got, err := io.ReadAll(message.Apply(r, names))
		if !errors.Is(err, broken) || strings.HasSuffix(string(got), "\n") {
			t.Errorf("%v: got %q, %v", names, got, err)
		}
	}
}

// slowTransforms is Normalize and EndWithCRLF, byte by byte.
func slowTransforms(in []byte) []byte {
	var out []byte
	for i := 0; i < len(in); i++ {
		switch {
		case in[i] == '\r' && i+1 < len(in) && in[i+1] == '\n':
			out = append(out, "\r\n"...)
			i++
		case in[i] == '\r', in[i] == '\n':
			out = append(out, "\r\n"...)
		default:
			out = append(out, in[i])
		}
	}
	if len(out) > 0 && !bytes.HasSuffix(out, []byte("\r\n")) {
		out = append(out, "\r\n"...)
	}
	return out
}

func TestTransformsLikeSlow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.StringOfN(rapid.RuneFrom([]rune("\r\r\n\nab")), 0, 60, -1).Draw(t, "in")
		in = strings.Repeat(in, rapid.SampledFrom([]int{1, 1, 1, 3000}).Draw(t, "times"))
		r := io.Reader(strings.NewReader(in))
		if rapid.Bool().Draw(t, "halves") {
			r = iotest.HalfReader(r)
		}
		got, err := io.ReadAll(message.Apply(r, []string{message.BareNewlines, message.FinalCRLF}))
		if err != nil || !bytes.Equal(got, slowTransforms([]byte(in))) {
			t.Fatalf("got %q, %v", got, err)
		}
	})
}

func BenchmarkNormalize(b *testing.B) {
	body := []byte(strings.Repeat("a line of text as it stands in most mails, seventy bytes and a little\r\n", 14000))
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := io.Copy(io.Discard, message.Normalize(bytes.NewReader(body))); err != nil {
			b.Fatal(err)
		}
	}
}
