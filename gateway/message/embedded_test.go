package message_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/casegate/casegate/gateway/message"
)

const forwarded = "Received: from a.example\r\nFrom: Ana <ana@mail.example>\r\nTo: agent@city.example\r\nSubject: A light is out\r\nMessage-ID: <1@mail.example>\r\nContent-Type: text/plain\r\n\r\nThe light in front of no. 14.\r\n"

func TestEmbedded(t *testing.T) {
	_, content, _ := strings.Cut(forwarded, "\r\n\r\n")
	attached := func(header, message string) string {
		return "--x\r\nContent-Type: text/plain\r\n\r\nsee below\r\n--x\r\n" + header + "\r\n\r\n" + message + "\r\n--x--\r\n"
	}
	tests := []struct {
		name, header, body string
		n                  int
		content            string
	}{
		{"none", "Content-Type: text/plain\r\n\r\n", forwarded, 0, ""},
		{"only an attachment that is named so", "Content-Type: multipart/mixed; boundary=x\r\n\r\n",
			attached("Content-Type: application/octet-stream; name=a.eml", forwarded), 0, ""},
		{"Thunderbird", "Content-Type: multipart/mixed; boundary=x\r\n\r\n",
			attached("Content-Type: message/rfc822; charset=UTF-8; name=\"A light is out.eml\"\r\nContent-Disposition: attachment; filename=\"A light is out.eml\"\r\nContent-Transfer-Encoding: 7bit", forwarded), 1, content},
		{"Outlook", "Content-Type: multipart/mixed; boundary=x\r\n\r\n",
			"--x\r\nContent-Type: multipart/alternative; boundary=\"x_\"\r\n\r\n--x_\r\n\r\nfyi\r\n--x_\r\nContent-Type: text/html\r\n\r\n<p>fyi</p>\r\n--x_--\r\n\r\n--x\r\nContent-Type: message/rfc822\r\nContent-Disposition: attachment;\r\n\tcreation-date=\"Mon, 03 Jun 2024 10:00:00 GMT\"\r\n\r\n" + forwarded + "\r\n--x--\r\n", 1, content},
		{"Apple Mail", "Content-Type: multipart/alternative; boundary=x\r\n\r\n",
			"--x\r\n\r\nfyi\r\n--x\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y\r\nContent-Type: text/html\r\n\r\n\r\n--y\r\nContent-Disposition: attachment;\r\n\tfilename*0=\"A light\"\r\nContent-Type: message/rfc822\r\n\r\n" + forwarded + "\r\n--y--\r\n\r\n--x--\r\n", 1, content},
		{"the whole body", "Content-Type: message/rfc822\r\n\r\n", forwarded, 1, content},
		{"base64", "Content-Type: multipart/mixed; boundary=x\r\n\r\n",
			attached("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64", base64.StdEncoding.EncodeToString([]byte(forwarded))), 1, content},
		{"base64 in name only", "Content-Type: multipart/mixed; boundary=x\r\n\r\n",
			attached("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64", forwarded), 1, content},
		{"quoted-printable", "Content-Type: multipart/mixed; boundary=x\r\n\r\n",
			attached("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: quoted-printable", strings.ReplaceAll(forwarded, "<", "=3C")), 1, content},
		{"in a digest", "Content-Type: multipart/digest; boundary=x\r\n\r\n", "--x\r\n\r\n" + forwarded + "\r\n--x--\r\n", 1, content},
		{"global", "Content-Type: multipart/mixed; boundary=x\r\n\r\n", attached("Content-Type: message/global", forwarded), 1, content},
		{"two", "Content-Type: multipart/mixed; boundary=x\r\n\r\n",
			attached("Content-Type: message/rfc822", forwarded+"\r\n--x\r\nContent-Type: message/rfc822\r\n\r\n"+forwarded), 2, ""},
		{"three", "Content-Type: multipart/digest; boundary=x\r\n\r\n", strings.Repeat("--x\r\n\r\n"+forwarded+"\r\n", 3), 2, ""},
		{"one inside of one", "Content-Type: message/rfc822\r\n\r\n",
			"Subject: A light is out\r\nContent-Type: message/rfc822\r\n\r\n" + forwarded, 1, forwarded},
	}
	for _, tt := range tests {
		var got bytes.Buffer
		h, n, err := message.Embedded(message.Parse([]byte(tt.header)), strings.NewReader(tt.body), &got)
		if err != nil || n != tt.n {
			t.Errorf("%s: %d messages, %v", tt.name, n, err)
		}
		if n == 1 && (h.Get("Subject") != "A light is out" || got.String() != tt.content) {
			t.Errorf("%s: header %q, content %q", tt.name, h.Bytes(), got.String())
		}
		if n != 1 && h.Len() > 0 {
			t.Errorf("%s: header %q", tt.name, h.Bytes())
		}
	}
}

func TestEmbeddedFails(t *testing.T) {
	h := message.Parse([]byte("Content-Type: message/rfc822\r\n\r\n"))
	for _, n := range []int{message.MaxHeader - 1, message.MaxHeader, message.MaxHeader + 1, 10 * message.MaxHeader} {
		body := "A: " + strings.Repeat("b", n-len("A: \n\n")) + "\n\nbody"
		_, _, err := message.Embedded(h, strings.NewReader(body), io.Discard)
		if errors.Is(err, message.ErrHeaderTooLarge) != (n > message.MaxHeader) {
			t.Errorf("header of %d bytes: %v", n, err)
		}
	}
	if _, n, err := message.Embedded(multipart("0"), strings.NewReader(deep(message.MaxDepth+1)), io.Discard); n != 0 || !errors.Is(err, message.ErrTooDeep) {
		t.Errorf("too deep: %d, %v", n, err)
	}
	r, w := io.Pipe()
	r.Close()
	if _, _, err := message.Embedded(h, strings.NewReader(forwarded), w); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("nobody takes the content: %v", err)
	}
}

func checkEmbedded(t *testing.T, h message.Header, body []byte) {
	t.Helper()
	var content bytes.Buffer
	inner, n, _ := message.Embedded(h, bytes.NewReader(body), &content)
	if n < 0 || n > 2 || n != 1 && inner.Len() > 0 || content.Len() > len(body) {
		t.Fatalf("%d messages, header %q, content %q", n, inner.Bytes(), content.Bytes())
	}
}

func TestEmbeddedCorpus(t *testing.T) {
	var found [3]int
	for name, mail := range corpusFiles(t, ".") {
		header, body := split(mail, 4096)
		_, n, err := message.Embedded(message.Parse(header), bytes.NewReader(body), io.Discard)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		found[n]++
	}
	t.Logf("files with none, one and more messages in them: %d", found)
}
