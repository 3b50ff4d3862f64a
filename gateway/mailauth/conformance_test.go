package mailauth

import (
	"os"
	"path/filepath"
	"testing"
)

// tally counts the cases of a public suite and prints what .ci/conformance
// makes a table of.
type tally struct {
	*testing.T
	suite         string
	passed, total int
}

func (c *tally) check(name string, ok bool, format string, args ...any) {
	c.Helper()
	c.total++
	if ok {
		c.passed++
		return
	}
	c.Errorf(name+": "+format, args...)
}

// print ends a suite; want is how many cases it has.
func (c *tally) print(want int) {
	c.Logf("conformance: %s %d/%d", c.suite, c.passed, c.total)
	if c.total != want {
		c.Errorf("%s: %d cases, want %d", c.suite, c.total, want)
	}
}

// corpus returns the path of a file of the mail corpus beside the checkout.
func corpus(t *testing.T, path ...string) string {
	t.Helper()
	dir := filepath.Join("..", "..", "..", "shared", "corpus")
	if _, err := os.Stat(dir); err != nil {
		t.Skip("the mail corpus is not beside the checkout")
	}
	return filepath.Join(append([]string{dir}, path...)...)
}

func readCorpus(t *testing.T, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(corpus(t, path...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
