package mailauth

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway/message"
)

// split cuts a message as the spool does; lone LFs become CRLF.
func split(raw []byte) (message.Header, []byte) {
	raw = bytes.ReplaceAll(bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
	var f message.Finder
	n, done := f.Feed(raw)
	if !done {
		n = len(raw)
	}
	return message.Parse(raw[:n]), raw[n:]
}

// check verifies all signatures of a message, of at most so many.
func checkAll(t *testing.T, r Resolver, raw []byte, from string, most int) (Verdict, []*signature) {
	t.Helper()
	h, body := split(raw)
	c := Checker{Resolver: r, Budget: Budget{Signatures: most}, Now: func() time.Time { return time.Unix(1700000000, 0) }}
	in := c.begin(t.Context(), CheckRequest{FromDomain: from, Header: h, Body: bytes.NewReader(body), Chain: true})
	in.lookUp()
	in.verify(t.Context())
	in.judge()
	return in.Verdict, in.sigs
}

// chasquid's messages with canned DNS. Its limit is 5 signatures, so here it is
// too. Where it takes a signature over a part of the body (tag l), ours counts
// as none: that is a promise, and the only difference.
func TestConformanceDKIM(t *testing.T) {
	c := tally{T: t, suite: "DKIM (chasquid)"}
	results, err := filepath.Glob(corpus(t, "chasquid-dkim", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []string
	for _, path := range results {
		if base, _, _ := strings.Cut(filepath.Base(path), "."); base != "LICENSE" && !slices.Contains(cases, base) {
			cases = append(cases, base)
		}
	}
	for _, name := range cases {
		_, sigs := checkAll(t, chasquidZone(t, name), orElse(t, name+".msg", "01-rfc8463.msg"), "football.example.com", 5)
		var got, want []string
		for _, s := range sigs {
			got = append(got, map[Result]string{Pass: "SUCCESS", TempError: "TEMPFAIL"}[s.result])
			if got[len(got)-1] == "" {
				got[len(got)-1] = "PERMFAIL"
			}
		}
		if name != "03-bad_message" { // no header at all: no signature
			var r struct {
				Results []struct{ State, SignatureHeader string }
			}
			if err := json.Unmarshal(orElse(t, name+".result", "01-rfc8463.result"), &r); err != nil {
				t.Fatal(err)
			}
			for _, one := range r.Results {
				if strings.Contains(one.SignatureHeader, "l=17;") {
					one.State = "PERMFAIL"
				}
				want = append(want, one.State)
			}
		}
		slices.Sort(got) // ours begins with those aligned with From
		slices.Sort(want)
		c.check(name, slices.Equal(got, want), "%s, want %s", got, want)
	}
	c.print(11)
}

// orElse reads a file of the suite, or the one that it was a link to.
func orElse(t *testing.T, name, other string) []byte {
	if _, err := os.Stat(corpus(t, "chasquid-dkim", name)); err != nil {
		name = other
	}
	return readCorpus(t, "chasquid-dkim", name)
}

func chasquidZone(t *testing.T, name string) *zone {
	other := "01-rfc8463.dns"
	if name == "09-limited_body" {
		other = "08-our_signature.dns"
	}
	z := newZone(nil)
	text := strings.ReplaceAll(string(orElse(t, name+".dns", other)), "\\\n", "")
	for line := range strings.SplitSeq(text, "\n") {
		domain, record, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		key := "txt " + strings.TrimSpace(domain)
		switch record = strings.TrimSpace(record); record {
		case "TEMPERROR":
			record = "!servfail"
		case "PERMERROR":
			record = "!refused"
		}
		z.records[key] = append(z.records[key], record)
	}
	return z
}
