package message_test

import (
	"testing"

	"github.com/casegate/casegate/gateway/message"
)

// typical is a header as it comes in: 1 KiB and a bit.
const typical = "Return-Path: <ana.example@mail.example>\r\n" +
	"Received: from mail.example (mail.example [192.0.2.1])\r\n\tby gw.city.example with ESMTPS id 4XyZ\r\n\tfor <311@city.example>; Mon, 3 Jun 2024 10:00:00 +0200\r\n" +
	"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=mail.example; s=s1;\r\n\th=from:to:subject:date:message-id; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=;\r\n\tb=abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz01234567\r\n\t 89abcdefghijklmnopqrstuvwxyz0123456789\r\n" +
	"From: \"Ana Example\" <ana.example@mail.example>\r\n" +
	"To: City 311 <311@city.example>, Ben Other <ben@other.example>\r\n" +
	"Cc: =?utf-8?Q?J=C3=BCrgen?= <juergen@third.example>\r\n" +
	"Subject: Re: The street light in front of no. 14 is out again\r\n" +
	"Date: Mon, 3 Jun 2024 10:00:00 +0200\r\n" +
	"Message-ID: <CAByYQsFyrGN2Aa73R9b3tiR7uFpUan@mail.example>\r\n" +
	"In-Reply-To: <token.1234567890@gw.city.example>\r\n" +
	"References: <token.1234567890@gw.city.example>\r\n <CAByYQsFyrGN2Aa73R9b3tiR7uFpUam@mail.example>\r\n" +
	"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"

func BenchmarkParse(b *testing.B) {
	block := []byte(typical)
	b.ReportAllocs()
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		message.Parse(block)
	}
}

// What a decision reads of a header.
func BenchmarkReadHeader(b *testing.B) {
	block := []byte(typical)
	b.ReportAllocs()
	for b.Loop() {
		h := message.Parse(block)
		for _, name := range []string{"From", "To", "Cc"} {
			for _, f := range h.Named(name) {
				message.ParseList(f.Value())
			}
		}
		message.MessageIDs(h.Get("References"))
		message.MessageIDs(h.Get("In-Reply-To"))
		message.Decode(h.Get("Subject"))
		h.Values("X-Case-Ref")
	}
}

func BenchmarkEditor(b *testing.B) {
	h := message.Parse([]byte(typical))
	b.ReportAllocs()
	for b.Loop() {
		e := message.NewEditor(h)
		e.Prepend("Received", "from a (b [192.0.2.1]) by gw.city.example with ESMTP id 018f-aaaa; Mon, 3 Jun 2024 10:00:00 +0200")
		e.Prepend("X-Case-Number", "1042")
		e.Remove(h.Named("Return-Path")[0])
		e.Bytes()
	}
}
