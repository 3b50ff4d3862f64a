package gateway

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// alarm is a log that remembers errors: a recovered panic is one.
type alarm struct {
	mu   sync.Mutex
	said string
}

func (a *alarm) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelError }
func (a *alarm) WithAttrs([]slog.Attr) slog.Handler           { return a }
func (a *alarm) WithGroup(string) slog.Handler                { return a }
func (a *alarm) Handle(_ context.Context, r slog.Record) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.said = r.Message
	r.Attrs(func(at slog.Attr) bool { a.said += " " + at.String(); return true })
	return nil
}

var replyLine = regexp.MustCompile(`^[2345][0-9][0-9][ -][^\r\n]*\r\n$`)

// wrongParameter is go-smtp's answer to a parameter that it cannot take. Of several
// it names any: it keeps them in a map.
var wrongParameter = regexp.MustCompile(`(?m)^50\d 5\.5\.4 [^\r\n]*`)

// FuzzSession plays any bytes, cut anywhere: no panic, replies that are
// replies, no more messages than transactions, no sink left behind; and where the
// bytes are cut makes no difference to what is said and taken, as long as the
// client waits for its 354.
func FuzzSession(f *testing.F) {
	for _, seed := range sessionSeeds() {
		f.Add([]byte(seed), uint16(7), false)
	}
	f.Add([]byte("LHLO x\r\n"+envelope+"RCPT TO:<c@d.test>\r\nDATA\r\nx\r\n.\r\n"), uint16(0), true)
	f.Add([]byte("EHLO Y\nMAIL FROM:<0@0>AUTH 7\n"), uint16(7), false) // two wrong parameters
	f.Fuzz(func(t *testing.T, input []byte, seed uint16, lmtp bool) {
		said, bodies := playFuzzed(t, input, seed, lmtp)
		again, same := playFuzzed(t, input, 0, lmtp)
		if early := "wait for 354"; !strings.Contains(said+again, early) && (said != again || !slices.EqualFunc(bodies, same, bytes.Equal)) {
			t.Fatalf("cut by %d:\n%q\n%q\nin one piece:\n%q\n%q", seed, said, bodies, again, same)
		}
	})
}

// playFuzzed plays one session, and returns what was said and taken.
func playFuzzed(t *testing.T, input []byte, seed uint16, lmtp bool) (said string, bodies [][]byte) {
	t.Helper()
	h, a := &testHandler{}, &alarm{}
	s := newStage(t, h, func(o *ListenerOptions) {
		o.BareNewline, o.MaxMessage, o.MaxRecipients, o.Logger = NewlineNormalize, 2000, 5, slog.New(a)
		o.XForward, o.XClient, o.Authenticator, o.AuthWithoutTLS = true, true, desk, true
		if lmtp {
			o.Protocol = "lmtp"
		}
	})
	c := script(pieces(string(input), seed)...)
	if err := s.play(c); err != nil {
		t.Fatal(err)
	}
	if a.said != "" {
		t.Fatal(a.said)
	}
	if err := h.unbalanced(); err != nil {
		t.Fatal(err)
	}
	total, transactions := 0, bytes.Count(bytes.ToUpper(input), []byte("TO:"))
	for _, m := range h.got() {
		total += len(m.body)
		bodies = append(bodies, m.body)
	}
	if len(bodies) > transactions || total > len(input) {
		t.Fatalf("%d messages of %d bytes from %d transactions", len(bodies), total, transactions)
	}
	for line := range strings.Lines(c.out.String()) {
		if !replyLine.MatchString(line) {
			t.Fatalf("said %q", line)
		}
	}
	return wrongParameter.ReplaceAllString(c.out.String(), "50x 5.5.4"), bodies
}

// pieces cuts behind each DATA, as a client that waits for its 354, and at
// random.
func pieces(input string, seed uint16) []string {
	var all []string
	state := uint32(seed)
	for _, part := range strings.SplitAfter(input, "DATA\r\n") {
		for seed > 0 && len(part) > 1 {
			state = state*1664525 + 1013904223
			n := min(1+int(state>>16)%int(seed), len(part))
			all = append(all, part[:n])
			part = part[n:]
		}
		all = append(all, part)
	}
	return all
}

// sessionSeeds are the client's sides of the dialogues.
func sessionSeeds() []string {
	var seeds []string
	files, _ := filepath.Glob("../testdata/dialogues/*.txt")
	for _, file := range files {
		raw, _ := os.ReadFile(file)
		var b strings.Builder
		for line := range strings.Lines(string(raw)) {
			line = strings.TrimSuffix(line, "\n")
			if kind, arg, _ := strings.Cut(line, " "); strings.HasPrefix(kind, "C") {
				text, _ := clientLine(kind, arg)
				b.WriteString(text)
			}
		}
		seeds = append(seeds, b.String())
	}
	return seeds
}
