package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// progress draws how much of a file is read; on a terminal, and nowhere else.
type progress struct {
	w     io.Writer // nil: no terminal
	size  int64
	read  int64
	drawn bool // it stands on the line
	width int
}

func newProgress(w io.Writer, size int64) *progress {
	b := &progress{size: size}
	if columns, ok := terminal(w); ok {
		b.w, b.width = w, min(columns, 80)
	}
	return b
}

// terminal reports whether w is one, and how wide.
func terminal(w io.Writer) (columns int, ok bool) {
	f, ok := w.(*os.File)
	if !ok {
		return 0, false
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, false
	}
	if size.Col == 0 { // it doesn't say
		return 80, true
	}
	return int(size.Col), true
}

// reading counts what is read of a file.
func (b *progress) reading(r io.Reader) io.Reader { return countedReader{r, b} }

type countedReader struct {
	io.Reader
	bar *progress
}

func (c countedReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.bar.read += int64(n)
	return n, err
}

// show draws the bar.
func (b *progress) show(rows int) {
	if b.w == nil {
		return
	}
	share := 1.0
	if b.size > 0 {
		share = min(1, float64(b.read)/float64(b.size))
	}
	tail := fmt.Sprintf(" %3.0f%%  %d rows", 100*share, rows)
	room := max(0, b.width-len(tail)-3)
	full := int(share * float64(room))
	fmt.Fprintf(b.w, "\r[%s%s]%s", strings.Repeat("#", full), strings.Repeat(".", room-full), tail)
	b.drawn = true
}

// end takes the bar away, so that other words can stand there.
func (b *progress) end() {
	if b.w == nil || !b.drawn {
		return
	}
	fmt.Fprint(b.w, "\r\x1b[K")
	b.drawn = false
}
