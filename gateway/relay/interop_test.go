package relay

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/casegate/casegate/store"
)

// stage is a folder where servers of other users run.
type stage struct {
	*testing.T
	dir string
}

// newStage skips the test where the programs are not installed.
func newStage(t *testing.T, packages string, programs ...string) stage {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is missing: apt-get install %s", p, packages)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("a Postfix or Dovecot of the test's own needs root")
	}
	s := stage{t, t.TempDir()}
	for _, dir := range []string{filepath.Dir(s.dir), s.dir} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s stage) path(name string) string { return filepath.Join(s.dir, name) }

// folder makes one that belongs to a user.
func (s stage) folder(name, owner string) {
	s.Helper()
	u, err := user.Lookup(owner)
	if err != nil {
		s.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.MkdirAll(s.path(name), 0o755); err != nil {
		s.Fatal(err)
	}
	if err := os.Chown(s.path(name), uid, gid); err != nil {
		s.Fatal(err)
	}
}

func (s stage) write(name, text string) {
	s.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), 0o644); err != nil {
		s.Fatal(err)
	}
}

func (s stage) log(name string) string {
	text, _ := os.ReadFile(s.path(name))
	return string(text)
}

// port is one that was free a moment ago.
func (s stage) port() string {
	s.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// run starts a server that ends with the test, and waits until it listens.
func (s stage) run(log, network, address string, command ...string) {
	s.Helper()
	c := exec.Command(command[0], command[1:]...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // some end their process group
	if err := c.Start(); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		c.Process.Signal(syscall.SIGTERM)
		c.Wait()
		if s.Failed() {
			s.Logf("%s:\n%s", log, s.log(log))
		}
	})
	for range 500 {
		if conn, err := net.Dial(network, address); err == nil {
			conn.Close()
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.Fatalf("%s does not listen:\n%s", command[0], s.log(log))
}

// pemOf is a certificate and its key in one file, as servers take it.
func pemOf(t *testing.T, c tls.Certificate) string {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})) +
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}))
}

// attempt sends one mail by a route and returns the row after the first attempt.
func (s stage) attempt(rt Route, eml string, to ...string) store.Delivery {
	s.Helper()
	m := newMemory()
	id := m.add(eml, time.Now(), to...)
	rt.Role = "outbound"
	_, stop := run(s.T, m, Options{Routes: []Route{rt}})
	defer stop()
	until(s.T, "it is tried", func() bool { return len(m.get(id).Attempts) > 0 })
	return m.get(id)
}

const dovecotConf = `base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/dovecot.log
protocols = lmtp
ssl = yes
ssl_cert = <%[1]s/chain.pem
ssl_key = <%[1]s/chain.pem
auth_failure_delay = 0
auth_mechanisms = plain login
disable_plaintext_auth = no
mail_location = maildir:~/mail
mail_plugins = quota
plugin {
  quota = maildir:mailbox
}
passdb {
  driver = passwd-file
  args = scheme=plain username_format=%%u %[1]s/users
}
userdb {
  driver = passwd-file
  args = username_format=%%u %[1]s/users
}
service auth {
  unix_listener %[1]s/sasl {
    mode = 0666
  }
}
service lmtp {
  inet_listener lmtp {
    address = 127.0.0.1
    port = %[2]s
  }
  unix_listener %[1]s/lmtp {
    mode = 0666
  }
}
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
protocol lmtp {
  postmaster_address = postmaster@x.example
  info_log_path = %[1]s/dovecot.log
}
`

// startDovecot runs a Dovecot that keeps the mail of ana, of ben, and of full,
// who has no room, and answers to SASL. It returns its LMTP port.
func (s stage) startDovecot(chain string) (port string) {
	s.Helper()
	for _, name := range []string{"home", "home/ana", "home/ben", "home/full"} {
		s.folder(name, "nobody")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		s.Fatal(err)
	}
	users := ""
	for _, name := range []string{"ana", "ben", "full"} {
		users += fmt.Sprintf("%s@x.example:secret of %s:%s:%s::%s/home/%[1]s::", name, name, nobody.Uid, nobody.Gid, s.dir)
		if name == "full" {
			users += "userdb_quota_rule=*:bytes=100"
		}
		users += "\n"
	}
	port = s.port()
	s.write("chain.pem", chain)
	s.write("users", users)
	s.write("dovecot.conf", fmt.Sprintf(dovecotConf, s.dir, port))
	s.run("dovecot.log", "unix", s.path("lmtp"), "dovecot", "-F", "-c", s.path("dovecot.conf"))
	return port
}

// mailbox is what somebody has got, oldest first.
func (s stage) mailbox(name string) (mails []string) {
	s.Helper()
	files, _ := filepath.Glob(s.path("home/" + name + "/mail/new/*"))
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			s.Fatal(err)
		}
		mails = append(mails, string(text))
	}
	return mails
}

const postfixMain = `compatibility_level = 3.6
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
local_header_rewrite_clients =
alias_maps =
mynetworks =
smtpd_peername_lookup = no
disable_dns_lookups = yes
relayhost = [127.0.0.1]:%[2]s
smtpd_tls_chain_files = %[1]s/chain.pem
smtpd_tls_security_level = encrypt
smtpd_tls_auth_only = yes
smtpd_tls_loglevel = 1
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = %[1]s/sasl
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions = check_recipient_access inline:{ {gone@x.example = 550 5.1.1 gone}, {busy@x.example = 450 4.2.1 busy} }, permit
message_size_limit = 30000000
smtp_tls_security_level = none
smtp_send_xforward_command = no
smtpd_authorized_xforward_hosts = 127.0.0.0/8
`

const postfixMaster = `%[1]s inet n - n - - smtpd
%[2]s inet n - n - - smtpd
  -o smtpd_tls_wrappermode=yes
%[3]s inet n - n - - smtpd
  -o smtpd_discard_ehlo_keywords=8bitmime,smtputf8,dsn,pipelining
cleanup unix n - n - 0 cleanup
qmgr unix n - n 1 1 qmgr
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

// startPostfix runs a Postfix that takes mail only over TLS from who signs in
// by Dovecot, and hands it to a sink. It returns its ports: for STARTTLS, for
// TLS from the first octet, and one that lacks extensions.
func (s stage) startPostfix(world *sink) (submission, smtps, plain string) {
	s.Helper()
	for _, name := range []string{"etc", "queue"} {
		s.folder(name, "root")
	}
	s.folder("data", "postfix")
	_, port, _ := strings.Cut(strings.TrimPrefix(world.nextHop, "smtp://"), ":")
	submission, smtps, plain = s.port(), s.port(), s.port()
	s.write("etc/main.cf", fmt.Sprintf(postfixMain, s.dir, port))
	s.write("etc/master.cf", fmt.Sprintf(postfixMaster, submission, smtps, plain))
	if out, err := exec.Command("postfix", "-c", s.path("etc"), "check").CombinedOutput(); err != nil {
		s.Fatalf("postfix check: %v\n%s", err, out)
	}
	s.run("maillog", "tcp", "127.0.0.1:"+submission, "/usr/lib/postfix/sbin/master", "-c", s.path("etc"), "-d")
	return submission, smtps, plain
}
