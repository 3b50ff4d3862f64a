package relay

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/casegate/casegate/store"
)

// Bounds on a reply. RFC 5321 §4.5.3.1.5 allows 512 octets a line; longer ones
// are seen. A line must fit the reader's buffer (conn.r).
const (
	maxReplyLine  = 4096
	maxReplyLines = 128
	maxReplyText  = 1024 // kept of a reply, in octets
)

var errReply = errors.New("the next hop's reply makes no sense")

// reply is an SMTP reply (RFC 5321 §4.2), its text escaped and cut to size.
type reply struct {
	code int
	text string
}

// readReply reads one reply of one or more lines.
func readReply(r *bufio.Reader) (reply, error) {
	var rep reply
	var text []byte
	err := readLines(r, func(code int, line []byte) error {
		if rep.code != 0 && code != rep.code {
			return fmt.Errorf("%w: it changes from %d to %d", errReply, rep.code, code)
		}
		if len(text) > 0 {
			text = append(text, ' ')
		}
		rep.code = code
		text = append(text, line[:max(0, min(len(line), maxReplyText-len(text)))]...)
		return nil
	})
	rep.text = clean(text)
	return rep, err
}

// readLines calls do with code and text of each line of a reply; line is valid
// until do returns.
func readLines(r *bufio.Reader, do func(code int, line []byte) error) error {
	for n := range maxReplyLines {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return fmt.Errorf("%w: a line of more than %d octets", errReply, maxReplyLine)
		}
		if err == io.EOF && n+len(line) > 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		code, more, text, err := splitLine(line)
		if err != nil {
			return err
		}
		if err := do(code, text); err != nil || !more {
			return err
		}
	}
	return fmt.Errorf("%w: more than %d lines", errReply, maxReplyLines)
}

// splitLine takes one reply line apart: "250-text" or "250 text" or "250".
func splitLine(line []byte) (code int, more bool, text []byte, err error) {
	line = line[:len(line)-1]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	if len(line) >= 3 {
		code, err = strconv.Atoi(string(line[:3]))
	}
	if len(line) < 3 || err != nil || code < 200 || code > 599 ||
		len(line) > 3 && line[3] != ' ' && line[3] != '-' {
		return 0, false, nil, fmt.Errorf("%w: %q", errReply, clean(line[:min(len(line), 80)]))
	}
	if len(line) == 3 {
		return code, false, nil, nil
	}
	return code, line[3] == '-', line[4:], nil
}

// clean turns what a stranger wrote into text that is safe to keep and show:
// controls, bidi marks and broken UTF-8 are escaped.
func clean(b []byte) string {
	plain := true
	for _, c := range b {
		plain = plain && ' ' <= c && c < 0x7f
	}
	if plain {
		return string(b)
	}
	var s strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&s, `\x%02x`, b[0])
		case unicode.IsPrint(r):
			s.WriteRune(r)
		case r < 0x80:
			fmt.Fprintf(&s, `\x%02x`, r)
		default:
			fmt.Fprintf(&s, `\u%04x`, r)
		}
		b = b[n:]
	}
	return s.String()
}

// String is the reply on one line.
func (rep reply) String() string {
	return strings.TrimRight(strconv.Itoa(rep.code)+" "+rep.text, " ")
}

// state is what a reply means for a recipient: accepted, later, never.
//
// RFC 5321 §4.2.1, with exceptions. 530, 534, 535 and 538 ask for TLS or a
// login (RFC 4954 §6) and 503 says that we are out of step: none is about this
// mail, and an operator can mend it.
func (rep reply) state() store.DeliveryState {
	switch {
	case rep.code/100 == 2:
		return store.Delivered
	case rep.code/100 != 5:
		return store.Queued
	}
	switch rep.code {
	case 503, 530, 534, 535, 538:
		return store.Queued
	}
	return store.Failed
}

// tooMany reports whether a recipient was refused only because the transaction
// has too many (RFC 5321 §4.5.3.1.10, RFC 3463 X.5.3).
func (rep reply) tooMany() bool {
	return (rep.code == 452 || rep.code == 552) && strings.HasPrefix(rep.text[min(1, len(rep.text)):], ".5.3")
}

// status cuts a reply, or words of ours, down to its codes: "550 5.1.1". Text
// may name a recipient; codes don't.
func status(text string) string {
	words := strings.SplitN(text, " ", 3)
	n := 0
	for n < len(words) && n < 2 && isStatus(words[n]) {
		n++
	}
	return strings.Join(words[:n], " ")
}

func isStatus(word string) bool {
	for i := range len(word) {
		if c := word[i]; c != '.' && (c < '0' || c > '9') {
			return false
		}
	}
	return len(word) >= 3 && len(word) <= 9
}
