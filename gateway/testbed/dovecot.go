package testbed

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Dovecot is one of the test's own. It keeps the mail of ana@x.example, of ben,
// and of full, who has no room; the password of ana is "secret of ana".
type Dovecot struct {
	server
	LMTP       string // host:port; TLS by STARTTLS
	LMTPSocket string // the same on a UNIX socket
	SASLSocket string // for Postfix
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

// StartDovecot runs a Dovecot with a certificate until the test ends. The test
// is skipped where it cannot run.
func StartDovecot(t testing.TB, c *Certificate) *Dovecot {
	t.Helper()
	d := &Dovecot{server: newServer(t, "dovecot", "dovecot.log"), LMTP: Free(t, 1)[0]}
	d.LMTPSocket, d.SASLSocket = d.Path("lmtp"), d.Path("sasl")
	d.folder("home", "nobody")
	uid, gid := d.ids("nobody")
	users := ""
	for _, name := range []string{"ana", "ben", "full"} {
		d.folder("home/"+name, "nobody")
		users += fmt.Sprintf("%s@x.example:secret of %[1]s:%d:%d::%s/home/%[1]s::", name, uid, gid, d.dir)
		if name == "full" {
			users += "userdb_quota_rule=*:bytes=100"
		}
		users += "\n"
	}
	Write(d.t, d.Path("chain.pem"), c.PEM())
	Write(d.t, d.Path("users"), users)
	Write(d.t, d.Path("dovecot.conf"), fmt.Sprintf(dovecotConf, d.dir, Port(d.LMTP)))
	d.run("unix", d.LMTPSocket, "dovecot", "-F", "-c", d.Path("dovecot.conf"))
	return d
}

// Mailbox is what somebody has got, in no order.
func (d *Dovecot) Mailbox(name string) (mails []string) {
	d.t.Helper()
	files, _ := filepath.Glob(d.Path("home/" + name + "/mail/new/*"))
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			d.t.Fatal(err)
		}
		mails = append(mails, string(text))
	}
	return mails
}
