package message_test

import (
	"strings"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway/message"
)

// hostile are beginnings that a quadratic reader would trip over when repeated
// to a megabyte: brackets, quotes and words never closed, or closed late.
func hostile() map[string]string {
	inputs := map[string]string{}
	for _, unit := range []string{
		"<", ">", "\"", "\\\"", "(", "((a)", ")", "[", "@[", "@[a", ":", "a:", ",", ";", "@", "a@b,", "a,", "<a", "<@", "< ", "<\"", "<\\\"",
		"=?", "=?a?q?", "=?a?b?x?", "=?utf-8?q?x?= ", "=?a?q?x?==?b?q?y?=", "=", "=?utf-8?b?////?=",
		" ", "\r\n ", "\r", "\n", "a: b\r\n", "a:\n", "junk\n", "From \n", "\x00", "\u202e", "\u0085", "\xff", "ü", "G: a@b;", "Doe, J <a@b>, ", "<a b@c>", "a\r\n.\r\n",
	} {
		inputs[unit] = strings.Repeat(unit, message.MaxHeader/len(unit))
		inputs[unit+"…close"] = inputs[unit][:len(inputs[unit])-16] + "\\\")>]?=;\"<a@b>"
	}
	return inputs
}

// A megabyte of anything takes every reader less than a second; one that is
// quadratic would need hours, so the bound can be generous.
func TestHostileInputIsLinear(t *testing.T) {
	if testing.Short() {
		t.Skip("a few seconds, a minute under the race detector")
	}
	readers := map[string]func(string){
		"Parse":      func(s string) { message.Parse([]byte(s)).Values("a") },
		"Unfold":     func(s string) { message.Unfold(s) },
		"Decode":     func(s string) { message.Decode(s) },
		"ParseList":  func(s string) { message.ParseList(s) },
		"Cuts":       func(s string) { message.Cuts(s, func(m message.Mailbox) bool { return m.Start%2 == 0 }) },
		"CutsAll":    func(s string) { message.Cuts(s, func(m message.Mailbox) bool { return true }) },
		"MessageIDs": func(s string) { message.MessageIDs(s) },
		"Split":      func(s string) { _, _, _ = message.SplitAddress(s) },
		"Valid":      func(s string) { message.ValidAddress(s) },
		"Editor":     editHostile,
	}
	for unit, input := range hostile() {
		for name, read := range readers {
			start := time.Now()
			read(input)
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("%s takes %v for a megabyte of %q", name, d, unit)
			} else if d > 200*time.Millisecond {
				t.Logf("%s takes %v for a megabyte of %q", name, d, unit)
			}
		}
	}
}

// editHostile replaces, splices and adds with hostile values.
func editHostile(s string) {
	h := message.Parse([]byte(s[:message.MaxHeader/2]))
	e := message.NewEditor(h)
	for i, f := range h.Fields() {
		e.Splice(f, 1, 2, "x")
		if i%2 == 0 {
			e.Remove(f)
		}
	}
	e.Prepend("A", s)
	e.Append("B", s)
	long := message.Parse([]byte("To:" + strings.Repeat("a@b,", 10_000) + "\r\n\r\n"))
	le := message.NewEditor(long)
	for i := range 10_000 {
		le.Splice(long.Fields()[0], 4*i, 4*i+1, "c d")
	}
	le.Replace(message.Field{}, s)
	e.Bytes()
	le.Bytes()
}
