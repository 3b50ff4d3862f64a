package mailauth

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// run checks and takes the time.
func run(t *testing.T, c *Checker, q ask) (Verdict, time.Duration) {
	t.Helper()
	start := time.Now()
	v := c.Check(t.Context(), q.request())
	return v, time.Since(start)
}

// A DNS that never answers costs the budget's time and no more, and makes
// nobody forged; then look-ups rest, for all.
func TestSilentDNS(t *testing.T) {
	header := signed(t, testKey(), "")
	synctest.Test(t, func(t *testing.T) {
		z := newZone(map[string][]string{"any *": {"!silence"}})
		rests := 0
		checker := &Checker{Resolver: z, Budget: Budget{Time: 4 * time.Second}, Rests: func(until time.Time) {
			if rests++; time.Until(until) != pauseTime {
				t.Errorf("until %v", until)
			}
		}}
		spoof := ask{ip: theirs, mailFrom: "x@evil.test", from: "city.example", header: header}
		for i := range pauseAfter {
			v, took := run(t, checker, spoof)
			if v.DMARC != TempError || v.SPF != TempError || v.DKIM != TempError || v.Forged || v.AlignedPass {
				t.Errorf("%+v", v)
			}
			if want := 4 * time.Second; took < want || took > want+probeTime {
				t.Errorf("message %d took %v", i, took)
			}
			if !strings.Contains(v.Words, "did not answer in time") {
				t.Error(v.Words)
			}
		}
		asked := len(z.asked)
		v, took := run(t, checker, spoof)
		if took != 0 || len(z.asked) != asked || v.DMARC != TempError || !strings.Contains(v.Words, "rest") {
			t.Errorf("no pause: %v, %d questions, %s", took, len(z.asked)-asked, v.Words)
		}
		time.Sleep(pauseTime)
		if _, took := run(t, checker, spoof); took == 0 { // one tries again,
			t.Error("still at rest")
		}
		if _, took := run(t, checker, spoof); took != 0 { // and its failure is enough
			t.Errorf("no pause: %v", took)
		}
		time.Sleep(pauseTime)
		delete(z.records, "any *")
		run(t, checker, spoof)
		z.records["any *"] = []string{"!silence"}
		if _, took := run(t, checker, ask{from: "another.example"}); took == 0 {
			t.Error("one failure after an answer is no reason to rest")
		}
		if rests != 2 {
			t.Errorf("it was told %d times that look-ups rest", rests)
		}
	})
}

// Whoever breaks his own domains can't make us stop asking: the top-level
// domains still answer.
func TestSilentDomainsDoNotPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := city("v=DMARC1; p=reject", map[string][]string{"any evil.test": {"!silence"}, "txt evil.test": {"!silence"}, "txt _dmarc.evil.test": {"!silence"}})
		checker := &Checker{Resolver: z}
		for range 5 * pauseAfter {
			run(t, checker, ask{ip: theirs, mailFrom: "x@evil.test", from: "evil.test"})
		}
		if v, _ := run(t, checker, ask{ip: theirs, mailFrom: "x@evil.test", from: "city.example"}); !v.Forged {
			t.Errorf("%+v", v)
		}
	})
}

// Signatures and an envelope of the forger's own, at domains that never
// answer, must not use up the time for what decides about From.
func TestForgerCannotSpendTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := city("v=DMARC1; p=reject", map[string][]string{"txt evil.test": {"!silence"}})
		var junk strings.Builder
		for i := range 1000 {
			domain := fmt.Sprintf("d%d.evil.test", i)
			z.records["txt s._domainkey."+domain] = []string{"!silence"}
			fmt.Fprintf(&junk, "DKIM-Signature: v=1; a=rsa-sha256; d=%s; s=s; h=from; bh=AA==; b=AA==\r\n", domain)
		}
		checker := &Checker{Resolver: z}
		for _, q := range []ask{
			{ip: theirs, mailFrom: "x@evil.test", from: "city.example", header: junk.String() + testHeader},
			{ip: theirs, mailFrom: "x@city.example", from: "city.example", header: junk.String() + testHeader},
		} {
			if v, took := run(t, checker, q); !v.Forged || took > 5*time.Second {
				t.Errorf("%v %+v", took, v)
			}
		}
		v, _ := run(t, checker, ask{ip: theirs, mailFrom: "x@evil.test", from: "city.example", header: junk.String() + signed(t, testKey(), "")})
		if !v.AlignedPass {
			t.Errorf("%+v", v)
		}
	})
}

// Every policy ends, within the number of look-ups.
func TestHostileSPF(t *testing.T) {
	wide, deep := "v=spf1", map[string][]string{}
	for i := range 400 {
		wide += fmt.Sprintf(" mx:m%d.evil.test", i)
		deep[fmt.Sprintf("txt d%d.evil.test", i)] = []string{fmt.Sprintf("v=spf1 include:d%d.evil.test -all", i+1)}
	}
	hosts := make([]string, 10)
	for i := range hosts {
		hosts[i] = fmt.Sprintf("h%d.evil.test", i)
	}
	records := map[string][]string{
		"txt self.test":                 {"v=spf1 include:self.test -all"},
		"txt ping.test":                 {"v=spf1 include:pong.test -all"},
		"txt pong.test":                 {"v=spf1 redirect=ping.test"},
		"txt twice.test":                {"v=spf1 include:twice.test include:twice.test include:twice.test -all"},
		"cname loop.test":               {"pool.test"},
		"cname pool.test":               {"loop.test"},
		"txt wide.test":                 {wide},
		"txt huge.test":                 {"v=spf1 " + strings.Repeat("ip4:192.0.2.9 ", 50_000) + "-all"},
		"txt many.test":                 strings.Split(strings.Repeat("v=spf1 -all\n", 5000), "\n"),
		"txt macro.test":                {"v=spf1 exists:%{l1r-+,/_=.}" + strings.Repeat("%{s}", 2000) + ".evil.test -all"},
		"txt void.test":                 {"v=spf1 a:a.void.test a:b.void.test a:c.void.test ?all"},
		"txt hosts.test":                {"v=spf1 mx mx mx mx mx mx mx mx mx mx -all"},
		"mx hosts.test":                 hosts,
		"txt ptr.test":                  {"v=spf1 ptr:%{p}.ptr.test -all"},
		"ptr 7.100.51.198.in-addr.arpa": hosts,
	}
	for key, value := range deep {
		records[key] = value
	}
	for _, c := range []struct {
		domain string
		want   Result
		most   int
	}{
		{"self.test", PermError, 1}, {"ping.test", PermError, 2}, {"twice.test", PermError, 1}, {"loop.test", TempError, 2}, {"wide.test", PermError, 5},
		{"huge.test", Fail, 2}, {"many.test", PermError, 2}, {"macro.test", Fail, 3}, {"void.test", PermError, 5}, {"hosts.test", Fail, 13}, {"ptr.test", Fail, 13},
		{"d0.evil.test", PermError, 12},
	} {
		z := newZone(records)
		checker := &Checker{Resolver: z}
		v, took := run(t, checker, ask{ip: theirs, mailFrom: strings.Repeat("a.", 100) + "@" + c.domain})
		if v.SPF != c.want || len(z.asked) > c.most || took > time.Second {
			t.Errorf("%s: %s after %d questions, %v", c.domain, v.SPF, len(z.asked), took)
		}
	}
	z := newZone(records)
	checker := &Checker{Resolver: z, Budget: Budget{Queries: 3}}
	if v, _ := run(t, checker, ask{ip: theirs, mailFrom: "a@hosts.test"}); v.SPF != TempError || len(z.asked) != 3 || !strings.Contains(v.Words, "too many look-ups") {
		t.Errorf("%+v, %d questions", v, len(z.asked))
	}
}

// The cache is bounded, forgets, and keeps nothing large or failed.
func TestCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := city("v=DMARC1; p=reject", map[string][]string{"txt _dmarc.big.test": {"v=DMARC1; p=reject; x=" + strings.Repeat("x", 5000)}, "txt _dmarc.bad.test": {"!servfail"}})
		checker := &Checker{Resolver: z}
		asks := func(from string) int {
			before := len(z.asked)
			run(t, checker, ask{from: from})
			return len(z.asked) - before
		}
		for _, c := range []struct {
			from          string
			first, second int
		}{{"city.example", 1, 0}, {"none.test", 1, 0}, {"big.test", 1, 1}, {"bad.test", 1, 1}} {
			if first, second := asks(c.from), asks(c.from); first != c.first || second != c.second {
				t.Errorf("%s: %d, %d questions", c.from, first, second)
			}
		}
		time.Sleep(keepNothing)
		if asks("city.example") != 0 || asks("none.test") != 1 {
			t.Error("kept too short or too long")
		}
		time.Sleep(keepAnswer)
		if asks("city.example") != 1 {
			t.Error("kept too long")
		}
		for i := range 2 * maxAnswers {
			asks(fmt.Sprintf("d%d.test", i))
		}
		if n := len(checker.shared.cache); n > maxAnswers {
			t.Errorf("%d answers are kept", n)
		}
	})
}

// endless is a body that repeats.
type endless struct {
	unit []byte
	at   int
}

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e.unit[e.at]
		if e.at++; e.at == len(e.unit) {
			e.at = 0
		}
	}
	return len(p), nil
}

// A body is read once, whatever it is made of, and not held.
func TestLargeBodies(t *testing.T) {
	var header strings.Builder
	for i := range 8 {
		c := []string{"relaxed/relaxed", "simple/simple"}[i%2]
		fmt.Fprintf(&header, "DKIM-Signature: v=1; a=ed25519-sha256; c=%s; d=city.example; s=s1; h=from; bh=AA==; b=AA==\r\n", c)
	}
	checker := &Checker{Resolver: city("", nil)}
	for i, unit := range []string{"The quick brown fox jumps over the lazy dog. 0123456789\r\n", "\r\n", " ", "\r", "\n", "x", "x\r\n", " \r\n", "x "} {
		size := int64(50 << 20)
		if i > 0 {
			size = 5 << 20
		}
		q := ask{from: "city.example", header: header.String() + testHeader}.request()
		q.Body = io.LimitReader(&endless{unit: []byte(unit)}, size)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		v := checker.Check(t.Context(), q)
		took := time.Since(start)
		runtime.ReadMemStats(&after)
		if v.DKIM != Fail || after.TotalAlloc-before.TotalAlloc > 1<<20 {
			t.Errorf("%q: %s, %d bytes allocated", unit, v.DKIM, after.TotalAlloc-before.TotalAlloc)
		}
		if took > 10*time.Second {
			t.Errorf("%q: %v", unit, took)
		}
		t.Logf("%q: %v", unit, took)
	}
}

// A header of a megabyte takes linear time, whatever it is made of: the same
// took another library minutes.
func TestHostileHeaders(t *testing.T) {
	good := "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed; d=city.example; s=s1; h=from%s; bh=" + emptyHash() + "; b=AA==\r\n"
	plain := fmt.Sprintf(good, "")
	fill := func(head, unit, tail string) string {
		return head + strings.Repeat(unit, (1000_000-len(head)-len(tail))/len(unit)) + tail
	}
	for name, header := range map[string]string{
		"one folded field":       fill(strings.Repeat(plain, 8)+"X: a\r\n", " a\r\n", testHeader),
		"one folded From":        fill(strings.Repeat(plain, 8)+"From: a\r\n", " a\r\n", "\r\n"),
		"a long h":               fmt.Sprintf(good, strings.Repeat(":x", 300_000)) + strings.Repeat("X: y\r\n", 5000) + testHeader,
		"a long h of From":       fmt.Sprintf(good, strings.Repeat(":from", 100_000)) + strings.Repeat("From: y\r\n", 9000) + testHeader,
		"many signatures":        fill("", plain, testHeader),
		"empty tags":             fill("DKIM-Signature: v=1", ";", "\r\n"+testHeader),
		"many tags":              fill("DKIM-Signature: v=1", ";=", "\r\n"+testHeader),
		"a signature of blanks":  fill("DKIM-Signature: v=1; b=", " \t", "\r\n"+testHeader),
		"empty seals":            fill("", "ARC-Seal: i=1; i\r\n", testHeader),
		"fifty sets, one folded": fill("", "ARC-Seal: i=50; a=rsa-sha256; d=city.example; s=s1; b=AA==\r\n", testHeader),
		"numbers":                fill("ARC-Seal: i=", "9", "\r\n"+testHeader),
	} {
		q := ask{from: "city.example", header: header}.request()
		q.Chain = true
		q.Body = strings.NewReader("")
		checker := &Checker{Resolver: city("", nil)}
		start := time.Now()
		v := checker.Check(t.Context(), q)
		if took := time.Since(start); took > 3*time.Second || v.AlignedPass {
			t.Errorf("%s: %v %+v", name, took, v)
		} else {
			t.Logf("%s: %v", name, took)
		}
	}
	over := ask{from: "city.example", header: strings.Repeat("X: y\r\n", 20_000) + signed(t, testKey(), "")}.request()
	if v := (&Checker{Resolver: city("", nil)}).Check(t.Context(), over); v.AlignedPass || !strings.Contains(v.Words, "too large") {
		t.Errorf("%+v", v)
	}
}

func emptyHash() string { return "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" }

// However the body comes in pieces, its hash is the same.
func TestBodyPieces(t *testing.T) {
	texts := []string{"", "\r\n", "\r", "a", " a \r\n\r\n\tb\t\r\n \r\n\r\n", "a\rb\r\r\nc \r", " ", "a \r\n \r\n", "\n\nx\n\n"}
	for _, text := range texts {
		for _, c := range []canon{simple, relaxed} {
			want := newBodyWriter(c)
			want.Write([]byte(text))
			sum := want.sum()
			for i := range len(text) {
				w := newBodyWriter(c)
				w.Write([]byte(text[:i]))
				w.Write([]byte(text[i:]))
				if !bytes.Equal(w.sum(), sum) {
					t.Errorf("%s %q cut at %d", c, text, i)
				}
			}
		}
	}
}

func BenchmarkBody(b *testing.B) {
	line := []byte("The quick brown fox jumps over the lazy dog. 0123456789 abcdefgh ijkl\r\n")
	body := bytes.Repeat(line, 1<<20/len(line))
	for _, c := range []canon{simple, relaxed} {
		b.Run(string(c), func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				w := newBodyWriter(c)
				w.Write(body)
				w.sum()
			}
		})
	}
}

// A body hashes as RFC 6376 §3.4.3 and §3.4.4 say, whatever it is made of; here
// they are done slowly, word by word.
func TestBodyCanonicalisation(t *testing.T) {
	slowly := func(c canon, text string) []byte {
		lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
		for i := range lines {
			if c == relaxed {
				lines[i] = strings.TrimRight(regexp.MustCompile(`[ \t]+`).ReplaceAllString(lines[i], " "), " ")
			}
		}
		text = strings.TrimRight(strings.Join(lines, "\n"), "\n")
		if text != "" || c == simple {
			text += "\n"
		}
		sum := sha256.Sum256([]byte(strings.ReplaceAll(text, "\n", "\r\n")))
		return sum[:]
	}
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOf(rapid.SampledFrom([]string{"a", "bc", " ", "\t", "\r\n", "\n", "\r", ".", strings.Repeat("x", 5000)})).Draw(t, "text"), "")
		cut := rapid.IntRange(0, len(text)).Draw(t, "cut")
		for _, c := range []canon{simple, relaxed} {
			w := newBodyWriter(c)
			w.Write([]byte(text[:cut]))
			w.Write([]byte(text[cut:]))
			if !bytes.Equal(w.sum(), slowly(c, text)) {
				t.Fatalf("%s of %q cut at %d", c, text, cut)
			}
		}
	})
}
