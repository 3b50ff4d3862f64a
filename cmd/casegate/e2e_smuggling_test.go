package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// eodTricks are the end-of-data sequences of the corpus.
func eodTricks(t *testing.T) (tricks []string) {
	root, err := corpusFolder()
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	raw, err := os.ReadFile(filepath.Join(root, "own", "smtp-eod-sequences.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Sequences []struct{ Bytes string } }
	if err := json.Unmarshal(raw, &file); err != nil || len(file.Sequences) < 19 {
		t.Fatal(len(file.Sequences), err)
	}
	for _, s := range file.Sequences {
		tricks = append(tricks, s.Bytes)
	}
	return tricks
}

// endReaders are the ways in which a next hop may look for the end of data.
var endReaders = map[string]func(wire string) string{
	"strict": func(s string) string { return strings.ReplaceAll(s, "\r\n", "\x01") },
	"LF":     func(s string) string { return strings.NewReplacer("\r\n", "\x01", "\n", "\x01").Replace(s) },
	"CR":     func(s string) string { return strings.NewReplacer("\r\n", "\x01", "\r", "\x01").Replace(s) },
	"CR or LF": func(s string) string {
		return strings.NewReplacer("\r\n", "\x01", "\r", "\x01", "\n", "\x01").Replace(s)
	},
	"CR or LF, NUL ignored": func(s string) string {
		return strings.NewReplacer("\r\n", "\x01", "\r", "\x01", "\n", "\x01").Replace(strings.ReplaceAll(s, "\x00", ""))
	},
}

// TestSmugglingOut has every end-of-data trick handed to a daemon, with a second
// message of the attacker behind it, and looks at what leaves for the next hop:
// however that looks for the end of data, it sees as many messages as were
// accepted, each with the bytes that came in.
func TestSmugglingOut(t *testing.T) {
	hop := startHop(t)
	r := newRig(t, rigOptions{inbound: hop.url, listeners: "  - {name: border, role: inbound, protocol: smtp, address: 127.0.0.1:0, peers: [127.0.0.0/8], bare_newline: normalize}\n"})
	r.start()
	tricks := eodTricks(t)
	var many strings.Builder // blocks end between any two octets of a trick
	for i := 0; many.Len() < 256<<10; i++ {
		if trick := tricks[i%len(tricks)]; !strings.Contains(trick, "\r\n.\r\n") && !strings.Contains(trick, "\x00") {
			many.WriteString(strings.Repeat("x", i%11) + trick)
		}
	}
	came := map[string][]byte{} // what was accepted, by Subject
	for i, trick := range append(tricks, many.String()) {
		for _, listener := range []string{"inbound", "border"} {
			for _, verb := range []string{"DATA", "BDAT"} {
				name := fmt.Sprintf("%s-%s-%d", listener, verb, i)
				stream := "From: client@example.net\r\nSubject: " + name + "\r\n\r\nfirst" + trick +
					"MAIL FROM:<evil@attacker.test>\r\nRCPT TO:<" + rigMailbox + ">\r\nDATA\r\nSubject: smuggled\r\n\r\nevil\r\n.\r\n"
				if n := smuggle(t, r.at(listener), verb, stream); n > 1 {
					t.Errorf("%s: %q became %d messages", name, trick, n)
				} else if n == 1 {
					came[name] = []byte(stream)
					if verb == "DATA" {
						came[name] = undot(stream)
					}
				}
			}
		}
	}
	r.emptied(time.Minute)
	if hop.mu.Lock(); len(hop.got) != len(came) || len(came) < 2*len(tricks) {
		t.Errorf("%d messages were accepted, %d came to the next hop", len(came), len(hop.got))
	}
	for _, m := range hop.got {
		name := m.get("Subject")
		if loneNewline(m.wire) {
			t.Errorf("%s left with a CR or LF alone: %.300q", name, m.wire)
		}
		for reader, lines := range endReaders {
			if n := strings.Count(lines("\r\n"+string(m.wire)), "\x01.\x01"); n != 1 {
				t.Errorf("%s: a next hop that reads %s sees %d ends of data: %.300q", name, reader, n, m.wire)
			}
		}
		if what := stampedFrom(came[name], m.raw, false); what != "" {
			t.Errorf("%s changed on its way: %s: %.300q", name, what, m.raw)
		}
	}
	hop.mu.Unlock()
	if list := r.complaints(); len(list) > 0 {
		t.Errorf("the daemon complained %d times, first: %s", len(list), list[0])
	}
}

// smuggle sends a stream as it is, as the data or as two chunks of it, and
// returns how many messages were accepted.
func smuggle(t *testing.T, at, verb, stream string) int {
	t.Helper()
	c, err := dialWire(at, false)
	if err != nil {
		t.Fatal(err)
	}
	defer c.conn.Close()
	commands := []string{"DATA"}
	if half := len(stream) / 2; verb == "BDAT" {
		stream = fmt.Sprintf("BDAT %d\r\n%sBDAT %d LAST\r\n%s", half, stream[:half], len(stream)-half, stream[half:])
		commands = nil
	}
	if reply, err := c.envelope("client@example.net", []string{rigMailbox}, commands...); err != nil || reply[0] > '3' {
		t.Fatal(reply, err)
	}
	go io.WriteString(c.conn, stream+"QUIT\r\n")
	said, _ := io.ReadAll(c.r)
	return bytes.Count(said, []byte(" accepted "))
}

// undot is the message in the data of a stream (RFC 5321 §4.5.2).
func undot(stream string) []byte {
	data, _, _ := strings.Cut(stream, "\r\n.\r\n")
	return []byte(strings.ReplaceAll(data+"\r\n", "\r\n.", "\r\n"))
}
