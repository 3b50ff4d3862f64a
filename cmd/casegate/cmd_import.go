package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/casegate/casegate/gateway/console"
)

func (p *program) contactImport() *cobra.Command {
	var o output
	var dryRun bool
	c := &cobra.Command{
		Use: "import FILE", Short: "Add and update contacts from a CSV or vCard file", Args: exactly("FILE"),
		Long: `Add and update contacts from a CSV or vCard (3 or 4) file.

The first line of a CSV file names its columns, in any order:

  name,email,kind,account,external_id,do_not_email

name and email have to be there; several addresses are separated by semicolons;
kind is registered (if it is empty) or guest; account is the id or address of an
account; do_not_email is yes or no. A vCard gives FN or N, EMAIL, and UID as the
external id.

A row is the contact with its external id; without one, the contact of the same
kind and name with one of its addresses; else a new contact. An import adds and
never takes away: what a row leaves empty stays. Each row is taken whole or
refused, with its line number, and importing a file again changes nothing.`,
		Example: "  casegate contact import people.csv --dry-run",
		RunE: func(c *cobra.Command, args []string) error {
			read, err := importReader(args[0])
			if err != nil {
				return err
			}
			f, err := os.Open(args[0])
			if errors.Is(err, fs.ErrNotExist) {
				return usage("write the path of a .csv or .vcf file", "there is no file %q", args[0])
			}
			if err != nil {
				return err
			}
			defer f.Close()
			return p.with(c.Context(), anyStore, func(api *client) error {
				im := &contactImport{p: p, api: api, out: o, dryRun: dryRun, counts: map[console.ImportAction]int{}}
				return im.run(c.Context(), f, read)
			})
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be done with each row, and write nothing")
	return o.flags(c, false)
}

// rowReader reads contacts out of a file, bounded in memory.
type rowReader func(io.Reader) iter.Seq2[console.ImportRow, error]

func importReader(name string) (rowReader, error) {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".csv":
		return console.ReadCSV, nil
	case ".vcf", ".vcard":
		return console.ReadVCard, nil
	}
	return nil, usage("write the path of a .csv or .vcf file", "%q is neither CSV nor vCard by its name", name)
}

// contactImport hands a file to the API in batches.
type contactImport struct {
	p       *program
	api     *client
	out     output
	dryRun  bool
	counts  map[console.ImportAction]int
	bar     *progress
	printed int
}

// maxBatch bounds what one request carries, in bytes; a row has at most 64 KiB.
const maxBatch = 512 << 10

func (im *contactImport) run(ctx context.Context, f *os.File, read rowReader) error {
	size := int64(0)
	if info, err := f.Stat(); err == nil {
		size = info.Size()
	}
	im.bar = newProgress(im.p.err, size)
	defer im.bar.end()
	var batch []console.ImportRow
	bytes := 0
	for row, err := range read(im.bar.reading(f)) {
		if err != nil {
			return im.stopped(batch, inHints(err))
		}
		n := rowSize(row)
		if len(batch) > 0 && (len(batch) == console.MaxImport || bytes+n > maxBatch) {
			if err := im.send(ctx, batch); err != nil {
				return im.stopped(batch, err)
			}
			batch, bytes = batch[:0], 0
		}
		batch, bytes = append(batch, row), bytes+n
	}
	if len(batch) > 0 {
		if err := im.send(ctx, batch); err != nil {
			return im.stopped(batch, err)
		}
	}
	im.bar.end()
	return im.ended()
}

func rowSize(r console.ImportRow) int {
	n := 200 + len(r.Name) + len(r.External) + len(r.Account) + len(r.Kind) + len(r.DoNotEmail)
	for _, address := range r.EmailAddresses {
		n += len(address)
	}
	return n
}

func (im *contactImport) send(ctx context.Context, batch []console.ImportRow) error {
	text, err := json.Marshal(map[string]any{"rows": batch})
	if err != nil {
		return err
	}
	q := url.Values{}
	if im.dryRun {
		q.Set("dry_run", "true")
	}
	answer, err := whole(im.api.do(ctx, http.MethodPost, "/contacts/import", q, "application/json", bytes.NewReader(text)))
	if err != nil {
		return err
	}
	var rows []json.RawMessage
	if err := json.Unmarshal(answer, &rows); err != nil {
		return err
	}
	im.bar.end()
	for _, row := range rows {
		if err := im.print(row); err != nil {
			return err
		}
	}
	im.bar.show(im.printed)
	return nil
}

// print tells a row of a preview, and of an import one that was refused.
func (im *contactImport) print(row json.RawMessage) error {
	var r console.ImportResult
	if err := json.Unmarshal(row, &r); err != nil {
		return err
	}
	before := "["
	if im.printed > 0 {
		before = ","
	}
	im.printed++
	im.counts[r.Action]++
	var err error
	switch {
	case im.out.json:
		_, err = fmt.Fprintf(im.p.out, "%s\n  %s", before, row)
	case im.dryRun || r.Action == console.ImportRefuse:
		_, err = fmt.Fprintln(im.p.out, clean(importLine(r)))
	}
	return err
}

func importLine(r console.ImportResult) string {
	line := fmt.Sprintf("line %-4d %-6s  %s", r.Line, r.Action, r.Name)
	if r.Said != "" {
		line += ": " + r.Said
	}
	return line
}

// ended prints the totals; rows that were refused are an error.
func (im *contactImport) ended() error {
	n := im.counts
	switch {
	case im.out.json && im.printed == 0:
		fmt.Fprintln(im.p.out, "[]")
	case im.out.json:
		fmt.Fprintln(im.p.out, "\n]")
	case im.dryRun:
		fmt.Fprintf(im.p.out, "%d to add, %d to update, %d the same, %d refused; nothing was written\n",
			n[console.ImportAdd], n[console.ImportUpdate], n[console.ImportSame], n[console.ImportRefuse])
	default:
		fmt.Fprintf(im.p.out, "%d added, %d updated, %d the same, %d refused\n",
			n[console.ImportAdd], n[console.ImportUpdate], n[console.ImportSame], n[console.ImportRefuse])
	}
	if n[console.ImportRefuse] > 0 {
		return hint("correct these and import the file again: the other rows stay the same", "%d of %d rows refused", n[console.ImportRefuse], im.printed)
	}
	return nil
}

// stopped says how far an import came.
func (im *contactImport) stopped(batch []console.ImportRow, err error) error {
	im.bar.end()
	if im.out.json && im.printed > 0 {
		fmt.Fprintln(im.p.out, "\n]")
	}
	if im.printed == 0 || len(batch) == 0 {
		return err
	}
	return fmt.Errorf("nothing from line %d on was taken: %w", batch[0].Line, err)
}

// inHints makes a problem of the API's an error with its hint.
func inHints(err error) error {
	var p *console.Problem
	if errors.As(err, &p) {
		return hinted{p, p.Hint}
	}
	return err
}
