package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// defaultFile is read from the working directory when --config names no other.
const defaultFile = "casegate.yaml"

// loadConfig reads a configuration file, lays the environment over it and
// checks the whole. An empty path is defaultFile if there is one, else the
// built-in defaults. The error is problems: every mistake, not only the first.
// Loading touches nothing, so a reload is: load, then swap or complain.
func loadConfig(path string, environ []string) (*Config, error) {
	text, err := os.ReadFile(cmp.Or(path, defaultFile))
	file := cmp.Or(path, defaultFile)
	if path == "" && errors.Is(err, fs.ErrNotExist) {
		text, file, err = nil, "", nil
	}
	if err != nil {
		return nil, problems{{place: place{source: file}, what: reason(err), hint: "write --config FILE with the path of the configuration"}}
	}
	return parseConfig(file, text, environ)
}

// reason is why a file operation failed, without the path said already.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return err.Error()
}

// parseConfig is loadConfig on a text; file is its name in errors.
func parseConfig(file string, text []byte, environ []string) (*Config, error) {
	tree, at, found := readYAML(file, text)
	overrides, wrong := readEnv(environ, at)
	found = append(found, wrong...)
	c, wrong := merge(tree, overrides)
	found = at.locate(found, append(wrong, c.check()...))
	c.file, c.places = file, at
	if len(found) > 0 {
		return nil, found
	}
	return c, nil
}

// locate adds to found what else is wrong, with its places, in the order of
// the file. Of two mistakes in one setting, or in a setting and within it, only
// the first counts.
func (p places) locate(found, more problems) problems {
	known := map[string]bool{}
	for _, f := range found {
		known[f.path] = f.path != ""
	}
	for _, m := range more {
		if within(m.path, known) || p.misspelt[m.path] {
			continue
		}
		known[m.path] = true
		m.place = p.find(m.path)
		found = append(found, m)
	}
	slices.SortStableFunc(found, func(a, b problem) int { return a.place.compare(b.place) })
	return found
}

// within reports whether a setting, or one around it, is among those known.
func within(path string, known map[string]bool) bool {
	for ; path != ""; path = around(path) {
		if known[path] {
			return true
		}
	}
	return false
}

// around is the path of what a setting is part of.
func around(path string) string { return path[:max(0, strings.LastIndexAny(path, ".["))] }

// readEnv picks the variables that override a setting. A list is written with
// commas; a list of objects as YAML. A variable that looks like a misspelt one
// is refused; others that begin with CASEGATE_ may belong to somebody else.
func readEnv(environ []string, at places) (map[string]any, problems) {
	values := map[string]any{}
	var found problems
	byName := map[string]leaf{}
	names := []string{"CASEGATE_ALLOW_VOLATILE"}
	for _, l := range leaves(defaults()) {
		byName[l.env()] = l
		names = append(names, l.env())
	}
	for _, entry := range environ {
		name, text, _ := strings.Cut(entry, "=")
		if l, ok := byName[name]; ok {
			value, err := envValue(text, l.value.Type())
			if err != nil {
				found = append(found, problem{place: place{source: name}, path: l.dots(), what: err.Error(), hint: "write YAML: [{key: value}, ...]"})
				continue
			}
			at.override(l.dots(), name)
			values[l.key()] = value
		} else if near := misspeltVariable(name, names); near != "" {
			found = append(found, problem{place: place{source: name}, what: "unknown variable", hint: fmt.Sprintf("did you mean %s?", near)})
		}
	}
	return values, found
}

// envValue turns the text of a variable into what the file would have said.
func envValue(text string, t reflect.Type) (any, error) {
	if t.Kind() != reflect.Slice || isText(t) {
		return text, nil
	}
	if isSection(t.Elem()) {
		var value any
		if err := yaml.Unmarshal([]byte(text), &value); err != nil {
			return nil, fmt.Errorf("%q is not YAML", text)
		}
		return value, nil
	}
	list := []any{}
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list, nil
}

// misspeltVariable returns the variable that name probably was meant to be.
func misspeltVariable(name string, names []string) string {
	if !strings.HasPrefix(name, envPrefix) || slices.Contains(names, name) {
		return ""
	}
	near := suggest(name, names)
	if near == "" || distance(name, near) > 2 {
		return ""
	}
	return near
}
