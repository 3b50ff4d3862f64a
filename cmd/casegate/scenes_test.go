package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The scenes: each file of testdata/scenes is a short story about one row of
// the rules, told in sentences that need no Go to be read; README.txt there is
// the language and the index. A scene has a gateway of its own, wired as serve
// wires it, with real listeners, a real store and two real next hops.

const scenesDir = "../../testdata/scenes"

// TestScenes plays every scene. They mostly wait for the disk, so there are more
// at a time than processors.
func TestScenes(t *testing.T) {
	files, err := filepath.Glob(scenesDir + "/*.txt")
	if err != nil || len(files) < 2 {
		t.Fatal("no scenes in", scenesDir, err)
	}
	const players = 8
	var all sync.WaitGroup
	todo := make(chan string)
	for range players {
		all.Go(func() {
			for path := range todo {
				name := strings.TrimSuffix(filepath.Base(path), ".txt")
				t.Run(name, func(t *testing.T) { testScene(t, path) })
			}
		})
	}
	for _, path := range files {
		if filepath.Base(path) != "README.txt" {
			todo <- path
		}
	}
	close(todo)
	all.Wait()
}

func testScene(t *testing.T, path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sc, err := parseScene("testdata/scenes/"+filepath.Base(path), string(text))
	switch {
	case err != nil:
		t.Fatal(err)
	case sc.proof != "":
		proved(t, sc)
	default:
		playScene(t, sc)
	}
}

// proved looks for the test that a scene without mail names.
func proved(t *testing.T, sc scene) {
	dir, name, _ := strings.Cut(sc.proof, " ")
	files, _ := filepath.Glob("../../" + dir + "/*_test.go")
	for _, path := range files {
		if text, _ := os.ReadFile(path); bytes.Contains(text, []byte("\nfunc "+name+"(t *testing.T) {")) {
			return
		}
	}
	t.Errorf("%s: there is no test %s in %s", sc.file, name, dir)
}

// playScene plays the steps in order. What is seen wrong doesn't end the scene;
// what can't be done does.
func playScene(t *testing.T, sc scene) {
	s := newStage(t, sc.config)
	for _, st := range sc.steps {
		err := s.play(st)
		var wrong seenWrong
		switch {
		case errors.As(err, &wrong):
			t.Errorf("%s:%d: %s\n%s", sc.file, st.line, st.text, indent(err.Error()))
		case err != nil:
			t.Fatalf("%s:%d: %s\n%s", sc.file, st.line, st.text, indent(err.Error()))
		}
	}
	if err := s.end(); err != nil {
		t.Errorf("%s: at the end of the scene\n%s", sc.file, indent(err.Error()))
	}
}

// seenWrong is what a Then sees that it should not.
type seenWrong struct{ error }

func wrongf(format string, args ...any) error { return seenWrong{fmt.Errorf(format, args...)} }

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n    ")
}

// scene is one file.
type scene struct {
	file   string
	rule   string // the words of its Rule line
	config string // YAML over the base configuration
	proof  string // the package and test that prove what no mail can show
	steps  []step
}

// step is one sentence with the block below it.
type step struct {
	line  int
	when  bool   // it does something; else it looks
	text  string // without Given, When, Then, And, But
	block []string
}

// parseScene reads the shape of a file: sentences, and blocks that stand
// further in below a line that ends with a colon.
func parseScene(file, text string) (scene, error) {
	sc := scene{file: file}
	lines := strings.Split(text, "\n")
	doing := true
	for i := 0; i < len(lines); i++ {
		line := strings.TrimRight(lines[i], " \t")
		at := i + 1
		switch {
		case line == "", line[0] == '#':
			continue
		case line[0] == ' ' || line[0] == '\t':
			return sc, fmt.Errorf("%s:%d: this stands further in, but the line above doesn't end with a colon", file, at)
		}
		var block []string
		if strings.HasSuffix(line, ":") {
			var next int
			block, next = blockBelow(lines, i+1)
			i = next - 1
		}
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "Rule:":
			sc.rule = rest
		case "Proof:":
			sc.proof = rest
		case "Config:":
			sc.config = strings.Join(block, "\n")
		case "Given", "When":
			doing = true
		case "Then":
			doing = false
		case "And", "But":
		default:
			return sc, fmt.Errorf("%s:%d: a line begins with Rule:, Config:, Proof:, Given, When, Then, And or But, not with %q", file, at, word)
		}
		if !strings.HasSuffix(word, ":") {
			sc.steps = append(sc.steps, step{at, doing, strings.TrimSuffix(rest, ":"), block})
		}
	}
	if sc.rule == "" {
		return sc, fmt.Errorf("%s: a scene begins with Rule: and what it is about", file)
	}
	return sc, nil
}

// blockBelow returns the lines that stand further in, less what all of them are
// set in by, and where the text goes on.
func blockBelow(lines []string, from int) (block []string, next int) {
	for next = from; next < len(lines); next++ {
		if line := lines[next]; line != "" && line[0] != ' ' {
			break
		}
	}
	block = slices.Clone(lines[from:next])
	for len(block) > 0 && strings.TrimSpace(block[len(block)-1]) == "" {
		block = block[:len(block)-1]
	}
	depth := 1000
	for _, line := range block {
		if strings.TrimSpace(line) != "" {
			depth = min(depth, len(line)-len(strings.TrimLeft(line, " ")))
		}
	}
	for i, line := range block {
		block[i] = line[min(depth, len(line)):]
	}
	return block, next
}

// TestScenesAreComplete: the index of testdata/scenes/README.txt names every row
// of both tables and every scene that rules §9 asks for, and each has its file.
func TestScenesAreComplete(t *testing.T) {
	text, err := os.ReadFile(scenesDir + "/README.txt")
	if err != nil {
		t.Fatal(err)
	}
	entry := regexp.MustCompile(`^  ([IOS]\d+|§\d) +(\S+\.txt) +\S`)
	listed, files := map[string]int{}, map[string]bool{"README.txt": true}
	for i, line := range strings.Split(string(text), "\n") {
		m := entry.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		listed[m[1]]++
		files[m[2]] = true
		scene, err := os.ReadFile(filepath.Join(scenesDir, m[2]))
		if err != nil {
			t.Errorf("README.txt:%d: %s has no scene: %v", i+1, m[1], err)
			continue
		}
		rule := m[1]
		if rule[0] == 'S' {
			rule = "§9"
		}
		if first, _, _ := bytes.Cut(scene, []byte("\n")); !bytes.HasPrefix(first, []byte("Rule: "+rule+" ")) {
			t.Errorf("%s is listed for %s, but begins with %q", m[2], rule, first)
		}
	}
	for prefix, last := range map[string][2]int{"I": {1, 27}, "O": {0, 14}, "S": {1, 26}} {
		for n := last[0]; n <= last[1]; n++ {
			if name := fmt.Sprint(prefix, n); listed[name] == 0 {
				t.Errorf("README.txt: %s is missing", name)
			}
		}
	}
	there, _ := filepath.Glob(scenesDir + "/*.txt")
	for _, path := range there {
		if !files[filepath.Base(path)] {
			t.Errorf("%s is not in the index of README.txt", filepath.Base(path))
		}
	}
}

// TestScenesSpeak: what the runner says of a scene that is wrong names the place
// and what was seen.
func TestScenesSpeak(t *testing.T) {
	for text, want := range map[string]string{
		"When it rains\n":                    "x.txt: a scene begins with Rule:",
		"Rule: I1\nIt rains\n":               `x.txt:2: a line begins with Rule:, Config:, Proof:, Given, When, Then, And or But, not with "It"`,
		"Rule: I1\nWhen it rains\n  hello\n": "x.txt:3: this stands further in",
	} {
		if _, err := parseScene("x.txt", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	f := facts{"state": "Active", "customer": "Paul Ames (guest)"}
	if err := f.has("customer Paul ... (guest), state Active"); err != nil {
		t.Error(err)
	}
	if err := f.has("state Resolved"); err == nil || err.Error() != "state is  Active\nand not  Resolved" {
		t.Errorf("of a state that is another it says %v", err)
	}
	if s := (&stage{}); s.play(step{text: "it rains"}) == nil {
		t.Error("a sentence that nobody knows is taken")
	}
}
