package mailauth_test

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/casegate/casegate/gateway"
)

var lenient = []string{
	"ISEMAIL_ERR_DOT_START", "ISEMAIL_ERR_DOT_END", "ISEMAIL_ERR_CONSECUTIVEDOTS", "ISEMAIL_RFC5322_LOCAL_TOOLONG",
	"ISEMAIL_ERR_DOMAINHYPHENSTART", "ISEMAIL_ERR_DOMAINHYPHENEND", "ISEMAIL_RFC5321_IPV6DEPRECATED",
}

// Dominic Sayers' addresses: the path parser of the gateway takes none for
// relaying that can be read in two ways. It may refuse more than the grammar
// does, and takes more where real mail needs it: dots anywhere and long local
// parts, hyphens at the ends of labels, :: for one group. Each of these is
// counted as not passed.
func TestConformanceIsemail(t *testing.T) {
	for _, suite := range []struct {
		file  string
		cases int
	}{{"tests.xml", 164}, {"tests-original.xml", 279}} {
		text, err := os.ReadFile(filepath.Join("..", "..", "..", "shared", "corpus", "isemail", suite.file))
		if err != nil {
			t.Skip("the mail corpus is not beside the checkout")
		}
		var list struct {
			Test []struct {
				ID                           string `xml:"id,attr"`
				Address, Category, Diagnosis string
			} `xml:"test"`
		}
		lower := strings.NewReplacer("address>", "Address>", "address/>", "Address/>", "category>", "Category>", "diagnosis>", "Diagnosis>")
		if err := xml.Unmarshal([]byte(lower.Replace(string(text))), &list); err != nil {
			t.Fatal(err)
		}
		passed, refused := 0, 0
		for _, one := range list.Test {
			address := strings.Map(func(r rune) rune { // controls are written as their pictures
				if 0x2400 <= r && r <= 0x2421 {
					return r - 0x2400
				}
				return r
			}, one.Address)
			p, err := gateway.ParsePath("<" + address + ">")
			valid := slices.Contains([]string{"ISEMAIL_VALID_CATEGORY", "ISEMAIL_DNSWARN", "ISEMAIL_RFC5321"}, one.Category)
			switch {
			case err == nil && !valid && !p.IsNull():
				if !slices.Contains(lenient, one.Diagnosis) {
					t.Errorf("%s: takes %q, which is %s", one.ID, address, one.Diagnosis)
				}
				continue
			case err != nil && valid:
				refused++
			}
			passed++
		}
		t.Logf("conformance: isemail %s, as strict %d/%d", suite.file, passed, len(list.Test))
		t.Logf("%s: refuses %d that the grammar allows", suite.file, refused)
		if len(list.Test) != suite.cases {
			t.Errorf("%d cases, want %d", len(list.Test), suite.cases)
		}
	}
}
