package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"

	"github.com/casegate/casegate/gateway/mailauth"
	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/gateway/testbed"
)

// keyring is what a site publishes of its keys, on a real DNS server.
type keyring struct {
	dns     *dnsServer
	records map[string]string
}

func newKeyring(t testing.TB) *keyring { return &keyring{startDNS(t), map[string]string{}} }

// make has casegate make a key, publishes its record, and returns the line for
// the configuration.
func (k *keyring) make(g *gate, kind, domain, selector string) (config string) {
	g.t.Helper()
	var made shownKey
	g.json(&made, "dkim", "keygen", "--domain", domain, "--selector", selector, "--type", kind, "--out", selector+".key")
	k.records[made.Name] = strings.Join(made.Record, "")
	k.dns.set(made.Name, k.records[made.Name])
	return made.Config
}

// verify has two implementations verify that a message bears these signatures,
// "domain selector", and no others.
func (k *keyring) verify(t testing.TB, m eml, want ...string) {
	t.Helper()
	var have []string
	for _, f := range m.named("DKIM-Signature") {
		tag := regexp.MustCompile(`\bd=([^;]*);(?s:.*)\bs=([^;]*);`).FindStringSubmatch(f)
		if tag == nil {
			t.Fatalf("a signature without d and s: %s", f)
		}
		have = append(have, tag[1]+" "+tag[2])
	}
	same(t, "signatures", have, want)
	found, err := dkim.VerifyWithOptions(bytes.NewReader(m.raw), &dkim.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
		if record, ok := k.records[name]; ok {
			return []string{record}, nil
		}
		return nil, fmt.Errorf("there is no %s", name)
	}})
	if err != nil || len(found) != len(want) {
		t.Errorf("go-msgauth: %d signatures: %v", len(found), err)
	}
	for _, v := range found {
		if v.Err != nil {
			t.Errorf("go-msgauth: %v\n%.4000q", v.Err, m.raw)
		}
	}
	if len(want) == 0 {
		return
	}
	header, body, _ := bytes.Cut(m.raw, []byte("\r\n\r\n"))
	from := m.get("From")
	checker := mailauth.Checker{Resolver: mailauth.NewResolver(k.dns.address)}
	v := checker.Check(t.Context(), mailauth.CheckRequest{
		FromDomain: strings.TrimRight(from[strings.LastIndexByte(from, '@')+1:], "> "),
		Header:     message.Parse(append(bytes.Clone(header), "\r\n\r\n"...)), Body: bytes.NewReader(body),
	})
	if v.DKIM != mailauth.Pass || !v.AlignedPass {
		t.Errorf("our own checker: %s", v.Words)
	}
}

// signingGate is a daemon that signs for city.example with an RSA and an Ed25519
// key, and whose listener desk takes bare line ends.
func signingGate(t *testing.T, keys *keyring, world *nextHop, more ...string) *gate {
	t.Helper()
	g := newGate(t, "none", world.url)
	path := filepath.Join(g.dir, "casegate.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	section := strings.Join(append([]string{"dkim:", "  " + keys.make(g, "rsa", "city.example", "one"), "  " + keys.make(g, "ed25519", "city.example", "two")}, more...), "\n") + "\n"
	g.write("casegate.yaml", []byte(strings.Replace(string(text), "send_as: [kim@city.example]", "bare_newline: normalize", 1)+section))
	g.start()
	return g
}

// TestDKIM: what leaves is signed as it leaves, whatever its body looks like;
// both implementations verify it, and the archive gives back the very bytes.
func TestDKIM(t *testing.T) {
	keys, world := newKeyring(t), startHop(t)
	g := signingGate(t, keys, world)
	g.contact("registered", "Dana Miller", "dana@example.net")
	opened := simpleMail("light", "Dana <dana@example.net>", "311@city.example")
	swaksTaken(t, g.at["inbound"], "dana@example.net", "311@city.example", opened)
	for i, body := range []string{
		"Hello.\r\n", "", "\r\n", "\r\n\r\n\r\n", "Hello. \t\r\n\t\r\n \r\n\r\n", ".\r\n..\r\n.x\r\n",
		"gr\xfc\xdflich \xff \x80\r\n", strings.Repeat("x", 990) + "\r\n" + strings.Repeat("y z ", 10_000) + "\r\n",
		strings.Repeat("A line of a large message, of which there are many.\r\n", 5000),
		"bare\nline ends\rof \r\r\n three\n\n\n\r\nkinds", "\n", "\n.\n..\n",
	} {
		subject := fmt.Sprintf("answer-%d", i)
		mail := "From: City 311 <311@city.example>\r\nTo: dana@example.net,\r\n\t311@city.example\r\nBcc: blind@example.net\r\nSubject: " + subject +
			"\r\nDate: Mon, 23 Nov 2026 09:30:00 +0100\r\nIn-Reply-To: <light@mail.example>\r\n\r\n" + body
		c, err := dialWire(g.at["desk"], false)
		if err != nil {
			t.Fatal(err)
		}
		reply, err := c.chunks("crm@crm.city.example", []string{"dana@example.net", "blind@example.net"}, []byte(mail), len(mail))
		c.conn.Close()
		if err != nil || !strings.Contains(reply, "case 1") {
			t.Fatalf("%s: %s %v", subject, reply, err)
		}
		m := world.take(t, subject)
		keys.verify(t, m.eml, "city.example one", "city.example two")
		kept := g.newest(t)
		if sent := g.run("message", "export", kept.ID, "--as", "sent"); !bytes.Equal(sent, m.raw) {
			t.Errorf("%s: the archive has other bytes than the next hop got:\n%.2000q\n%.2000q", subject, sent, m.raw)
		}
		same(t, "digest", kept.Archived.SentSHA256, hexSum(m.raw))
		if said := strings.Join(kept.Decision.Reasons, "\n"); !strings.Contains(said, "O13: signed by city.example: one (rsa, 2048 bits) and two (ed25519)") {
			t.Errorf("%s: %q", subject, said)
		}
	}
}

// TestDKIMOverRestart: after a kill -9 what is tried again has the same bytes,
// and what was signed before stays so under new keys.
func TestDKIMOverRestart(t *testing.T) {
	keys, world := newKeyring(t), startHop(t)
	world.defers = 1
	g := signingGate(t, keys, world)
	mail := simpleMail("again", "311@city.example", "dana@example.net")
	if out := swaks(t, g.at["smarthost"], "311@city.example", "dana@example.net", mail); !strings.Contains(out, "250 2.0.0 accepted") {
		t.Fatal(out)
	}
	g.tried(1)
	g.cmd.Process.Kill()
	<-g.exited
	third := keys.make(g, "rsa", "city.example", "three")
	text, err := os.ReadFile(filepath.Join(g.dir, "casegate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(text), "dkim:")
	g.write("casegate.yaml", []byte(before+"dkim:\n  "+third+"\n"))
	g.start()
	g.run("queue", "flush")
	m := world.take(t, "again")
	keys.verify(t, m.eml, "city.example one", "city.example two")
	if len(world.deferred) != 1 || !bytes.Equal(world.deferred[0].raw, m.raw) {
		t.Errorf("the second attempt has other bytes:\n%q\n%q", world.deferred, m.raw)
	}
	swaks(t, g.at["smarthost"], "311@city.example", "dana@example.net", simpleMail("next", "311@city.example", "dana@example.net"))
	keys.verify(t, world.take(t, "next").eml, "city.example three")
}

// tried waits until so many attempts at deliveries were made.
func (g *gate) tried(attempts int) {
	g.t.Helper()
	testbed.Until(g.t, fmt.Sprintf("%d attempts are made", attempts), func() bool {
		var rows []struct{ Attempts []any }
		g.json(&rows, "queue", "list")
		n := 0
		for _, r := range rows {
			n += len(r.Attempts)
		}
		return n >= attempts
	})
}

// TestDKIMReload: new keys count from the next message on; with one that cannot
// be used the old ones go on.
func TestDKIMReload(t *testing.T) {
	keys, world := newKeyring(t), startHop(t)
	g := signingGate(t, keys, world)
	t.Cleanup(g.log.Reset) // before stop, which minds errors
	send := func(subject string) eml {
		t.Helper()
		swaks(t, g.at["smarthost"], "311@city.example", "dana@example.net", simpleMail(subject, "311@city.example", "dana@example.net"))
		return world.take(t, subject).eml
	}
	keys.verify(t, send("a"), "city.example one", "city.example two")
	next := keys.make(g, "rsa", "city.example", "next")
	if err := os.Chmod(filepath.Join(g.dir, "next.key"), 0o640); err != nil {
		t.Fatal(err)
	}
	line := g.reloadWith("selector: one, key: "+filepath.Join(g.dir, "one.key"), strings.TrimSuffix(next[strings.Index(next, "selector"):], "}"))
	same(t, "changed", list(line["changed"]), []string{"dkim[0].selector", "dkim[0].key"})
	keys.verify(t, send("b"), "city.example next", "city.example two")

	for _, mode := range []os.FileMode{0o644, 0o660} {
		if err := os.Chmod(filepath.Join(g.dir, "next.key"), mode); err != nil {
			t.Fatal(err)
		}
		line = g.reloadWith()
		if said := fmt.Sprint(line["error"]); line["msg"] != refusedLine || !strings.Contains(said, "casegate.yaml:19:") || !strings.Contains(said, fmt.Sprintf("others may read or change it (mode %04o)", mode)) {
			t.Errorf("%v", line)
		}
		keys.verify(t, send(fmt.Sprintf("c%o", mode)), "city.example next", "city.example two")
	}
	if err := os.Chmod(filepath.Join(g.dir, "next.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(g.dir, "casegate.yaml")
	text, _ := os.ReadFile(path)
	before, _, _ := strings.Cut(string(text), "dkim:")
	g.reloadWith(strings.TrimPrefix(string(text), before), "")
	keys.verify(t, send("d"))
}

// TestDKIMOfWhatWeWrite: acknowledgements, and delivery reports where a key is
// for our own name.
func TestDKIMOfWhatWeWrite(t *testing.T) {
	keys, world, town := newKeyring(t), startHop(t), startHop(t)
	g := signingGate(t, keys, world, "ack: on")
	g.reloadWith("selector: one, ", "selector: one, subdomains: true, ",
		"routes:", "routes:\n  - {role: outbound, recipient_domain: town.example, next_hop: \""+town.url+"\"}")
	swaksTaken(t, g.at["inbound"], "dana@example.net", "311@city.example", simpleMail("light", "Dana <dana@example.net>", "311@city.example"))
	keys.verify(t, world.take(t, "We have your message: case 1").eml, "city.example one", "city.example two")

	swaks(t, g.at["smarthost"], "kim@town.example", "nobody"+refusedDomain, simpleMail("refused", "311@city.example", "nobody"+refusedDomain))
	report := town.take(t, "Your message could not be delivered")
	same(t, "From", report.get("From"), "Mail gateway <mailer-daemon@gw.city.example>")
	keys.verify(t, report.eml, "city.example one")
	kept := g.newest(t)
	if sent := g.run("message", "export", kept.ID, "--as", "sent"); !bytes.Equal(sent, report.raw) {
		t.Errorf("the archive has other bytes of the report:\n%q\n%q", sent, report.raw)
	}
	if said := strings.Join(kept.Decision.Reasons, "\n"); !strings.Contains(said, "signed by city.example: one (rsa, 2048 bits)") {
		t.Errorf("%q", said)
	}
}

// TestDKIMThroughPostfix: a real Postfix behind us hands on what we signed, and
// the signatures hold.
func TestDKIMThroughPostfix(t *testing.T) {
	p := newPostfix(t)
	keys, world := newKeyring(t), startHop(t)
	g := signingGate(t, keys, &nextHop{url: "smtp://" + p.mx})
	p.start(g, world)
	for subject, rest := range map[string]string{
		"plain": "\r\nHello.\r\n",
		"dots":  "\r\n.\r\n..\r\n.x\r\n\r\n\r\n",
		"8-bit": "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\ngr\u00fcndlich  \r\n\t\r\n",
		"parts": "MIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n\tboundary=b\r\n\r\n--b\r\n\r\nx\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>\r\n--b--\r\n",
		"lists": "Sender:   desk@city.example\r\nReferences: <a@b.example>\r\n\t<c@d.example>\r\n   <e@f.example>\r\nX-Odd : x\r\n\r\n\r\n",
		"empty": "\r\n",
	} {
		mail := "From: =?utf-8?q?B=C3=BCrger?= <311@city.example>\r\nTo: Dana\r\n <dana@example.net>,\r\n\tron@example.net\r\nSubject: " + subject + "\r\n" + rest
		if out := swaks(t, g.at["smarthost"], "311@city.example", "dana@example.net,ron@example.net", []byte(mail)); !strings.Contains(out, "250 2.0.0 accepted") {
			t.Fatal(out)
		}
		keys.verify(t, world.take(t, subject).eml, "city.example one", "city.example two")
	}
}
