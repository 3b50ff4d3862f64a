package console

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"iter"
	"strings"
	"unicode/utf8"
)

// ReadVCard reads contacts out of a file of vCards (RFC 6350, and 2426 before
// it), card by card: FN or N, every EMAIL, and UID as the external id. All else
// is passed over, pictures unread. An error ends the file.
func ReadVCard(file io.Reader) iter.Seq2[ImportRow, error] {
	return func(yield func(ImportRow, error) bool) {
		lines := &vcardLines{r: bufio.NewReaderSize(file, maxRow)}
		var card *vcard
		for {
			line, number, err := lines.next()
			if err == io.EOF && card != nil {
				yield(card.row("its END:VCARD is missing"), nil)
			}
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(ImportRow{}, err)
				return
			}
			name, value := vcardProperty(line)
			switch {
			case name == "BEGIN":
				if card != nil && !yield(card.row("its END:VCARD is missing"), nil) {
					return
				}
				card = &vcard{line: number}
			case card == nil && line != "":
				yield(ImportRow{}, Invalid("a vCard file begins with BEGIN:VCARD", "line %d is outside any card", number))
				return
			case name == "END" && card != nil:
				if !yield(card.row(""), nil) {
					return
				}
				card = nil
			case card != nil:
				card.take(name, value)
			}
		}
	}
}

// vcard is one card as far as it is read.
type vcard struct {
	line            int
	fn, n, uid      string
	emails          []string
	size            int
	tooLong, broken bool
}

func (c *vcard) take(name, value string) {
	switch name {
	case "FN", "N", "UID", "EMAIL":
	default:
		return
	}
	if c.size += len(value); c.size > maxRow {
		c.tooLong = true
		return
	}
	c.broken = c.broken || !utf8.ValidString(value)
	switch {
	case name == "FN" && c.fn == "":
		c.fn = unescapeVCard(value)
	case name == "N" && c.n == "":
		c.n = vcardName(value)
	case name == "UID":
		c.uid = unescapeVCard(value)
	case name == "EMAIL":
		address := strings.TrimSpace(unescapeVCard(value))
		if len(address) > 7 && strings.EqualFold(address[:7], "mailto:") {
			address = address[7:]
		}
		if address != "" {
			c.emails = append(c.emails, address)
		}
	}
}

func (c *vcard) row(wrong string) ImportRow {
	switch {
	case c.tooLong:
		return ImportRow{Line: c.line, Wrong: "it is longer than a contact can be"}
	case c.broken:
		return ImportRow{Line: c.line, Wrong: "it is not UTF-8: save the file as UTF-8"}
	}
	row := ImportRow{Line: c.line, Name: strings.TrimSpace(c.fn), EmailAddresses: c.emails, External: strings.TrimSpace(c.uid), Wrong: wrong}
	if row.Name == "" {
		row.Name = c.n
	}
	return row
}

// vcardProperty splits a line into the property's name, without group and
// parameters, and its value. A parameter may hold a colon in quotes.
func vcardProperty(line string) (name, value string) {
	quoted := false
	for i, c := range line {
		switch {
		case c == '"':
			quoted = !quoted
		case c == ':' && !quoted:
			name, _, _ = strings.Cut(line[:i], ";")
			if _, after, grouped := strings.Cut(name, "."); grouped {
				name = after
			}
			return strings.ToUpper(strings.TrimSpace(name)), line[i+1:]
		}
	}
	return "", ""
}

// vcardName makes a name out of family;given;additional;prefixes;suffixes.
func vcardName(value string) string {
	var parts []string
	begin := 0
	for i := 0; i < len(value); i++ {
		switch value[i] {
		case '\\':
			i++
		case ';':
			parts = append(parts, value[begin:i])
			begin = i + 1
		}
	}
	parts = append(parts, value[begin:])
	var words []string
	for _, i := range []int{3, 1, 2, 0, 4} {
		if i < len(parts) {
			words = append(words, strings.Fields(unescapeVCard(parts[i]))...)
		}
	}
	return strings.Join(words, " ")
}

var vcardEscapes = strings.NewReplacer(`\\`, `\`, `\,`, ",", `\;`, ";", `\:`, ":", `\n`, " ", `\N`, " ")

func unescapeVCard(value string) string { return vcardEscapes.Replace(value) }

// vcardLines reads lines unfolded: one that begins with a blank goes on the one
// before. What is longer than maxRow is cut off, so a picture costs nothing.
type vcardLines struct {
	r      *bufio.Reader
	number int // of the last line read
}

// next returns a line and the number at which it begins.
func (l *vcardLines) next() (string, int, error) {
	line, err := l.raw(nil)
	if err != nil {
		return "", 0, err
	}
	begins := l.number
	if begins == 1 {
		line = bytes.TrimPrefix(line, []byte("\ufeff"))
	}
	for {
		if more, err := l.r.Peek(1); err != nil || more[0] != ' ' && more[0] != '\t' {
			return string(line), begins, nil
		}
		l.r.Discard(1)
		if line, err = l.raw(line); err != nil && err != io.EOF {
			return "", 0, err
		}
	}
}

// raw appends one line as it stands in the file, without its end.
func (l *vcardLines) raw(line []byte) ([]byte, error) {
	l.number++
	for read := false; ; read = true {
		part, err := l.r.ReadSlice('\n')
		line = append(line, part[:min(len(part), max(0, maxRow+1-len(line)))]...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err == io.EOF && (read || len(part) > 0):
			return bytes.TrimRight(line, "\r\n"), nil
		}
		return bytes.TrimRight(line, "\r\n"), err
	}
}
