package mailauth

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/casegate/casegate/gateway/message"
)

// arcSuite is one part of ValiMail's suite.
type arcSuite struct {
	Tests                   arcCases
	Domain, Sel, PrivateKey string
	Records                 map[string]string `yaml:"txt-records"`
}

type arcCase struct {
	name                 string
	Description, Message string
	CV                   string
	T                    int64
	SigHeaders           string `yaml:"sig-headers"`
	ServID               string `yaml:"srv-id"`
	AS                   string `yaml:"AS"`
	AMS                  string `yaml:"AMS"`
	AAR                  string `yaml:"AAR"`
}

// arcCases is a mapping; some names come twice.
type arcCases []arcCase

func (c *arcCases) UnmarshalYAML(n *yaml.Node) error {
	for i := 0; i < len(n.Content); i += 2 {
		one := arcCase{name: n.Content[i].Value}
		if err := n.Content[i+1].Decode(&one); err != nil {
			return err
		}
		*c = append(*c, one)
	}
	return nil
}

func readARCSuites(t *testing.T, name string) (list []arcSuite) {
	dec := yaml.NewDecoder(strings.NewReader(string(readCorpus(t, "arc_test_suite", name))))
	for {
		var s arcSuite
		if err := dec.Decode(&s); err != nil {
			if err.Error() == "EOF" {
				return list
			}
			t.Fatal(err)
		}
		list = append(list, s)
	}
}

func (s arcSuite) zone() *zone {
	z := newZone(nil)
	for name, record := range s.Records {
		z.records["txt "+strings.ToLower(name)] = []string{record}
	}
	return z
}

func TestConformanceARCValidation(t *testing.T) {
	c := tally{T: t, suite: "ARC validation (ValiMail)"}
	for _, s := range readARCSuites(t, "arc-draft-validation-tests.yml") {
		for _, test := range s.Tests {
			v, _ := checkAll(t, s.zone(), []byte(test.Message), "", 8)
			want := strings.ToLower(strings.TrimSpace(test.CV))
			if want == "" { // the last seal itself says cv=fail
				want = "fail"
			}
			c.check(test.name, string(v.ARC) == want, "%q, want %q: %s", v.ARC, want, test.Description)
		}
	}
	c.print(175)
}

// The suite gives the exact signatures: the same fields in the same form, with
// a key that is shorter than ours may be.
func TestConformanceARCSealing(t *testing.T) {
	c := tally{T: t, suite: "ARC sealing (ValiMail)"}
	for _, s := range readARCSuites(t, "arc-draft-sign-tests.yml") {
		block, _ := pem.Decode([]byte(s.PrivateKey))
		key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range s.Tests {
			v, _ := checkAll(t, s.zone(), []byte(test.Message), "", 8)
			signer := Signer{
				Now:   func() time.Time { return time.Unix(test.T, 0) },
				keys:  []SigningKey{{Domain: s.Domain, Selector: s.Sel, key: key, kind: "rsa", lines: 998}},
				seals: strings.Split(test.SigHeaders, ":"),
			}
			h, body := split([]byte(test.Message))
			sum, err := HashBody(t.Context(), bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			out, err := signer.Seal(h.Bytes(), sum, v.ARC, merged(h, test.ServID))
			if err != nil && !errors.Is(err, ErrUnsealable) {
				t.Error(test.name, err)
			}
			got := message.Parse(out)
			want := message.Parse([]byte(wanted("ARC-Seal", test.AS) + wanted("ARC-Message-Signature", test.AMS) + wanted("ARC-Authentication-Results", test.AAR)))
			diff := ""
			for _, name := range []string{"ARC-Seal", "ARC-Message-Signature", "ARC-Authentication-Results"} {
				diff += cmp.Diff(canonical(want, name), canonical(got, name))
			}
			c.check(test.name, diff == "", "%s (chain %s)\n%s", test.Description, v.ARC, diff)
		}
	}
	c.print(17)
}

// merged are the results of all Authentication-Results fields of an id.
func merged(h message.Header, id string) string {
	all := AuthRes{ServID: id, Version: 1}
	for _, f := range h.Named("Authentication-Results") {
		if a, err := ParseAuthRes(f.Value()); err == nil && a.ServID == id {
			all.Results = append(all.Results, a.Results...)
		}
	}
	return all.String()
}

func wanted(name, value string) string {
	if strings.TrimSpace(value) == "" {
		return ""
	}
	return name + ": " + strings.ReplaceAll(strings.TrimSpace(value), "\n", "\r\n ") + "\r\n"
}

// canonical are the fields of a name, relaxed, tags without white space.
func canonical(h message.Header, name string) (list []string) {
	for _, f := range h.Named(name) {
		text := relaxed.header(f.Raw())
		if t, ok := parseTags(f.Value()); ok && name != "ARC-Authentication-Results" {
			for key := range t {
				list = append(list, key+"="+t.plain(key))
			}
			slices.Sort(list)
			continue
		}
		list = append(list, text)
	}
	return list
}
