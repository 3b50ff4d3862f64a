package message

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
)

// toUTF8 decodes bytes of a named charset. An unknown charset keeps its ASCII
// and replaces the rest: a text is never refused for its charset.
func toUTF8(charset string, b []byte) string {
	name, _, _ := strings.Cut(strings.ToLower(charset), "*") // RFC 2231 §5: charset*language
	switch name {
	case "utf-8", "utf8", "us-ascii", "ascii", "ansi_x3.4-1968":
		return string(b)
	case "iso-2022-kr":
		return decodeWith(korean.EUCKR, shiftedKorean(b))
	}
	if enc := encodingOf(name); enc != nil {
		return decodeWith(enc, b)
	}
	return asciiOnly(b)
}

func decodeWith(enc encoding.Encoding, b []byte) string {
	out, err := enc.NewDecoder().Bytes(b)
	if err != nil {
		return asciiOnly(b)
	}
	return string(out)
}

// encodingOf looks a charset up: names that the indexes lack, then the WHATWG
// index, which knows what mailers really mean (windows-1252 by iso-8859-1),
// then IANA's.
func encodingOf(name string) encoding.Encoding {
	switch name {
	case "cp932", "ms932", "windows-31j":
		return japanese.ShiftJIS
	case "cp949", "ms949", "uhc":
		return korean.EUCKR
	case "cp936", "ms936":
		return simplifiedchinese.GBK
	}
	if enc, err := htmlindex.Get(name); err == nil && enc != encoding.Replacement {
		return enc
	}
	enc, _ := ianaindex.MIME.Encoding(name)
	return enc
}

// shiftedKorean turns ISO-2022-KR (RFC 1557) into EUC-KR: what stands between
// SO and SI gets its high bit back. x/text has no decoder for it.
func shiftedKorean(b []byte) []byte {
	const shiftOut, shiftIn = 0x0e, 0x0f
	out := make([]byte, 0, len(b))
	var high byte
	for _, c := range []byte(strings.TrimPrefix(string(b), "\x1b$)C")) {
		switch {
		case c == shiftOut:
			high = 0x80
		case c == shiftIn:
			high = 0
		case c <= ' ':
			out = append(out, c)
		default:
			out = append(out, c|high)
		}
	}
	return out
}

func asciiOnly(b []byte) string {
	var out strings.Builder
	for _, c := range b {
		if c < utf8.RuneSelf {
			out.WriteByte(c)
		} else {
			out.WriteRune(utf8.RuneError)
		}
	}
	return out.String()
}
