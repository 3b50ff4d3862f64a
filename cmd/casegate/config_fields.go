package main

import (
	"encoding"
	"reflect"
	"strconv"
	"strings"
)

// separator keeps the parts of a path apart inside viper, whose own dot would
// split names that contain one.
const separator = "::"

// leaf is one setting that viper and the environment know as a whole: a value
// or a list.
type leaf struct {
	path  []string
	value reflect.Value
}

func (l leaf) key() string  { return strings.Join(l.path, separator) }
func (l leaf) dots() string { return strings.Join(l.path, ".") }

// env is the variable that overrides the setting.
func (l leaf) env() string { return envPrefix + strings.ToUpper(strings.Join(l.path, "_")) }

const envPrefix = "CASEGATE_"

// leaves lists every setting of a configuration with its value.
func leaves(c *Config) []leaf {
	return appendLeaves(nil, nil, reflect.ValueOf(c).Elem())
}

func appendLeaves(list []leaf, path []string, v reflect.Value) []leaf {
	for field, value := range v.Fields() {
		name := key(field)
		if name == "" {
			continue
		}
		here := append(path[:len(path):len(path)], name)
		if isSection(field.Type) {
			list = appendLeaves(list, here, value)
			continue
		}
		list = append(list, leaf{here, value})
	}
	return list
}

// key is the name of a field in the file; "" for a field that is not set there.
func key(f reflect.StructField) string { return f.Tag.Get("mapstructure") }

// isSection reports whether a type has keys of its own in the file.
func isSection(t reflect.Type) bool { return t.Kind() == reflect.Struct && !isText(t) }

// isText reports whether a type reads itself from text.
func isText(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// fieldOf finds a section's field by its key.
func fieldOf(t reflect.Type, name string) (reflect.StructField, bool) {
	for f := range t.Fields() {
		if key(f) == name {
			return f, name != ""
		}
	}
	return reflect.StructField{}, false
}

// keysOf lists the keys of a section.
func keysOf(t reflect.Type) []string {
	var names []string
	for f := range t.Fields() {
		if key(f) != "" {
			names = append(names, key(f))
		}
	}
	return names
}

// withElements adds to an object of a list the keys it leaves out and their
// defaults, from the element tags.
func withElements(object map[string]any, t reflect.Type) map[string]any {
	for f := range t.Fields() {
		if text := f.Tag.Get("element"); text != "" {
			if _, given := object[key(f)]; !given {
				object[key(f)] = text
			}
		}
	}
	return object
}

// fillElement does the same to an object made in Go.
func fillElement(object any) {
	for field, value := range reflect.ValueOf(object).Elem().Fields() {
		text := field.Tag.Get("element")
		if text == "" || !value.IsZero() {
			continue
		}
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && value.CanInt() {
			value.SetInt(n)
			continue
		}
		value.SetString(text)
	}
}
