package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway/testbed"
)

// The mail programs that the end-to-end tests drive: swaks as it speaks on the
// wire, s-nail and mutt as people use them. All are Debian's.

// tool runs a program and returns what it printed.
func tool(t testing.TB, env []string, name string, args ...string) (out string, code int) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(cleanEnv(), env...)
	cmd.WaitDelay = time.Second
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	giveUp := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	defer giveUp.Stop()
	cmd.Wait()
	return text.String(), cmd.ProcessState.ExitCode()
}

// swaks sends a message, byte for byte, and returns the whole dialogue. at is
// host:port or the path of a UNIX socket.
func swaks(t testing.TB, at, from, to string, message []byte, more ...string) string {
	t.Helper()
	testbed.Need(t, "swaks")
	file := filepath.Join(t.TempDir(), "data")
	dotted := strings.ReplaceAll("\n"+string(message), "\n.", "\n..")[1:]
	if err := os.WriteFile(file, []byte(dotted+".\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--helo", "client.example", "--from", from, "--to", to, "--data", "@" + file, "--no-data-fixup", "--suppress-data"}
	if _, _, err := net.SplitHostPort(at); err == nil {
		args = append(args, "--server", at)
	} else {
		args = append(args, "--socket", at)
	}
	out, _ := tool(t, nil, "swaks", append(args, more...)...)
	return out
}

// taken reads the reply to a message that was taken on a case.
var taken = regexp.MustCompile(`(?m)^<-  250 2\.0\.0 (?:<\S+> )?accepted ([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}) case (\d+)$`)

// swaksTaken is swaks for a message that must be taken on a case.
func swaksTaken(t testing.TB, at, from, to string, message []byte, more ...string) (id, number string) {
	t.Helper()
	out := swaks(t, at, from, to, message, more...)
	reply := taken.FindStringSubmatch(out)
	if reply == nil {
		t.Fatalf("not taken on a case:\n%s", out)
	}
	return reply[1], reply[2]
}

// person is somebody with a mail client, and the server that it sends by.
type person struct {
	name, address string
	server        string
}

// mbox puts a message into a mailbox file as a delivery agent does.
func mbox(t testing.TB, m arrived) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mbox")
	text := fmt.Sprintf("From %s Sun Nov 22 19:00:00 2026\nReturn-Path: <%s>\n%s\n", m.from, m.from, bytes.ReplaceAll(m.raw, []byte("\r\n"), []byte("\n")))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// nailReply answers a message with s-nail: its command reply answers all, Reply
// the sender. Lines that begin with a tilde are commands too: ~b adds a blind
// copy, ~c a copy, ~t a recipient.
func (p person) nailReply(t testing.TB, command string, m arrived, settings []string, lines ...string) {
	t.Helper()
	commands := append([]string{command + " 1"}, lines...)
	args := []string{"-f"}
	for _, line := range append(commands, "~.", "xit") {
		args = append(args, "-Y", line)
	}
	p.nail(t, settings, append(args, mbox(t, m))...)
}

// nailWrite writes a new message with s-nail.
func (p person) nailWrite(t testing.TB, subject, to string, lines ...string) {
	t.Helper()
	args := []string{"-s", subject}
	for _, line := range append(lines, "~.") {
		args = append(args, "-Y", line)
	}
	p.nail(t, nil, append(args, to)...)
}

func (p person) nail(t testing.TB, settings []string, args ...string) {
	t.Helper()
	testbed.Need(t, "s-nail")
	_, domain, _ := strings.Cut(p.address, "@")
	base := []string{
		"-:/", "-#", "-r", p.address, "-S", "v15-compat", "-S", "mta=smtp://" + p.server, "-S", "smtp-auth=none",
		"-S", fmt.Sprintf("from=%s <%s>", p.name, p.address), "-S", "hostname=" + domain, "-S", "smtp-hostname=" + domain,
		"-S", "fullnames", "-S", "nosave", "-S", "sendwait", "-S", "errexit",
	}
	for _, s := range settings {
		base = append(base, "-S", s)
	}
	out, code := tool(t, []string{"HOME=" + t.TempDir(), "TERM=dumb"}, "s-nail", append(base, args...)...)
	if code != 0 {
		t.Fatalf("s-nail: exit code %d\n%s", code, out)
	}
}

// muttReply answers a message with mutt, in a terminal of its own. The function
// reply answers the sender, group-reply all.
func (p person) muttReply(t testing.TB, function string, m arrived, settings []string, text string) {
	t.Helper()
	testbed.Need(t, "mutt", "script")
	home := t.TempDir()
	editor := filepath.Join(home, "editor")
	rc := filepath.Join(home, "muttrc")
	_, domain, _ := strings.Cut(p.address, "@")
	config := fmt.Sprintf(`set folder=%q record="" copy=no header_cache="" ssl_starttls=no ssl_force_tls=no
set realname=%q from=%q use_from=yes envelope_from_address=%q use_envelope_from=yes hostname=%q
set smtp_url="smtp://%s" editor=%q fast_reply=yes include=yes abort_unmodified=no sleep_time=0
%s
push "<%s>y<exit>"
`, home, p.name, p.address, p.address, domain, p.server, editor, strings.Join(settings, "\n"), function)
	write := fmt.Sprintf("#!/bin/sh\n{ echo '%s'; cat \"$1\"; } >\"$1.new\" && mv \"$1.new\" \"$1\"\n", text)
	if err := os.WriteFile(rc, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(editor, []byte(write), 0o700); err != nil {
		t.Fatal(err)
	}
	out, code := tool(t, []string{"HOME=" + home, "TERM=xterm"}, "script", "-qec", fmt.Sprintf("mutt -n -F %s -R -f %s", rc, mbox(t, m)), "/dev/null")
	if code != 0 {
		t.Fatalf("mutt: exit code %d\n%q", code, out)
	}
}
