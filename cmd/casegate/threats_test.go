package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestThreats: the tests that testdata/threats.txt names are there, and none of
// its threats is without one.
func TestThreats(t *testing.T) {
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "testdata", "threats.txt"))
	if err != nil {
		t.Fatal(err)
	}
	sources := map[string]string{} // of the tests, by folder
	threat, named, numbered := "", 1, 0
	for line := range strings.Lines(string(text)) {
		switch {
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
			threat, named = strings.TrimSpace(line), 0
			if strings.HasPrefix(line, fmt.Sprintf("%2d ", numbered+1)) {
				numbered++
			}
		}
	}
	if numbered != 27 || named == 0 {
		t.Errorf("%d numbered threats", numbered)
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
