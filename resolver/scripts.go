package resolver

import (
	"strings"
	"unicode"

	"golang.org/x/net/idna"
)

// mixedScripts returns the first label of an address's domain, or its local part,
// that is written in letters of several scripts that nobody uses together: one
// that may be made to look like another (UTS 39 §5.2, highly restrictive). A-labels
// are read as the letters they stand for. "" is none.
func mixedScripts(address string) string {
	if !strings.Contains(address, "xn--") && strings.IndexFunc(address, func(r rune) bool { return r >= 0x80 }) < 0 {
		return ""
	}
	local, domain, _ := cutLast(address, "@")
	if shown, err := idna.Punycode.ToUnicode(domain); err == nil {
		domain = shown
	}
	for label := range strings.SplitSeq(domain, ".") {
		if mixed(label) {
			return label
		}
	}
	if mixed(local) {
		return local
	}
	return ""
}

// together are the scripts of one writing, Latin beside them.
var together = [][]string{{"Han", "Hiragana", "Katakana"}, {"Han", "Bopomofo"}, {"Han", "Hangul"}}

func mixed(label string) bool {
	scripts := map[string]bool{}
	for _, r := range label {
		if r < 0x80 {
			if unicode.IsLetter(r) {
				scripts["Latin"] = true
			}
			continue
		}
		if script := scriptOf(r); script != "" {
			scripts[script] = true
		}
	}
	if len(scripts) < 2 {
		return false
	}
	delete(scripts, "Latin")
	for _, writing := range together {
		left := len(scripts)
		for _, s := range writing {
			if scripts[s] {
				left--
			}
		}
		if left == 0 {
			return false
		}
	}
	return true
}

// scriptOf is the script of a letter; "" if it is no letter, or of many scripts.
func scriptOf(r rune) string {
	if !unicode.IsLetter(r) {
		return ""
	}
	for name, table := range unicode.Scripts {
		if unicode.Is(table, r) && name != "Common" && name != "Inherited" {
			return name
		}
	}
	return ""
}
