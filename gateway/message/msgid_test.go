package message_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/casegate/casegate/gateway/message"
)

func TestMessageIDs(t *testing.T) {
	long := strings.Repeat("x", 996) + "@y"
	for in, want := range map[string][]string{
		"":                                    nil,
		"<a@b>":                               {"a@b"},
		" <a@b>\r\n <c@d>\r\n\t<e@f>":         {"a@b", "c@d", "e@f"},
		"<a@b><c@d>,<e>":                      {"a@b", "c@d", "e"},
		`Your message of "Mon" <a@b>, thanks`: {"a@b"},
		"<>":                                  nil,
		"< a@b >":                             {"a@b"},
		"<a@b":                                nil,
		"a@b>":                                nil,
		"<a <b@c>":                            {"b@c"},
		"<<a@b>>":                             {"a@b"},
		"a@b":                                 {"a@b"},
		" a@b\r\n":                            {"a@b"},
		"a@b c@d":                             nil,
		"nothing":                             nil,
		"<very.long\r\n @host>":               {"very.long@host"},
		"<a b@c>":                             {"ab@c"},
		"<a b c@d>":                           nil,
		"<a@b c@d>":                           nil,
		"<a\x00@b>":                           nil,
		"<" + long + ">":                      {long},
		"<x" + long + ">":                     nil,
	} {
		if d := cmp.Diff(want, message.MessageIDs(in)); d != "" {
			t.Errorf("%.60q: %s", in, d)
		}
	}
}

// checkMessageIDs: every id is one by itself, and stands in the value.
func checkMessageIDs(t testing.TB, value string) {
	t.Helper()
	flat := squash(value)
	for _, id := range message.MessageIDs(value) {
		if id == "" || len(id) > 998 || strings.ContainsAny(id, "<> \t\r\n\x00") {
			t.Errorf("bad id %q in %q", id, value)
		}
		if again := message.MessageIDs("<" + id + ">"); len(again) != 1 || again[0] != id {
			t.Errorf("%q reads as %q the second time", id, again)
		}
		if !strings.Contains(flat, id) {
			t.Errorf("%q is not in %q", id, value)
		}
	}
}

// squash takes all white space out.
func squash(s string) string {
	return strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "").Replace(s)
}

// Property: ids are read where they stand, and read the same again.
func FuzzMessageIDs(f *testing.F) {
	f.Add("<a@b> <c\r\n d@e>")
	f.Add("a@b")
	f.Fuzz(func(t *testing.T, value string) { checkMessageIDs(t, value) })
}
