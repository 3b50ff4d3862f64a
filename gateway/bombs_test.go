package gateway_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/store"
)

// bomb makes a mail of about n bytes that a careless reader takes too long for,
// or too much memory. All of them are merely ugly: none may be refused.
type bomb struct {
	name string
	mail func(n int) string
}

const bombHead = "From: a@x.example\r\nTo: 311@city.example\r\nMessage-ID: <%d.bomb@x.example>\r\n"

// fill repeats a text up to n bytes.
func fillUp(unit string, n int) string { return strings.Repeat(unit, n/len(unit)+1)[:n] }

// bombs are in the header, up to its limit of 1 MiB, and in the body.
func bombs() (list []bomb) {
	add := func(name string, mail func(n int) string) { list = append(list, bomb{name, mail}) }
	head := func(n int) string { return fmt.Sprintf(bombHead, n) }
	fields := func(name string, field func(i int) string) {
		add(name, func(n int) string {
			var b strings.Builder
			b.WriteString(head(n))
			for i := 0; b.Len() < n; i++ {
				b.WriteString(field(i))
			}
			return b.String() + "\r\nbody\r\n"
		})
	}
	every := []string{"From", "To", "Cc", "Reply-To", "Subject", "References", "In-Reply-To", "Message-ID", "Content-Type", "Content-Disposition", "Content-Transfer-Encoding",
		"Authentication-Results", "ARC-Seal", "ARC-Message-Signature", "ARC-Authentication-Results", "DKIM-Signature", "Received", "Received-SPF", "Date", "Return-Path",
		"X-Case-Ref", "X-Case-Customer", "Thread-Index", "Auto-Submitted", "List-Id", "X-Failed-Recipients"}
	for _, unit := range []string{"(", "((a)", ")", "<", "<a@b> ", "<@", ",", "a@b,", ";", "g:a@b;", ":", "@", "[", "@[1", "\"", "\"a\" ", "\\", "=?", "=?a?q?", "=?utf-8?q?x?= ", "=?utf-8?b?////?=",
		"=", ";a=b", ";a*0=b", "%41", ".", "a b ", "\r\n ", "\xff", "\u00fc", "\u202e", "\x00", "Doe, J <a@b>, ", "<a b@c>", "mx.city.example; spf=pass ", "#1 "} {
		add(fmt.Sprintf("%q in every field", unit), func(n int) string {
			var b strings.Builder
			for _, name := range every {
				fmt.Fprintf(&b, "%s: %s\r\n", name, fillUp(unit, n/len(every)))
			}
			return head(n) + b.String() + "\r\nbody\r\n"
		})
		add(fmt.Sprintf("%q in To", unit), func(n int) string { return head(n) + "To: " + fillUp(unit, n) + "\r\n\r\nbody\r\n" })
	}
	for _, name := range []string{"Subject", "References", "Message-ID", "Content-Type"} {
		add("all sorts in "+name, func(n int) string {
			return head(n) + name + ": " + fillUp("a <a@b> =?utf-8?q?x?= \xff (((\"\\\" ; a*0=\"b\"; \r\n <c d@e>", n) + "\r\n\r\nbody\r\n"
		})
	}
	fields("many fields", func(i int) string { return fmt.Sprintf("X-%d: %s\r\n", i%100, strings.Repeat("y", 100)) })
	fields("long folded fields", func(i int) string { return "X-A:" + strings.Repeat(" b\r\n\t", 5000) + "\r\n" })
	fields("no fields", func(i int) string { return "this is no field\r\n" })
	fields("Received", func(i int) string {
		return fmt.Sprintf("Received: from a (b [192.0.2.1]) by c with ESMTP id %d; Mon, 3 Jun 2024 10:00:00 +0200\r\n", i)
	})
	fields("References", func(i int) string {
		return fmt.Sprintf("References: <%d.%s@x.example>\r\n", i, strings.Repeat("r", 90))
	})
	fields("To", func(i int) string { return fmt.Sprintf("To: %s <%d@x.example>\r\n", strings.Repeat("n", 90), i) })
	fields("addresses", func(i int) string { return "To: " + strings.Repeat(fmt.Sprintf("%d@x.example,", i), 200) + "\r\n" })
	fields("DKIM-Signature", func(i int) string {
		return fmt.Sprintf("DKIM-Signature: v=1; a=rsa-sha256; d=%d.example; s=s; h=%s; bh=eA==; b=eA==\r\n", i, strings.Repeat("from:", 20))
	})
	fields("ARC sets", func(i int) string {
		return fmt.Sprintf("ARC-Seal: i=%[1]d; a=rsa-sha256; cv=none; d=x.example; s=s; b=eA==\r\nARC-Message-Signature: i=%[1]d; a=rsa-sha256; d=x.example; s=s; h=from; bh=eA==; b=eA==\r\nARC-Authentication-Results: i=%[1]d; x.example; none\r\n", i)
	})
	fields("Authentication-Results", func(i int) string {
		return "Authentication-Results: mx.city.example" + strings.Repeat("; dkim=pass (c(c)c) header.d=x.example", 4) + "\r\n"
	})

	add("results in one field", func(n int) string {
		return head(n) + "Authentication-Results: mx.city.example" + fillUp("; dkim=pass (c) header.d=x.example", n) + "\r\n\r\nbody\r\n"
	})
	add("properties in one field", func(n int) string {
		return head(n) + "Authentication-Results: mx.city.example; dkim=pass" + fillUp(" header.d=x", n) + "\r\n\r\nbody\r\n"
	})
	add("comments in one field", func(n int) string {
		return head(n) + "Authentication-Results: mx.city.example; dkim=pass" + fillUp(" (c)", n) + "\r\n\r\nbody\r\n"
	})

	add("plain text", func(n int) string {
		return head(n) + "\r\n" + fillUp("the street light in front of no. 14 is out again\r\n", n)
	})
	body := func(name, kind string, text func(n int) string) {
		add(name, func(n int) string { return head(n) + "Content-Type: " + kind + "\r\n\r\n" + text(n) })
	}
	body("nested multiparts", "multipart/mixed; boundary=b0", func(n int) string {
		var b strings.Builder
		for i := 1; b.Len() < n; i++ {
			fmt.Fprintf(&b, "--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n", i-1, i)
		}
		return b.String()
	})
	body("nested to the cap, then lines", "multipart/mixed; boundary=b0", func(n int) string {
		var b strings.Builder
		for i := 1; i < 99; i++ {
			fmt.Fprintf(&b, "--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n", i-1, i)
		}
		return b.String() + fillUp("--b\r\n--b999\r\n--b99--x\r\n", n)
	})
	body("the same boundary again", "multipart/mixed; boundary=b", func(n int) string {
		return fillUp("--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n", n)
	})
	body("many parts", "multipart/mixed; boundary=b", func(n int) string { return fillUp("--b\r\n\r\n", n) })
	body("prefixes of the boundary", "multipart/mixed; boundary="+strings.Repeat("a", 70), func(n int) string {
		return fillUp("--"+strings.Repeat("a", 69)+"\r\n--"+strings.Repeat("a", 71)+"\r\n--\r\n", n)
	})
	body("parts with long headers", "multipart/mixed; boundary=b", func(n int) string {
		return fillUp("--b\r\n"+strings.Repeat("X: y\r\n z\r\n", 5000)+"\r\n", n)
	})
	body("parts with many parameters", "multipart/mixed; boundary=b", func(n int) string {
		return fillUp("--b\r\nContent-Type: a/b"+strings.Repeat("; x*0*=%41", 5000)+"\r\n\r\n", n)
	})
	body("messages in messages", "message/rfc822", func(n int) string { return fillUp("Content-Type: message/rfc822\r\n\r\n", n) })
	body("a message in base64", "multipart/mixed; boundary=b", func(n int) string {
		text := base64.StdEncoding.EncodeToString([]byte(fillUp("Subject: x\r\nX: y\r\n", n*3/4)))
		return "--b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" + text + "\r\n--b--\r\n"
	})
	body("a message in quoted-printable", "multipart/mixed; boundary=b", func(n int) string {
		return "--b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + fillUp("X: =\r\n=3D= \t =\r\n", n) + "\r\n--b--\r\n"
	})
	report := "multipart/report; report-type=delivery-status; boundary=b"
	body("a report of many recipients", report, func(n int) string {
		return "--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n\r\n" + fillUp("Final-Recipient: rfc822; a@x.example\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n", n)
	})
	body("a report of empty lines", report, func(n int) string { return "--b\r\nContent-Type: message/delivery-status\r\n\r\n" + fillUp("\n", n) })
	body("reports in a report", report, func(n int) string {
		return fillUp("--b\r\nContent-Type: message/delivery-status\r\n\r\nFinal-Recipient: rfc822; ((((((((((\r\n\r\n", n)
	})
	body("a report in text", "text/plain", func(n int) string {
		return fillUp("<a@x.example>:\r\n   550 no such user\r\nFinal-Recipient: rfc822; a@x\r\n", n)
	})
	return list
}

// TestBombs gives each bomb to both pipelines, of n bytes and of 2n: it is kept
// and decided on; reading and deciding on twice of it costs at most two and a
// half times the processor's time, and memory of at most three times its size.
// (What the store needs to write a header of a megabyte twice, as received and as
// sent, is the same for any mail.)
func TestBombs(t *testing.T) {
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("the race detector costs what it likes")
	}
	const n = 480 << 10 // twice that is a header that is still read
	for _, p := range bombTargets(t) {
		for _, b := range bombs() {
			once, twice := []byte(p.head+b.mail(n)), []byte(p.head+b.mail(2*n))
			if err := p.take(twice); err != nil {
				t.Errorf("%s: %s: %v", p.name, b.name, err)
			}
			took := [2]time.Duration{time.Hour, time.Hour}
			grew := math.MaxInt
			for try := 0; try == 0 || try < 8 && !linear(took); try++ { // whatever else the machine does only adds
				took[0] = min(took[0], cost(func() { p.read(once) }))
				took[1] = min(took[1], cost(func() { p.read(twice) }))
			}
			for try := 0; try == 0 || try < 8 && !frugal(grew, len(twice)); try++ { // the collector may lag behind
				grew = min(grew, peak(func() { p.read(twice) }))
			}
			if !linear(took) || !frugal(grew, len(twice)) {
				t.Errorf("%s: %s takes %v, twice of it, %d bytes, takes %v and %d bytes of memory", p.name, b.name, took[0], len(twice), took[1], grew)
			}
		}
	}
}

// TestCaps takes mails in around each cap of reading, and far beyond: all of them
// are kept, byte for byte, and decided on within a second (security 23).
func TestCaps(t *testing.T) {
	const head = "From: a@x.example\r\nTo: 311@city.example\r\n"
	filled := func(n int) string {
		return head + "X: " + strings.Repeat("y", n-len(head)-len("X: \r\n\r\n")) + "\r\n\r\n"
	}
	nested := func(n int, part func(i int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(part(i))
		}
		return b.String()
	}
	multipart := head + "Content-Type: multipart/report; report-type=delivery-status; boundary=b0\r\n\r\n"
	for _, c := range []struct {
		name string
		at   int
		mail func(n int) string
	}{
		{"header bytes", message.MaxHeader, filled},
		{"fields", message.MaxFields, func(n int) string { return head + strings.Repeat("a:\r\n", n-2) + "\r\n" }},
		{"depth", message.MaxDepth, func(n int) string {
			return multipart + nested(n, func(i int) string {
				return fmt.Sprintf("--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n", i, i+1)
			})
		}},
		{"messages in messages", message.MaxDepth, func(n int) string {
			return head + nested(n, func(int) string { return "Content-Type: message/rfc822\r\n\r\n" })
		}},
		{"parts", message.MaxParts, func(n int) string { return multipart + strings.Repeat("--b0\r\n\r\n", n-1) }},
		{"header of a part", 256 << 10, func(n int) string { return multipart + "--b0\r\n" + filled(n) }},
		{"line", 1 << 20, func(n int) string { return head + "\r\n" + strings.Repeat("x", n) + "\r\n" }},
	} {
		o := desk(t, nil)
		in := gateway.NewInbound(o, gateway.Intake{})
		for _, n := range []int{c.at - 1, c.at, c.at + 1, 10 * c.at} {
			eml := c.mail(n)
			start := processorTime()
			r, err := hand(t, in, gateway.RoleInbound, "", eml, "311@city.example")
			took := processorTime() - start
			if err != nil || took > time.Second {
				t.Errorf("%s: %d: %v after %v", c.name, n, err, took)
				continue
			}
			id, _ := store.ParseID(r.ID)
			if export(t, o.Store, id, store.AsReceived) != eml {
				t.Errorf("%s: %d: archived as something else", c.name, n)
			}
		}
	}
}

// linear and frugal allow for what any mail costs. What is quadratic over a
// megabyte, or over one of its fields, takes more than a second.
func linear(took [2]time.Duration) bool { return took[1] <= max(30*time.Millisecond, took[0]*5/2) }

func frugal(grew, size int) bool { return grew <= 3*size+1<<20 }

// bombTarget is a pipeline.
type bombTarget struct {
	name string
	head string                 // fields that a mail must begin with there
	take func(eml []byte) error // as a new mail; an error if it is not kept
	read func(eml []byte)       // reads and decides, and writes nothing
}

func bombTargets(t *testing.T) []bombTarget {
	taken := 0
	unique := func() []byte { taken++; return fmt.Appendf(nil, "\r\n%d\r\n", taken) }
	o, out, head := opened(t, nil, "a@x.example")
	in := gateway.NewInbound(o, gateway.Intake{AuthServID: "mx.city.example", ControlHeaders: true})
	book := gateway.Rulebook{
		Settings: o.Settings, Names: []string{"test", "desk"},
		Intakes:    map[string]gateway.Intake{"test": {AuthServID: "mx.city.example", ControlHeaders: true}},
		Submitters: map[string]gateway.Submitters{"desk": {Setting: "send_as"}},
	}
	read := func(role gateway.Role, listener, from string) func([]byte) {
		return func(eml []byte) {
			env := &gateway.Envelope{Listener: listener, Role: role, Protocol: "ESMTP", From: path(t, from), Recipients: []gateway.Recipient{{Path: path(t, "311@city.example")}}}
			if _, err := gateway.Explain(t.Context(), o, book, env, bytes.NewReader(eml), store.ID{}); err != nil {
				t.Error(err)
			}
		}
	}
	return []bombTarget{
		{"inbound", "", func(eml []byte) error {
			_, err := handBytes(t, in, gateway.RoleInbound, "", [][]byte{eml, unique()}, "311@city.example")
			return err
		}, read(gateway.RoleInbound, "test", "<>")},
		{"outbound", head, func(eml []byte) error {
			_, err := handBytes(t, out, gateway.RoleOutbound, "311@city.example", [][]byte{eml, unique()}, "a@x.example")
			if v := (gateway.Verdict{}); errors.As(err, &v) && v.Code/100 == 5 {
				err = nil // From is there twice, say: an application hears of it
			}
			return err
		}, read(gateway.RoleOutbound, "desk", "311@city.example")},
	}
}

// cost is what a call takes of the processor, the collector aside.
func cost(call func()) time.Duration {
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	start := processorTime()
	call()
	return processorTime() - start
}

func processorTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peak is by how much the heap grew during a call, as far as it was seen.
func peak(call func()) (grew int) {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	heap := func() int {
		metrics.Read(sample)
		return int(sample[0].Value.Uint64())
	}
	defer debug.SetGCPercent(debug.SetGCPercent(10))
	runtime.GC()
	before := heap()
	done := make(chan struct{})
	go func() { defer close(done); call() }()
	for {
		select {
		case <-done:
			return grew
		default:
			grew = max(grew, heap()-before)
			runtime.Gosched()
		}
	}
}
