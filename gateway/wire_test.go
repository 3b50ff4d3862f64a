package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway/testbed"
)

const (
	hello    = "EHLO c.test\r\n"
	envelope = "MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"
	evil     = "MAIL FROM:<evil@attacker.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n"
	evilBody = "Subject: smuggled\r\n\r\nevil\r\n.\r\nQUIT\r\n"
)

// eodSequences are the end-of-data tricks of the corpus.
func eodSequences(t *testing.T) map[string]bool {
	raw, err := os.ReadFile("../../shared/corpus/own/smtp-eod-sequences.json")
	switch {
	case err != nil && os.Getenv("CI") != "":
		t.Fatal(err)
	case err != nil:
		t.Skip("the mail corpus is not beside this checkout: ", err)
	}
	var file struct {
		Sequences []struct {
			Bytes string
			End   bool `json:"must_end_data"`
		}
	}
	if err := json.Unmarshal(raw, &file); err != nil || len(file.Sequences) < 19 {
		t.Fatal(len(file.Sequences), err)
	}
	all := map[string]bool{}
	for _, s := range file.Sequences {
		all[s.Bytes] = s.End
	}
	return all
}

// TestSmuggling plays every end-of-data trick by DATA, split at every offset of
// the stream. What comes of it is the message that ends at the true end of data,
// or a refusal; the attacker's second message never comes to be one.
func TestSmuggling(t *testing.T) {
	for _, policy := range []NewlinePolicy{NewlineReject, NewlineNormalize} {
		h := &testHandler{}
		s := newStage(t, h, func(o *ListenerOptions) { o.BareNewline = policy })
		for seq, ends := range eodSequences(t) {
			body := "Subject: x\r\n\r\nfirst" + seq + evil + evilBody
			for cut := range len(body) {
				h.messages = nil
				c := script(hello+envelope+"DATA\r\n", body[:cut], body[cut:])
				if err := s.play(c); err != nil {
					t.Fatal(err)
				}
				checkSmuggled(t, h, body, ends, policy, fmt.Sprintf("%s, %q at %d: %s", policy, seq, cut, c.replies()))
			}
			whole := hello + envelope + "DATA\r\n" + body
			for cut := range len(whole) { // the body behind DATA, without waiting
				h.messages = nil
				c := script(whole[:cut], whole[cut:])
				if err := s.play(c); err != nil {
					t.Fatal(err)
				}
				waited := cut == len(whole)-len(body)
				name := fmt.Sprintf("%s, %q pipelined at %d: %s", policy, seq, cut, c.replies())
				if waited {
					checkSmuggled(t, h, body, ends, policy, name)
				} else if len(h.got()) > 0 || !strings.HasSuffix(c.replies(), "554") {
					t.Fatalf("didn't wait for the 354: %s", name)
				}
			}
		}
		if err := h.unbalanced(); err != nil {
			t.Error(err)
		}
	}
}

// refusedBytes reports that a body may not pass under a policy: line ends that
// are none, or a NUL that may hide the dot.
func refusedBytes(body string, policy NewlinePolicy) bool {
	lone := strings.ContainsAny(strings.ReplaceAll(body, "\r\n", ""), "\r\n")
	return policy == NewlineReject && lone || strings.Contains(body, "\x00")
}

// checkSmuggled: the first message is what the slow reference makes of the
// stream, or was refused; a second one is there only behind a true end of data.
func checkSmuggled(t *testing.T, h *testHandler, stream string, ends bool, policy NewlinePolicy, name string) {
	t.Helper()
	first, _, _, _, _ := slowBody([]byte(stream), true)
	got := h.got()
	if ends && len(got) > 0 && got[len(got)-1].env.From.Local == "evil" {
		got = got[:len(got)-1] // sent as a message of its own, and so it is one
	}
	want := 1
	if refusedBytes(string(first), policy) {
		want = 0
	}
	if len(got) != want || want == 0 && !strings.Contains(name, " 550") {
		t.Fatalf("%d messages, want %d: %s", len(got), want, name)
	}
	if want == 1 && (got[0].env.From.Local != "a" || !bytes.Equal(got[0].body, first)) {
		t.Fatalf("%q from %s is not what was sent: %s", got[0].body, got[0].env.From, name)
	}
}

// TestSmugglingBDAT sends the same bytes in chunks, which end by count alone,
// cut into chunks and into packets at every offset.
func TestSmugglingBDAT(t *testing.T) {
	for _, policy := range []NewlinePolicy{NewlineReject, NewlineNormalize} {
		h := &testHandler{}
		s := newStage(t, h, func(o *ListenerOptions) { o.BareNewline = policy })
		for seq := range eodSequences(t) {
			body := "Subject: x\r\n\r\nfirst" + seq + evil + evilBody
			refused := refusedBytes(body, policy)
			want := "220 250 250 250 250 250 221"
			if refused {
				want = "220 250 250 250 250 550 221"
			}
			for cut := range len(body) {
				h.messages = nil
				chunks := fmt.Sprintf("BDAT %d\r\n%sBDAT %d LAST\r\n%sQUIT\r\n", cut, body[:cut], len(body)-cut, body[cut:])
				c := script(hello+envelope, chunks[:cut], chunks[cut:])
				if err := s.play(c); err != nil {
					t.Fatal(err)
				}
				got := h.got()
				if c.replies() != want || refused != (len(got) == 0) || len(got) > 1 || !refused && string(got[0].body) != body {
					t.Fatalf("%s, %q at %d: %d messages, %s", policy, seq, cut, len(got), c.replies())
				}
			}
		}
	}
}

func TestBodyBytesAreExact(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	body := append(append([]byte("Subject: x\r\n\r\n..two\r\n.one\r\n"), all...), "\r\n"...)
	stuffed := bytes.ReplaceAll(append([]byte("\r\n"), body...), []byte("\r\n."), []byte("\r\n.."))[2:]
	h := &testHandler{}
	s := newStage(t, h, func(o *ListenerOptions) { o.BareNewline = NewlineNormalize })
	if err := s.play(script(hello+envelope+"DATA\r\n", string(stuffed)+".\r\n", "QUIT\r\n")); err != nil {
		t.Fatal(err)
	}
	if got := h.got(); len(got) != 1 || !bytes.Equal(got[0].body, body) {
		t.Fatalf("got %q", got[0].body)
	}
	want := BodyFacts{Size: int64(len(body)), BareCR: true, BareLF: true, NUL: true}
	if got := h.got()[0].env.Body; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestPipelining: replies come in order, and in one write.
func TestPipelining(t *testing.T) {
	h := &testHandler{}
	s := newStage(t, h, nil)
	c := script("EHLO c.test\r\n", envelope+"NO\x01OP\r\nFOOO\r\nNOOP\r\nRSET\r\n"+envelope+"DATA\r\n", "hi\r\n.\r\n"+envelope+"RSET\r\nQUIT\r\n")
	if err := s.play(c); err != nil {
		t.Fatal(err)
	}
	if got, want := c.replies(), "220 250 250 250 501 500 250 250 250 250 354 250 250 250 250 221"; got != want {
		t.Errorf("replies %s\n   want %s", got, want)
	}
	if c.writes != 4 {
		t.Errorf("%d writes, want 4: banner, EHLO, one for each group", c.writes)
	}
}

// TestLineLimit: a line of exactly the limit passes, the next one is drained
// to its LF however it is cut.
func TestLineLimit(t *testing.T) {
	s := newStage(t, &testHandler{}, nil)
	pad := func(n int) string { return "NOOP " + strings.Repeat("x", n-len("NOOP \r\n")) + "\r\n" }
	for _, n := range []int{lineMax - 1, lineMax, lineMax + 1, bigBuffer, 3*bigBuffer + 1} {
		want := "250"
		if n > lineMax {
			want = "500"
		}
		for _, cut := range []int{0, 1, smallBuffer, lineMax - 1, lineMax, lineMax + 1, n - 2, n - 1} {
			all := pad(n) + "QUIT\r\n"
			cut = min(cut, len(all))
			c := script(all[:cut], all[cut:])
			if err := s.play(c); err != nil {
				t.Fatal(err)
			}
			if got := c.replies(); got != "220 "+want+" 221" {
				t.Errorf("line of %d cut at %d: %s", n, cut, got)
			}
		}
	}
}

// TestControlsInCommands: a control character, whatever the command and wherever
// in it, is refused by 501 and reaches no envelope and no log (security 10).
func TestControlsInCommands(t *testing.T) {
	commands := []string{
		"EHLO c%s.test", "HELO c%s.test", "MAIL FROM:<a%s@b.test>", "MAIL FROM:<a@b.test> ENVID=x%sy", "MAIL FROM:<a@b.test>%s", "RCPT TO:<c@d%s.test>",
		"RCPT TO:<c@d.test> ORCPT=rfc822;c%s@d.test", "RCPT TO:<c@d.test> NOTIFY=%sNEVER", "MAIL FROM:<a@b.test> ENVID=x+%s", "RCPT TO:<c@d.test> ORCPT=rfc822;c+%s@d.test", "VRFY %s", "NOOP %s", "RSET%s", "XFORWARD NAME=%s", "XCLIENT HELO=%s", "AUTH PLAIN %s", "STARTTLS %s", "FOO%s", "%s",
	}
	var log testbed.Buffer
	h := &testHandler{}
	s := newStage(t, h, func(o *ListenerOptions) {
		o.XForward, o.XClient, o.Authenticator, o.AuthWithoutTLS = true, true, desk, true
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	for _, command := range commands {
		for c := range 128 {
			if c >= ' ' && c != 0x7f || c == '\n' {
				continue
			}
			line := fmt.Sprintf(command, string(rune(c)))
			if strings.Contains(command, "=rfc822;c+") || strings.Contains(command, "=x+") { // in xtext (RFC 3461 §4)
				line = fmt.Sprintf(command, fmt.Sprintf("%02X", c))
			}
			before := hello
			if strings.HasPrefix(command, "RCPT") {
				before += "MAIL FROM:<a@b.test>\r\n"
			}
			conn := script(before, line+"\r\n", "QUIT\r\n")
			if err := s.play(conn); err != nil {
				t.Fatal(err)
			}
			if got := conn.replies(); !strings.HasSuffix(got, " 501 221") && !(line[len(line)-1] == '\r' && strings.HasSuffix(command, "%s")) {
				t.Errorf("%q: %s", line, got)
			}
		}
	}
	if len(h.got()) > 0 || strings.IndexFunc(log.String(), func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f }) >= 0 {
		t.Errorf("%d messages, log %q", len(h.got()), log.String())
	}
}

func TestTooManyFaults(t *testing.T) {
	s := newStage(t, &testHandler{}, nil)
	c := script(strings.Repeat("NOOP \x00\r\n", 100), "still", "talking")
	if err := s.play(c); err != nil {
		t.Fatal(err)
	}
	if got := c.replies(); got != "220"+strings.Repeat(" 501", faultsMax+1)+" 421" {
		t.Error(got)
	}
	if len(c.pieces) > 0 {
		t.Error("closed on unread input, which may cost the client our last reply")
	}
}

// TestHalfLineIsDropped: what a broken connection left of a command is none.
func TestHalfLineIsDropped(t *testing.T) {
	asked := 0
	s := newStage(t, &testHandler{rcpt: func(Recipient) error { asked++; return nil }}, nil)
	c := script(hello + "MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>")
	if err := s.play(c); err != nil || asked != 0 || c.replies() != "220 250 250" {
		t.Error(err, asked, c.replies())
	}
}

func TestEarlyTalker(t *testing.T) {
	l := listen(t, &testHandler{}, func(o *ListenerOptions) { o.BannerPause = 200 * time.Millisecond })
	c := dial(t, l)
	c.send("EHLO c.test\r\nMAIL FROM:<a@b.test>\r\n")
	c.expect("554 5.5.0 ")
	c.gone()
}

func TestPipelinedBody(t *testing.T) {
	h := &testHandler{}
	for _, protocol := range []string{"smtp", "lmtp"} {
		s := newStage(t, h, func(o *ListenerOptions) { o.Protocol = protocol })
		c := script(map[string]string{"smtp": "EHLO", "lmtp": "LHLO"}[protocol]+" c.test\r\n"+envelope+"DATA\r\nhi\r\n.\r\n", "QUIT\r\n")
		if err := s.play(c); err != nil || c.replies() != "220 250 250 250 554" {
			t.Error(protocol, err, c.replies())
		}
	}
	if len(h.got()) != 0 {
		t.Error("a message that didn't wait was accepted")
	}
}

func TestMessageSize(t *testing.T) {
	const limit = 5000
	h := &testHandler{}
	s := newStage(t, h, func(o *ListenerOptions) { o.MaxMessage = limit })
	body := func(n int) string { return strings.Repeat("x", n-2) + "\r\n" }
	for _, x := range []struct{ in, want string }{
		{"MAIL FROM:<a@b.test> SIZE=5000\r\n", "250"},
		{"MAIL FROM:<a@b.test> SIZE=5001\r\n", "552"},
		{"MAIL FROM:<a@b.test> SIZE=99999999999\r\n", "552"},
		{"MAIL FROM:<a@b.test> SIZE=99999999999999999999999\r\n", "552"},
		{"MAIL FROM:<a@b.test> SIZE=x\r\n", "501"},
	} {
		c := script(hello, x.in)
		if err := s.play(c); err != nil || c.replies() != "220 250 "+x.want {
			t.Errorf("%q: %s", x.in, c.replies())
		}
		if !strings.Contains(c.out.String(), "SIZE 5000\r\n") {
			t.Errorf("EHLO: %s", c.out.String())
		}
	}
	for n, want := range map[int]string{limit: "250", limit + 1: "552", 20 * limit: "552"} {
		h.messages = nil
		data := script(hello+envelope+"DATA\r\n", body(n)+".\r\n", "NOOP\r\n")
		if err := s.play(data); err != nil || data.replies() != "220 250 250 250 354 "+want+" 250" {
			t.Errorf("DATA of %d: %v %s", n, err, data.replies())
		}
		bdat := script(hello+envelope, fmt.Sprintf("BDAT %d\r\n%sBDAT %d LAST\r\n%s", 4000, body(4000), n-4000, body(n-4000)), "NOOP\r\n")
		if err := s.play(bdat); err != nil || bdat.replies() != "220 250 250 250 250 "+want+" 250" {
			t.Errorf("BDAT of %d: %v %s", n, err, bdat.replies())
		}
		if got := len(h.got()); got != map[string]int{"250": 2}[want] {
			t.Errorf("%d bytes: %d messages", n, got)
		}
	}
	if err := h.unbalanced(); err != nil {
		t.Error(err)
	}
}
