package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/casegate/casegate/gateway/testbed"
)

const (
	hopWaits  = "        hint: mail for it waits in the outbox until it answers; see whether smtp, smtps or lmtp is right"
	tlsWaits  = "        hint: mail for it waits in the outbox; see tls, tls_pin and tls_ca, and whether smtp or smtps is right"
	authWaits = "        hint: mail for it waits in the outbox; see auth"
	mustTake  = "        hint: the next hop must take mail from this machine for that address; see tls and auth if it asks for them"
	comesBack = "        hint: mail that needs it cannot be handed on there: nothing is re-encoded"
)

// TestCheckRealHops: what check says of a real Postfix and a real Dovecot, and of
// what may be wrong with them, in the words that people read. None of them gets
// a mail by it. What may pass by itself is a warning and no failure; somebody
// else's certificate, a login that is refused or a missing file is one.
func TestCheckRealHops(t *testing.T) {
	ca := testbed.NewAuthority(t)
	cert := ca.Issue(nil)
	box := testbed.StartDovecot(t, cert)
	world := startHop(t)
	mta := testbed.StartSubmission(t, cert, box, world.url)
	g := newGate(t, "none", world.url)
	g.write("ca.pem", []byte(ca.Own.CertPEM()))
	g.write("other-ca.pem", []byte(testbed.NewAuthority(t).Own.CertPEM()))
	g.write("password", []byte("secret of ana\n"))
	g.write("wrong", []byte("secret of ben\n"))
	closed := testbed.Free(t, 1)[0]
	const secure, signed = ", tls: verify, tls_ca: ca.pem", ", auth: {user: ana@x.example, password_file: password}"

	for _, c := range []struct {
		name, hop, how string
		to             string
		code           int
		want           []string // how the lines about HOP begin
	}{
		{"Postfix", "smtp://" + mta.STARTTLS, secure + signed, "ana@x.example", exitOK, []string{
			"CG0401  ok       next hop HOP answers",
			"CG0403  ok       next hop HOP: TLS 1.3, certificate of 127.0.0.1 verified, key PIN",
			"CG0404  ok       next hop HOP lets us sign in",
			"CG0405  ok       next hop HOP takes mail for ana@x.example",
		}},
		{"Postfix, TLS at once", "smtps://" + mta.SMTPS, secure + signed, "ana@x.example", exitOK, []string{
			"CG0401  ok       next hop HOP answers",
			"CG0403  ok       next hop HOP: TLS 1.3, certificate of 127.0.0.1 verified, key PIN",
			"CG0404  ok       next hop HOP lets us sign in",
			"CG0405  ok       next hop HOP takes mail for ana@x.example",
		}},
		{"Postfix that lacks extensions", "smtp://" + mta.Bare, secure + signed, "ana@x.example", exitOK, []string{
			"CG0401  ok       next hop HOP answers",
			"CG0403  ok       next hop HOP: TLS 1.3, certificate of 127.0.0.1 verified, key PIN",
			"CG0404  ok       next hop HOP lets us sign in",
			"CG0405  ok       next hop HOP takes mail for ana@x.example",
			"CG0406  warning  next hop HOP does not offer 8BITMIME, SMTPUTF8", comesBack,
		}},
		{"another CA", "smtp://" + mta.STARTTLS, ", tls: verify, tls_ca: other-ca.pem" + signed, "ana@x.example", exitFailed, []string{
			"CG0401  ok       next hop HOP answers",
			"CG0403  error    next hop HOP: TLS: the next hop's certificate is not the one expected: x509: certificate signed by unknown authority", tlsWaits,
		}},
		{"no CA file", "smtp://" + mta.STARTTLS, ", tls: verify, tls_ca: none.pem" + signed, "ana@x.example", exitFailed, []string{
			"CG0402  error    relay: route 1 (inbound): next hop HOP: the CA file: open none.pem: no such file or directory", "        hint: see routes",
		}},
		{"TLS at once at the port for STARTTLS", "smtps://" + mta.STARTTLS, secure + signed, "ana@x.example", exitOK, []string{
			"CG0401  ok       next hop HOP answers",
			"CG0403  warning  next hop HOP: TLS: tls: first record does not look like a TLS handshake", tlsWaits,
		}},
		{"in the clear", "smtp://" + mta.STARTTLS, "", "ana@x.example", exitOK, []string{
			"CG0401  ok       next hop HOP answers",
			"CG0405  warning  next hop HOP does not take mail for ana@x.example: the answer to MAIL is 530 5.7.0 Must issue a STARTTLS command first", mustTake,
		}},
		{"a wrong password", "smtp://" + mta.STARTTLS, secure + ", auth: {user: ana@x.example, password_file: wrong}", "ana@x.example", exitFailed, []string{
			"CG0401  ok       next hop HOP answers",
			"CG0404  error    next hop HOP: signing in with PLAIN: 535 5.7.8 Error: authentication failed", authWaits,
		}},
		{"no password file", "smtp://" + mta.STARTTLS, secure + ", auth: {user: ana@x.example, password_file: none}", "ana@x.example", exitFailed, []string{
			"CG0402  error    relay: route 1 (inbound): next hop HOP: reading a secret: open none: no such file or directory", "        hint: see routes",
		}},
		{"nobody signs in", "smtp://" + mta.STARTTLS, secure, "ana@x.example", exitOK, []string{
			"CG0401  ok       next hop HOP answers",
			"CG0403  ok       next hop HOP: TLS 1.3, certificate of 127.0.0.1 verified, key PIN",
			"CG0405  warning  next hop HOP does not take mail for ana@x.example: the answer to RCPT is 554 5.7.1 <ana@x.example>: Recipient address rejected: Access denied", mustTake,
		}},
		{"a refused recipient", "smtp://" + mta.STARTTLS, secure + signed, "gone@x.example", exitOK, []string{
			"CG0401  ok       next hop HOP answers",
			"CG0403  ok       next hop HOP: TLS 1.3, certificate of 127.0.0.1 verified, key PIN",
			"CG0404  ok       next hop HOP lets us sign in",
			"CG0405  warning  next hop HOP does not take mail for gone@x.example: the answer to RCPT is 550 5.1.1 <gone@x.example>: Recipient address rejected: gone", mustTake,
		}},
		{"unreachable", "smtp://" + closed, "", "ana@x.example", exitOK, []string{
			"CG0401  warning  next hop HOP: connecting: dial tcp ", hopWaits,
		}},
		{"Postfix taken for LMTP", "lmtp://" + mta.STARTTLS, "", "ana@x.example", exitOK, []string{
			"CG0401  warning  next hop HOP: the answer to LHLO is 500 5.5.2 ", hopWaits,
		}},
		{"Dovecot", "lmtp://" + box.LMTP, secure, "ana@x.example", exitOK, []string{
			"CG0401  ok       next hop HOP answers",
			"CG0403  ok       next hop HOP: TLS 1.3, certificate of 127.0.0.1 verified, key PIN",
			"CG0405  ok       next hop HOP takes mail for ana@x.example",
			"CG0406  warning  next hop HOP does not offer SMTPUTF8", comesBack,
		}},
		{"Dovecot, a refused recipient", "lmtp://" + box.LMTPSocket, "", "gone@x.example", exitOK, []string{
			"CG0401  ok       next hop HOP answers",
			"CG0405  warning  next hop HOP does not take mail for gone@x.example: the answer to RCPT is 550 5.1.1 <gone@x.example> User doesn't exist: gone@x.example", mustTake,
			"CG0406  warning  next hop HOP does not offer SMTPUTF8", comesBack,
		}},
		{"Dovecot, another CA", "lmtp://" + box.LMTP, ", tls: verify, tls_ca: other-ca.pem", "ana@x.example", exitFailed, []string{
			"CG0401  ok       next hop HOP answers",
			"CG0403  error    next hop HOP: TLS: the next hop's certificate is not the one expected: x509: certificate signed by unknown authority", tlsWaits,
		}},
		{"Dovecot taken for SMTP", "smtp://" + box.LMTP, "", "ana@x.example", exitOK, []string{
			"CG0401  warning  next hop HOP: the answer to HELO is 500 5.5.1 Unknown command", hopWaits,
		}},
		{"no such socket", "lmtp://" + box.Path("none"), "", "ana@x.example", exitOK, []string{
			"CG0401  warning  next hop HOP: connecting: dial unix ", hopWaits,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g.write("casegate.yaml", fmt.Appendf(nil, "hostname: gw.x.example\ndata_dir: ./data\nlisteners: []\nmailboxes: [{address: %s}]\nroutes:\n  - {role: inbound, next_hop: %q%s}\n  - {role: outbound, next_hop: %q}\n",
				c.to, c.hop, c.how, world.url))
			out, said, code := g.try("check")
			if code != c.code || said != "" {
				t.Errorf("exit code %d, want %d: %s", code, c.code, said)
			}
			got := about(string(out), c.hop)
			if !slices.EqualFunc(got, c.want, func(got, want string) bool {
				return strings.HasPrefix(got, strings.NewReplacer("HOP", c.hop, "PIN", cert.Pin).Replace(want))
			}) {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
	if n := len(box.Mailbox("ana")); n > 0 || strings.Contains(mta.Log(), "status=") {
		t.Errorf("check has sent mail: %d to Dovecot, and Postfix says\n%s", n, mta.Log())
	}
}

// about picks the findings on a next hop, with their hints.
func about(out, hop string) (lines []string) {
	keep := false
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "CG") {
			keep = strings.Contains(line, "next hop "+hop)
		}
		if keep {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	return lines
}
