package testbed

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"testing"
)

// Postfix is one of the test's own, on loopback, that looks up nothing in the
// DNS. Its configuration is in the folder etc, its queue in queue.
type Postfix struct{ server }

// mainCF is what any Postfix of a test needs.
const mainCF = `compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
daemon_directory = /usr/lib/postfix/sbin
command_directory = /usr/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = %[1]s/maillog
maillog_file_prefixes = %[1]s
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.example.net
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
mynetworks = 127.0.0.0/8
smtpd_peername_lookup = no
smtp_dns_support_level = disabled
`

// masterCF are the parts of Postfix itself: all but who listens.
const masterCF = `cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
lmtp unix - - n - - lmtp
error unix - - n - - error
retry unix - - n - - error
tlsmgr unix - - n 1000? 1 tlsmgr
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`

// NewPostfix makes the folder of a Postfix; Start runs it. The test is skipped
// where it cannot run.
func NewPostfix(t testing.TB) *Postfix {
	t.Helper()
	return &Postfix{newServer(t, "postfix", "maillog")}
}

// Admit lets Postfix write to the sockets made in a folder: they get its group.
func (p *Postfix) Admit(folder string) {
	p.t.Helper()
	_, group := p.ids("postfix")
	if err := os.Chown(folder, 0, group); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Chmod(folder, 0o755|os.ModeSetgid); err != nil {
		p.t.Fatal(err)
	}
}

// Start runs Postfix until the test ends. Its files are main.cf and master.cf,
// to which is added what any needs, and maps; at is an address, host:port, where
// it will listen.
func (p *Postfix) Start(at string, files map[string]string) {
	p.t.Helper()
	p.folder("etc", "root")
	p.folder("queue", "root")
	p.folder("data", "postfix")
	for name, text := range files {
		switch name {
		case "main.cf":
			text = fmt.Sprintf(mainCF, p.dir) + text
		case "master.cf":
			text += masterCF
		}
		Write(p.t, p.Path("etc/"+name), text)
	}
	if out, err := exec.Command("postfix", "-c", p.Path("etc"), "check").CombinedOutput(); err != nil {
		p.t.Fatalf("postfix check: %v\n%s", err, out)
	}
	p.run("tcp", at, "/usr/lib/postfix/sbin/master", "-c", p.Path("etc"), "-d")
}

// Said waits until Postfix has logged a line that matches and returns the
// submatches of the first.
func (p *Postfix) Said(pattern string, args ...any) []string {
	p.t.Helper()
	re := regexp.MustCompile("(?m)" + fmt.Sprintf(pattern, args...))
	var m []string
	Until(p.t, fmt.Sprintf("Postfix says %s", re), func() bool {
		m = re.FindStringSubmatch(p.Log())
		return m != nil
	})
	return m
}
