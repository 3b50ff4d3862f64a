package mailauth_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/casegate/casegate/gateway/mailauth"
	"github.com/casegate/casegate/gateway/message"
)

// header makes a header of Authentication-Results values and whole Received
// fields.
func header(values ...string) message.Header {
	var b strings.Builder
	for _, v := range values {
		if !strings.HasPrefix(v, "Received: ") {
			v = "Authentication-Results: " + v
		}
		b.WriteString(v + "\r\n")
	}
	return message.Parse([]byte(b.String() + "From: a@city.example\r\n\r\n"))
}

// What is on the way in real mail, names changed.
func TestUpstreamReadsRealWriters(t *testing.T) {
	for name, c := range map[string]struct {
		pin, from string
		fields    []string
		want      mailauth.Verdict // Source and Words aside
	}{
		"Google": {"mx.google.com", "city.example", []string{"mx.google.com;\r\n" +
			"       dkim=pass header.i=@city.example header.s=s1 header.b=CjJhz37G;\r\n" +
			"       arc=pass (i=1);\r\n" +
			"       spf=pass (google.com: domain of a@city.example designates 192.0.2.29 as permitted sender) smtp.mailfrom=a@city.example;\r\n" +
			"       dmarc=pass (p=NONE sp=QUARANTINE dis=NONE) header.from=city.example"},
			mailauth.Verdict{SPF: "pass", DKIM: "pass", DMARC: "pass", SPFDomain: "city.example", DKIMDomain: "city.example", AlignedPass: true, Policy: "none"}},
		"Google, forged": {"mx.google.com", "city.example", []string{"mx.google.com;\r\n" +
			"       spf=softfail (google.com: domain of transitioning a@city.example does not designate 192.0.2.1 as permitted sender) smtp.mailfrom=a@city.example;\r\n" +
			"       dmarc=fail (p=REJECT sp=REJECT dis=QUARANTINE) header.from=city.example"},
			mailauth.Verdict{SPF: "softfail", DMARC: "fail", SPFDomain: "city.example", Forged: true, Policy: "reject"}},
		"Google, a list breaks it": {"mx.google.com", "city.example", []string{"mx.google.com;\r\n" +
			"       dkim=neutral (body hash did not verify) header.i=@city.example header.s=s1 header.b=\"oVxOH/NU\";\r\n" +
			"       spf=pass (google.com: domain of l-bounces@lists.example designates 192.0.2.2 as permitted sender) smtp.mailfrom=l-bounces@lists.example;\r\n" +
			"       dmarc=fail (p=NONE sp=NONE dis=NONE) header.from=city.example"},
			mailauth.Verdict{SPF: "pass", DKIM: "neutral", DMARC: "fail", SPFDomain: "lists.example", DKIMDomain: "city.example", Policy: "none"}},
		"Google, no record": {"mx.google.com", "city.example", []string{"mx.google.com;\r\n" +
			"       dkim=pass header.i=@mail.city.example header.s=s1 header.b=aB1;\r\n" +
			"       spf=pass (google.com: domain of bounce@esp.example designates 192.0.2.2 as permitted sender) smtp.mailfrom=bounce@esp.example"},
			mailauth.Verdict{SPF: "pass", DKIM: "pass", SPFDomain: "esp.example", DKIMDomain: "mail.city.example", AlignedPass: true}},
		"Google, best guess": {"mx.google.com", "city.example", []string{"mx.google.com; spf=pass (google.com: best guess record for domain of a@city.example designates 192.0.2.2 as permitted sender) smtp.mailfrom=a@city.example; dkim=pass (test mode) header.i=@city.example"},
			mailauth.Verdict{SPF: "neutral", DKIM: "neutral", SPFDomain: "city.example", DKIMDomain: "city.example"}},
		"Microsoft 365": {mailauth.NoServID, "city.example", []string{"spf=pass (sender IP is 192.0.2.1)\r\n" +
			" smtp.mailfrom=city.example; dkim=pass (signature was verified)\r\n" +
			" header.d=city.example;dmarc=pass action=none\r\n" +
			" header.from=city.example;compauth=pass reason=100",
			"dkim=none (message not signed)\r\n header.d=none;dmarc=none action=none\r\n header.from=city.example;"},
			mailauth.Verdict{SPF: "pass", DKIM: "pass", DMARC: "pass", SPFDomain: "city.example", DKIMDomain: "city.example", AlignedPass: true}},
		"Microsoft 365, overridden reject": {mailauth.NoServID, "city.example", []string{"spf=fail (sender IP is 192.0.2.1)\r\n" +
			" smtp.mailfrom=evil.test; dkim=none (message not signed)\r\n" +
			" header.d=none;dmarc=fail action=oreject\r\n" +
			" header.from=city.example;compauth=fail reason=000"},
			mailauth.Verdict{SPF: "fail", DKIM: "none", DMARC: "fail", SPFDomain: "evil.test", Forged: true, Policy: "reject"}},
		"Microsoft 365, no record, alignment guessed by it": {mailauth.NoServID, "city.example", []string{"spf=pass (sender IP is 192.0.2.1)\r\n" +
			" smtp.mailfrom=bounce.city.example; dkim=none (message not signed)\r\n" +
			" header.d=none;dmarc=bestguesspass action=none\r\n" +
			" header.from=city.example;compauth=pass reason=109"},
			mailauth.Verdict{SPF: "pass", DKIM: "none", DMARC: "none", SPFDomain: "bounce.city.example", AlignedPass: true}},
		"Microsoft 365, implicit pass only": {mailauth.NoServID, "city.example", []string{"spf=none (sender IP is 192.0.2.1)\r\n" +
			" smtp.mailfrom=city.example; dkim=none (message not signed)\r\n" +
			" header.d=none;dmarc=none action=none\r\n header.from=city.example;compauth=pass reason=202"},
			mailauth.Verdict{SPF: "none", DKIM: "none", DMARC: "none", SPFDomain: "city.example"}},
		"OpenDMARC over OpenDKIM": {"mail.city.example", "bürger.example", []string{
			"mail.city.example; dmarc=fail (p=quarantine dis=none) header.from=xn--brger-kva.example",
			"mail.city.example;\r\n\tdkim=fail reason=\"signature verification failed\" (2048-bit key; unprotected) header.d=bürger.example header.i=@bürger.example header.a=rsa-sha256 header.s=s header.b=Neko/chan;\r\n\tdkim-atps=neutral",
			"Received: from x by mail.city.example"},
			mailauth.Verdict{DMARC: "fail", Forged: true, Policy: "quarantine"}},
		"OpenDKIM over OpenDMARC": {"mail.city.example", "city.example", []string{
			"mail.city.example; arc=none smtp.remote-ip=192.0.2.1",
			"mail.city.example; dkim=pass (2048-bit key; unprotected) header.d=other.example header.i=@other.example",
			"mail.city.example; dmarc=fail (p=reject dis=reject) header.from=city.example"},
			mailauth.Verdict{DKIM: "pass", DMARC: "fail", DKIMDomain: "other.example", Forged: true, Policy: "reject"}},
		"rspamd": {"mx.city.example", "city.example", []string{"mx.city.example;\r\n" +
			"\tdkim=pass header.d=freebsd.org header.s=dkim header.b=H7pb97c0;\r\n" +
			"\tdkim=fail (\"body hash did not verify\") header.d=city.example header.s=s1 header.b=LWxzK+W8;\r\n" +
			"\tdmarc=fail reason=\"SPF not aligned (relaxed), DKIM not aligned (relaxed)\" header.from=city.example (policy=quarantine);\r\n" +
			"\tspf=pass (mx.city.example: domain of l@freebsd.org designates 192.0.2.10 as permitted sender) smtp.mailfrom=l@freebsd.org"},
			mailauth.Verdict{SPF: "pass", DKIM: "pass", DMARC: "fail", SPFDomain: "freebsd.org", DKIMDomain: "freebsd.org", Forged: true, Policy: "quarantine"}},
		"Exim": {"mx.city.example", "city.example", []string{"mx.city.example;\r\n" +
			"\tiprev=pass (mail.city.example) smtp.remote-ip=192.0.2.1;\r\n" +
			"\tspf=pass smtp.mailfrom=city.example;\r\n" +
			"\tdkim=pass header.d=city.example header.s=s1 header.a=rsa-sha256;\r\n" +
			"\tdmarc=pass header.from=city.example;\r\n" +
			"\tarc=none"},
			mailauth.Verdict{SPF: "pass", DKIM: "pass", DMARC: "pass", SPFDomain: "city.example", DKIMDomain: "city.example", AlignedPass: true}},
		"Fastmail": {"mx1.messagingengine.com", "mail.city.example", []string{"mx1.messagingengine.com;\r\n" +
			"    x-csa=none;\r\n    x-me-sender=none;\r\n    x-ptr=pass smtp.helo=out.city.example\r\n    policy.ptr=out.city.example",
			"mx1.messagingengine.com;\r\n" +
				"    bimi=skipped (DMARC Policy is not at enforcement)",
			"mx1.messagingengine.com;\r\n    arc=none (no signatures found);\r\n" +
				"    dkim=pass (2048-bit rsa key sha256) header.d=city.example\r\n    header.i=@city.example header.b=Ab1/ header.a=rsa-sha256 header.s=fm2\r\n    x-bits=2048;\r\n" +
				"    dmarc=pass policy.published-domain-policy=none\r\n    policy.published-subdomain-policy=reject policy.applied-disposition=none\r\n    policy.evaluated-disposition=none (p=none,sp=reject,has-list-id=no,d=none,d.eval=none)\r\n    policy.policy-from=p header.from=mail.city.example;\r\n" +
				"    iprev=pass smtp.remote-ip=192.0.2.1 (out.city.example);\r\n" +
				"    spf=pass smtp.mailfrom=a@city.example smtp.helo=out.city.example"},
			mailauth.Verdict{SPF: "pass", DKIM: "pass", DMARC: "pass", SPFDomain: "city.example", DKIMDomain: "city.example", AlignedPass: true, Policy: "none"}},
		"Proton": {"mail.protonmail.ch", "city.example", []string{
			"mail.protonmail.ch; dmarc=pass (p=quarantine dis=none)\r\n header.from=city.example",
			"mail.protonmail.ch; spf=pass smtp.mailfrom=city.example",
			"mail.protonmail.ch; arc=none smtp.remote-ip=192.0.2.1",
			"mail.protonmail.ch; dkim=pass (Good 2048\r\n    bit rsa-sha256 signature) header.d=city.example header.a=rsa-sha256"},
			mailauth.Verdict{DMARC: "pass", AlignedPass: true, Policy: "quarantine"}},
		"sendmail, policy as property": {"mx.city.example", "city.example", []string{
			"mx.city.example 1; dmarc=fail policy.dmarc=reject header.from=city.example"},
			mailauth.Verdict{DMARC: "fail", Forged: true, Policy: "reject"}},
		"ours, read by the next gateway": {"gw.city.example", "city.example", []string{
			mailauth.Results("gw.city.example", mailauth.Verdict{SPF: "fail", DKIM: "none", DMARC: "fail", From: "city.example", SPFDomain: "evil.test", Policy: "reject", Source: "upstream mx.example"})},
			mailauth.Verdict{SPF: "fail", DKIM: "none", DMARC: "fail", SPFDomain: "evil.test", Forged: true, Policy: "reject"}},
	} {
		got := mailauth.Upstream(header(c.fields...), c.pin, c.from)
		if !strings.HasPrefix(got.Words, got.Source+" says ") {
			t.Errorf("%s: words: %s", name, got.Words)
		}
		t.Logf("%s: %s", name, got.Words)
		c.want.From = strings.Replace(c.from, "bürger", "xn--brger-kva", 1)
		got.Words, got.Source = "", ""
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

// Trust needs a field of the pinned id, at the top, about the From we see.
func TestUpstreamGivesNoTrust(t *testing.T) {
	const pass = "mx.example; dmarc=pass header.from=city.example"
	for name, fields := range map[string][]string{
		"no field":                    nil,
		"none":                        {"mx.example; none"},
		"below a none":                {"mx.example; none", pass},
		"below the id alone":          {"mx.example", pass},
		"another id":                  {"mx.example.evil.test; dmarc=pass header.from=city.example"},
		"no id":                       {"dmarc=pass header.from=city.example"},
		"a version of the future":     {"mx.example 2; dmarc=pass header.from=city.example", pass},
		"a method of the future":      {"mx.example; dmarc/2=pass header.from=city.example"},
		"below a fail":                {"mx.example; dmarc=fail (p=none) header.from=city.example", pass},
		"below another result":        {"mx.example; spf=none", pass},
		"below a Received":            {"mx.example; spf=softfail smtp.mailfrom=city.example", "Received: by mx.example", pass},
		"above a fail":                {pass, "Received: by mx.example", "mx.example; dmarc=fail header.from=city.example"},
		"below a broken one":          {"mx.example; spf=pass smtp.helo=\"; dmarc=fail", pass},
		"below a broken quoted id":    {"\"mx.example; spf=fail", pass},
		"below a broken comment":      {"(mx.example; spf=fail", pass},
		"below an encoded word":       {"=?utf-8?q?mx.example?=; spf=fail", pass},
		"two in one field":            {"mx.example; dmarc=pass header.from=city.example; dmarc=fail header.from=city.example"},
		"three in one field":          {"mx.example; dmarc=pass; dmarc=temperror; dmarc=pass"},
		"for another domain":          {"mx.example; dmarc=pass header.from=evil.test"},
		"for another, aligned":        {"mx.example; dmarc=pass header.from=evil.test; dkim=pass header.d=city.example"},
		"none for another, aligned":   {"mx.example; dmarc=none header.from=evil.test; dkim=pass header.d=city.example"},
		"for the parent":              {"mx.example; dmarc=pass header.from=example"},
		"for a child":                 {"mx.example; dmarc=pass header.from=x.city.example"},
		"for two domains":             {"mx.example; dmarc=pass header.from=city.example header.from=evil.test"},
		"for a look-alike":            {"mx.example; dmarc=pass header.from=ｃity.example"},
		"fail with an aligned DKIM":   {"mx.example; dmarc=fail (p=none); dkim=pass header.d=city.example"},
		"error with an aligned DKIM":  {"mx.example; dmarc=temperror; dkim=pass header.d=city.example"},
		"helo":                        {"mx.example; spf=pass smtp.helo=city.example"},
		"helo, null sender":           {"mx.example; spf=pass smtp.mailfrom= smtp.helo=city.example"},
		"SPF of another":              {"mx.example; spf=pass smtp.mailfrom=a@evil.test"},
		"SPF, two senders":            {"mx.example; spf=pass smtp.mailfrom=a@evil.test smtp.mailfrom=a@city.example"},
		"SPF, two results":            {"mx.example; spf=pass smtp.mailfrom=a@city.example; spf=fail smtp.mailfrom=a@city.example"},
		"SPF softfail":                {"mx.example; spf=softfail smtp.mailfrom=a@city.example"},
		"SPF, quoted address":         {"mx.example; spf=pass smtp.mailfrom=\"a@city.example\"@evil.test"},
		"SPF, quoted semicolon":       {"mx.example; spf=pass smtp.mailfrom=\"; dmarc=pass header.from=city.example\"@evil.test"},
		"SPF, only the comment":       {"mx.example; spf=pass (domain of a@city.example; dmarc=pass header.from=city.example) smtp.mailfrom=evil.test"},
		"reason":                      {"mx.example; spf=fail reason=\"x; dmarc=pass header.from=city.example\""},
		"unquoted debris":             {"mx.example; spf=pass smtp.mailfrom=x; dmarc=pass header.from=city.example; y@evil.test"},
		"DKIM of another":             {"mx.example; dkim=pass header.d=evil.test header.i=a@city.example"},
		"DKIM of a public suffix":     {"mx.example; dkim=pass header.d=example"},
		"DKIM, two domains":           {"mx.example; dkim=pass header.d=evil.test header.d=city.example header.i=@city.example"},
		"DKIM of a neighbour":         {"mx.example; dkim=pass header.d=notcity.example"},
		"DKIM, no domain":             {"mx.example; dkim=pass"},
		"DKIM, test mode":             {"mx.example; dkim=pass (test mode) header.d=city.example"},
		"another method":              {"mx.example; x-dmarc=pass header.from=city.example; dkim-atps=pass header.d=city.example; compauth=pass"},
		"another word":                {"mx.example; dmarc=passed header.from=city.example; spf=passes smtp.mailfrom=city.example"},
		"a result with nothing to it": {"mx.example; dmarc"},
	} {
		v := mailauth.Upstream(header(fields...), "MX.example.", "city.example")
		if v.AlignedPass || v.DMARC == "pass" || v.Forged {
			t.Errorf("%s: %+v", name, v)
		}
		if v.Source != "upstream mx.example" || !strings.HasPrefix(v.Words, v.Source) {
			t.Errorf("%s: source %q, words %q", name, v.Source, v.Words)
		}
	}
	for _, c := range []struct{ pin, from, why string }{
		{"", "city.example", "no pin"}, {".", "city.example", "no pin"}, {"mx", "city.example", "part of the id"},
		{"mx.example", "", "no From"}, {"mx.example", "city.example; x", "an odd From"}, {mailauth.NoServID, "city.example", "the pin of those without id"},
	} {
		if v := mailauth.Upstream(header(pass), c.pin, c.from); v.AlignedPass || v.DMARC != "" {
			t.Errorf("%s: %+v", c.why, v)
		}
	}
	if v := mailauth.Upstream(header("-; dmarc=pass header.from=city.example"), mailauth.NoServID, "city.example"); v.AlignedPass {
		t.Errorf("the id - is an id: %+v", v)
	}
	large := message.Parse([]byte("Authentication-Results: " + pass + "\r\n" + strings.Repeat("X: y\r\n", message.MaxFields+1)))
	if v := mailauth.Upstream(large, "mx.example", "city.example"); v.AlignedPass {
		t.Errorf("too large: %+v", v)
	}
}

// A fail stands, whatever else is said.
func TestUpstreamForged(t *testing.T) {
	for name, c := range map[string]struct {
		from   string
		fields []string
		forged bool
	}{
		"reject":                      {"city.example", []string{"mx.example; dmarc=fail (p=reject)"}, true},
		"quarantine":                  {"city.example", []string{"mx.example; dmarc=FAIL (P=Quarantine)"}, true},
		"none":                        {"city.example", []string{"mx.example; dmarc=fail (p=none sp=reject)"}, false},
		"no policy told":              {"city.example", []string{"mx.example; dmarc=fail"}, false},
		"a subdomain under reject":    {"x.city.example", []string{"mx.example; dmarc=fail (p=none sp=reject)"}, true},
		"a subdomain let go":          {"x.city.example", []string{"mx.example; dmarc=fail (p=reject sp=none)"}, false},
		"a subdomain, nothing of it":  {"x.city.example", []string{"mx.example; dmarc=fail (p=reject)"}, true},
		"a subdomain's own policy":    {"x.city.example", []string{"mx.example; dmarc=fail policy.policy-from=p (p=reject,sp=none)"}, true},
		"disposition is no policy":    {"city.example", []string{"mx.example; dmarc=fail (p=none dis=reject)"}, false},
		"pct.quarantine":              {"city.example", []string{"mx.example; dmarc=fail action=pct.quarantine"}, true},
		"action of Exchange's mercy":  {"city.example", []string{"mx.example; dmarc=fail action=none"}, false},
		"o.reject":                    {"city.example", []string{"mx.example; dmarc=fail action=o.reject"}, true},
		"whoever From is":             {"", []string{"mx.example; dmarc=fail (p=reject) header.from=city.example"}, true},
		"whomever it is for":          {"city.example", []string{"mx.example; dmarc=fail (p=reject) header.from=evil.test"}, true},
		"a pass before it":            {"city.example", []string{"mx.example; dmarc=pass; dmarc=fail (p=reject)"}, true},
		"a pass behind it":            {"city.example", []string{"mx.example; dmarc=fail (p=reject); dmarc=pass"}, true},
		"a milder fail behind it":     {"city.example", []string{"mx.example; dmarc=fail (p=reject); dmarc=fail (p=none)"}, true},
		"a forged pass below":         {"city.example", []string{"mx.example; dmarc=fail (p=reject)", "mx.example; dmarc=pass"}, true},
		"a broken field below":        {"city.example", []string{"mx.example; dmarc=fail (p=reject)", "mx.example; \""}, true},
		"below a field of one filter": {"city.example", []string{"mx.example; spf=pass smtp.mailfrom=city.example", "mx.example; dmarc=fail (p=reject)"}, true},
		"policy in SPF's comment":     {"city.example", []string{"mx.example; dmarc=fail; spf=fail (p=reject)"}, false},
		"temperror":                   {"city.example", []string{"mx.example; dmarc=temperror (p=reject)"}, false},
		"another id":                  {"city.example", []string{"my.example; dmarc=fail (p=reject)"}, false},
	} {
		v := mailauth.Upstream(header(c.fields...), "mx.example", c.from)
		if v.Forged != c.forged || v.AlignedPass {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestAligned(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"city.example", "CITY.example.", true}, {"a.city.example", "b.city.example", true}, {"city.example", "a.b.city.example", true},
		{"bücher.example", "x.xn--bcher-kva.example", true}, {"a.co.uk", "b.co.uk", false}, {"co.uk", "a.co.uk", false}, {"co.uk", "co.uk", true},
		{"x.github.io", "y.github.io", false}, {"a.ci.seattle.wa.us", "ci.seattle.wa.us", true}, {"", "", false}, {"a b", "a b", false}, {"city.example", "ⓒity.example", false},
		{"[192.0.2.1]", "[192.0.2.1]", false}, {"a..b", "a..b", false},
	} {
		if got := mailauth.Aligned(c.a, c.b); got != c.want {
			t.Errorf("%q, %q: %v", c.a, c.b, got)
		}
	}
}

func TestResults(t *testing.T) {
	for want, v := range map[string]mailauth.Verdict{
		"gw.city.example; none": mailauth.Off(),
		"gw.city.example; dmarc=pass header.from=city.example policy.dmarc=none; spf=none; dkim=pass header.d=xn--bcher-kva.example": {
			DMARC: "pass", From: "City.example", Policy: "none", SPF: "none", DKIM: "pass", DKIMDomain: "bücher.example", Source: "check"},
		"gw.city.example; spf=fail (upstream mx.example) smtp.mailfrom=evil.test": {SPF: "fail", SPFDomain: "evil.test", Source: "upstream mx.example"},
		"gw.city.example; dmarc=fail (a\\)  b)":                                   {DMARC: "fail", From: "a;b", Policy: "x\r\n", Source: "a)\r\nb", SPF: "x; y"},
	} {
		if got := mailauth.Results("GW.city.example", v); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
