package relay

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"

	"github.com/casegate/casegate/gateway/testbed"
	"github.com/casegate/casegate/store"
)

// readReport is a report as Python's email package reads it. Status is the
// block of the message and then one for each recipient, without dates.
type readReport struct {
	Parts    []string
	Status   []map[string]string
	Returned string // the last part's text
}

// aboutMessage is the first block of every report here.
var aboutMessage = map[string]string{"Reporting-MTA": "dns; gw.city.example", "Original-Envelope-Id": "QQ 314"}

var (
	headerReturned = []string{"multipart/report", "text/plain", "message/delivery-status", "text/rfc822-headers"}
	allReturned    = []string{"multipart/report", "text/plain", "message/delivery-status", "message/rfc822", "text/plain"}
)

// spokenReports are what becomes of mail to ana, ben and eva, of whom eva gets a
// blind copy, and what the submitter is told. No report names eva.
var spokenReports = []struct {
	name string
	edit func(*store.Delivery)
	rcpt func(to string, age time.Duration) error
	want readReport
	says []string // to people
}{
	{
		name: "5xx for one of three",
		rcpt: func(to string, _ time.Duration) error { return refuse(to == "ana@x.example", 550, 5, "no such user") },
		want: readReport{headerReturned, []map[string]string{aboutMessage, {
			"Original-Recipient": "rfc822; Ana+Old@x.example", "Final-Recipient": "rfc822; ana@x.example", "Action": "failed", "Status": "5.1.1",
			"Remote-MTA": "dns; [127.0.0.1]", "Diagnostic-Code": "smtp; 550 5.1.1 no such user",
		}}, spokenHeader},
		says: []string{"Subject: Your message could not be delivered", "could not be delivered to the following, and is not tried again:", "ana@x.example", "550 5.1.1 no such user"},
	},
	{
		name: "5xx for a blind copy",
		rcpt: func(to string, _ time.Duration) error { return refuse(to == "eva@x.example", 550, 5, "no such user") },
		want: readReport{headerReturned, []map[string]string{aboutMessage, {
			"Final-Recipient": "rfc822; blind-copy@undisclosed.invalid", "Action": "failed", "Status": "5.1.1",
			"Remote-MTA": "dns; [127.0.0.1]", "Diagnostic-Code": "smtp; 550 5.1.1",
		}}, spokenHeader},
		says: []string{"a recipient of a blind copy"},
	},
	{
		name: "5xx for all, the whole message asked for",
		edit: func(d *store.Delivery) { d.RET = "FULL" },
		rcpt: func(string, time.Duration) error { return refuse(true, 552, 5, "no room") },
		want: readReport{allReturned, []map[string]string{aboutMessage, {
			"Original-Recipient": "rfc822; Ana+Old@x.example", "Final-Recipient": "rfc822; ana@x.example", "Action": "failed", "Status": "5.1.1",
			"Remote-MTA": "dns; [127.0.0.1]", "Diagnostic-Code": "smtp; 552 5.1.1 no room",
		}, {
			"Final-Recipient": "rfc822; ben@x.example", "Action": "failed", "Status": "5.1.1",
			"Remote-MTA": "dns; [127.0.0.1]", "Diagnostic-Code": "smtp; 552 5.1.1 no room",
		}, {
			"Final-Recipient": "rfc822; blind-copy@undisclosed.invalid", "Action": "failed", "Status": "5.1.1",
			"Remote-MTA": "dns; [127.0.0.1]", "Diagnostic-Code": "smtp; 552 5.1.1",
		}}, "The lamp is mended.\n"},
		says: []string{"The lamp is mended."},
	},
	{
		name: "4xx for a day",
		rcpt: func(to string, age time.Duration) error {
			return refuse(to != "eva@x.example" && age < 24*time.Hour, 450, 4, "busy")
		},
		want: readReport{headerReturned, []map[string]string{aboutMessage, {
			"Original-Recipient": "rfc822; Ana+Old@x.example", "Final-Recipient": "rfc822; ana@x.example", "Action": "delayed", "Status": "4.1.1",
			"Remote-MTA": "dns; [127.0.0.1]", "Diagnostic-Code": "smtp; 450 4.1.1 busy", "Will-Retry-Until": "a date",
		}, {
			"Final-Recipient": "rfc822; ben@x.example", "Action": "delayed", "Status": "4.1.1",
			"Remote-MTA": "dns; [127.0.0.1]", "Diagnostic-Code": "smtp; 450 4.1.1 busy", "Will-Retry-Until": "a date",
		}}, spokenHeader},
		says: []string{"Subject: Your message is delayed", "has not yet been delivered to the following; you need do nothing:", "It is tried again until"},
	},
	{
		name: "4xx for ever, and delays not to be told",
		edit: func(d *store.Delivery) {
			for i := range d.Recipients {
				d.Recipients[i].Notify = []string{"FAILURE"}
			}
		},
		rcpt: func(to string, _ time.Duration) error { return refuse(to == "ben@x.example", 450, 4, "busy") },
		want: readReport{headerReturned, []map[string]string{aboutMessage, {
			"Final-Recipient": "rfc822; ben@x.example", "Action": "failed", "Status": "4.4.7",
			"Diagnostic-Code": "X-Casegate; 5.4.7 given up after 5 days; last: 450 4.1.1 busy",
		}}, spokenHeader},
		says: []string{"given up after 5 days"},
	},
	{
		name: "success, which the next hop tells nobody of",
		edit: func(d *store.Delivery) { d.Recipients[1].Notify = []string{"SUCCESS"} },
		want: readReport{headerReturned, []map[string]string{aboutMessage, {
			"Final-Recipient": "rfc822; ben@x.example", "Action": "relayed", "Status": "2.0.0",
			"Remote-MTA": "dns; [127.0.0.1]", "Diagnostic-Code": "smtp; 250 2.0.0 OK: queued",
		}}, spokenHeader},
		says: []string{"Subject: Your message was handed on", "was handed on, to a server that sends no confirmations, for:"},
	},
}

const spokenHeader = "From: kim@city.example\nTo: ana@x.example, ben@x.example\nSubject: light\nMessage-ID: <m1@city.example>\n"

func refuse(so bool, code, class int, words string) error {
	if !so {
		return nil
	}
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{class, 1, 1}, Message: words}
}

// TestReportsInRealClients: what the submitter is told, as mail clients of
// Debian and Python's email package read it.
func TestReportsInRealClients(t *testing.T) {
	folder := t.TempDir()
	var inbox strings.Builder
	for _, c := range spokenReports {
		inVirtualTime(t, func(b *bed) {
			fmt.Fprintf(&inbox, "From mailer-daemon Mon Mar  2 09:00:00 2026\n%s\n", strings.ReplaceAll(string(b.told(c.edit, c.rcpt)), "\r\n", "\n"))
		})
	}
	file := filepath.Join(folder, "mbox")
	if err := os.WriteFile(file, []byte(inbox.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(inbox.String(), "eva@") || strings.Contains(inbox.String(), "Eva@") {
		t.Errorf("a report names who got a blind copy:\n%s", inbox.String())
	}
	client := func(name string, args ...string) string {
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "HOME="+folder, "LC_ALL=C.UTF-8", "TERM=xterm")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	t.Run("s-nail", func(t *testing.T) {
		testbed.Need(t, "s-nail")
		for i, c := range spokenReports {
			shown := client("s-nail", "-:/", "-R", "-S", "quiet", "-Y", fmt.Sprintf("type %d", i+1), "-Y", "exit", "-f", file)
			holds(t, c.name, shown, append(c.says, "message/delivery-status")...)
		}
	})
	t.Run("mutt", func(t *testing.T) {
		testbed.Need(t, "mutt", "script")
		rc, out := filepath.Join(folder, "muttrc"), filepath.Join(folder, "shown")
		for i, c := range spokenReports {
			config := fmt.Sprintf("set sort=mailbox-order pipe_decode=yes wait_key=no header_cache=\"\" folder=%q\npush \"%d<enter><pipe-message>cat >%s<enter><exit>\"\n", folder, i+1, out)
			if err := os.WriteFile(rc, []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			client("script", "-qec", fmt.Sprintf("mutt -n -F %s -R -f %s", rc, file), "/dev/null")
			shown, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			holds(t, c.name, string(shown), append(c.says, "Action: "+c.want.Status[1]["Action"], "Reporting-MTA: dns; gw.city.example")...)
		}
	})
	t.Run("python3", func(t *testing.T) {
		if _, err := exec.LookPath("python3"); err != nil {
			t.Skip("python3 is not installed")
		}
		var got []readReport
		if err := json.Unmarshal([]byte(client("python3", "-c", readByPython, file)), &got); err != nil {
			t.Fatal(err)
		}
		for i, c := range spokenReports {
			if i >= len(got) {
				t.Fatalf("%d reports", len(got))
			}
			if diff := cmp.Diff(c.want, got[i]); diff != "" {
				t.Errorf("%s: want - got +\n%s", c.name, diff)
			}
		}
	})
}

// readByPython prints the reports of a mailbox as JSON. Every report must have
// the dates of arrival and of the last attempt.
const readByPython = `
import email, email.policy, email.utils, json, mailbox, sys
def read(f): return email.message_from_binary_file(f, policy=email.policy.default)
reports = []
for m in mailbox.mbox(sys.argv[1], factory=read):
    assert not m.defects, m.defects
    assert m["Content-Type"].params["report-type"] == "delivery-status"
    assert m["Auto-Submitted"] == "auto-replied" and m["In-Reply-To"] == "<m1@city.example>" and m["To"] == "kim@city.example"
    blocks = m.get_payload(1).get_payload() # which walk takes for parts
    parts = [p for p in m.walk() if p not in blocks]
    status = [dict(b.items()) for b in blocks]
    email.utils.parsedate_to_datetime(status[0].pop("Arrival-Date"))
    for block in status[1:]:
        email.utils.parsedate_to_datetime(block.pop("Last-Attempt-Date"))
        if "Will-Retry-Until" in block:
            email.utils.parsedate_to_datetime(block["Will-Retry-Until"])
            block["Will-Retry-Until"] = "a date"
    last = parts[-1].get_payload()
    if parts[-1].get_content_type() == "text/rfc822-headers": last = last.rstrip("\n") + "\n"
    reports.append({"Parts": [p.get_content_type() for p in parts], "Status": status, "Returned": last})
json.dump(reports, sys.stdout)
`

// told sends mail to ana, ben and, in a blind copy, eva, lets six days pass and
// returns the one report that the submitter got.
func (b *bed) told(edit func(*store.Delivery), rcpt func(to string, age time.Duration) error) []byte {
	b.Helper()
	begin := time.Now()
	b.sink.srv.EnableDSN = false
	b.sink.rcpt = func(to string) error {
		if to == desk || rcpt == nil {
			return nil
		}
		return rcpt(to, time.Since(begin))
	}
	b.send(strings.ReplaceAll(spokenHeader+"\nThe lamp is mended.\n", "\n", "\r\n"), func(m *store.Message, d *store.Delivery) {
		m.Parties[2].Role = store.RoleBCC
		d.EnvID = "QQ 314"
		d.Recipients[0].ORcpt, d.Recipients[2].ORcpt = "rfc822;Ana+Old@x.example", "rfc822;Eva@x.example"
		if edit != nil {
			edit(d)
		}
	}, "ana@x.example", "ben@x.example", "eva@x.example")
	b.run(6 * 24 * time.Hour)
	mails := b.sink.got(desk)
	if len(mails) != 1 {
		b.Fatalf("%d reports", len(mails))
	}
	for _, to := range []string{"ana@x.example", "ben@x.example", "eva@x.example"} {
		if n := len(b.sink.got(to)); n > 1 {
			b.Errorf("%s got it %d times", to, n)
		}
	}
	return mails[0]
}

func holds(t *testing.T, name, text string, pieces ...string) {
	t.Helper()
	for _, piece := range pieces {
		if !strings.Contains(text, piece) {
			t.Errorf("%s: it lacks %q:\n%s", name, piece, text)
		}
	}
}
