package main

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// What stands between the bytes that came in and those that leave: the plainest
// reading of RFC 5322, by which the tests tell what must not have changed.

// mailParts is a mail, every line of it ending CRLF: what stands above the first
// field, the header's fields with what is folded under them (a line that is no
// field counts as one), and the empty line with all behind it.
type mailParts struct {
	top    string
	fields []string
	rest   []byte
}

// mboxLine is the one line that may stand above a header (and hide our stamps
// if they stood above it), beside one that begins with white space.
var mboxLine = regexp.MustCompile(`^(>?From +[^ :]|[ \t])`)

func splitMail(eml []byte) (m mailParts) {
	header := eml
	if bytes.HasPrefix(eml, []byte("\r\n")) {
		header, m.rest = nil, eml
	} else if i := bytes.Index(eml, []byte("\r\n\r\n")); i >= 0 {
		header, m.rest = eml[:i+2], eml[i+2:]
	}
	for line := range strings.Lines(string(header)) {
		if n := len(m.fields); n > 0 && (line[0] == ' ' || line[0] == '\t') {
			m.fields[n-1] += line
			continue
		}
		m.fields = append(m.fields, line)
	}
	if len(m.fields) > 0 && mboxLine.MatchString(m.fields[0]) {
		m.top, m.fields = m.fields[0], m.fields[1:]
	}
	return m
}

// bodyOf is what follows the header's empty line.
func bodyOf(eml []byte) []byte {
	return bytes.TrimPrefix(splitMail(endLines(eml)).rest, []byte("\r\n"))
}

func nameOf(field string) string {
	name, _, _ := strings.Cut(field, ":")
	return strings.ToLower(strings.TrimRight(name, " \t"))
}

var (
	// ourStamp is what inbound mail gets on top (rules §5).
	ourStamp = regexp.MustCompile(`^(received|authentication-results|x-case-(ref|number|customer|contacts|unresolved|decision))$`)
	// theirStamp is what nobody outside may set (rules §2).
	theirStamp = regexp.MustCompile(`^x-(case|zammad|otrs|rt)-`)
)

// stampedFrom compares what the next hop got with what came in, and says what
// differs beside our stamps, and the documented transforms of line ends.
func stampedFrom(came, sent []byte, observed bool) (complaint string) {
	m := splitMail(sent)
	want := splitMail(endLines(came))
	if !observed {
		want.fields = slices.DeleteFunc(want.fields, func(f string) bool { return theirStamp.MatchString(nameOf(f)) })
	}
	if len(want.rest) == 0 { // a header without an end gets one
		want.rest = []byte("\r\n")
	}
	n := len(m.fields) - len(want.fields)
	switch {
	case m.top != want.top:
		return "the line above the header"
	case !bytes.Equal(m.rest, want.rest):
		return "the body"
	case n < 1 || !slices.Equal(m.fields[n:], want.fields):
		return "a header field"
	case observed && n != 1:
		return "more than our Received field was added"
	}
	numbers := 0
	for _, f := range m.fields[:n] {
		if !ourStamp.MatchString(nameOf(f)) {
			return "an added field that is no stamp: " + f
		}
		if nameOf(f) == "x-case-number" {
			numbers++
		}
	}
	if !observed && numbers != 1 {
		return "X-Case-Number is not there once"
	}
	return ""
}

// loneNewline reports a CR without LF or an LF without CR.
func loneNewline(wire []byte) bool {
	return bytes.ContainsAny(bytes.ReplaceAll(wire, []byte("\r\n"), nil), "\r\n")
}

// traceID is the id under which a message is archived, as our Received says it.
var traceID = regexp.MustCompile(`^Received:[^;]* id ([0-9a-f-]{36});`)

func tracedBy(m arrived) string {
	for _, f := range splitMail(m.raw).fields {
		if at := traceID.FindStringSubmatch(strings.ReplaceAll(f, "\r\n", "")); at != nil {
			return at[1]
		}
	}
	return ""
}

// relayed holds what the next hop got against what was sent to us.
func (c *corpusRun) relayed(hop *nextHop) {
	hop.mu.Lock()
	defer hop.mu.Unlock()
	got := map[string]bool{}
	for _, m := range hop.got {
		id := tracedBy(m)
		name, ours := c.first[id]
		switch {
		case !ours || c.handedOn[id] == "" || got[id]:
			c.t.Errorf("the next hop got what it should not: %q (%s), id %q", m.get("Subject"), name, id)
			continue
		case loneNewline(m.wire):
			c.t.Errorf("%s: a CR or LF left alone", name)
		case hexSum(m.raw) != c.handedOn[id]:
			c.t.Errorf("%s: the next hop got %s, archived as sent is %s", name, hexSum(m.raw), c.handedOn[id])
		}
		got[id] = true
		if what := stampedFrom(c.mails[name], m.raw, c.observed); what != "" {
			c.t.Errorf("%s changed on its way: %s", name, what)
		}
	}
	for id := range c.handedOn {
		if !got[id] {
			c.t.Errorf("%s (%s) did not reach the next hop", c.first[id], id)
		}
	}
	c.t.Logf("%d reached the next hop as they came", len(got))
}

// rewritten are the fields of an answer that the rules may change (rules §6,
// O1-O13); Received is added, and a signature that covers any of them goes.
var rewritten = regexp.MustCompile(`^(from|to|cc|bcc|reply-to|references|message-id|thread-index|x-case-.*|resent-(to|cc|bcc)|mail-followup-to|mail-reply-to|received|dkim-signature)$`)

// deskAnswer makes a mail an answer of the desk.
func deskAnswer(eml []byte, parent string) []byte {
	m := splitMail(endLines(eml))
	out := m.top + "From: City <" + rigMailbox + ">\r\nIn-Reply-To: <" + parent + ">\r\n"
	for _, f := range m.fields {
		if name := nameOf(f); name != "from" && name != "in-reply-to" {
			out += f
		}
	}
	return append([]byte(out), m.rest...)
}

// answeredFrom compares an answer as the next hop got it with what the desk gave.
func answeredFrom(came, sent []byte) (complaint string) {
	a, b := splitMail(came), splitMail(sent)
	untouched := func(m mailParts) []string {
		return slices.DeleteFunc(slices.Clone(m.fields), func(f string) bool { return rewritten.MatchString(nameOf(f)) })
	}
	if len(a.rest) == 0 {
		a.rest = []byte("\r\n")
	}
	switch {
	case a.top != b.top:
		return "the line above the header"
	case !bytes.Equal(a.rest, b.rest):
		return "the body"
	case !slices.Equal(untouched(a), untouched(b)):
		return "a header field"
	}
	for _, f := range b.fields {
		switch name := nameOf(f); {
		case name == "bcc" || name == "resent-bcc":
			return "a Bcc is there"
		case name == "dkim-signature" && !slices.Contains(a.fields, f):
			return "a signature"
		}
	}
	return ""
}

// TestCorpusAnswers has the desk send every mail of the corpus as an answer on a
// case: the customer gets the same body and the same header, but for the fields
// that the rules rewrite.
func TestCorpusAnswers(t *testing.T) {
	t.Parallel()
	mails := corpus(t)
	hop := startHop(t)
	r := newRig(t, rigOptions{outbound: hop.url})
	r.start()
	in := &sender{r: r, listener: "inbound"}
	defer in.close()
	if reply := in.try("dana@example.net", rigMailbox, simpleMail("question", "dana@example.net", rigMailbox)); acceptedID(reply) == "" {
		t.Fatal(reply)
	}
	desk := &sender{r: r, listener: "smarthost"}
	defer desk.close()
	c := &corpusRun{mails: mails}
	came, refused, repeated := map[string]string{}, []string{}, 0
	for _, name := range c.names() {
		reply := desk.try(rigMailbox, "dana@example.net", deskAnswer(mails[name], "question@mail.example"))
		switch id := acceptedID(reply); {
		case id == "":
			refused = append(refused, name+": "+reply)
		case came[id] != "":
			repeated++
		case !strings.HasSuffix(reply, " case 1"):
			t.Errorf("%s: %s", name, reply)
		default:
			came[id] = name
		}
	}
	t.Logf("%d mails: %d sent, %d were the same as one before, %d refused: %q", len(mails), len(came), repeated, len(refused), refused)
	if len(came) < 500 || 100*len(refused) > len(mails) {
		t.Errorf("%d of %d were refused", len(refused), len(mails))
	}
	r.emptied(time.Minute)
	hop.mu.Lock()
	defer hop.mu.Unlock()
	if len(hop.got) != len(came) {
		t.Errorf("%d came to the next hop, %d were accepted", len(hop.got), len(came))
	}
	for _, m := range hop.got {
		name := came[tracedBy(m)]
		if name == "" {
			t.Errorf("who sent %q?", m.get("Subject"))
			continue
		}
		if what := answeredFrom(deskAnswer(mails[name], "question@mail.example"), m.raw); what != "" || loneNewline(m.wire) {
			t.Errorf("%s changed on its way: %s", name, what)
		}
	}
}
