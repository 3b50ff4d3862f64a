package resolver

import "testing"

func TestMixedScripts(t *testing.T) {
	for address, want := range map[string]string{
		"dana@example.net":                "",
		"jürgen@straße.example":           "",
		"иван@пример.example":             "",
		"田中a@例えばテスト.example":              "",
		"kim@한국韓國abc.example":             "",
		"a1-b@3com.example":               "",
		"":                                "",
		"dana@ex\u0430mple.net":           "ex\u0430mple",
		"dana@www.\u0440\u0430ypal.net":   "\u0440\u0430ypal",
		"dana@xn--exmple-4nf.net":         "ex\u0430mple",
		"d\u0430na@example.net":           "d\u0430na",
		"dana@\u03bf\u0430.example":       "\u03bf\u0430",
		"dana@пример.例え.example":          "",
		"dana@例えпример.example":           "例えпример",
		"dana@xn--not-punycode-!.example": "",
	} {
		if got := mixedScripts(address); got != want {
			t.Errorf("%+q: %+q, want %+q", address, got, want)
		}
	}
}
