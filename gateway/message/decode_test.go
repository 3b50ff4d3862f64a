package message_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/casegate/casegate/gateway/message"
)

func TestDecode(t *testing.T) {
	for _, c := range []struct{ in, want, why string }{
		{"plain text", "plain text", ""},
		{"=?iso-8859-1?Q?Gr=FC=DFe?=", "Grüße", ""},
		{"=?UTF-8?B?R3LDvMOfZQ==?= aus =?utf-8?q?K=C3=B6ln?=", "Grüße aus Köln", ""},
		{"=?utf-8?q?a?= =?utf-8?q?b?=", "ab", "white space between words is not shown"},
		{"=?utf-8?q?a?=\r\n =?iso-8859-1?q?b?=", "ab", "also folded, also across charsets"},
		{"=?utf-8?q?a?= b =?utf-8?q?c?=", "a b c", ""},
		{"=?utf-8?b?w7w?= =?utf-8?b?w?= =?utf-8?b?w7w=?=", "üü", "padding missing, a digit too few"},
		{"=?utf-8?Q?=C3?= =?utf-8?Q?=BC?=", "ü", "a character cut in two"},
		{"=?utf-8*de?q?=C3=BC?=", "ü", "RFC 2231 language"},
		{"=?cp932?B?g2WDWINn?=", "テスト", ""},
		{"=?CP949?B?x9GxuQ==?=", "한국", ""},
		{"=?ks_c_5601-1987?B?x9GxuQ==?=", "한국", ""},
		{"=?iso-2022-kr?B?GyQpQw5HUTE5Dw==?=", "한국", "x/text has no decoder"},
		{"=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "日本", ""},
		{"=?gb2312?B?1tC5+g==?=", "中国", ""},
		{"=?iso-8859-1?q?=93quoted=94?=", "“quoted”", "windows-1252 in truth"},
		{"=?x-unknown?q?caf=E9?=", "caf\ufffd", "an unknown charset replaces"},
		{"=?utf-8?q?=FF?=", "\ufffd", ""},
		{"caf\xe9", "caf\ufffd", "raw 8-bit that is no UTF-8"},
		{"=?utf-8?x?a?=", "=?utf-8?x?a?=", "no such encoding"},
		{"=?utf-8?q?a", "=?utf-8?q?a", "never ended"},
		{"=?utf-8?q?a=zz=?=", "a=zz=", "wrong escapes stay"},
		{"=?=?utf-8?q?a?=", "=?a", ""},
		{"=?utf-8?q??=x", "x", "empty word"},
		{"=?utf-8?q?Doe, John?=", "Doe, John", "spaces in a word"},
		{"a\r\n b\tc\x00d\x1be", "a b cde", "controls"},
		{"=?utf-8?q?a=0D=0ABcc:_x=00y?=", "a  Bcc: xy", "encoded controls"},
		{"a\u202eb\u2066c\u200bd\ufeffe\u0085f", "abcde f", "marks that hide or reorder"},
		{"a\u200cb\u200dc", "a\u200cb\u200dc", "joiners stay"},
	} {
		if got := message.Decode(c.in); got != c.want {
			t.Errorf("%q: got %q, want %q (%s)", c.in, got, c.want, c.why)
		}
	}
}

func TestDecodeAnything(t *testing.T) {
	piece := rapid.SampledFrom([]string{"=?", "?=", "?", "=", "utf-8", "iso-2022-jp", "x", "q", "B", " ", "\r\n ", "=1B", "GyRC", "\u202e", "\x00", "\xff", "ü"})
	rapid.Check(t, func(t *rapid.T) {
		in := strings.Join(rapid.SliceOfN(piece, 0, 30).Draw(t, "in"), "")
		out := message.Decode(in)
		if !utf8.ValidString(out) || strings.ContainsAny(out, "\r\n\x00\u202e") {
			t.Fatalf("%q decodes to %q", in, out)
		}
	})
}
