package main

import (
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway/testbed"
)

// readme returns the snippets of a section of the README by the file that each
// names in its first line: main.cf, master.cf, casegate.yaml, and others.
func readme(t *testing.T, heading string) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n### "+heading+"\n")
	if !ok {
		t.Fatalf("the README has no section %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n### ")
	files := map[string]string{}
	for _, block := range regexp.MustCompile("(?ms)^```(?:yaml)?\n# ([^\n]+)\n(.*?)^```$").FindAllStringSubmatch(section, -1) {
		files[filepath.Base(block[1])] += block[2]
	}
	return files
}

// byReadme is a Postfix and a casegate that are set up as a section of the README
// says: only ports, paths and names are others.
type byReadme struct {
	*testing.T
	files   map[string]string
	postfix *testbed.Postfix
	gate    *gate
	port    map[string]string // by that of the README
}

func newByReadme(t *testing.T, heading, inbound, outbound string) *byReadme {
	t.Helper()
	r := &byReadme{T: t, files: readme(t, heading), postfix: testbed.NewPostfix(t), port: map[string]string{}}
	r.gate = newGate(t, inbound, outbound)
	ports := []string{"25", "587", "2524", "2525", "2587", "10025", "10026", "submission"}
	for i, address := range testbed.Free(t, len(ports)) {
		r.port[ports[i]] = testbed.Port(address)
	}
	return r
}

// at is where a port of the README is.
func (r *byReadme) at(port string) string { return "127.0.0.1:" + r.port[port] }

var (
	readmePort     = regexp.MustCompile(`:(25|587|2524|2525|2587|10025|10026)\b`)
	readmeServices = strings.NewReplacer("\nsmtp inet", "\n:25 inet", "\nsubmission inet", "\n:submission inet")
)

// here makes a snippet one for this machine.
func (r *byReadme) here(text string) string {
	text = readmeServices.Replace("\n" + text)[1:]
	text = strings.ReplaceAll(text, ":submission inet", r.at("submission")+" inet")
	text = readmePort.ReplaceAllStringFunc(text, func(port string) string { return ":" + r.port[port[1:]] })
	text = regexp.MustCompile(`(?m)^:`).ReplaceAllString(text, "127.0.0.1:")
	return strings.NewReplacer(
		"/etc/postfix", r.postfix.Path("etc"), "/etc/casegate", r.gate.dir,
		"/etc/ssl/certs/ca-certificates.crt", filepath.Join(r.gate.dir, "ca.pem"),
		"[gw.city.example]", "[127.0.0.1]", "10.1.0.5:", "127.0.0.1:", "10.1.0.0/16", "127.0.0.0/8",
	).Replace(text)
}

// startGate runs casegate with the configuration of the README and what it leaves
// to the reader.
func (r *byReadme) startGate(more string) {
	r.Helper()
	text := "hostname: gw.city.example\ndata_dir: ./data\nconsole: {address: 127.0.0.1:0}\nlog: {format: json}\n" + r.here(r.files["casegate.yaml"]) + more
	if !strings.Contains(text, "\nmailboxes:") {
		text += "mailboxes: [{address: 311@city.example, queue: general}]\n"
	}
	r.gate.write("casegate.yaml", []byte(text))
	r.gate.start()
}

// startPostfix runs Postfix with the files of the README, and with what any has
// besides: mainCF and masterCF.
func (r *byReadme) startPostfix(port, mainCF, masterCF string) {
	r.Helper()
	files := map[string]string{}
	for name, text := range r.files {
		if name != "casegate.yaml" {
			files[name] = r.here(text)
		}
	}
	files["main.cf"] = "smtpd_authorized_xclient_hosts = 127.0.0.0/8\n" + mainCF + files["main.cf"]
	files["master.cf"] = r.here(masterCF) + files["master.cf"]
	r.postfix.Start(r.at(port), files)
}

// stranger are the options of swaks by which a Postfix takes it for a client on
// the Internet.
var stranger = []string{"--xclient-addr", "192.0.2.77", "--xclient-name", "mail.elm.example"}

// fromStranger checks that a message's record names the customer's server.
func (r *byReadme) fromStranger(m shownMessage) {
	r.Helper()
	want := `{"name":"mail.elm.example","address":"192.0.2.77","helo":"client.example"}`
	if text := string(r.gate.run("message", "show", m.ID, "--json")); !strings.Contains(strings.Join(strings.Fields(text), ""), `"client":`+want) {
		r.Errorf("the record does not name the customer's server:\n%s", text)
	}
}

// TestReadme: a real Postfix and casegate work together in every way that the
// README shows, by the very snippets that stand there.
func TestReadme(t *testing.T) {
	t.Run("LMTP transport", func(t *testing.T) {
		t.Parallel()
		crm := startHop(t)
		r := newByReadme(t, "Postfix in front", "", "")
		r.startGate("routes: [{role: inbound, next_hop: '" + crm.url + "'}]\n")
		r.startPostfix("25", "", "smtp inet n - n - - smtpd\n")
		swaks(t, r.at("25"), "dana@elm.example", "311@city.example", simpleMail("front", "dana@elm.example", "311@city.example"), stranger...)
		said := r.postfix.Said(`to=<311@city\.example>, relay=127\.0\.0\.1.*status=sent \(250 2\.0\.0 <311@city\.example> accepted (\S+) case (\d+)\)$`)
		m := onCase(t, r.gate, said[2])
		same(t, "id", m.ID, said[1])
		r.fromStranger(m)
		same(t, "the stamp", crm.take(t, "front").get("X-Case-Number"), said[2])
		swaks(t, r.at("25"), "dana@elm.example", "parks+x@city.example", simpleMail("plus", "dana@elm.example", "parks+x@city.example"), stranger...)
		crm.take(t, "plus")
		if out := swaks(t, r.at("25"), "dana@elm.example", "nobody@city.example", simpleMail("nobody", "dana@elm.example", "nobody@city.example"), stranger...); !strings.Contains(out, "<** 550 5.1.1 ") {
			t.Errorf("who does not exist is not refused at the border:\n%s", out)
		}
	})
	t.Run("after-queue filter", func(t *testing.T) {
		t.Parallel()
		crm := startHop(t)
		r := newByReadme(t, "Postfix around: an after-queue filter", "", "")
		r.startGate("")
		mailboxes := fmt.Sprintf("relay_domains = city.example\ntransport_maps = inline:{ {city.example = smtp:[127.0.0.1]:%s} }\nrecipient_delimiter = +\n", testbed.Port(crm.url))
		r.startPostfix("25", mailboxes, "")
		swaks(t, r.at("25"), "dana@elm.example", "311@city.example", simpleMail("around", "dana@elm.example", "311@city.example"), stranger...)
		stamped := crm.take(t, "around")
		m := onCase(t, r.gate, stamped.get("X-Case-Number"))
		r.fromStranger(m)
		r.postfix.Said(`client=\S+\[127\.0\.0\.1\], .*orig_client=mail\.elm\.example\[192\.0\.2\.77\]$`)
		same(t, "for whom", stamped.to, []string{"311@city.example"})
	})
	t.Run("before-queue filter of agents", func(t *testing.T) {
		t.Parallel()
		world := startHop(t)
		r := newByReadme(t, "Postfix behind, and agents on Postfix", "", "")
		r.startGate("")
		// The agents' own signing in at Postfix is not what this is about.
		cf := strings.NewReplacer("smtpd_tls_security_level=encrypt", "smtpd_tls_security_level=none", "smtpd_sasl_auth_enable=yes", "smtpd_sasl_auth_enable=no", "permit_sasl_authenticated", "permit_mynetworks")
		r.files["master.cf"] = cf.Replace(r.files["master.cf"])
		r.startPostfix("submission", "relayhost = [127.0.0.1]:"+testbed.Port(world.url)+"\n", "")
		out := swaks(t, r.at("submission"), "311@city.example", "dana@elm.example", simpleMail("behind", "311@city.example", "dana@elm.example"))
		if !strings.Contains(out, "<-  250 2.0.0 accepted ") {
			t.Errorf("the agent does not hear of his message:\n%s", out)
		}
		sent := world.take(t, "behind")
		same(t, "for whom", sent.to, []string{"dana@elm.example"})
		out = swaks(t, r.at("submission"), "eve@city.example", "dana@elm.example", simpleMail("forbidden", "eve@city.example", "dana@elm.example"))
		if !strings.Contains(out, "<** 550 5.7.1 ") {
			t.Errorf("the agent does not hear at once that he may not:\n%s", out)
		}
	})
	for name, trusted := range map[string]bool{"signed in": true, "signed in to a stranger": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if found, _ := filepath.Glob("/usr/lib/*/sasl2/libplain.so*"); len(found) == 0 {
				t.Skip("Postfix cannot sign in without libsasl2-modules")
			}
			signedIn(t, trusted)
		})
	}
}

// signedIn runs a Postfix that is a client of casegate, as the agent whose mail
// it is. It must not say a word to a casegate whose certificate it doesn't trust.
func signedIn(t *testing.T, trusted bool) {
	world := startHop(t)
	r := newByReadme(t, "Signing in at casegate, from another Postfix or a mail client", "", "")
	ca := certify(t, r.gate.dir, time.Hour)
	r.files["casegate.yaml"] += "  - {name: inbound, role: inbound, protocol: smtp, address: 127.0.0.1:0, peers: [127.0.0.0/8]}\n"
	r.startGate("routes: [{role: outbound, next_hop: '" + world.url + "'}]\n")
	const password = "a password of Kim's"
	add := exec.Command("sh", "-c", r.files["who may sign in"])
	add.Dir, add.Env, add.Stdin = r.gate.dir, append(cleanEnv(), "CASEGATE_ALLOW_VOLATILE=1"), strings.NewReader(password+"\n")
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r.files["casegate_passwords"] = strings.ReplaceAll(r.files["casegate_passwords"], "PASSWORD", password)
	if !trusted {
		if err := os.Rename(certify(t, t.TempDir(), time.Hour), ca); err != nil { // another authority of the same name
			t.Fatal(err)
		}
	}
	r.startPostfix("25", "smtp_tls_loglevel = 1\n", "smtp inet n - n - - smtpd\n")
	_, number := swaksTaken(t, r.gate.at["inbound"], "dana@elm.example", "311@city.example", simpleMail("asked", "dana@elm.example", "311@city.example"))
	swaks(t, r.at("25"), "311@city.example", "dana@elm.example", simpleMail("signed", "City 311 <311@city.example>", "dana@elm.example", "In-Reply-To: <asked@mail.example>"))
	if !trusted {
		r.postfix.Said(`to=<dana@elm\.example>, .*status=deferred \(Server certificate not (?:trusted|verified)\)$`)
		same(t, "messages", r.gate.count("message", "list"), 1)
		return
	}
	r.postfix.Said(`Verified TLS connection established to 127\.0\.0\.1`)
	r.postfix.Said(`to=<dana@elm\.example>, .*status=sent \(250 2\.0\.0 accepted `)
	sent := world.take(t, "signed")
	m := onCase(t, r.gate, number)
	same(t, "who sent it", sent.get("From"), `"Kim Park" <kim@city.example>`)
	text := string(r.gate.run("message", "show", m.ID))
	for _, want := range []string{`secured +TLS 1\.3, TLS_`, `signed in +kim@city\.example`} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("the record does not tell %q:\n%s", want, text)
		}
	}
}

// certify writes ca.pem, agents-ca.pem, gw.pem and gw.key into a folder, for
// gw.city.example, that end after some time.
func certify(t *testing.T, dir string, life time.Duration) (ca string) {
	t.Helper()
	authority := testbed.NewAuthority(t)
	gw := authority.Issue(func(c *x509.Certificate) {
		c.DNSNames, c.IPAddresses, c.NotAfter = []string{"gw.city.example"}, nil, time.Now().Add(life)
	})
	ca = filepath.Join(dir, "ca.pem")
	testbed.Write(t, ca, authority.Own.CertPEM())
	testbed.Write(t, filepath.Join(dir, "agents-ca.pem"), authority.Own.CertPEM())
	testbed.Write(t, filepath.Join(dir, "gw.pem"), gw.CertPEM())
	testbed.Write(t, filepath.Join(dir, "gw.key"), gw.KeyPEM())
	return ca
}
