package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A problem is one mistake in the configuration: where it stands, which
// setting, what is wrong with it, and what to write instead.
type problem struct {
	place
	path string // listeners[1].protocol
	what string
	hint string
}

// place is where a setting stands: a file, and the line and column if known; or
// an environment variable.
type place struct {
	source       string
	line, column int
}

// String writes a place as editors read it: casegate.yaml:7:5.
func (p place) String() string {
	switch {
	case p.line == 0:
		return p.source
	case p.column == 0:
		return fmt.Sprintf("%s:%d", p.source, p.line)
	}
	return fmt.Sprintf("%s:%d:%d", p.source, p.line, p.column)
}

// compare orders places as in the file; what has no line comes last.
func (p place) compare(other place) int {
	if (p.line == 0) != (other.line == 0) {
		return cmp.Compare(other.line, p.line)
	}
	return cmp.Or(cmp.Compare(p.line, other.line), cmp.Compare(p.column, other.column))
}

func (p problem) Error() string {
	var s strings.Builder
	for _, part := range []string{p.place.String(), p.path} {
		if part != "" {
			s.WriteString(part + ": ")
		}
	}
	return s.String() + p.what
}

// problems is every mistake found in one reading, in the order of the file.
// The process that meets it exits with 78 (EX_CONFIG).
type problems []problem

func (ps problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// hinted is an error that knows what to type next.
type hinted struct {
	err  error
	hint string
}

func (h hinted) Error() string { return h.err.Error() }
func (h hinted) Unwrap() error { return h.err }

func hint(hint, format string, args ...any) error {
	return hinted{fmt.Errorf(format, args...), hint}
}

// usageError is a command line that cannot be meant; exit code 2.
type usageError struct{ hinted }

func usage(hint, format string, args ...any) error {
	return usageError{hinted{fmt.Errorf(format, args...), hint}}
}

// suggest returns the name nearest to a misspelt one, or "" when none is near.
func suggest(word string, names []string) string {
	best, least := "", max(1, len(word)/3)+1
	for _, name := range names {
		if d := distance(strings.ToLower(word), strings.ToLower(name)); d < least {
			best, least = name, d
		}
	}
	return best
}

// distance is Levenshtein's, over bytes, with a swap of neighbours as one edit.
func distance(a, b string) int {
	older, old, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range old {
		old[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(old[j]+1, row[j-1]+1, old[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], older[j-2]+1)
			}
		}
		older, old, row = old, row, older
	}
	return old[len(b)]
}

// choices writes a list of words as a person would: smtp, lmtp or none.
func choices(words []string) string {
	if len(words) == 0 {
		return "nothing"
	}
	words = slices.Clone(words)
	last := words[len(words)-1]
	if len(words) == 1 {
		return last
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + last
}
