package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestThreats: the tests that testdata/threats.txt names are there, and none of
// its threats is without one but those that are not built yet.
func TestThreats(t *testing.T) {
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "testdata", "threats.txt"))
	if err != nil {
		t.Fatal(err)
	}
	sources := map[string]string{} // of the tests, by folder
	threat, named, built, numbers := "", 1, true, map[string]bool{}
	for line := range strings.Lines(string(text)) {
		switch {
		case line == "NOT BUILT YET\n":
			built = false
		case strings.HasPrefix(line, "      "):
			named++
			folder := ""
			for _, word := range strings.Fields(line) {
				if name, ok := strings.CutSuffix(word, ":"); ok {
					folder = name
					continue
				}
				if !testExists(t, root, folder, word, sources) {
					t.Errorf("%s: there is no %s in %s", threat, word, folder)
				}
			}
		case regexp.MustCompile(`^( ?\d+ |   ) \S`).MatchString(line):
			if named == 0 {
				t.Errorf("%s: no test", threat)
			}
			number := strings.TrimSpace(line[:3])
			if number != "" && numbers[number] {
				t.Errorf("threat %s stands there twice", number)
			}
			threat, named, numbers[number] = strings.TrimSpace(line), 0, true
			if !built {
				named = 1
			}
		}
	}
	for n := range 48 {
		if !numbers[strconv.Itoa(n+1)] {
			t.Errorf("threat %d is missing", n+1)
		}
	}
	if named == 0 || built {
		t.Errorf("the end is missing, behind: %s", threat)
	}
}

// testExists looks a test up in its folder's sources.
func testExists(t *testing.T, root, folder, name string, sources map[string]string) bool {
	t.Helper()
	if sources[folder] == "" {
		files, _ := filepath.Glob(filepath.Join(root, folder, "*_test.go"))
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			sources[folder] += string(text)
		}
	}
	name, part, sub := strings.Cut(name, "/")
	if sub {
		kind := strings.ToLower(strings.TrimPrefix(name, "Test")) // scenes, dialogues
		if _, err := os.Stat(filepath.Join(root, "testdata", kind, part+".txt")); err != nil {
			return false
		}
	}
	return strings.Contains(sources[folder], "\nfunc "+name+"(")
}
