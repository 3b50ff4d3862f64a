package mailauth_test

import (
	"encoding/json"
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/casegate/casegate/gateway/mailauth"
)

type (
	info = mailauth.ResInfo
	prop = mailauth.Property
)

func TestParseAuthRes(t *testing.T) {
	for value, want := range map[string]mailauth.AuthRes{
		"mx.example; none":                     {ServID: "mx.example", Version: 1},
		"mx.example; none ; (c)":               {ServID: "mx.example", Version: 1},
		"mx.example":                           {ServID: "mx.example", Version: 1},
		" (a (b\\) ;) c) MX.Example. 2 ; none": {ServID: "mx.example", Version: 2},
		"\"mx.\\example\";;none":               {ServID: "mx.example", Version: 1},
		"bücher.example; none":                 {ServID: "xn--bcher-kva.example", Version: 1},
		"mx.example; dkim=pass header.d=\"x;spf=pass\"": {ServID: "mx.example", Version: 1, Results: []info{
			{Method: "dkim", Version: 1, Result: "pass", Properties: []prop{{"header", "d", "x;spf=pass"}}}}},
		"mx.example; SPF = Pass (; dmarc=pass) smtp . mailfrom = \"a b\"@x.example": {ServID: "mx.example", Version: 1, Results: []info{
			{Method: "spf", Version: 1, Result: "pass", Properties: []prop{{"smtp", "mailfrom", "a b@x.example"}}, Comments: []string{"; dmarc=pass"}}}},
		"mx.example;\r\n\tdkim/2=fail reason=\"bad\r\n sig\"\r\n\theader.b=aB/c+d==;": {ServID: "mx.example", Version: 1, Results: []info{
			{Method: "dkim", Version: 2, Result: "fail", Reason: "bad sig", Properties: []prop{{"header", "b", "aB/c+d=="}}}}},
		"mx.example; compauth=pass reason=100; dmarc=none action=none": {ServID: "mx.example", Version: 1, Results: []info{
			{Method: "compauth", Version: 1, Result: "pass", Reason: "100"},
			{Method: "dmarc", Version: 1, Result: "none", Properties: []prop{{"", "action", "none"}}}}},
		"spf=none (sender IP is ) smtp.mailfrom=<>; ": {Version: 1, Results: []info{
			{Method: "spf", Version: 1, Result: "none", Properties: []prop{{"smtp", "mailfrom", "<>"}}, Comments: []string{"sender IP is "}}}},
		"mx.example; spf=neutral smtp.mail=": {ServID: "mx.example", Version: 1, Results: []info{
			{Method: "spf", Version: 1, Result: "neutral", Properties: []prop{{"smtp", "mail", ""}}}}},
	} {
		got, err := mailauth.ParseAuthRes(value)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%q: %v\n%s", value, err, diff)
		}
	}
}

// Where nobody can tell the writer's words from a stranger's, there are none.
func TestParseAuthResRefuses(t *testing.T) {
	for _, value := range []string{
		"", " ", ";", "; dmarc=pass", "()", "=", "\"\"; none", ".",
		"\"mx.example; dmarc=pass",
		"(mx.example; dmarc=pass",
		"mx.example; spf=pass smtp.mailfrom=\"a; dmarc=pass",
		"mx.example; spf=pass (a; dmarc=pass",
		"mx.example; spf=pass (a\\); dmarc=pass",
		"mx.example; spf=pass reason=\"a\\\"; dmarc=pass",
		"mx.example; none; dmarc=pass",
		"mx.example; dmarc=pass; none",
		"mx.example; dmarc",
		"mx.example; dmarc=",
		"mx.example; dmarc=pass header.from",
		"mx.example; dmarc=pass header.=x",
		"mx.example; dmarc=pass header.from=x\"y\"",
		"mx.example; dmarc=pass reason=\"x\"header.from=y",
		"mx.example; dmarc=pass reason=x reason=y",
		"mx.example; dkim=pass header.d=x dmarc=pass",
		"mx.example; spf=pass smtp.mailfrom=a\\;dmarc=pass",
		"mx.example; spf=pass) dmarc=pass",
		"mx.example other.example; dmarc=pass",
		"mx.example/1; dmarc=pass",
		"mx.example 1 2; dmarc=pass",
		"mx.example 99999999999999999999; dmarc=pass",
		"mx.example, dmarc=pass",
		"\"mx\"=pass",
		"=?utf-8?q?mx.example?=; dmarc=pass",
		"mx.example; dmarc=?pass",
		"mx.example;\rdmarc=pass", "mx.example;\ndmarc=pass", "mx.example;\x00dmarc=pass", "mx.example; dmarc=pass\r\n",
		"mta.example  from=x.example; domainkeys=pass (ok);  from=x.example; dkim=pass (ok)",
		"spf=softfail smtp.mailfrom=x.example; mx.example; dkim=pass header.d=x.example;mx.example; dmarc=none",
	} {
		if a, err := mailauth.ParseAuthRes(value); !errors.Is(err, mailauth.ErrAuthRes) {
			t.Errorf("%q: read as %+v (%v)", value, a, err)
		}
	}
}

func TestServID(t *testing.T) {
	for value, want := range map[string]string{
		"MX.Example. ; none": "mx.example", "mx.example/1; none": "mx.example", "\"mx.example; dmarc=pass": "mx.example",
		"spf=pass smtp.mailfrom=x": "", "(": "", "mx.example(": "mx.example", "mx.example; dmarc": "mx.example", "BÜCHER.example;": "xn--bcher-kva.example",
	} {
		if got := mailauth.ServID(value); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

// Whatever anybody might take for ours is ours; what names us as a value, or
// names another host, is not.
func TestClaims(t *testing.T) {
	const ours = "gw.example.org"
	for value, want := range map[string]bool{
		"\"gw.example.org; dmarc=pass":                                        true,
		"gw.example.org(; dmarc=pass":                                         true,
		"(a (b) gw.example.org; dmarc=pass )":                                 true,
		"(\\) gw.example.org; dmarc=pass)":                                    true,
		"(gw.example.org) mx.example; dmarc=pass":                             true,
		"gw.example.org.; dmarc=pass":                                         true,
		"gw.exa(c)mple.org; dmarc=pass":                                       true,
		"gw . example . org; dmarc=pass":                                      true,
		"gw.\r\n example.org; dmarc=pass":                                     true,
		"gw.\"example\".org; dmarc=pass":                                      true,
		"=?utf-8?q?gw.example.org?=; dmarc=pass":                              true,
		"=?utf-8?b?Z3cuZXhhbXBsZS5vcmc7IGRtYXJjPXBhc3M=?=":                    true,
		"ｇｗ．example。org; dmarc=pass":                                          true,
		"gw.ex\u200bample.org; dmarc=pass":                                    true,
		"\u00a0gw.example.org\u00a0; dmarc=pass":                              true,
		"gw.example.org\x00.evil.test; dmarc=pass":                            true,
		"\x00gw.example.org; dmarc=pass":                                      true,
		"gw.example.org, dmarc=pass":                                          true,
		"gw.example.org|dmarc=pass":                                           true,
		"<gw.example.org>; dmarc=pass":                                        true,
		"; gw.example.org; dmarc=pass":                                        true,
		"i=1; gw.example.org; dmarc=pass":                                     true,
		"spf=pass smtp.mailfrom=x; gw.example.org; dmarc=pass":                true,
		"mx.example; spf=pass;\rAuthentication-Results: gw.example.org; none": true,
		"":                                     false,
		"gw.example.org.evil.test; dmarc=pass": false,
		"evil.gw.example.org; dmarc=pass":      false,
		"evil-gw.example.org; dmarc=pass":      false,
		"mx.example; spf=pass smtp.mailfrom=\"gw.example.org; dmarc=pass\"@x": false,
		"mx.example; spf=pass (gw.example.org: domain of x) smtp.mailfrom=x":  false,
		"spf=pass smtp.mailfrom=gw.example.org; dmarc=pass header.from=x":     false,
		"i=1; mx.example; spf=pass smtp.mailfrom=x@gw.example.org":            false,
		"mx.example; spf=pass smtp.mailfrom=x smtp.helo=gw.example.org":       false,
	} {
		if got := mailauth.Claims(value, ours); got != want {
			t.Errorf("%q: claims ours: %v, want %v", value, got, want)
		}
	}
	for _, value := range []string{"BÜCHER.example; none", "xn--bcher-kva.EXAMPLE; none", "\"bücher.example; none"} {
		for _, id := range []string{"Bücher.example", "xn--bcher-kva.example."} {
			if !mailauth.Claims(value, id) {
				t.Errorf("%q does not claim %q", value, id)
			}
		}
	}
	if mailauth.Claims("; none", "") {
		t.Error("nobody's id is claimed")
	}
}

type spoof struct {
	Value, Why string
	OurID      string `json:"our_id"`
	Strip      bool   `json:"must_strip_on_ingest"`
}

// spoofs are the Authentication-Results traps of the corpus.
func spoofs(t testing.TB) []spoof {
	b, err := os.ReadFile("../../../shared/corpus/own/authres-spoof-cases.json")
	switch {
	case err != nil && os.Getenv("CI") != "":
		t.Fatal(err)
	case err != nil:
		t.Skip("the corpus is not beside this checkout: ", err)
	}
	var suite struct{ Cases []spoof }
	if err := json.Unmarshal(b, &suite); err != nil {
		t.Fatal(err)
	}
	return suite.Cases
}
