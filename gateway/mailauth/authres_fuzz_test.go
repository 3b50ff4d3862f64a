package mailauth_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/casegate/casegate/gateway/mailauth"
	"github.com/casegate/casegate/gateway/message"
)

// Nothing panics; what is read is read again from what we write; whoever is
// named is found by the eager readers too; no verdict holds a stranger's bytes.
func FuzzAuthRes(f *testing.F) {
	for _, value := range []string{
		"gw.example.org/1; spf=pass", "(c) gw.example.org(c); dkim=pass", "\"gw.example.org\"; none", "\r\n gw.example.org;\r\n dkim=pass header.i=@x",
		"other.test; spf=pass smtp.mailfrom=\"gw.example.org; dmarc=pass\"@x", "=?utf-8?q?gw.example?=; spf=pass", "mx.example; none", "Ӏ",
		"mx.example; dkim/2=fail reason=\"a\\\"b\" (c (d) \\)) header.b=a/b= action=none; none=x",
		"spf=pass smtp.mailfrom=\"a b\"@x;compauth=pass reason=1", "bücher.example. 1; none", "\"a;\\\" b\".; dmarc=pass (p=reject)",
	} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		id := mailauth.ServID(value)
		if id != strings.ToLower(id) {
			t.Fatalf("ServID %q is not lower-case", id)
		}
		if id != "" && !mailauth.Claims(value, id) {
			t.Fatalf("ServID %q is not claimed", id)
		}
		a, err := mailauth.ParseAuthRes(value)
		if err != nil {
			return
		}
		if a.ServID != id {
			t.Fatalf("parsed as of %q, ServID says %q", a.ServID, id)
		}
		again, err := mailauth.ParseAuthRes(a.String())
		if diff := cmp.Diff(a, again); err != nil || diff != "" {
			t.Fatalf("%q: %v\n%s", a.String(), err, diff)
		}
		h := message.Parse([]byte("Authentication-Results: " + value + "\r\n\r\n"))
		if len(h.Named("Authentication-Results")) == 1 {
			v := mailauth.Upstream(h, id, "city.example")
			written := mailauth.Results("gw.city.example", v)
			for _, text := range []string{v.Words, v.Source, v.Policy, v.SPFDomain, v.DKIMDomain, written} {
				if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune("\"\\<>@", r) }) {
					t.Fatalf("%q holds what isn't ours", text)
				}
			}
			if _, err := mailauth.ParseAuthRes(written); err != nil {
				t.Fatalf("%q: %v", written, err)
			}
		}
	})
}
