package relay

import (
	"bytes"
	"fmt"
	"mime/quotedprintable"
	"strings"
)

// maxReturnedHeader bounds the header block that a report returns.
const maxReturnedHeader = 64 << 10

// maxLine is the longest line of text, without its CRLF (RFC 5322 §2.1.1).
const maxLine = 998

// writeText writes the header and content of a part: as it is if it is plain
// ASCII in short lines, else in quoted-printable, as RFC 6522 §4 allows for
// returned headers too.
func writeText(b *bytes.Buffer, mediaType, text string) {
	fmt.Fprintf(b, "Content-Type: %s", mediaType)
	if sendsAsItIs(text) {
		b.WriteString("\r\n\r\n" + text)
		return
	}
	b.WriteString("; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n")
	q := quotedprintable.NewWriter(b)
	q.Write([]byte(text)) // a Buffer takes all
	q.Close()
}

func sendsAsItIs(text string) bool {
	for line := range strings.SplitSeq(text, "\r\n") {
		if len(line) > maxLine || !ascii(line) || strings.ContainsAny(line, "\r\n\x00") {
			return false
		}
	}
	return true
}

// upTo cuts a header block to whole lines of at most n octets.
func upTo(header []byte, n int) []byte {
	if len(header) > n {
		header = header[:bytes.LastIndexByte(header[:n], '\n')+1]
	}
	return header
}

// plain makes a value of a machine-readable field: ASCII on one line. What was
// not is escaped.
func plain(s string) string {
	var b strings.Builder
	for _, c := range s {
		if b.Len() > maxLine-100 {
			break
		}
		if ' ' <= c && c < 0x7f {
			b.WriteRune(c)
		} else {
			fmt.Fprintf(&b, `\x{%02X}`, c)
		}
	}
	return b.String()
}
