package message_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/casegate/casegate/gateway/message"
)

// walked is a part as a walk saw it.
type walked struct {
	*message.Part
	raw string
}

// walk reads all parts of a body; enter goes into messages too.
func walk(h message.Header, body io.Reader, enter bool) (parts []walked, err error) {
	w := message.NewWalker(h, body)
	for {
		p, err := w.Next()
		if err == io.EOF {
			return parts, nil
		}
		if err != nil {
			return parts, err
		}
		if enter && w.Enter() {
			parts = append(parts, walked{p, ""})
			continue
		}
		raw, err := io.ReadAll(p)
		parts = append(parts, walked{p, string(raw)})
		if err != nil {
			return parts, err
		}
	}
}

// shape writes parts as `path type "raw"`.
func shape(parts []walked) (lines []string) {
	for _, p := range parts {
		lines = append(lines, fmt.Sprintf("%s %s %q", p.Path, p.Type, p.raw))
	}
	return lines
}

func multipart(boundary string) message.Header {
	return message.Parse([]byte("Content-Type: multipart/mixed; boundary=\"" + boundary + "\"\r\n\r\n"))
}

func TestWalk(t *testing.T) {
	tests := []struct {
		name, header, body string
		want               []string
	}{
		{"no MIME", "Subject: x\n\n", "hello\n", []string{` text/plain "hello\n"`}},
		{"empty", "\n", "", []string{` text/plain ""`}},
		{"type without a slash", "Content-Type: text\n\n", "hello", []string{` text/plain "hello"`}},
		{"two parts",
			"Content-Type: multipart/mixed; boundary=x\r\n\r\n",
			"preamble\r\n--x\r\n\r\none\r\n--x\r\nContent-Type: text/html\r\n\r\ntwo\r\n\r\n--x--\r\nepilogue\r\n",
			[]string{` multipart/mixed "preamble"`, `1 text/plain "one"`, `2 text/html "two\r\n"`}},
		{"bare LF, white space behind boundaries",
			"Content-Type: multipart/mixed; boundary=x\n\n",
			"--x \t\n\none\n--x  \n\ntwo\n--x-- \n",
			[]string{` multipart/mixed ""`, `1 text/plain "one"`, `2 text/plain "two"`}},
		{"nothing closed",
			"Content-Type: multipart/mixed; boundary=x\n\n",
			"--x\n\none\n--x\n\ntwo\n",
			[]string{` multipart/mixed ""`, `1 text/plain "one"`, `2 text/plain "two\n"`}},
		{"no boundary parameter",
			"Content-Type: multipart/mixed\n\n",
			"--x\n\none\n--x--\n",
			[]string{` multipart/mixed "--x\n\none\n--x--\n"`}},
		{"boundary that never comes",
			"Content-Type: multipart/mixed; boundary=y\n\n",
			"--x\n\none\n",
			[]string{` multipart/mixed "--x\n\none\n"`}},
		{"empty parts",
			"Content-Type: multipart/mixed; boundary=x\n\n",
			"--x\n--x\n\n--x\n\n\n--x--",
			[]string{` multipart/mixed ""`, `1 text/plain ""`, `2 text/plain ""`, `3 text/plain ""`}},
		{"a part without a header",
			"Content-Type: multipart/mixed; boundary=x\r\n\r\n",
			"--x\r\nNo field here\r\nnor here\r\n--x--",
			[]string{` multipart/mixed ""`, `1 text/plain "No field here\r\nnor here"`}},
		{"nested, prefixes of one another",
			"Content-Type: multipart/mixed; boundary=x\n\n",
			"--x\nContent-Type: multipart/alternative; boundary=xx\n\n--xx\n\none\n--xxx\n--xx--\n--xx\nepilogue\n--x\n\ntwo\n--x--\n",
			[]string{` multipart/mixed ""`, `1 multipart/alternative ""`, `1.1 text/plain "one\n--xxx"`, `2 text/plain "two"`}},
		{"one boundary is another one's end",
			"Content-Type: multipart/mixed; boundary=\"x--\"\n\n",
			"--x--\nContent-Type: multipart/mixed; boundary=x\n\n--x\n\none\n--x--\n\ntwo\n--x----\n",
			[]string{` multipart/mixed ""`, `1 multipart/mixed ""`, `1.1 text/plain "one"`, `2 text/plain "two"`}},
		{"inner one not closed",
			"Content-Type: multipart/mixed; boundary=x\n\n",
			"--x\nContent-Type: multipart/mixed; boundary=y\n\n--y\n\none\n--x\n\ntwo\n--y\n--x--\n",
			[]string{` multipart/mixed ""`, `1 multipart/mixed ""`, `1.1 text/plain "one"`, `2 text/plain "two\n--y"`}},
		{"the same boundary twice",
			"Content-Type: multipart/mixed; boundary=x\n\n",
			"--x\nContent-Type: multipart/mixed; boundary=x\n\n--x\n\none\n--x--\n--x\n\ntwo\n--x--\n",
			[]string{` multipart/mixed ""`, `1 multipart/mixed ""`, `1.1 text/plain "one"`, `2 text/plain "two"`}},
		{"digest",
			"Content-Type: multipart/digest; boundary=x\n\n",
			"--x\n\nSubject: a\n\none\n--x\nContent-Type: text/plain\n\ntwo\n--x--\n",
			[]string{` multipart/digest ""`, `1 message/rfc822 ""`, `1.1 text/plain "one"`, `2 text/plain "two"`}},
		{"a message",
			"Content-Type: multipart/mixed; boundary=x\n\n",
			"--x\nContent-Type: message/rfc822\n\n\nContent-Type: multipart/mixed; boundary=y\n\n--y\n\none\n--y--\n--x\n\ntwo\n--x--\n",
			[]string{` multipart/mixed ""`, `1 message/rfc822 ""`, `1.1 multipart/mixed ""`, `1.1.1 text/plain "one"`, `2 text/plain "two"`}},
		{"an encoded message is a leaf",
			"Content-Type: multipart/mixed; boundary=x\n\n",
			"--x\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nUzogeAo=\n--x--\n",
			[]string{` multipart/mixed ""`, `1 message/rfc822 "UzogeAo="`}},
		{"messages that end early",
			"Content-Type: multipart/mixed; boundary=x\n\n",
			"--x\nContent-Type: message/rfc822\n--x\nContent-Type: message/rfc822\n\n--x\nContent-Type: message/rfc822\n\nSubject: x\n--x--",
			[]string{` multipart/mixed ""`, `1 message/rfc822 ""`, `2 message/rfc822 ""`, `2.1 text/plain ""`, `3 message/rfc822 ""`, `3.1 text/plain ""`}},
	}
	for _, tt := range tests {
		h := message.Parse([]byte(tt.header))
		parts, err := walk(h, strings.NewReader(tt.body), true)
		if got := shape(parts); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v\n got %q\nwant %q", tt.name, err, got, tt.want)
		}
		slow, _ := walk(h, iotest.OneByteReader(strings.NewReader(tt.body)), true)
		if !slices.Equal(shape(slow), shape(parts)) {
			t.Errorf("%s: byte by byte %q", tt.name, shape(slow))
		}
		checkParts(t, tt.body, parts)
	}
}

// checkParts: raw bytes stand where the part says, in order, none twice.
func checkParts(t testing.TB, body string, parts []walked) {
	t.Helper()
	at := int64(0)
	for _, p := range parts {
		if p.Offset < at || p.Size != int64(len(p.raw)) || p.Offset+p.Size > int64(len(body)) {
			t.Fatalf("part %q at %d+%d, %d bytes read, behind %d of %d", p.Path, p.Offset, p.Size, len(p.raw), at, len(body))
		}
		if body[p.Offset:p.Offset+p.Size] != p.raw {
			t.Fatalf("part %q: %.200q isn't what stands at %d", p.Path, p.raw, p.Offset)
		}
		at = p.Offset + p.Size
	}
}

// Lines around the size of the buffer, with line ends cut in two.
func TestWalkLongLines(t *testing.T) {
	for size := 8<<10 - 8; size <= 8<<10+8; size++ {
		for _, end := range []string{"\n", "\r\n", "\r\r\n", "\n\r\n"} {
			raw := strings.Repeat("a", size) + end + strings.Repeat("b", size)
			body := "--x" + end + end + raw + "\r\n--x--\r\n"
			parts, err := walk(multipart("x"), strings.NewReader(body), false)
			checkParts(t, body, parts)
			if err != nil || len(parts) != 2 || !strings.HasSuffix(parts[1].raw, raw) {
				t.Fatalf("%d bytes and %q: %v", size, end, err)
			}
		}
	}
	long := strings.Repeat(" ", 20<<10)
	parts, _ := walk(multipart("x"), strings.NewReader("--x\n\none\n--x"+long+"\n\ntwo"), false)
	if len(parts) != 2 {
		t.Errorf("a boundary with 20 KiB of white space behind it: %d parts", len(parts))
	}
}

func TestWalkUnread(t *testing.T) {
	w := message.NewWalker(multipart("x"), strings.NewReader("--x\n\none\n--x\n\ntwo\n--x--\n"))
	var last *message.Part
	for p, err := w.Next(); err == nil; p, err = w.Next() {
		if last != nil {
			if n, err := last.Read(make([]byte, 9)); n > 0 || err != io.EOF {
				t.Errorf("part %q gives %d bytes and %v after it was left", last.Path, n, err)
			}
		}
		last = p
	}
	if last == nil || last.Path != "2" || last.Size != 3 {
		t.Errorf("last part: %+v", last)
	}
	if _, err := w.Next(); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
}

func TestWalkReadError(t *testing.T) {
	broken := errors.New("disk on fire")
	body := io.MultiReader(strings.NewReader("--x\n\none\n"), iotest.ErrReader(broken))
	parts, err := walk(multipart("x"), body, false)
	if err != broken || len(parts) != 2 {
		t.Errorf("%v after %q", err, shape(parts))
	}
	w := message.NewWalker(multipart("x"), iotest.ErrReader(broken))
	w.Next()
	for range 2 {
		if _, err := w.Next(); err != broken {
			t.Errorf("Next: %v", err)
		}
	}
}

// deep nests multiparts so that the innermost part has n containers around it.
func deep(n int) string {
	var b strings.Builder
	for i := range n - 1 {
		fmt.Fprintf(&b, "--%d\nContent-Type: multipart/mixed; boundary=%d\n\n", i, i+1)
	}
	fmt.Fprintf(&b, "--%d\n\nleaf\n", n-1)
	return b.String()
}

func deepMessages(n int) string {
	return strings.Repeat("Content-Type: message/rfc822\n\n", n-1) + "\nleaf\n"
}

func TestWalkCaps(t *testing.T) {
	header := func(n int) string { return "--x\nA: " + strings.Repeat("b", n-len("A: \n\n")) + "\n\n" }
	rfc822 := message.Parse([]byte("Content-Type: message/rfc822\n\n"))
	tests := []struct {
		name string
		h    message.Header
		n    int
		body func(int) string
		err  error
	}{
		{"depth", multipart("0"), message.MaxDepth, deep, message.ErrTooDeep},
		{"messages", rfc822, message.MaxDepth, deepMessages, message.ErrTooDeep},
		{"parts", multipart("x"), message.MaxParts - 1, func(n int) string { return strings.Repeat("--x\n\n", n) }, message.ErrTooManyParts},
		{"header", multipart("x"), message.MaxHeader, header, message.ErrHeaderTooLarge},
		{"fields", multipart("x"), message.MaxFields, func(n int) string { return "--x\n" + strings.Repeat("a:\n", n) }, message.ErrHeaderTooLarge},
	}
	for _, tt := range tests {
		for _, n := range []int{tt.n - 1, tt.n, tt.n + 1, 10 * tt.n} {
			start := time.Now()
			parts, err := walk(tt.h, strings.NewReader(tt.body(n)), true)
			if want := n > tt.n; errors.Is(err, tt.err) != want || !want && err != nil {
				t.Errorf("%s %d: %v", tt.name, n, err)
			}
			if len(parts) == 0 || len(parts) > message.MaxParts {
				t.Errorf("%s %d: %d parts", tt.name, n, len(parts))
			}
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("%s %d takes %v", tt.name, n, d)
			}
		}
	}
}

// countingReader counts what is asked of it.
type countingReader struct {
	r    io.Reader
	read int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.read += n
	return n, err
}

// hostileBodies repeat what a slow walk would trip over to a size, inside of
// nested multiparts with boundaries that begin alike.
func hostileBodies(size int) map[string]string {
	bodies := map[string]string{}
	var nest strings.Builder
	prefix := strings.Repeat("b", 900)
	for i := range message.MaxDepth - 1 {
		fmt.Fprintf(&nest, "--%s%d\nContent-Type: multipart/mixed; boundary=\"%s%d\"\n\n", prefix, i, prefix, i+1)
	}
	for _, unit := range []string{
		"\n", "\r\n", "\r", "-", "--", "--\n", "----\n", "--" + prefix + "\n", "--" + prefix + "x--\n", "--" + prefix + "99 \n\n\n",
		"--" + prefix + "0--\n", "--" + prefix + "50\nContent-Type: multipart/mixed; boundary=y\n\n--y\n", "a\n--b", " ", "=", "=3", "=\n", "QUJD\n",
	} {
		bodies[unit] = nest.String() + strings.Repeat(unit, size/len(unit)+1)
	}
	return bodies
}

// The walk does the same work per byte however many boundaries are open: twice
// the bytes take about twice the time, and each is read once.
func TestWalkIsLinear(t *testing.T) {
	if testing.Short() {
		t.Skip("a few seconds")
	}
	const size = 4 << 20
	for unit, body := range hostileBodies(size) {
		half, whole := walkTime(t, body[:len(body)/2]), walkTime(t, body)
		if whole > 4*half+200*time.Millisecond || whole > 5*time.Second {
			t.Errorf("%.40q: %v for %d bytes, %v for half of them", unit, whole, len(body), half)
		}
	}
}

// walkTime is the best time of three for passing over a body.
func walkTime(t *testing.T, body string) time.Duration {
	t.Helper()
	h := multipart(strings.Repeat("b", 900) + "0")
	best := time.Hour
	for range 3 {
		r := &countingReader{r: strings.NewReader(body)}
		start := time.Now()
		w := message.NewWalker(h, r)
		var err error
		for err == nil {
			_, err = w.Next()
		}
		best = min(best, time.Since(start))
		if err == io.EOF && r.read != len(body) {
			t.Errorf("%d of %d bytes were read", r.read, len(body))
		}
	}
	return best
}

// What a walk allocates doesn't grow with the body.
func TestWalkMemory(t *testing.T) {
	allocs := func(lines int) float64 {
		body := "--x\n\n" + strings.Repeat("a line of text\r\n", lines)
		return testing.AllocsPerRun(3, func() {
			w := message.NewWalker(multipart("x"), strings.NewReader(body))
			for _, err := w.Next(); err == nil; _, err = w.Next() {
			}
		})
	}
	if small, large := allocs(1000), allocs(100_000); large > small+10 {
		t.Errorf("%v allocations for a thousand lines, %v for a hundred thousand", small, large)
	}
}

func TestWalkCorpus(t *testing.T) {
	parts := 0
	for name, mail := range corpusFiles(t, ".") {
		header, body := split(mail, 4096)
		for _, enter := range []bool{false, true} {
			list, err := walk(message.Parse(header), bytes.NewReader(body), enter)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			checkParts(t, string(body), list)
			parts += len(list)
		}
	}
	t.Logf("%d parts", parts)
}

// Property: a walk ends; without a cap it has read all of the body; its parts are
// spans of the body, in order, and the same however the body is read; reports and
// embedded messages are found within the caps.
func FuzzWalk(f *testing.F) {
	f.Add("Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: message/rfc822\n\nSubject: a\n\none\n--x\n\ntwo\n--x--\n")
	f.Add("Content-Type: multipart/digest; boundary=\"x--\"\r\n\r\n--x--\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\n--x----")
	f.Add("Content-Type: message/delivery-status\nContent-Transfer-Encoding: base64\n\nRmluYWwtUmVjaXBpZW50OiBhQGI=")
	f.Add("X-Failed-Recipients: a@b.example\n\n<c@d.example>:\n--- Below\n\nReceived: x\nMessage-ID: <a@b>\n\nhi")
	f.Add("Content-Type: message/rfc822\nContent-Transfer-Encoding: quoted-printable\n\nA: =3D=\n\n=\n")
	f.Fuzz(func(t *testing.T, mail string) {
		header, body := split([]byte(mail), 64)
		h := message.Parse(header)
		for _, enter := range []bool{false, true} {
			r := &countingReader{r: bytes.NewReader(body)}
			parts, err := walk(h, r, enter)
			if err == nil && r.read != len(body) {
				t.Fatalf("%d of %d bytes were read", r.read, len(body))
			}
			if len(parts) > message.MaxParts {
				t.Fatalf("%d parts", len(parts))
			}
			checkParts(t, string(body), parts)
			again, _ := walk(h, iotest.HalfReader(bytes.NewReader(body)), enter)
			if !slices.Equal(shape(again), shape(parts)) {
				t.Fatalf("in smaller reads: %q, not %q", shape(again), shape(parts))
			}
		}
		checkReport(t, h, body)
		checkEmbedded(t, h, body)
	})
}
