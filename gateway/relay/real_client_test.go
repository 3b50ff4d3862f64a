package relay

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestReportInRealClient: s-nail and Python's email package read a report as we
// mean it.
func TestReportInRealClient(t *testing.T) {
	var eml string
	inVirtualTime(t, func(b *bed) {
		b.send("From: kim@city.example\r\nSubject: light\r\n\r\nfixed\r\n", nil, "unknown@x.example")
		b.run(time.Minute)
		eml = string(b.sink.got(desk)[0])
	})
	folder := t.TempDir()
	file := filepath.Join(folder, "mbox")
	if err := os.WriteFile(file, []byte("From mailer-daemon Mon Mar  2 09:00:00 2026\n"+strings.ReplaceAll(eml, "\r\n", "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"s-nail", []string{"-:/", "-R", "-S", "quiet", "-Y", "type 1", "-Y", "exit", "-f", file}, []string{"unknown@x.example", "550 5.1.1 no such user", "message/delivery-status", "Subject: light"}},
		{"python3", []string{"-c", `
import email, email.policy, sys
m = email.message_from_file(open(sys.argv[1]), policy=email.policy.default)
print([p.get_content_type() for p in m.walk()])
status = [p for p in m.walk() if p.get_content_type() == "message/delivery-status"][0]
for block in status.get_payload(): print(dict(block.items()))
`, file}, []string{
			"['multipart/report', 'text/plain', 'message/delivery-status', 'text/plain', 'text/plain', 'text/rfc822-headers']",
			"'Final-Recipient': 'rfc822; unknown@x.example'", "'Action': 'failed'", "'Status': '5.1.1'",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := exec.LookPath(c.name); err != nil {
				t.Skip(err)
			}
			cmd := exec.Command(c.name, c.args...)
			cmd.Env = append(os.Environ(), "HOME="+folder, "LC_ALL=C.UTF-8", "TERM=dumb")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, w := range c.want {
				if !strings.Contains(string(out), w) {
					t.Errorf("it lacks %q:\n%s", w, out)
				}
			}
		})
	}
}
