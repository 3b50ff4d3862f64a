package message_test

import (
	"strings"
	"testing"

	"github.com/casegate/casegate/gateway/message"
)

func TestParseMediaType(t *testing.T) {
	tests := []struct{ value, kind, param, want string }{
		{"text/plain", "text/plain", "charset", ""},
		{" Text/HTML; Charset=\"UTF-8\"", "text/html", "charset", "UTF-8"},
		{"multipart/mixed;\r\n\tboundary=----=_Part_1.2=3", "multipart/mixed", "boundary", "----=_Part_1.2=3"},
		{"multipart/mixed; boundary=\"a b;c\\\"d\"", "multipart/mixed", "boundary", "a b;c\"d"},
		{"multipart/mixed; boundary=\"never closed", "multipart/mixed", "boundary", "never closed"},
		{"multipart/mixed; boundary=abc (a comment); x=y", "multipart/mixed", "boundary", "abc"},
		{"multipart/report; report-type=delivery-status; boundary=\"x\"", "multipart/report", "boundary", "x"},
		{"multipart/report;;; ; boundary = x ;", "multipart/report", "boundary", "x"},
		{"multipart/mixed; flag; boundary=x", "multipart/mixed", "boundary", "x"},
		{"text/plain (a comment); charset=x", "text/plain", "charset", "x"},
		{"text/plain\r\n   charset=\"iso-2022-jp\"", "text/plain", "charset", ""},
		{"a/b; name=1; name=2", "a/b", "name", "1"},
		{"a/b; name*=utf-8''%C3%BC%20x", "a/b", "name", "ü x"},
		{"a/b; name*=iso-8859-1'de'%FC", "a/b", "name", "ü"},
		{"a/b; name*0=\"one \"; name*1=two", "a/b", "name", "one two"},
		{"a/b; name*0*=utf-8''%C3; name*1*=%BC; name*2=%20", "a/b", "name", "ü%20"},
		{"a/b; name*=broken%ZZ", "a/b", "name", "broken%ZZ"},
		{"attachment; filename=My File.pdf", "attachment", "filename", "My File.pdf"},
		{"", "", "boundary", ""},
		{";=;", "", "", ""},
		{"text", "text", "charset", ""},
	}
	for _, tt := range tests {
		m := message.ParseMediaType(tt.value)
		if got := m.Param(tt.param); m.Type != tt.kind || got != tt.want {
			t.Errorf("%q: %q with %s %q, want %q with %q", tt.value, m.Type, tt.param, got, tt.kind, tt.want)
		}
	}
}

func TestParseMediaTypeHostile(t *testing.T) {
	for _, unit := range []string{";", "=", ";a=", ";a=\"", "\\", "(", ";a*0=b", "; a=\"\\\"", "%", ";a*0*=%", " ", "\r\n "} {
		m := message.ParseMediaType("a/b;" + strings.Repeat(unit, message.MaxHeader/len(unit)))
		m.Param("a")
	}
}
