package message_test

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/casegate/casegate/gateway/message"
)

// decoded undoes an encoding, reading whole pieces and single bytes.
func decoded(t *testing.T, encoding, text string) string {
	t.Helper()
	h := message.Parse([]byte("Content-Transfer-Encoding: " + encoding + "\r\n\r\n"))
	var got [2][]byte
	for i, body := range []io.Reader{strings.NewReader(text), iotest.OneByteReader(strings.NewReader(text))} {
		p, err := message.NewWalker(h, body).Next()
		if err != nil {
			t.Fatal(err)
		}
		if got[i], err = io.ReadAll(p.Decoded()); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got[0], got[1]) {
		t.Errorf("%s %q: %q at once, %q byte by byte", encoding, text, got[0], got[1])
	}
	return string(got[0])
}

func TestDecoded(t *testing.T) {
	tests := []struct{ encoding, text, want string }{
		{"7bit", "a=3D\r\n", "a=3D\r\n"},
		{"x-unknown", "a=3D", "a=3D"},
		{"base64", "aGVsbG8=\r\n", "hello"},
		{"BASE64 ", "aGVs\r\n bG8", "hello"},
		{"base64", "aGVs!bG8=aGVsbG8", "hellohello"},
		{"base64", "a", ""},
		{"base64", "aGk", "hi"},
		{"quoted-printable", "a=3Db=3d", "a=b="},
		{"quoted-printable", "soft=\r\nline=\nends=  \r\nhere", "softlineendshere"},
		{"Quoted-Printable", "wrong =ZZ = x =", "wrong =ZZ = x ="},
		{"quoted-printable", "==3D=", "==="},
		{"quoted-printable", "=3=3D", "=3="},
		{"quoted-printable", "=" + strings.Repeat(" ", 200) + "x", "=" + strings.Repeat(" ", 200) + "x"},
		{"quoted-printable", "=4\r\nx", "=4\r\nx"},
		{"quoted-printable", "=\rx", "=\rx"},
	}
	for _, tt := range tests {
		if got := decoded(t, tt.encoding, tt.text); got != tt.want {
			t.Errorf("%s %q: %q, want %q", tt.encoding, tt.text, got, tt.want)
		}
	}
}
