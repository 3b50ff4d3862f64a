package message_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/casegate/casegate/gateway/message"
)

const returnedHeader = "Received: from a.example\r\nMessage-ID: <token@gw.city.example>\r\nX-Case-Ref: token\r\nSubject: Re: light\r\n\r\n"

// report puts parts, each with its own header, into a multipart/report.
func report(kind string, parts ...string) string {
	return "From: mailer-daemon@a.example\r\nContent-Type: multipart/report; report-type=" + kind + "; boundary=\"b/1\"\r\n\r\n--b/1\r\n" +
		strings.Join(parts, "\r\n--b/1\r\n") + "\r\n--b/1--\r\n"
}

func TestReadReport(t *testing.T) {
	const notice = "Content-Type: text/plain\r\n\r\n<free@text.example>: host said: 550 no\r\n"
	const status = "Reporting-MTA: dns; mx.a.example\r\nArrival-Date: Mon, 3 Jun 2024 10:00:00 +0200\r\n\r\n" +
		"Original-Recipient: rfc822;Ana@mail.example\r\nFinal-Recipient: RFC822; <ana@mail.example>\r\nAction: Failed (bad mailbox)\r\n" +
		"Status: 5.1.1 (no such user)\r\nRemote-MTA: dns; mx.mail.example (192.0.2.1)\r\nDiagnostic-Code: smtp; 550\r\n\tno such user\r\n\r\n" +
		"Final-Recipient: x400; /C=de/S=doe@x\r\nAction: delayed\r\nStatus: 4.2\r\n\r\n"
	ana := message.ReportedRecipient{
		FinalRecipient: "ana@mail.example", OriginalRecipient: "Ana@mail.example", Action: "failed", Status: "5.1.1",
		DiagnosticCode: "smtp; 550 no such user", RemoteMTA: "mx.mail.example",
	}
	dsn := message.Report{Kind: message.DeliveryReport, Recipients: []message.ReportedRecipient{ana, {Action: "delayed"}}}
	final := func(addresses ...string) (list []message.ReportedRecipient) {
		for _, a := range addresses {
			list = append(list, message.ReportedRecipient{FinalRecipient: a})
		}
		return list
	}
	tests := []struct {
		name, mail string
		want       message.Report
		returned   string // Message-ID
	}{
		{"DSN", report("delivery-status", notice, "Content-Type: message/delivery-status\r\n\r\n"+status,
			"Content-Type: message/rfc822\r\n\r\n"+returnedHeader+"body"), dsn, "<token@gw.city.example>"},
		{"DSN with headers only, bare LF", strings.ReplaceAll(report("delivery-status", notice, "Content-Type: message/delivery-status\r\n\r\n"+status,
			"Content-Type: text/rfc822-headers\r\n\r\n"+returnedHeader), "\r\n", "\n"), dsn, "<token@gw.city.example>"},
		{"DSN in base64", report("delivery-status", notice,
			"Content-Type: message/delivery-status\r\nContent-Transfer-Encoding: base64\r\n\r\n"+base64.StdEncoding.EncodeToString([]byte(status)),
			"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n"+base64.StdEncoding.EncodeToString([]byte(returnedHeader))), dsn, "<token@gw.city.example>"},
		{"the returned mail comes first", report("delivery-status", notice,
			"Content-Type: message/rfc822\r\n\r\n"+returnedHeader+"body", "Content-Type: message/delivery-status\r\n\r\n"+status), dsn, "<token@gw.city.example>"},
		{"DSN without what was returned", report("delivery-status", notice, "Content-Type: message/delivery-status\r\n\r\n"+status), dsn, ""},
		{"global DSN", report("delivery-status", notice,
			"Content-Type: message/global-delivery-status\r\n\r\nReporting-MTA: dns; a\r\n\r\nFinal-Recipient: utf-8; j\\x{FC}rg@mail.example\r\nAction: failed\r\n\r\nFinal-Recipient: utf-8; jürg@mail.example\r\n",
			"Content-Type: message/global-headers\r\n\r\n"+returnedHeader),
			message.Report{Kind: message.DeliveryReport, Recipients: []message.ReportedRecipient{{FinalRecipient: "jürg@mail.example", Action: "failed"}, {FinalRecipient: "jürg@mail.example"}}},
			"<token@gw.city.example>"},
		{"recipients without an empty line between them", report("delivery-status",
			"Content-Type: message/delivery-status\r\n\r\nFinal-Recipient: rfc822;a@b.example\r\nAction: failed\r\nFinal-Recipient: rfc822;c@d.example\r\nAction: delivered\r\n"),
			message.Report{Kind: message.DeliveryReport, Recipients: []message.ReportedRecipient{{FinalRecipient: "a@b.example", Action: "failed"}, {FinalRecipient: "c@d.example", Action: "delivered"}}}, ""},
		{"MDN", report("disposition-notification", notice,
			"Content-Type: message/disposition-notification\r\n\r\nFinal-Recipient: rfc822; ana@mail.example\r\nOriginal-Message-ID: <token@gw.city.example>\r\nDisposition: manual-action/MDN-sent-manually; displayed\r\n"),
			message.Report{Kind: message.DispositionReport, Recipients: final("ana@mail.example"), Disposition: "manual-action/MDN-sent-manually; displayed", OriginalMessageID: "token@gw.city.example"}, ""},
		{"ARF", report("feedback-report", "Content-Type: text/plain\r\n\r\nabuse\r\n",
			"Content-Type: message/feedback-report\r\n\r\nFeedback-Type: Abuse\r\nOriginal-Rcpt-To: <ana@mail.example>\r\nOriginal-Rcpt-To: ben@mail.example\r\nRedacted\r\n",
			"Content-Type: message/rfc822\r\n\r\n"+returnedHeader+"body"),
			message.Report{Kind: message.FeedbackReport, FeedbackType: "abuse", OriginalRcptTo: []string{"ana@mail.example", "ben@mail.example"}}, "<token@gw.city.example>"},
		{"DSN wrapped by a list", "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n" +
			report("delivery-status", notice, "Content-Type: message/delivery-status\r\n\r\n"+status, "Content-Type: message/rfc822\r\n\r\n"+returnedHeader)[len("From: mailer-daemon@a.example\r\n"):] + "--o--\r\n",
			dsn, "<token@gw.city.example>"},
		{"qmail", "Subject: failure notice\n\nHi. This is the qmail-send program at a.example.\n\n<ana@mail.example>:\n192.0.2.1 does not like recipient.\n\n<ben@mail.example>: \nno\n\n--- Below this line is a copy of the message.\n\nReturn-Path: <token@city.example>\nReceived: from x\nMessage-ID: <token@gw.city.example>\n\n<text@of.example>:\n",
			message.Report{Recipients: final("ana@mail.example", "ben@mail.example")}, "<token@gw.city.example>"},
		{"Exim", "X-Failed-Recipients: ana@mail.example,\n ben@mail.example\nContent-Type: text/plain\n\nThe following address(es) failed:\n\n  no@text.example\n\n------ This is a copy of the message, including all the headers. ------\n\n" + returnedHeader,
			message.Report{Recipients: []message.ReportedRecipient{{FinalRecipient: "ana@mail.example", Action: "failed"}, {FinalRecipient: "ben@mail.example", Action: "failed"}}}, "<token@gw.city.example>"},
		{"Gmail, quoted-printable", "X-Failed-Recipients: ana@mail.example\nContent-Transfer-Encoding: quoted-printable\n\n----- Original message -----\n\nReceived: by x\nMessage-ID: <token@gw.=\ncity.example>\n\nhi",
			message.Report{Recipients: []message.ReportedRecipient{{FinalRecipient: "ana@mail.example", Action: "failed"}}}, "<token@gw.city.example>"},
		{"sendmail", "\nThe original message was received at x\n\n   ----- The following addresses had permanent fatal errors -----\n<no@text.example>\n\n   ----- Transcript of session follows -----\n550 <no@text.example>... User unknown\n\n   ----- Unsent message follows -----\nReceived: from x\n\tby y\nMessage-Id: <token@gw.city.example>\nSubject: x\n\nhi",
			message.Report{}, "<token@gw.city.example>"},
		{"a report in text", "\nReporting-MTA: dns; a\n\nFinal-Recipient: rfc822; ana@mail.example\nAction: failed\nStatus: 5.0.0\n\nOriginal message headers:\n\n" + returnedHeader,
			message.Report{Recipients: []message.ReportedRecipient{{FinalRecipient: "ana@mail.example", Action: "failed", Status: "5.0.0"}}}, "<token@gw.city.example>"},
		{"old Exchange", "Content-Type: multipart/mixed; boundary=x\n\n--x\n\nYour message\n\n  To: no@text.example\n  Subject: x\n\n--x\nContent-Type: message/rfc822\n\n" + returnedHeader + "--x--",
			message.Report{}, "<token@gw.city.example>"},
		{"a message pasted behind a boundary", "Content-Type: multipart/mixed; boundary=x\n\n--x\n\nfailed\n--x\n" + returnedHeader + "hi\n--x--",
			message.Report{}, "<token@gw.city.example>"},
		{"one bad boundary", "Content-Type: multipart/report; report-type=delivery-status; boundary=y\n\n--x\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; a\n\nFinal-Recipient: rfc822; ana@mail.example\n\n--x\nContent-Type: message/rfc822\n\n" + returnedHeader,
			message.Report{Kind: message.DeliveryReport, Recipients: final("ana@mail.example")}, "<token@gw.city.example>"},
		{"words about a mail aren't one", "\nFrom: Ana <ana@mail.example>\nTo: Ben <ben@mail.example>\nSubject: x\nSent: Monday\n\nhttp://a.example/\nhttps://b.example/\nMessage-ID: <a@b>\n\n ana@mail.example failed, write to <ben@mail.example>\n<not an address>: x\n", message.Report{}, ""},
		{"nothing returned", report("delivery-status", "Content-Type: message/rfc822\r\n\r\n[original message goes here]\r\n"), message.Report{Kind: message.DeliveryReport}, ""},
		{"an address that hides something", report("delivery-status", "Content-Type: message/delivery-status\r\n\r\nFinal-Recipient: rfc822; a@b.example, c@d.example\r\nAction: failed\r\nDiagnostic-Code: x\u202ey\x00\x1b[1mz\xff\r\n"),
			message.Report{Kind: message.DeliveryReport, Recipients: []message.ReportedRecipient{{Action: "failed", DiagnosticCode: "xy[1mz\ufffd"}}}, ""},
	}
	for _, tt := range tests {
		got := readReport(t, tt.mail)
		id := ""
		if got.Returned != nil {
			id = got.Returned.Get("Message-ID")
		}
		if id != tt.returned || got.Returned != nil && id == "" {
			t.Errorf("%s: returned %+v, want %q", tt.name, got.Returned, tt.returned)
		}
		got.Returned = nil
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: -want +got\n%s", tt.name, d)
		}
	}
}

func readReport(t *testing.T, mail string) message.Report {
	t.Helper()
	header, body := split([]byte(mail), 4096)
	r, err := message.ReadReport(message.Parse(header), bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What a stranger writes decides neither the time nor the memory it takes.
func TestReadReportHostile(t *testing.T) {
	const size = 4 << 20
	parts := func(n int, header, unit string) string {
		return report("delivery-status", strings.Repeat(header+strings.Repeat(unit, size/n/len(unit))+"\r\n--b/1\r\n", n))
	}
	for name, mail := range map[string]string{
		"recipients":        parts(1, "Content-Type: message/delivery-status\r\n\r\n", "Final-Recipient: rfc822;a@b.example\r\n\r\n"),
		"fields":            parts(1, "Content-Type: message/delivery-status\r\n\r\n", "Final-Recipient: rfc822;a@b.example\r\n"),
		"one diagnostic":    parts(1, "Content-Type: message/delivery-status\r\n\r\nFinal-Recipient: rfc822;a@b.example\r\nDiagnostic-Code: ", "smtp; 550 "),
		"status parts":      parts(100, "Content-Type: message/delivery-status\r\n\r\n", "Final-Recipient: rfc822;a@b.example\r\n\r\n"),
		"feedback":          parts(1, "Content-Type: message/feedback-report\r\n\r\n", "Original-Rcpt-To: a@b.example\r\n"),
		"returned header":   parts(1, "Content-Type: message/rfc822\r\n\r\n", "Received: x\r\n"),
		"empty lines":       parts(1, "Content-Type: message/rfc822\r\n\r\n", "\r\n"),
		"short fields":      parts(1, "Content-Type: message/rfc822\r\n\r\n", "a:\n"),
		"text, qmail lines": parts(1, "\r\n", "<a@b.example>:\r\n"),
		"text, fields":      parts(1, "\r\n", "a:\n"),
		"text, blocks":      parts(1, "\r\n", "Final-Recipient: a@b.example\n\n"),
		"text parts":        parts(1000, "\r\n", "Subject: x\n\n"),
		"failed recipients": "X-Failed-Recipients: " + strings.Repeat("a@b.example,", message.MaxHeader/20) + "\r\n\r\nhello",
	} {
		header, body := split([]byte(mail), 4096)
		start := time.Now()
		r, err := message.ReadReport(message.Parse(header), bytes.NewReader(body))
		if d := time.Since(start); d > 2*time.Second || err != nil {
			t.Errorf("%s: %v, %v", name, d, err)
		}
		if n := weight(r); n > 1<<20 {
			t.Errorf("%s: a report of %d bytes", name, n)
		}
		checkReport(t, message.Parse(header), body)
	}
}

// weight is about what a report keeps.
func weight(r message.Report) (n int) {
	for _, one := range r.Recipients {
		n += len(fmt.Sprint(one)) + 6*16
	}
	for _, a := range r.OriginalRcptTo {
		n += len(a) + 16
	}
	n += len(r.Disposition) + len(r.FeedbackType) + len(r.OriginalMessageID)
	if r.Returned != nil {
		n += len(r.Returned.Bytes()) + 48*r.Returned.Len()
	}
	return n
}

func TestReadReportCaps(t *testing.T) {
	mail := report("delivery-status", "Content-Type: message/delivery-status\r\n\r\nFinal-Recipient: rfc822;a@b.example\r\n",
		"A: "+strings.Repeat("b", 300<<10)+"\r\n\r\nx")
	header, body := split([]byte(mail), 4096)
	r, err := message.ReadReport(message.Parse(header), bytes.NewReader(body))
	if !errors.Is(err, message.ErrHeaderTooLarge) || len(r.Recipients) != 1 {
		t.Errorf("a part with a long header: %v, %+v", err, r)
	}
	r = readReport(t, report("delivery-status", "Content-Type: message/rfc822\r\n\r\n"+returnedHeader[:len(returnedHeader)-2]+strings.Repeat("To: a@b.example\r\n", 100_000)))
	if r.Returned == nil || r.Returned.Get("X-Case-Ref") != "token" || r.Returned.TooLarge() && r.Returned.Len() == 0 {
		t.Errorf("a long returned header: %+v", r.Kind)
	}
}

// checkReport: bounded, printable, and every address was written in the mail.
func checkReport(t *testing.T, h message.Header, body []byte) {
	t.Helper()
	r, _ := message.ReadReport(h, bytes.NewReader(body))
	if len(r.Recipients) > 1000 || len(r.OriginalRcptTo) > 1000 {
		t.Fatalf("%d recipients", len(r.Recipients))
	}
	for _, one := range r.Recipients {
		for _, s := range []string{one.Action, one.Status, one.DiagnosticCode, one.RemoteMTA, one.FinalRecipient, one.OriginalRecipient} {
			if len(s) > 3*998 || strings.ContainsAny(s, "\r\n\x00") {
				t.Fatalf("%q of %+v", s, one)
			}
		}
	}
	if r.Returned != nil && r.Returned.Empty() {
		t.Fatal("returned, and empty")
	}
}
