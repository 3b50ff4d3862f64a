package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// places says where in which file or variable each setting stands.
type places struct {
	file     string
	at       map[string]place
	misspelt map[string]bool // settings that stand there under a wrong name
}

// find is the place of a setting, or of the nearest thing around it.
func (p places) find(path string) place {
	for ; path != ""; path = around(path) {
		if at, ok := p.at[path]; ok {
			return at
		}
	}
	return place{source: p.file}
}

// override makes an environment variable the place of a setting and all below.
func (p places) override(path, variable string) {
	for other := range p.at {
		if strings.HasPrefix(other, path+".") || strings.HasPrefix(other, path+"[") {
			delete(p.at, other)
		}
	}
	p.at[path] = place{source: variable}
}

// readYAML reads a file into a tree that holds nothing Config doesn't know,
// and remembers where everything stood. What it drops it reports.
func readYAML(file string, text []byte) (map[string]any, places, problems) {
	w := walker{places: places{file, map[string]place{}, map[string]bool{}}}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, second yaml.Node
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) {
		return nil, w.places, nil // nothing but comments
	}
	if err != nil {
		return nil, w.places, problems{syntaxProblem(file, err)}
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		w.report(second.Line, second.Column, problem{what: "a second document begins here", hint: "remove the line ---"})
	}
	root := document.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, w.places, w.found
	}
	if root.Kind != yaml.MappingNode {
		w.report(root.Line, root.Column, problem{what: "this is not a section", hint: "begin with a line such as hostname: gw.city.example"})
		return nil, w.places, w.found
	}
	w.section(root, "", reflect.TypeFor[Config]())
	var tree map[string]any
	if err := document.Decode(&tree); err != nil {
		w.found = append(w.found, syntaxProblem(file, err))
	}
	return tree, w.places, w.found
}

// syntaxProblem puts the place that the YAML reader names in front. Of what its
// parser (not its scanner) refuses it counts the lines from 0.
func syntaxProblem(file string, err error) problem {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	p := problem{place: place{source: file}, what: text, hint: "indent with spaces, not tabs, and put text with special characters in quotes"}
	if m := regexp.MustCompile(`(?s)^(?:unmarshal errors:\s*)?line (\d+): (.*)`).FindStringSubmatch(text); m != nil {
		p.line, _ = strconv.Atoi(m[1])
		p.what = m[2]
		if strings.HasPrefix(p.what, "did not find expected") {
			p.line++
		}
	}
	return p
}

// walker goes through the nodes of a file beside the type they are read into.
type walker struct {
	places
	found problems
}

func (w *walker) report(line, column int, p problem) {
	p.place = place{w.file, line, column}
	w.found = append(w.found, p)
}

// value notes where a value stands and looks into it.
func (w *walker) value(n *yaml.Node, path string, t reflect.Type) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	w.at[path] = place{w.file, n.Line, n.Column}
	switch {
	case n.Kind == yaml.MappingNode && isSection(t):
		w.section(n, path, t)
	case n.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice:
		for i, element := range n.Content {
			w.value(element, fmt.Sprintf("%s[%d]", path, i), t.Elem())
		}
	}
}

// section looks at the keys of a mapping and cuts out the wrong ones.
func (w *walker) section(n *yaml.Node, path string, t reflect.Type) {
	seen := map[string]int{}
	kept := n.Content[:0:0]
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		here := strings.TrimPrefix(path+"."+name.Value, ".")
		field, known := fieldOf(t, name.Value)
		switch first, twice := seen[name.Value]; {
		case !known:
			w.unknown(name, path, t)
			continue
		case twice:
			w.report(name.Line, name.Column, problem{path: here, what: fmt.Sprintf("set already in line %d", first), hint: "keep one of the two"})
			continue
		case value.Kind == yaml.ScalarNode && value.Tag == "!!null":
			w.report(name.Line, name.Column, problem{path: here, what: "has no value", hint: nullHint(name.Value, field.Type)})
			continue
		}
		seen[name.Value] = name.Line
		kept = append(kept, name, value)
		w.value(value, here, field.Type)
	}
	n.Content = kept
}

func nullHint(name string, t reflect.Type) string {
	switch {
	case t.Kind() == reflect.Slice && !isText(t):
		return "write [] for none, or remove the line for the default"
	case t.Kind() == reflect.String:
		return fmt.Sprintf(`write %s: "" for none, or remove the line for the default`, name)
	}
	return "give it one, or remove the line for the default"
}

// unknown reports a key that Config lacks. A key it was probably meant to be
// counts as placed there, so that nobody hears that it is missing as well.
func (w *walker) unknown(name *yaml.Node, path string, t reflect.Type) {
	p := problem{path: path, what: fmt.Sprintf("unknown key %q", name.Value)}
	if near := suggest(name.Value, keysOf(t)); near != "" {
		p.hint = fmt.Sprintf("did you mean %s?", near)
		w.misspelt[strings.TrimPrefix(path+"."+near, ".")] = true
	} else {
		p.hint = "keys here: " + strings.Join(keysOf(t), ", ")
	}
	w.report(name.Line, name.Column, p)
}
