package main

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"
)

// merge lays the settings of a file and those of the environment over the
// defaults. Both are trees as YAML gives them; env is keyed by leaf. The
// mistakes come with their paths and without places.
//
// This is the only file that knows viper. It is used so that none of its traps
// can close: no dots in keys, every leaf has a default, nothing unknown passes,
// no value is bent into a type it is not.
func merge(file map[string]any, env map[string]any) (*Config, problems) {
	v := viper.NewWithOptions(viper.KeyDelimiter(separator))
	for _, l := range leaves(defaults()) {
		v.SetDefault(l.key(), l.value.Interface())
	}
	if err := v.MergeConfigMap(file); err != nil {
		return defaults(), problems{{what: err.Error()}}
	}
	for key, value := range env {
		v.Set(key, value)
	}
	c := new(Config)
	err := v.UnmarshalExact(c, func(d *mapstructure.DecoderConfig) {
		d.WeaklyTypedInput = false
		d.DecodeHook = mapstructure.DecodeHookFuncValue(strict)
	})
	return c, decodeProblems("", err)
}

// decodeProblems takes mapstructure's tree of errors apart.
func decodeProblems(path string, err error) problems {
	switch e := err.(type) {
	case nil:
		return nil
	case hinted:
		return problems{{path: path, what: e.Error(), hint: e.hint}}
	case *mapstructure.DecodeError:
		return decodeProblems(e.Name(), e.Unwrap())
	case interface{ Unwrap() []error }:
		var all problems
		for _, one := range e.Unwrap() {
			all = append(all, decodeProblems(path, one)...)
		}
		return all
	case interface{ Unwrap() error }:
		return decodeProblems(path, e.Unwrap())
	}
	return problems{{path: path, what: err.Error()}}
}

// strict is the one decode hook: it reads the types that read themselves, fills
// in what objects of lists leave out, and refuses whatever has the wrong type.
func strict(from, to reflect.Value) (any, error) {
	value, t := from.Interface(), to.Type()
	switch {
	case from.Type() == t:
		return value, nil
	case isText(t):
		return readText(value, t)
	case isSection(t):
		object, ok := value.(map[string]any)
		if !ok {
			return nil, hint("write {key: value, ...}, or one key per line below it", "%s is not a section", quote(value))
		}
		return withElements(object, t), nil
	case t.Kind() == reflect.Slice && from.Kind() != reflect.Slice:
		return nil, hint("write a list: [a, b], or one line with a dash for each", "%s is not a list", quote(value))
	case t.Kind() == reflect.String && from.Kind() != reflect.String:
		return nil, hint(fmt.Sprintf("put it in quotes: %q", fmt.Sprint(value)), "%s is not text", quote(value))
	case t.Kind() == reflect.Int:
		return readInt(value)
	case t.Kind() == reflect.Bool:
		return readBool(value)
	}
	return value, nil
}

// readText lets a type read itself. Numbers are handed over as they were
// written, so that the type can say which unit is missing.
func readText(value any, t reflect.Type) (any, error) {
	switch value.(type) {
	case string, int, float64:
	default:
		return nil, hint("write one value", "%s is not a single value", quote(value))
	}
	into := reflect.New(t)
	if err := into.Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(fmt.Sprint(value))); err != nil {
		return nil, err
	}
	return into.Elem().Interface(), nil
}

func readInt(value any) (any, error) {
	switch v := value.(type) {
	case int:
		return v, nil
	case string:
		if n, err := strconv.Atoi(v); err == nil {
			return n, nil
		}
	}
	return nil, hint("write a number such as 100", "%s is not a whole number", quote(value))
}

func readBool(value any) (any, error) {
	switch v := value.(type) {
	case bool:
		return v, nil
	case string:
		if v == "true" || v == "false" {
			return v == "true", nil
		}
	}
	return nil, hint("write true or false", "%s is neither true nor false", quote(value))
}

// quote quotes text and leaves the rest as it was written.
func quote(value any) string {
	switch v := value.(type) {
	case string:
		return strconv.Quote(v)
	case map[string]any:
		return "{...}"
	case []any:
		return "[...]"
	default:
		return fmt.Sprint(v)
	}
}
