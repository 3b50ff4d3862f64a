package main

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
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

// relayed holds what the next hop got against what was sent to us.
func (c *corpusRun) relayed(hop *nextHop) {
	hop.mu.Lock()
	defer hop.mu.Unlock()
	got := map[string]bool{}
	for _, m := range hop.got {
		id := ""
		for _, f := range splitMail(m.raw).fields {
			if at := traceID.FindStringSubmatch(strings.ReplaceAll(f, "\r\n", "")); at != nil {
				id = at[1]
				break
			}
		}
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
