package message_test

import (
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/casegate/casegate/gateway/message"
)

// show writes a list as text: name <address> group, and what can't be read.
func show(value string) string {
	list, unread := message.ParseListAll(value)
	var b strings.Builder
	for _, m := range list {
		if b.Len() > 0 {
			b.WriteString(" | ")
		}
		if m.Name != "" {
			b.WriteString(m.Name + " ")
		}
		b.WriteString("<" + m.Address + ">")
		if m.Group != "" {
			b.WriteString(" in " + m.Group)
		}
	}
	for _, u := range unread {
		b.WriteString(" ! " + value[u.Start:u.End])
	}
	return strings.TrimPrefix(b.String(), " ")
}

func TestParseList(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"a@b.c", "<a@b.c>"},
		{" John Doe <a@b.c> ", "John Doe <a@b.c>"},
		{`"Doe, John" <a@b.c>, d@e.f`, "Doe, John <a@b.c> | <d@e.f>"},
		{"a@b.c (John (Jack) Doe)", "John (Jack) Doe <a@b.c>"},
		{"(x) a@b.c", "x <a@b.c>"},
		{"John (Jack) Doe <a@b.c> (home)", "John Doe <a@b.c>"},
		{"< a@b.c >", "<a@b.c>"},
		{`"a b"@c.d, "x\"y"@z`, `<"a b"@c.d> | <"x\"y"@z>`},
		{"a@[127.0.0.1], b@[IPv6:::1]", "<a@[127.0.0.1]> | <b@[IPv6:::1]>"},
		{"=?utf-8?q?J=C3=BCrgen?= <a@b.c>", "Jürgen <a@b.c>"},

		// What real mail holds.
		{"Doe, John <a@b.c>", "Doe, John <a@b.c>"},
		{"Doe, John <a@b.c>, Roe, Jane Q. <d@e.f>", "Doe, John <a@b.c> | Roe, Jane Q. <d@e.f>"},
		{"x@y.z, Doe, John <a@b.c>, d@e.f", "<x@y.z> | Doe, John <a@b.c> | <d@e.f>"},
		{"a@b.c; d@e.f", "<a@b.c> | <d@e.f>"},
		{"John <a@b.c>; Jane <d@e.f>;", "John <a@b.c> | Jane <d@e.f>"},
		{"a..b@docomo.ne.jp, a.@docomo.ne.jp, .a@docomo.ne.jp", "<a..b@docomo.ne.jp> | <a.@docomo.ne.jp> | <.a@docomo.ne.jp>"},
		{"John.Doe <a..b.@docomo.ne.jp>", "John.Doe <a..b.@docomo.ne.jp>"},
		{"=?x-unknown?q?J=FC?= <a@b.c>", "J\ufffd <a@b.c>"},
		{"J\xfcrgen <a@b.c>", "J\ufffdrgen <a@b.c>"},
		{"Jürgen <a@b.c>", "Jürgen <a@b.c>"},
		{"=?utf-8?q?Doe, John?= <a@b.c>", "Doe, John <a@b.c>"},
		{"=?utf-8?q?x@y, z?= <a@b.c>", "x@y, z <a@b.c>"},
		{",a@b.c,, ,d@e.f,", "<a@b.c> | <d@e.f>"},
		{"a@b.c <d@e.f>", "a@b.c <d@e.f>"},
		{"John <a@b.c", "John <a@b.c>"},
		{"John <a@b.c, Jane <d@e.f>", "John <a@b.c> | Jane <d@e.f>"},
		{`"John <a@b.c>, Jane <d@e.f>`, `"John <a@b.c> | Jane <d@e.f>`},
		{"John :) <a@b.c>", ") <a@b.c> in John"},
		{"John (x <a@b.c>", "John (x <a@b.c>"},
		{"Ann (x <a@b>, c@d (y), (e) f@g", "Ann (x <a@b> | y <c@d> | e <f@g>"},
		{"jdoe@test  . example", "<jdoe@test.example>"},
		{"<very.long.name\r\n @example.com>", "<very.long.name@example.com>"},
		{"a@b.c\r\n ,\r\n\td@e.f", "<a@b.c> | <d@e.f>"},
		{"user@müller.example, ü@b.c", "<user@müller.example> | <ü@b.c>"},
		{"a_b@host_name.example, a@localhost, a@b.c.", "<a_b@host_name.example> | <a@localhost> | <a@b.c.>"},
		{"\"O'Brien [x]\" <a@b.c>, O'Brien [x] <d@e.f>", "O'Brien [x] <a@b.c> | O'Brien [x] <d@e.f>"},
		{`"a" "b" <a@b.c>`, "a b <a@b.c>"},
		{"'a@b.c' <a@b.c>", "'a@b.c' <a@b.c>"},

		// Groups.
		{"G: a@b, c@d;", "<a@b> in G | <c@d> in G"},
		{"G: a@b; c@d", "<a@b> in G | <c@d>"},
		{"G:;, a@b", "<a@b>"},
		{"x@y, \"My: Group\": John <a@b>, Doe, Jim <c@d>;, e@f", "<x@y> | John <a@b> in My: Group | Doe, Jim <c@d> in My: Group | <e@f>"},
		{"undisclosed-recipients:;", ""},
		{"undisclosed-recipients:", ""},
		{"G: a@b", "<a@b> in G"},
		{`"": a@b;`, `<a@b> in ""`},

		// No addresses, and none made up.
		{"John", "! John"},
		{"root, a@b.c", "<a@b.c> ! root"},
		{"root, <a@b.c>", "<a@b.c> ! root"},
		{"<>", "! <>"},
		{"<root>", "! <root>"},
		{"a@b@c", "! a@b@c"},
		{"a@", "! a@"},
		{"@b", "! @b"},
		{"a@b..c", "! a@b..c"},
		{"<@r.x,@s.x:a@b.c>, d@e.f", "<d@e.f> ! <@r.x,@s.x:a@b.c>"},
		{"a(x)@b.c, a@(x)b.c, <a(x)@b.c>", "! a(x)@b.c ! a@(x)b.c ! <a(x)@b.c>"},
		{"<a@b.c> John", "! <a@b.c> John"},
		{"<a@b.c>d@e.f", "! <a@b.c>d@e.f"},
		{"<a@b.c> <d@e.f>", "! <a@b.c> <d@e.f>"},
		{"<<a@b.c>>", "! <<a@b.c>>"},
		{"John a@b.c", "! John a@b.c"},
		{`"x@y.z" a@b.c`, `! "x@y.z" a@b.c`},
		{`"a@b.c"`, `! "a@b.c"`},
		{"(a@b.c)", ""},
		{"=?utf-8?q?a=40b.c?=", "! =?utf-8?q?a=40b.c?="},
		{"=?utf-8?q?a@b.c?=", "! =?utf-8?q?a@b.c?="},
		{"=?utf-8?q?a?=@b.c, <=?utf-8?q?a?=@b.c>", "! =?utf-8?q?a?=@b.c ! <=?utf-8?q?a?=@b.c>"},
		{"a\x00@b.c, a@b.c\x00", "! a\x00@b.c ! a@b.c\x00"},
		{"a@b.c\r\n Bcc: x@y.z, d@e.f", "<d@e.f> ! a@b.c\r\n Bcc: x@y.z"},
		{"a@b\r.c, d@e.f", "<d@e.f> ! a@b\r.c"},
		{"a\u200b@b.c, \ufeffa@b.c, a\u00a0b@c.d, a\u3164@b.c, a\xff@b.c", "! a\u200b@b.c ! \ufeffa@b.c ! a\u00a0b@c.d ! a\u3164@b.c ! a\xff@b.c"},
		{"<a,b@c.d>, e@f.g", "<e@f.g> ! <a ! b@c.d>"},
		{strings.Repeat("a", 997) + "@b", "! " + strings.Repeat("a", 997) + "@b"},
	} {
		if d := cmp.Diff(c.want, show(c.in)); d != "" {
			t.Errorf("%q: %s", c.in, d)
		}
		checkList(t, c.in)
	}
}

func TestSpans(t *testing.T) {
	value := " x@y.z ,\r\n\tDoe, John <a@b.c> (home) ,(c) d @ e.f"
	var whole, addr []string
	for _, m := range message.ParseList(value) {
		whole = append(whole, value[m.Start:m.End])
		addr = append(addr, value[m.AddrStart:m.AddrEnd])
	}
	if d := cmp.Diff([]string{"x@y.z", "Doe, John <a@b.c> (home)", "(c) d @ e.f"}, whole); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"x@y.z", "a@b.c", "d @ e.f"}, addr); d != "" {
		t.Error(d)
	}
}

func TestManyEntries(t *testing.T) {
	list, unread := message.ParseListAll(strings.Repeat("a@b.c,\r\n ", 10_000))
	if len(list) != 10_000 || len(unread) != 0 {
		t.Errorf("at the cap: %d mailboxes, unread %v", len(list), unread)
	}
	list, unread = message.ParseListAll(strings.Repeat("a@b.c,", 20_000))
	if len(list) != 10_000 || len(unread) != 1 || unread[0] != (message.Span{Start: 60_000, End: 120_000}) {
		t.Errorf("over the cap: %d mailboxes, unread %v", len(list), unread)
	}
}

// checkList: spans are in order and inside; an address stands where its span
// says, has no break or control in it, and reads the same again.
func checkList(t testing.TB, value string) {
	t.Helper()
	list, unread := message.ParseListAll(value)
	at := 0
	for _, m := range list {
		if m.Start < at || m.AddrStart < m.Start || m.AddrEnd <= m.AddrStart || m.End < m.AddrEnd || m.End > len(value) {
			t.Fatalf("%q: spans of %+v", value, m)
		}
		at = m.End
		if raw := value[m.AddrStart:m.AddrEnd]; squash(raw) != squash(m.Address) || !m.Loose && raw != m.Address {
			t.Errorf("%q: address %q read from %q", value, m.Address, raw)
		}
		if strings.IndexFunc(m.Address, func(r rune) bool { return r != '\t' && unicode.IsControl(r) }) >= 0 {
			t.Errorf("%q: control in address %q", value, m.Address)
		}
		for _, again := range []string{m.Address, "<" + m.Address + ">", "x@y, " + m.Address + "; z@y"} {
			l, u := message.ParseListAll(again)
			if len(l) == 0 || len(u) != 0 || l[len(l)/2].Address != m.Address {
				t.Errorf("%q: address %q reads as %+v, %v the second time", value, m.Address, l, u)
			}
		}
	}
	at = 0
	for _, u := range unread {
		if u.Start < at || u.End <= u.Start || u.End > len(value) {
			t.Fatalf("%q: unread %v", value, unread)
		}
		at = u.End
	}
	checkCuts(t, value, list)
}

// checkCuts: what is dropped is gone, all else stays as it was.
func checkCuts(t testing.TB, value string, list []message.Mailbox) {
	t.Helper()
	for drop := range min(len(list), 4) {
		cuts, _ := message.Cuts(value, func(m message.Mailbox) bool { return m.Start == list[drop].Start })
		var want, got []string
		for i, m := range list {
			if i != drop {
				want = append(want, m.Address+m.Group)
			}
		}
		rest := cutOut(value, cuts)
		for _, m := range message.ParseList(rest) {
			got = append(got, m.Address+m.Group)
		}
		if d := cmp.Diff(want, got); d != "" && len(list) < 10_000 {
			t.Errorf("%q without %d is %q: %s", value, drop, rest, d)
		}
	}
}

func cutOut(value string, cuts []message.Span) string {
	var b strings.Builder
	from := 0
	for _, c := range cuts {
		b.WriteString(value[from:c.Start])
		from = c.End
	}
	return b.String() + value[from:]
}

func TestCuts(t *testing.T) {
	for _, c := range []struct {
		in, drop, want string
		empty          bool
	}{
		{" a@b, c@d,\r\n e@f", "a", " c@d,\r\n e@f", false},
		{" a@b, c@d,\r\n e@f", "c", " a@b, e@f", false},
		{" a@b, c@d,\r\n e@f", "e", " a@b, c@d", false},
		{" a@b, c@d,\r\n e@f", "ce", " a@b", false},
		{" a@b, c@d,\r\n e@f", "ae", " c@d", false},
		{" a@b, c@d,\r\n e@f", "ace", " ", true},
		{" a@b; John, c@d; e@f", "c", " a@b; John, e@f", false},
		{"G: a@b, c@d;, e@f", "a", "G: c@d;, e@f", false},
		{"G: a@b, c@d;, e@f", "ac", "G: ;, e@f", false},
		{"G: a@b, c@d;, e@f", "e", "G: a@b, c@d;, ", false},
		{"broken <, a@b", "a", "broken <", false},
		{"", "a", "", true},
	} {
		cuts, empty := message.Cuts(c.in, func(m message.Mailbox) bool { return strings.Contains(c.drop, m.Address[:1]) })
		if got := cutOut(c.in, cuts); got != c.want || empty != c.empty {
			t.Errorf("%q without %s: got %q, %v; want %q, %v", c.in, c.drop, got, empty, c.want, c.empty)
		}
	}
}

// Names of any kind in front of an address give that address and no other.
func TestNameIsNoAddress(t *testing.T) {
	text := rapid.StringOfN(rapid.RuneFrom([]rune("ab@.,;:<>()ü ")), 0, 20, -1)
	rapid.Check(t, func(t *rapid.T) {
		name := text.Draw(t, "name")
		var value string
		switch rapid.IntRange(0, 2).Draw(t, "form") {
		case 0:
			value = `"` + name + `" <real@x.test>`
		case 1:
			value = "=?utf-8?q?" + strings.NewReplacer(" ", "_", "<", "=3C", "(", "=28").Replace(name) + "?= <real@x.test>"
		case 2:
			value = "real@x.test (" + strings.NewReplacer("(", "", ")", "").Replace(name) + ")"
		}
		list, unread := message.ParseListAll(value)
		if len(list) != 1 || len(unread) != 0 || list[0].Address != "real@x.test" || !list[0].Clean() {
			t.Fatalf("%q reads as %+v, unread %v", value, list, unread)
		}
	})
}

// Property: an address returned stands in the input, folds and obsolete white
// space aside, and reads the same again; dropping one entry costs no other.
func FuzzParseList(f *testing.F) {
	f.Add(`Doe, John <a@b.c>, "x" <d@e.f>; G: (c) h@i (j), k@[1.2.3.4];`)
	f.Add("a @ b . c, =?utf-8?q?x@y?= <@r:z@z>")
	f.Add("\"\\\"<(((\"@x>,,\r\n a@b\r.c;:")
	f.Fuzz(func(t *testing.T, value string) { checkList(t, value) })
}

func TestFrom(t *testing.T) {
	for _, c := range []struct {
		header, want string
		n            int
	}{
		{"From: John <a@b.c>\r\n", "a@b.c", 1},
		{"From : a@b.c,\r\n\r\n", "a@b.c", 1},
		{"To: x@y\r\n", "", 0},
		{"From: a@b.c\r\nFrom: a@b.c\r\n", "", 2},
		{"From: a@b.c\r\nFrom:\r\n", "", 0},
		{"From: a@b.c, nonsense\r\n", "", 2},
		{"From: nonsense\r\n", "", 0},
		{"From: G: a@b.c;\r\n", "", 0},
		{"From: \"\": a@b.c;\r\n", "", 0},
		{"From: a @ b.c\r\n", "", 0},
		{"From: John <a@b.c\r\n", "", 0},
		{"From: (x <a@b.c>\r\n", "", 0},
		{"From: a@b.c (\x00)\r\n", "", 0},
		{"From: a@b.c, d@e.f, x\r\n", "", 3},
	} {
		m, n := message.From(message.Parse([]byte(c.header)))
		if m.Address != c.want || n != c.n {
			t.Errorf("%q: got %q, %d; want %q, %d", c.header, m.Address, n, c.want, c.n)
		}
	}
}

// The traps of the corpus: what may become or match a contact.
func TestFromIdentityCases(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(corpusDir(t), "own", "from-identity-cases.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Cases []struct {
			From string   `json:"from_header"`
			Safe []string `json:"safe_contact"`
			Why  string
		}
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	for _, c := range file.Cases {
		m, n := message.From(message.Parse([]byte("From: " + c.From + "\r\nTo: x@y\r\n\r\n")))
		var got []string
		if n == 1 {
			got = []string{strings.ToLower(m.Address)}
		}
		if d := cmp.Diff(c.Safe, append([]string{}, got...)); d != "" {
			t.Errorf("%q (%s): %s", c.From, c.Why, d)
		}
		checkList(t, " "+c.From)
	}
}

// The isemail suite: what it calls an error is no valid address here, and what
// it calls valid is read.
func TestIsemail(t *testing.T) {
	type test struct {
		ID        string `xml:"id,attr"`
		Address   string `xml:"address"`
		Category  string `xml:"category"`
		Diagnosis string `xml:"diagnosis"`
	}
	for _, name := range []string{"tests.xml", "tests-original.xml"} {
		var file struct {
			Tests []test `xml:"test"`
		}
		if err := xml.Unmarshal(corpusFiles(t, "isemail")[name], &file); err != nil {
			t.Fatal(err)
		}
		for _, c := range file.Tests {
			addr := strings.Map(func(r rune) rune { // how the file writes controls
				if 0x2400 <= r && r <= 0x2420 {
					return r - 0x2400
				}
				return r
			}, c.Address)
			valid := message.ValidAddress(addr)
			switch {
			case c.Category == "ISEMAIL_ERR" && valid:
				t.Errorf("%s %s: %q is taken for valid (%s)", name, c.ID, addr, c.Diagnosis)
			case addr == "test@xn--example.com": // no A-label: IDNA can't decode it
			case (c.Category == "ISEMAIL_VALID_CATEGORY" || c.Category == "ISEMAIL_DNSWARN") && !valid:
				t.Errorf("%s %s: %q is refused", name, c.ID, addr)
			case valid && len(message.ParseList(addr)) != 1:
				t.Errorf("%s %s: %q is valid but can't be read in a list", name, c.ID, addr)
			}
		}
	}
}

func TestSplitAddress(t *testing.T) {
	for _, c := range []struct {
		in, local, domain string
		ok                bool
	}{
		{"a@b", "a", "b", true},
		{`"a@evil"@ours`, `"a@evil"`, "ours", true},
		{`"a\"@x"@ours`, `"a\"@x"`, "ours", true},
		{"a@b@c", "a@b", "c", true},
		{"a", "", "", false},
		{"@b", "", "", false},
		{"a@", "", "", false},
		{`"a@b`, "", "", false},
		{`"a@b"`, "", "", false},
		{"", "", "", false},
	} {
		if l, d, ok := message.SplitAddress(c.in); l != c.local || d != c.domain || ok != c.ok {
			t.Errorf("%q: got %q, %q, %v", c.in, l, d, ok)
		}
	}
}
