package console

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxRow bounds what one contact of a file may take, in bytes.
const maxRow = 64 << 10

// csvColumns are the columns of a CSV file of contacts.
var csvColumns = []string{"name", "email", "kind", "account", "external_id", "do_not_email"}

// ReadCSV reads contacts out of a CSV file (RFC 4180) row by row. Its first
// line names the columns, in any order; a semicolon or tab may stand for the
// comma, as spreadsheets write it. An error ends the file: its header cannot be
// used, or it cannot be read; what is wrong with a row is told in the row.
func ReadCSV(file io.Reader) iter.Seq2[ImportRow, error] {
	return func(yield func(ImportRow, error) bool) {
		limit := &rowLimit{r: bufio.NewReaderSize(file, maxRow)}
		r := csv.NewReader(limit)
		r.FieldsPerRecord, r.Comma, r.ReuseRecord = -1, limit.comma(), true
		columns, err := csvHeader(r)
		for limit.read = 0; err == nil; limit.read = 0 {
			var fields []string
			fields, err = r.Read()
			if err == io.EOF {
				return
			}
			var wrong *csv.ParseError
			if errors.As(err, &wrong) {
				if !yield(ImportRow{Line: wrong.StartLine, Wrong: "it is not CSV: " + wrong.Err.Error()}, nil) {
					return
				}
				err = nil
				continue
			}
			if err == nil {
				line, _ := r.FieldPos(0)
				if !yield(csvRow(line, columns, fields), nil) {
					return
				}
			}
		}
		yield(ImportRow{}, err)
	}
}

// csvHeader reads the columns that a file has.
func csvHeader(r *csv.Reader) ([]string, error) {
	hint := "the first line names the columns: " + strings.Join(csvColumns, ",")
	fields, err := r.Read()
	if err == io.EOF {
		return nil, Invalid(hint, "the file is empty")
	}
	if err != nil {
		return nil, Invalid(hint, "line 1: %v", err)
	}
	var columns []string
	for i, field := range fields {
		name := strings.NewReplacer(" ", "_", "-", "_").Replace(strings.ToLower(strings.TrimSpace(field)))
		switch {
		case !slices.Contains(csvColumns, name):
			return nil, Invalid(hint+"; take others out", "line 1: column %d is %q, which is not known", i+1, field)
		case slices.Contains(columns, name):
			return nil, Invalid(hint, "line 1: column %q is there twice", name)
		}
		columns = append(columns, name)
	}
	for _, name := range []string{"name", "email"} {
		if !slices.Contains(columns, name) {
			return nil, Invalid(hint, "line 1: there is no column %q", name)
		}
	}
	return columns, nil
}

func csvRow(line int, columns, fields []string) ImportRow {
	row := ImportRow{Line: line}
	if len(fields) != len(columns) {
		row.Wrong = fmt.Sprintf("it has %s, the first line %d", count(len(fields), "field"), len(columns))
		return row
	}
	for i, field := range fields {
		if !utf8.ValidString(field) {
			row.Wrong = "it is not UTF-8: save the file as UTF-8"
			return row
		}
		field = strings.TrimSpace(field)
		switch columns[i] {
		case "name":
			row.Name = field
		case "email":
			row.EmailAddresses = strings.FieldsFunc(field, func(c rune) bool { return c == ';' || c == ',' || c == ' ' })
		case "kind":
			row.Kind = field
		case "account":
			row.Account = field
		case "external_id":
			row.External = field
		case "do_not_email":
			row.DoNotEmail = field
		}
	}
	return row
}

// rowLimit keeps a row from growing without end, as one does whose quote is
// never closed.
type rowLimit struct {
	r    *bufio.Reader
	read int // since the last row
}

func (l *rowLimit) Read(p []byte) (int, error) {
	if l.read > maxRow {
		return 0, Invalid("look for a quote that is not closed", "a row is longer than %d bytes", maxRow)
	}
	n, err := l.r.Read(p)
	l.read += n
	return n, err
}

// comma looks at the first line for what separates its columns, and takes a
// byte order mark away.
func (l *rowLimit) comma() rune {
	if mark, _ := l.r.Peek(3); string(mark) == "\ufeff" {
		l.r.Discard(3)
	}
	line, _ := l.r.Peek(1024)
	line, _, _ = bytes.Cut(line, []byte("\n"))
	for _, c := range ";\t" {
		if bytes.ContainsRune(line, c) && !bytes.ContainsRune(line, ',') {
			return c
		}
	}
	return ','
}
