package message_test

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/casegate/casegate/gateway/message"
)

// stalwartMail is what we read of Stalwart's expected results.
type stalwartMail struct {
	Parts []struct {
		Headers []struct {
			Name  any
			Value any
		}
	}
}

// stalwartStrings collects the strings under a key of nested JSON, in order.
func stalwartStrings(v any, key string) (found []string) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			found = append(found, stalwartStrings(e, key)...)
		}
	case map[string]any:
		if s, ok := v[key].(string); ok {
			found = append(found, s)
		}
		for _, k := range []string{"Address", "List", "Group", "addresses"} {
			found = append(found, stalwartStrings(v[k], key)...)
		}
	}
	return found
}

// A differential test: the same addresses as Stalwart's parser reads from the
// same top-level fields. Their offsets are of other copies of the files (CRLF),
// so fields are matched by their place.
func TestStalwart(t *testing.T) {
	files := corpusFiles(t, "stalwart-mail-parser")
	same := 0
	for name, mail := range files {
		var want stalwartMail
		if filepath.Ext(name) != ".eml" || json.Unmarshal(files[strings.TrimSuffix(name, ".eml")+".json"], &want) != nil {
			continue
		}
		header, _ := split(mail, 4096)
		fields, theirs := message.Parse(header).Fields(), want.Parts[0].Headers
		if len(fields) != len(theirs) {
			t.Errorf("%s: %d fields, theirs are %d", name, len(fields), len(theirs))
			continue
		}
		for i, f := range fields {
			if v, ok := theirs[i].Value.(map[string]any); ok && v["Address"] != nil {
				same++
				compareAddresses(t, name, f, v)
			}
		}
	}
	t.Logf("%d address fields compared", same)
}

func compareAddresses(t *testing.T, name string, f message.Field, theirs any) {
	var addrs, names []string
	for _, m := range message.ParseList(f.Value()) {
		addrs = append(addrs, m.Address)
		names = append(names, m.Name)
	}
	if want := stalwartStrings(theirs, "address"); !slices.Equal(addrs, want) {
		t.Errorf("%s: %q\n ours %q\ntheirs %q", name, f.Raw(), addrs, want)
	}
	if want := stalwartStrings(theirs, "name"); !slices.Equal(slices.DeleteFunc(names, func(s string) bool { return s == "" }), want) {
		t.Logf("%s: names of %q\n ours %q\ntheirs %q", name, f.Raw(), names, want)
	}
}
