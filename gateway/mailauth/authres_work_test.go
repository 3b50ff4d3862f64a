package mailauth

import (
	"strings"
	"testing"
	"time"
)

// hostileUnits are what a quadratic reader would trip over when repeated.
var hostileUnits = []string{
	"(", "()", "(()", ")", "\"", "\"a\"", "\\", "(\\", ";", "; ", ";a=b", ";a=b c.d=e", ";a=b c=\"", " a.b=c", " a=b", "/1", "=", "none;",
	"(a)", "(p=reject)", " ", "\r\n ", "\r", "\x00", "a", ".", "a.", "ü", "ü.", "\xff", "\u0300", "gw.example", "gw.example ", "(gw.example", "=?utf-8?q?gw.example?= ", "=?", "@gw.example", "xn--",
}

// Twice the input is at most two and a half times the work, counted in bytes
// looked at; and no byte is looked at often.
func TestParseIsLinear(t *testing.T) {
	work := func(s string) int {
		l, ok := newLexer(s)
		if !ok {
			return len(s)
		}
		l.authRes()
		return l.work
	}
	for _, head := range []string{"", "mx.example; ", "mx.example; dmarc=pass ", "(", "\"", "mx.example; none", "spf=pass "} {
		for _, unit := range hostileUnits {
			half := work(head + strings.Repeat(unit, 10_000))
			full := work(head + strings.Repeat(unit, 20_000))
			if float64(full) > 2.5*float64(half)+100 || full > 6*(len(head)+20_000*len(unit)) {
				t.Errorf("%q + %q…: work %d, doubled %d", head, unit, half, full)
			}
		}
	}
}

// The libraries under Claims and the domains are linear too: a megabyte takes
// less than a second, where quadratic time would be hours.
func TestReadersAreLinear(t *testing.T) {
	if testing.Short() {
		t.Skip("a few seconds")
	}
	for _, head := range []string{"", "mx.example; spf=pass smtp.mailfrom="} {
		for _, unit := range hostileUnits {
			s := head + strings.Repeat(unit, 1<<20/len(unit))
			start := time.Now()
			ServID(s)
			Claims(s, "gw.example")
			domainKey(s)
			if a, err := ParseAuthRes(s); err == nil {
				_ = a.String()
			}
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("%q + %q…: %v", head, unit, d)
			} else if d > 300*time.Millisecond {
				t.Logf("%q + %q…: %v", head, unit, d)
			}
		}
	}
}
