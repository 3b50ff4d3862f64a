package relay

import (
	"bufio"
	"strings"
	"testing"
	"unicode"

	"github.com/casegate/casegate/store"
)

func TestReplies(t *testing.T) {
	for in, want := range map[string]string{
		"250 ok\r\n":                  "250 ok",
		"250\r\n":                     "250",
		"250 ok\n":                    "250 ok",
		"250-a\r\n250-b\r\n250 c\r\n": "250 a b c",
		"250-a\r\n251 b\r\n":          "error: the next hop's reply makes no sense: it changes from 250 to 251",
		"25\r\n":                      `error: the next hop's reply makes no sense: "25"`,
		"999 x\r\n":                   `error: the next hop's reply makes no sense: "999 x"`,
		"250x\r\n":                    `error: the next hop's reply makes no sense: "250x"`,
		"+50 x\r\n":                   `error: the next hop's reply makes no sense: "+50 x"`,
		"250-a\r\n":                   "error: unexpected EOF",
		"250 a":                       "error: unexpected EOF",
		"":                            "error: EOF",
		"250 " + strings.Repeat("x", 4000) + "\r\n": "250 " + strings.Repeat("x", maxReplyText),
	} {
		rep, err := readReply(bufio.NewReaderSize(strings.NewReader(in), maxReplyLine))
		got := rep.String()
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func TestStates(t *testing.T) {
	for code, want := range map[int]store.DeliveryState{
		250: store.Delivered, 251: store.Delivered, 354: store.Queued, 421: store.Queued, 450: store.Queued,
		500: store.Failed, 503: store.Queued, 530: store.Queued, 550: store.Failed, 554: store.Failed,
	} {
		if got := (reply{code: code}).state(); got != want {
			t.Errorf("%d: %s", code, got)
		}
	}
}

func TestStatusNamesNobody(t *testing.T) {
	for in, want := range map[string]string{
		"550 5.1.1 <eva@x.example> unknown": "550 5.1.1",
		"550 eva@x.example":                 "550",
		"5.6.7 the address needs":           "5.6.7",
		"eva@x.example":                     "",
		"":                                  "",
	} {
		if got := status(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

// FuzzReply: no reply, however strange, does more than be an error or a text
// that is safe to show.
func FuzzReply(f *testing.F) {
	f.Add("250-a\r\n250 \x1b[1m\u202e\xff\r\n")
	f.Add(strings.Repeat("250-\r\n", 200))
	f.Fuzz(func(t *testing.T, in string) {
		rep, err := readReply(bufio.NewReaderSize(strings.NewReader(in), maxReplyLine))
		if err == nil && (rep.code < 200 || rep.code > 599) {
			t.Errorf("%q: code %d", in, rep.code)
		}
		if strings.IndexFunc(rep.text, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 || len(rep.text) > 6*maxReplyText {
			t.Errorf("%q: %q", in, rep.text)
		}
	})
}

// TestStatusOf: a report's status has the form that RFC 3463 gives it, and the
// class of what happened, whatever was said.
func TestStatusOf(t *testing.T) {
	for in, want := range map[string]string{
		"550 5.1.1 no":           "5.1.1",
		"5.4.7 given up":         "5.4.7",
		"550 2.1.5 ok":           "5.0.0",
		"550 5..1 no":            "5.0.0",
		"550 5.1. 5.1.1.1 5.1.2": "5.1.2",
		"550 5.1234.1 no":        "5.0.0",
		"550 55.1.1 no":          "5.0.0",
		"550 no 5.1.1":           "5.0.0",
		"":                       "5.0.0",
	} {
		if got := statusOf(in, '5'); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
