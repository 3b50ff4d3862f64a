package mailauth

import (
	"bytes"
	"io"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// spfSuite is one part of the suite of openspf.org.
type spfSuite struct {
	Description string
	Tests       map[string]struct {
		Helo, Host, MailFrom string
		Result               several
	}
	ZoneData map[string][]yaml.Node
}

// several is a value, or a list of them.
type several []string

func (s *several) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.SequenceNode {
		return n.Decode((*[]string)(s))
	}
	*s = []string{n.Value}
	return nil
}

// zone reads the records; those of type SPF stand for TXT where there is none.
func (s spfSuite) zone(t *testing.T) *zone {
	z := newZone(nil)
	for name, nodes := range s.ZoneData {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		var texts []string
		txtGiven := false
		for _, n := range nodes {
			if n.Kind == yaml.ScalarNode {
				z.records["any "+name] = []string{"!timeout"}
				continue
			}
			kind, value := n.Content[0].Value, n.Content[1]
			var list several
			if err := value.Decode(&list); err != nil {
				t.Fatal(err)
			}
			key := strings.ToLower(kind) + " " + name
			switch kind {
			case "TIMEOUT":
				z.records["any "+name] = []string{"!timeout"}
			case "SERVFAIL", "CNAMELOOP":
				z.records["any "+name] = []string{"!servfail"}
			case "SPF":
				texts = append(texts, strings.Join(list, ""))
			case "TXT":
				txtGiven = true
				if list[0] != "NONE" {
					z.records[key] = append(z.records[key], strings.Join(list, ""))
				}
			case "MX":
				z.records[key] = append(z.records[key], strings.TrimSuffix(list[1], "."))
			default:
				z.records[key] = append(z.records[key], list...)
			}
		}
		if !txtGiven && len(texts) > 0 {
			z.records["txt "+name] = texts
		}
	}
	return z
}

// lonely are the names of blitiri's suite that have one label only; the grammar
// of RFC 7208, and its suite, refuse them in a record.
var lonely = regexp.MustCompile(`(include:|mx:|redirect=|@|\[\d, |\n  )(d\d\d|mx1\d|domain|blah\d|doesnotexist)\b`)

func readSPFSuites(t *testing.T, name string) (list []spfSuite) {
	text := readCorpus(t, "spf", name)
	if name == "blitirispf-tests.yml" {
		text = lonely.ReplaceAll(text, []byte("$1$2.test"))
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var s spfSuite
		err := dec.Decode(&s)
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
}

// The suites of RFC 7208 (2014.04) and of blitiri spf, also what others mark as
// not worth it.
func TestConformanceSPF(t *testing.T) {
	for _, suite := range []struct {
		file, name string
		cases      int
	}{{"rfc7208-tests.yml", "SPF (RFC 7208 suite)", 203}, {"blitirispf-tests.yml", "SPF (blitiri)", 21}} {
		c := tally{T: t, suite: suite.name}
		for _, s := range readSPFSuites(t, suite.file) {
			z := s.zone(t)
			for name, test := range s.Tests {
				checker := Checker{Resolver: z}
				v := checker.Check(t.Context(), CheckRequest{
					ClientIP: netip.MustParseAddr(test.Host), Helo: test.Helo, MailFrom: test.MailFrom,
				})
				c.check(name, slices.Contains(test.Result, string(v.SPF)), "%s, want %s (%s)", v.SPF, test.Result, s.Description)
			}
		}
		c.print(suite.cases)
	}
}
