package gateway

import (
	"errors"
	"strings"
	"testing"
)

func TestParsePath(t *testing.T) {
	long := func(n int) string { return strings.Repeat("a", n) }
	for _, x := range []struct {
		in, local, domain string
		err               error
	}{
		{"<>", "", "", nil},
		{"<a@b.test>", "a", "b.test", nil},
		{"a@b.test", "a", "b.test", nil},
		{`<"a b"@c.test>`, `"a b"`, "c.test", nil},
		{`<"a"@c.test>`, `"a"`, "c.test", nil},
		{"<a%b@c.test>", "a%b", "c.test", nil},
		{"<b!a@c.test>", "b!a", "c.test", nil},
		{"<a..b@docomo.ne.jp>", "a..b", "docomo.ne.jp", nil},
		{"<a+b=c@d_e.test>", "a+b=c", "d_e.test", nil},
		{"<a@[192.0.2.1]>", "a", "[192.0.2.1]", nil},
		{"<a@[IPv6:2001:db8::1]>", "a", "[IPv6:2001:db8::1]", nil},
		{"<jürgen@straße.test>", "jürgen", "straße.test", nil},
		{"<" + long(64) + "@b.test>", long(64), "b.test", nil},
		{"<" + long(200) + "@b.test>", long(200), "b.test", nil},
		{"<" + long(255) + "@b.test>", "", "", errPathLong},
		{"<a@" + strings.Repeat("a.", 125) + "bc>", "a", strings.Repeat("a.", 125) + "bc", nil},
		{"<a@" + strings.Repeat("a.", 125) + "bcd>", "", "", errPathLong},
		{"<a@" + long(64) + ".test>", "", "", errPathDomain},
		{"", "", "", errPathSyntax},
		{"<", "", "", errPathSyntax},
		{"<a@b.test", "", "", errPathSyntax},
		{"a", "", "", errPathSyntax},
		{"<@>", "", "", errPathRoute},
		{"<a@>", "", "", errPathSyntax},
		{"<@b.test>", "", "", errPathRoute},
		{"<@x.test:a@b.test>", "", "", errPathRoute},
		{`<""@b.test>`, "", "", errPathLocal},
		{`<"@b.test>`, "", "", errPathSyntax},
		{`<"a@b"@c.test>`, "", "", errPathLocal},
		{`<"a\"b"@c.test>`, "", "", errPathLocal},
		{`<"a\\"@c.test>`, "", "", errPathLocal},
		{`<"a<b>"@c.test>`, "", "", errPathLocal},
		{`<"a""b"@c.test>`, "", "", errPathLocal},
		{`<a"b"@c.test>`, "", "", errPathLocal},
		{"<a b@c.test>", "", "", errPathLocal},
		{"<a@b@c.test>", "", "", errPathLocal},
		{"<<a@c.test>>", "", "", errPathLocal},
		{"<a\x01@c.test>", "", "", errPathLocal},
		{"<a\u0085@c.test>", "", "", errPathLocal},
		{"<a\u2028b@c.test>", "", "", errPathLocal},
		{"<a\xff@c.test>", "", "", errPathLocal},
		{"<a@b..test>", "", "", errPathDomain},
		{"<a@b.test.>", "", "", errPathDomain},
		{"<a@.test>", "", "", errPathDomain},
		{"<a@b c>", "", "", errPathDomain},
		{"<a@b,c>", "", "", errPathDomain},
		{"<a@[192.0.2.1>", "", "", errPathDomain},
		{"<a@[192.0.2.999]>", "", "", errPathDomain},
		{"<a@[2001:db8::1]>", "", "", errPathDomain},
		{"<a@[IPv6:fe80::1%eth0]>", "", "", errPathDomain},
		{"<a@[IPv6:192.0.2.1]>", "", "", errPathDomain},
		{"<a@BÜCHER.test>", "a", "BÜCHER.test", nil},
		{"<a@\uff42.test>", "", "", errPathDomain},
		{"<a@b\u00ad.test>", "", "", errPathDomain},
		{"<a@b\u200b.test>", "", "", errPathDomain},
		{"<a@b\u3002test>", "", "", errPathDomain},
	} {
		p, err := ParsePath(x.in)
		if !errors.Is(err, x.err) || p != (Path{x.local, x.domain}) {
			t.Errorf("%q: got %+v, %v; want %v", x.in, p, err, x.err)
		}
		if err == nil && strings.HasPrefix(x.in, "<") && p.Bracketed() != x.in {
			t.Errorf("%q comes back as %q", x.in, p.Bracketed())
		}
	}
}

func TestPathForms(t *testing.T) {
	p := Path{`"A b"`, "X.test"}
	if p.String() != `"A b"@X.test` || p.Bare() != "A b@X.test" || p.Key() != "a b@x.test" || p.IsNull() || !p.ASCII() {
		t.Errorf("%q %q %q", p.String(), p.Bare(), p.Key())
	}
	if n := (Path{}); !n.IsNull() || n.String() != "" || n.Bracketed() != "<>" || n.Bare() != "" {
		t.Errorf("null path: %q %q", n.String(), n.Bracketed())
	}
	if (Path{"é", "x"}).ASCII() || (Path{"e", "é"}).ASCII() {
		t.Error("8-bit taken for ASCII")
	}
}

// TestPathView: the raw line against what go-smtp made of it.
func TestPathView(t *testing.T) {
	for _, x := range []struct {
		line, seen string
		err        error
	}{
		{"MAIL FROM:<a@b.test>\r\n", "a@b.test", nil},
		{"mail from: <a@b.test> SIZE=5\r\n", "a@b.test", nil},
		{"MAIL FROM:a@b.test SIZE=5\r\n", "a@b.test", nil},
		{"MAIL FROM:<>\r\n", "", nil},
		{"MAIL FROM:<> BODY=7BIT\r\n", "", nil},
		{`MAIL FROM:<"a b"@c.test>` + "\r\n", "a b@c.test", nil},
		{`MAIL FROM:<"a> b"@c.test>` + "\r\n", "a> b@c.test", errPathLocal},
		{`MAIL FROM:<"a@evil.test"@c.test>` + "\r\n", "a@evil.test@c.test", errPathLocal},
		{"MAIL FROM:<a@b.test>\r\n", "other@b.test", errPathView},
		{"MAIL FROM:<a@b.test>\r\n", "", errPathView},
		{"MAIL FROM:<a@b.test\r\n", "a@b.test", errPathView},
		{"RSET\r\n", "a@b.test", errPathView},
		{"MAIL FROM:<\xc3\xa9@b.test>\r\n", "é@b.test", errPathUTF8},
	} {
		if _, err := pathOf([]byte(x.line), "FROM:", x.seen, false); !errors.Is(err, x.err) {
			t.Errorf("%q seen as %q: %v, want %v", x.line, x.seen, err, x.err)
		}
	}
}

// FuzzPath: an address is refused by a verdict, or has one @ without its quotes,
// nothing that could end it, and reads the same again.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"<a@b>", `<"a\"@b"@c>`, "<@a:b@c>", "<>", "a@[1.2.3.4]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePath(s)
		if err != nil {
			var v Verdict
			if !errors.As(err, &v) || v.Code/100 != 5 {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		if strings.ContainsAny(p.Bracketed(), "\r\n\x00") || strings.Count(p.Bare(), "@") > 1 || strings.ContainsAny(p.Bare(), `<>\"`) {
			t.Fatalf("%q: %q", s, p.Bracketed())
		}
		if again, err := ParsePath(p.Bracketed()); err != nil || again != p {
			t.Fatalf("%q: %+v comes back as %+v, %v", s, p, again, err)
		}
	})
}
