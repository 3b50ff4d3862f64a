package testbed

import (
	"fmt"
	"testing"
)

// Submission is a Postfix that takes mail only over TLS, from who signs in by
// Dovecot, and hands it on. It refuses gone@x.example, and busy for a while.
type Submission struct {
	*Postfix
	STARTTLS, SMTPS string // host:port
	Bare            string // STARTTLS; it lacks 8BITMIME, SMTPUTF8, DSN and PIPELINING
}

const submissionMainCF = `local_header_rewrite_clients =
relayhost = [127.0.0.1]:%[1]s
smtpd_tls_chain_files = %[2]s
smtpd_tls_security_level = encrypt
smtpd_tls_auth_only = yes
smtpd_tls_loglevel = 1
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = %[3]s
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions = check_recipient_access inline:{ {gone@x.example = 550 5.1.1 gone}, {busy@x.example = 450 4.2.1 busy} }, permit
message_size_limit = 30000000
smtp_tls_security_level = none
smtp_send_xforward_command = no
smtpd_authorized_xforward_hosts = 127.0.0.0/8
`

const submissionMasterCF = `%s inet n - n - - smtpd
%s inet n - n - - smtpd
  -o smtpd_tls_wrappermode=yes
%s inet n - n - - smtpd
  -o smtpd_discard_ehlo_keywords=8bitmime,smtputf8,dsn,pipelining
`

// StartSubmission runs one with a certificate until the test ends. The mail goes
// on to a host:port or URL on loopback.
func StartSubmission(t testing.TB, c *Certificate, who *Dovecot, onto string) *Submission {
	t.Helper()
	p, at := NewPostfix(t), Free(t, 3)
	chain := p.Path("chain.pem")
	Write(t, chain, c.PEM())
	p.Start(at[0], map[string]string{
		"main.cf":   fmt.Sprintf(submissionMainCF, Port(onto), chain, who.SASLSocket),
		"master.cf": fmt.Sprintf(submissionMasterCF, at[0], at[1], at[2]),
	})
	return &Submission{p, at[0], at[1], at[2]}
}
