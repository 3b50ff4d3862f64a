package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"
)

// output is how a command was asked to print.
type output struct {
	json  bool
	limit int
}

// flags gives a command --json, and a list --limit.
func (o *output) flags(c *cobra.Command, isList bool) *cobra.Command {
	c.Flags().BoolVar(&o.json, "json", false, "print what the API answers")
	if isList {
		c.Flags().IntVar(&o.limit, "limit", 0, "print at most `K` (default all)")
	}
	return c
}

// column is one column of a table of T.
type column[T any] struct {
	title string
	cell  func(T) string
}

// printList asks for a list and prints it as it comes in.
func printList[T any](ctx context.Context, p *program, o output, path string, q url.Values, none string, columns ...column[T]) error {
	if o.limit < 0 {
		return usage("write a number such as 20", "--limit %d is less than none", o.limit)
	}
	return p.with(ctx, existingStore, func(c *client) error {
		if o.json {
			return jsonList(ctx, p.out, c, path, q, o.limit)
		}
		count := 0
		err := c.list(ctx, path, q, o.limit, func(rows []json.RawMessage) error {
			count += len(rows)
			return printTable(p.out, rows, columns)
		})
		if err == nil && count == 0 {
			fmt.Fprintln(p.err, none)
		}
		return err
	})
}

// jsonList prints one array, a row on each line.
func jsonList(ctx context.Context, w io.Writer, c *client, path string, q url.Values, limit int) error {
	before := "["
	err := c.list(ctx, path, q, limit, func(rows []json.RawMessage) error {
		for _, row := range rows {
			if _, err := fmt.Fprintf(w, "%s\n  %s", before, row); err != nil {
				return err
			}
			before = ","
		}
		return nil
	})
	if err != nil {
		return err
	}
	if before == "[" {
		_, err = io.WriteString(w, "[]\n")
	} else {
		_, err = io.WriteString(w, "\n]\n")
	}
	return err
}

// printTable prints rows in aligned columns; nothing if there are none.
func printTable[T any](w io.Writer, rows []json.RawMessage, columns []column[T]) error {
	if len(rows) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := make([]string, len(columns))
	for i, c := range columns {
		line[i] = c.title
	}
	fmt.Fprintln(t, strings.Join(line, "\t"))
	for _, row := range rows {
		var v T
		if err := json.Unmarshal(row, &v); err != nil {
			return err
		}
		for i, c := range columns {
			line[i] = cmp.Or(clip(clean(c.cell(v)), 60), "-")
		}
		fmt.Fprintln(t, strings.Join(line, "\t"))
	}
	return t.Flush()
}

// printJSON prints one record as the API told it, on many lines.
func printJSON(w io.Writer, record json.RawMessage) error {
	var out bytes.Buffer
	if err := json.Indent(&out, bytes.TrimSpace(record), "", "  "); err != nil {
		return err
	}
	out.WriteByte('\n')
	_, err := out.WriteTo(w)
	return err
}

// show gets one record and prints it, as JSON or by words.
func show[T any](ctx context.Context, p *program, o output, path string, q url.Values, words func(io.Writer, T)) error {
	return p.with(ctx, existingStore, func(c *client) error {
		text, err := c.get(ctx, path, q)
		if err != nil {
			return err
		}
		return printRecord(p, o, text, words)
	})
}

// order does one act and prints its answer, as JSON or by words.
func order[T any](ctx context.Context, p *program, o output, path string, what any, words func(io.Writer, T)) error {
	return p.with(ctx, existingStore, func(c *client) error {
		text, err := c.add(ctx, path, what)
		if err != nil {
			return err
		}
		return printRecord(p, o, text, words)
	})
}

func printRecord[T any](p *program, o output, text json.RawMessage, words func(io.Writer, T)) error {
	if o.json {
		return printJSON(p.out, text)
	}
	var v T
	if err := json.Unmarshal(text, &v); err != nil {
		return err
	}
	var out bytes.Buffer
	words(&out, v)
	_, err := out.WriteTo(p.out)
	return err
}

// clean makes text from strangers safe for a terminal: controls and marks that
// turn the reading direction are shown, not obeyed.
func clean(s string) string {
	var out strings.Builder
	for _, r := range s {
		switch {
		case r == '\n' || r == '\t':
			out.WriteByte(' ')
		case unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029':
			fmt.Fprintf(&out, "\\u%04x", r)
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}

// clip shortens a cell to n runes.
func clip(s string, n int) string {
	runes := []rune(s)
	if len(runes) <= n {
		return s
	}
	return string(runes[:n-1]) + "…"
}

// at shows a time in the reader's zone.
func (p *program) at(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.In(p.zone).Format("2006-01-02 15:04")
}

// moment is at to the second, where an hour's logs are compared with it.
func (p *program) moment(t time.Time) string { return t.In(p.zone).Format(time.DateTime) }
