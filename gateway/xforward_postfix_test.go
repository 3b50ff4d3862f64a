package gateway

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

const filterMainCF = `compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
daemon_directory = /usr/lib/postfix/sbin
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
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = check_client_access static:OK, reject
smtpd_authorized_xclient_hosts = 127.0.0.0/8
smtpd_peername_lookup = no
disable_dns_lookups = yes
content_filter = smtp:[127.0.0.1]:%[2]s
smtp_send_xforward_command = yes
smtp_tls_security_level = encrypt
`

const filterMasterCF = `%s inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
tlsmgr unix - - n 1000? 1 tlsmgr
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`

// startPostfix runs one that hands all its mail to a port, and returns where it
// listens.
func startPostfix(t *testing.T, port string) string {
	t.Helper()
	if _, err := exec.LookPath("postfix"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs Postfix, and to be root")
	}
	dir := t.TempDir()
	os.Chmod(filepath.Dir(dir), 0o755)
	for _, name := range []string{"etc", "queue", "data"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	who, err := user.Lookup("postfix")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(who.Uid)
	os.Chown(filepath.Join(dir, "data"), uid, -1)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	etc := filepath.Join(dir, "etc")
	os.WriteFile(filepath.Join(etc, "main.cf"), fmt.Appendf(nil, filterMainCF, dir, port), 0o644)
	os.WriteFile(filepath.Join(etc, "master.cf"), fmt.Appendf(nil, filterMasterCF, address), 0o644)
	if out, err := exec.Command("postfix", "-c", etc, "check").CombinedOutput(); err != nil {
		t.Fatalf("postfix check: %v\n%s", err, out)
	}
	master := exec.Command("/usr/lib/postfix/sbin/master", "-c", etc, "-d")
	master.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it ends its process group
	if err := master.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		master.Process.Signal(syscall.SIGTERM)
		master.Wait()
		if log, _ := os.ReadFile(filepath.Join(dir, "maillog")); t.Failed() {
			t.Logf("Postfix's log:\n%s", log)
		}
	})
	return address
}

// TestXForwardFromPostfix: a Postfix in front of us, over TLS, tells us of the
// client that gave it the mail.
func TestXForwardFromPostfix(t *testing.T) {
	h, p := &testHandler{}, testTLS(t)
	l := listen(t, h, func(o *ListenerOptions) {
		o.XForward, o.TLSMode, o.TLS, o.RequireTLS = true, TLSStart, p.server, true
	})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	address := startPostfix(t, port)
	var conn net.Conn
	for range 500 {
		var err error
		if conn, err = net.Dial("tcp", address); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if conn == nil {
		t.Fatal("Postfix did not start")
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	c := &client{t, conn, bufio.NewReader(conn)}
	c.expect("220")
	c.do("XCLIENT NAME=spike.test ADDR=192.0.2.77 PORT=4711", "220")
	c.do("EHLO laptop.test", "250")
	c.do("MAIL FROM:<a@b.test>", "250")
	c.do("RCPT TO:<c@d.test>", "250")
	c.do("DATA", "354")
	c.do("Subject: hi\r\n\r\nhi\r\n.", "250")
	for range 500 {
		if len(h.got()) > 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if len(h.got()) == 0 {
		t.Fatal("nothing came")
	}
	env := h.got()[0].env
	got := env.Client
	if got.Ident == "" || got.Source == "" {
		t.Errorf("no queue id, or no source: %+v", got)
	}
	got.Ident, got.Source = "", "" // the source is by Postfix's own networks
	want := Client{Name: "spike.test", Addr: netip.MustParseAddr("192.0.2.77"), Port: 4711, Protocol: "ESMTP", Helo: "laptop.test"}
	if got != want || env.Protocol != "ESMTPS" || env.Helo != "mx.example.net" {
		t.Errorf("%+v\nby %s from %s", got, env.Protocol, env.Helo)
	}
}
