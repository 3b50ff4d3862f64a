package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/gateway/testbed"
	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/bolt"
)

// probeTargets are ways to ask for mail to outside.example, or for what a lax
// reader takes for that. Ours is 311@city.example.
var probeTargets = []struct{ name, to string }{
	{"plain", `<victim@outside.example>`},
	{"without brackets", `victim@outside.example`},
	{"blank before", ` <victim@outside.example>`},
	{"blanks inside", `< victim@outside.example >`},
	{"upper case", `<VICTIM@OUTSIDE.EXAMPLE>`},
	{"postmaster there", `<postmaster@outside.example>`},
	{"trailing dot", `<victim@outside.example.>`},

	{"percent hack at our domain", `<victim%outside.example@city.example>`},
	{"percent hack at our host", `<victim%outside.example@gw.city.example>`},
	{"percent hack at a literal", `<victim%outside.example@[127.0.0.1]>`},
	{"percent hack at localhost", `<victim%outside.example@localhost>`},
	{"percent hack without a domain", `<victim%outside.example>`},
	{"percent hack, empty domain", `<victim%outside.example@>`},
	{"percent hack, twice", `<victim%outside.example%city.example@city.example>`},
	{"percent hack, quoted", `<"victim%outside.example"@city.example>`},
	{"percent hack behind the @", `<victim@outside.example%city.example>`},
	{"our mailbox by percent hack", `<311%city.example@outside.example>`},

	{"bang path", `<outside.example!victim>`},
	{"bang path at our domain", `<outside.example!victim@city.example>`},
	{"bang path through us", `<city.example!outside.example!victim>`},
	{"bang path at our host", `<gw.city.example!victim@outside.example>`},
	{"bang path behind the @", `<victim@outside.example!city.example>`},
	{"bang path, quoted", `<"outside.example!victim"@city.example>`},
	{"bang path and percent hack", `<outside.example!victim%city.example@city.example>`},

	{"source route through us", `<@city.example:victim@outside.example>`},
	{"source route through our host", `<@gw.city.example:victim@outside.example>`},
	{"source route of two", `<@gw.city.example,@city.example:victim@outside.example>`},
	{"source route through a literal", `<@[127.0.0.1]:victim@outside.example>`},
	{"source route, empty", `<@:victim@outside.example>`},
	{"source route, no colon", `<@city.example,victim@outside.example>`},
	{"source route, old style", `<@city.example:@outside.example:victim>`},
	{"source route to us through them", `<@outside.example:311@city.example>`},
	{"source route and percent hack", `<@city.example:victim%outside.example@city.example>`},

	{"quoted @", `<"victim@outside.example"@city.example>`},
	{"quoted whole", `<"victim@outside.example">`},
	{"quoted @, ours inside", `<"311@city.example"@outside.example>`},
	{"quoted @ and more @", `<"311"@city.example@outside.example>`},
	{"quoted bracket", `<"victim@outside.example>"@city.example>`},
	{"quoted bracket and parameter", `<"311@city.example> ORCPT=rfc822;x <victim"@outside.example>`},
	{"quote in quotes", `<"311\" <victim@outside.example>"@city.example>`},
	{"quoted pair", `<"\3\1\1@city.example"@outside.example>`},
	{"quote left open", `<"311@city.example@outside.example>`},
	{"quote behind", `<311@city.example"@outside.example>`},
	{"escaped quotes", `<\"victim@outside.example\"@city.example>`},
	{"escaped @", `<victim\@outside.example@city.example>`},
	{"quoted ours there", `<"311"@outside.example>`},
	{"quoted blank", `<"victim@outside.example "@city.example>`},

	{"two @, ours last", `<victim@outside.example@city.example>`},
	{"two @, ours first", `<311@city.example@outside.example>`},
	{"doubled @", `<victim@@outside.example>`},
	{"encoded @, =40", `<victim=40outside.example@city.example>`},
	{"encoded @, %40", `<victim%40outside.example@city.example>`},
	{"encoded @, xtext", `<victim+40outside.example@city.example>`},
	{"encoded @, entity", `<victim&#64;outside.example@city.example>`},
	{"encoded @, encoded word", `<=?utf-8?q?victim=40outside.example?=@city.example>`},
	{"encoded @, encoded word cut off", `<=?iso-8859-1?q?victim=40outside.example=3e=00?=foo@city.example>`},
	{"encoded @, base64 word", `<=?utf-8?b?dmljdGltQG91dHNpZGUuZXhhbXBsZT4=?=@city.example>`},
	{"encoded @, utf-7", `<=?utf-7?q?victim+AEA-outside.example+AD4-?=@city.example>`},
	{"fullwidth @", "<victim\uff20outside.example>"},
	{"fullwidth @ at ours", "<victim\uff20outside.example@city.example>"},
	{"small @", "<victim\ufe6boutside.example@city.example>"},
	{"ideographic dot", "<victim@outside\u3002example>"},

	{"plus at ours, encoded", `<311+victim=outside.example@city.example>`},
	{"plus at ours, @", `<311+victim@outside.example@city.example>`},
	{"plus at ours, quoted", `<311+"victim@outside.example"@city.example>`},
	{"plus at ours, whole quoted", `<"311+victim@outside.example"@city.example>`},
	{"plus there", `<311+city.example@outside.example>`},
	{"minus at ours", `<311-victim=outside.example@city.example>`},
	{"batv of ours", `<prvs=1234567890=victim@outside.example>`},
	{"srs at ours", `<SRS0=HHH=TT=outside.example=victim@city.example>`},
	{"srs1 at ours", `<SRS1=HHH=city.example==HHH=TT=outside.example=victim@city.example>`},

	{"literal, loopback", `<victim@[127.0.0.1]>`},
	{"literal, other", `<victim@[192.0.2.1]>`},
	{"literal, loopback v6", `<victim@[IPv6:::1]>`},
	{"literal, v6", `<victim@[IPv6:2001:db8::1]>`},
	{"literal, mapped", `<victim@[IPv6:::ffff:192.0.2.1]>`},
	{"literal with a name", `<victim@[outside.example]>`},
	{"literal, hexadecimal", `<victim@[0x7f.0.0.1]>`},
	{"literal without brackets", `<victim@192.0.2.1>`},
	{"literal as a number", `<victim@3221225985>`},
	{"literal left open", `<victim@[192.0.2.1>`},
	{"ours at a literal", `<311@[127.0.0.1]>`},
	{"localhost", `<victim@localhost>`},
	{"our host", `<victim@gw.city.example>`},

	{"ours below theirs", `<311@city.example.outside.example>`},
	{"theirs below ours", `<311@outside.example.city.example>`},
	{"ours with more in front", `<311@xcity.example>`},
	{"ours with more behind", `<311@city.examples>`},
	{"ours without the dot", `<311@city-example>`},
	{"ours with a port", `<311@city.example:25>`},
	{"ours with two dots", `<311@city.example..>`},
	{"ours with a Cyrillic c", "<311@\u0441ity.example>"},
	{"ours with a Cyrillic c as A-label", `<311@xn--ity-zed.example>`},
	{"ours in fullwidth", "<311@\uff43ity.example>"},
	{"ours with a soft hyphen", "<311@ci\u00adty.example>"},
	{"ours with a zero-width space", "<311@city\u200b.example>"},
	{"ours with a Kelvin sign", "<kim@\u212aity.example>"},
	{"our number in Arabic digits", "<\u0663\u0661\u0661@city.example>"},
	{"another of ours", `<mayor@city.example>`},
	{"no domain", `<victim>`},
	{"postmaster without a domain", `<postmaster>`},
	{"nobody", `<>`},
	{"only an @", `<@>`},
	{"nothing", ``},

	{"two paths, comma", `<311@city.example>,<victim@outside.example>`},
	{"two paths, blank", `<311@city.example> <victim@outside.example>`},
	{"two in one, comma", `<311@city.example,victim@outside.example>`},
	{"two in one, semicolon", `<311@city.example;victim@outside.example>`},
	{"two in one, blank", `<311@city.example victim@outside.example>`},
	{"two in one, colon", `<victim@outside.example:311@city.example>`},
	{"two without brackets", `311@city.example,victim@outside.example`},
	{"ours, theirs behind", `<311@city.example>victim@outside.example`},
	{"theirs, ours behind", `<victim@outside.example>311@city.example`},
	{"brackets twice", `<<victim@outside.example>>`},
	{"brackets in brackets", `<311@city.example<victim@outside.example>>`},
	{"bracket left open", `<victim@outside.example`},
	{"bracket never opened", `victim@outside.example>`},
	{"a name before", `City <victim@outside.example>`},
	{"a comment before", `<(311@city.example)victim@outside.example>`},
	{"a comment inside", `<victim@(city.example)outside.example>`},
	{"a comment behind", `<311@city.example(@outside.example)>`},
	{"a pipe", `<|/usr/sbin/sendmail victim@outside.example>`},
	{"a pipe at ours", `<"|/usr/sbin/sendmail victim@outside.example"@city.example>`},
	{"a file at ours", `</tmp/victim@city.example>`},
	{"an include at ours", `<:include:/etc/passwd@city.example>`},
	{"an option at ours", `<-oQ/tmp@city.example>`},

	{"another original recipient", `<311@city.example> ORCPT=rfc822;victim@outside.example NOTIFY=SUCCESS,FAILURE`},
	{"a second path as a parameter", `<311@city.example> TO=<victim@outside.example>`},
	{"an unknown parameter", `<311@city.example> RELAY=victim@outside.example`},
	{"NUL behind ours", "<311@city.example\x00victim@outside.example>"},
	{"NUL behind theirs", "<victim@outside.example\x00@city.example>"},
	{"CR and a second command", "<311@city.example>\rRCPT TO:<victim@outside.example>"},
	{"a tab inside", "<victim@outside.example\t@city.example>"},
	{"8-bit", "<victim@outside.example\xff@city.example>"},
	{"overlong", "<victim" + strings.Repeat("x", 300) + "@outside.example>"},
	{"overlong at ours", "<" + strings.Repeat("x", 300) + "@outside.example@city.example>"},
}

// probeOurs are the targets that are a mailbox of ours, whatever else they say.
var probeOurs = []string{"another original recipient", "plus at ours, encoded"}

// probeSenders are who asks.
var probeSenders = []struct{ name, from string }{
	{"the null sender", `<>`},
	{"ourselves", `<311@city.example>`},
	{"an outsider", `<a@attacker.example>`},
	{"an outsider, SMTPUTF8", "<\u00fc@attacker.example> SMTPUTF8"},
}

// probeMail is sent to whatever was accepted: its header asks for more. Whom it
// is from tells a mail that opens a case from one that claims to be ours.
const probeMail = "From: %[2]s\r\nTo: victim@outside.example, 311@city.example\r\nCc: victim@outside.example\r\nBcc: victim@outside.example\r\n" +
	"Resent-From: 311@city.example\r\nResent-To: victim@outside.example\r\nApparently-To: victim@outside.example\r\nReply-To: victim@outside.example\r\n" +
	"Errors-To: victim@outside.example\r\nReturn-Path: <victim@outside.example>\r\nReturn-Receipt-To: victim@outside.example\r\n" +
	"Disposition-Notification-To: victim@outside.example\r\nX-Case-Number: 1\r\nX-Case-Mode: reply\r\nX-Rcpt-To: victim@outside.example\r\n" +
	"Subject: probe\r\nMessage-ID: <probe-%[1]d@attacker.example>\r\n\r\nprobe %[1]d\r\n.\r\n"

// shippedConfigs are the example as it stands, which is also the demo's, and
// each snippet of the README and the manual put into it.
func shippedConfigs(t *testing.T) map[string]string {
	t.Helper()
	base := example(t)
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	configs := map[string]string{"the example": base}
	for i, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(readme), -1) {
		configs[fmt.Sprintf("README, snippet %d", i+1)] = putInto(base, block[1])
	}
	for i, object := range regexp.MustCompile(`(?m)^# (- \{.*\})$`).FindAllStringSubmatch(base, -1) {
		configs[fmt.Sprintf("manual, object %d", i+1)] = putInto(base, "  "+object[1]+"\n")
	}
	return configs
}

// putInto puts a snippet in place of the sections that it has; objects of a list
// are put before those of the example.
func putInto(base, snippet string) string {
	if strings.HasPrefix(snippet, "  - ") {
		section := "listeners:\n"
		switch {
		case strings.Contains(snippet, "next_hop"):
			section = "routes:\n"
			if !strings.Contains(snippet, "recipient_domain") { // it takes all there is
				base = regexp.MustCompile(`(?m)^  - \{role: outbound, next_hop.*\n`).ReplaceAllString(base, "")
			}
		case strings.Contains(snippet, "selector:"):
			return base
		}
		return strings.Replace(base, section, section+snippet, 1)
	}
	for _, key := range regexp.MustCompile(`(?m)^([a-z_]+):`).FindAllStringSubmatch(snippet, -1) {
		base = regexp.MustCompile(`(?m)^`+key[1]+`:.*\n(  .*\n)*`).ReplaceAllString(base, "")
	}
	return snippet + base
}

// TestRelayProbes: with none of the configurations that we ship can anybody have
// mail relayed to an outside address, who isn't asked to be one of the desk: on
// an inbound listener anyone that is let in, on an outbound one whom its peers
// leave out, or who does not sign in where that is required (security 8).
func TestRelayProbes(t *testing.T) {
	if n := len(probeTargets) * len(probeSenders); n < 200 {
		t.Fatalf("%d probes", n)
	}
	pair := filepath.Join(t.TempDir(), "pair.pem") // a certificate that is its own authority
	testbed.Write(t, pair, testbed.NewAuthority(t).Own.PEM())
	configs := shippedConfigs(t)
	for _, name := range slices.Sorted(maps.Keys(configs)) {
		t.Run(name, func(t *testing.T) {
			cfg, err := parseConfig("c.yaml", []byte(configs[name]), nil)
			if err != nil {
				t.Fatal(err)
			}
			trap := startHop(t)
			p := startProbed(t, cfg, trap, pair)
			for i, l := range cfg.Listeners {
				p.probe(t, l, p.listeners[i].Addr().String())
			}
			p.nothingLeft(t, trap)
		})
	}
}

// probed is a daemon under a shipped configuration.
type probed struct {
	*daemon
	cfg      *Config
	sent     int
	accepted map[string]bool // the targets that something was taken for
}

// startProbed runs a configuration with its listeners on ports of their own,
// where 127.0.0.1 is the one peer of each, and with all routes leading to trap.
func startProbed(t *testing.T, cfg *Config, trap *nextHop, pair string) *probed {
	t.Helper()
	cfg.DataDir = t.TempDir()
	cfg.Console.Address = Endpoint{"tcp", "127.0.0.1:0"}
	cfg.DKIM, cfg.Directory.URL, cfg.Flood.NewCases = nil, "", Rates{}
	for i := range cfg.Listeners {
		l := &cfg.Listeners[i]
		l.Address, l.Peers = Endpoint{"tcp", "127.0.0.1:0"}, []Prefix{{netip.MustParsePrefix("127.0.0.1/32")}}
		if l.TLSCert != "" {
			l.TLSCert, l.TLSKey = pair, pair
		}
		if l.ClientCA != "" {
			l.ClientCA = pair
		}
	}
	for i := range cfg.Routes {
		r := &cfg.Routes[i]
		*r = Route{Role: r.Role, RecipientDomain: r.RecipientDomain, Sender: r.Sender, Mailbox: r.Mailbox, TLS: "none", MaxConnections: r.MaxConnections}
		if err := r.NextHop.UnmarshalText([]byte(trap.url)); err != nil {
			t.Fatal(err)
		}
	}
	quiet := slog.New(slog.DiscardHandler)
	st, err := bolt.Open(filepath.Join(cfg.DataDir, "casegate.db"), bolt.Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDaemon(cfg, st, quiet)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	up, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- d.run(ctx, func() { close(up) }) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-up
	return &probed{daemon: d, cfg: cfg, accepted: map[string]bool{}}
}

// probe asks all of one listener: as a peer where it takes mail for us or wants
// a sign-in, and as somebody else.
func (p *probed) probe(t *testing.T, l Listener, at string) {
	t.Helper()
	if c := dialProbe(t, "127.0.0.2", at, l); c.greeted() {
		t.Errorf("%s: somebody who is no peer is let in", l.Name)
	}
	if l.Role == string(gateway.RoleOutbound) && l.Auth != "require" {
		return // its peers may send to anyone
	}
	c := dialProbe(t, "127.0.0.1", at, l)
	if !c.greeted() {
		t.Fatalf("%s: a peer is not let in: %v", l.Name, c.err)
	}
	for _, from := range probeSenders {
		for _, to := range probeTargets {
			if p.ask(c, from.from, to.to) {
				p.accepted[to.name] = true
				if l.Role == string(gateway.RoleOutbound) {
					t.Errorf("%s: %s, by %s: accepted without a sign-in", l.Name, to.name, from.name)
				}
			}
			if c.err != nil { // it hung up on us
				if c = dialProbe(t, "127.0.0.1", at, l); !c.greeted() {
					t.Fatalf("%s: %s, by %s: then nobody was let in: %v", l.Name, to.name, from.name, c.err)
				}
			}
		}
	}
	if p.ask(c, "<a@attacker.example>", "<"+p.cfg.Mailboxes[0].Address+">") != (l.Role == string(gateway.RoleInbound)) {
		t.Errorf("%s: our own mailbox: %v", l.Name, c.err)
	}
}

// ask tries one probe, to its end where it is accepted.
func (p *probed) ask(c *probeClient, from, to string) (accepted bool) {
	for _, author := range []string{"311@city.example", "a@attacker.example"} {
		c.say("RSET\r\n")
		if c.say("MAIL FROM:"+from+"\r\n") != '2' || c.say("RCPT TO:"+to+"\r\n") != '2' || c.say("DATA\r\n") != '3' {
			return false
		}
		p.sent++
		accepted = c.say(fmt.Sprintf(probeMail, p.sent, author)) == '2' || accepted
	}
	return accepted
}

// nothingLeft looks at the outbox and at what came to the trap: our own
// mailboxes, and nobody else.
func (p *probed) nothingLeft(t *testing.T, trap *nextHop) {
	t.Helper()
	var left []store.Delivery
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		queued := 0
		err := p.store.View(context.Background(), func(r store.Reader) (err error) {
			left, _, err = r.Deliveries(store.DeliveryFilter{}, store.Page{Limit: 1000})
			return err
		})
		for _, d := range left {
			if d.State == store.Queued {
				queued++
			}
		}
		if err != nil || time.Since(began) > 20*time.Second {
			t.Fatalf("%d deliveries are queued: %v", queued, err)
		}
		if queued == 0 {
			break
		}
	}
	own := settings(p.cfg)
	for _, d := range left {
		for _, r := range d.Recipients {
			if _, ok := own.Own(r.Address); !ok {
				t.Errorf("%s is in the outbox", r.Address)
			}
		}
	}
	trap.mu.Lock()
	defer trap.mu.Unlock()
	for _, m := range trap.got {
		for _, to := range m.to {
			if _, ok := own.Own(to); !ok || !strings.HasSuffix(strings.ToLower(to), "@city.example") {
				t.Errorf("relayed to %s", to)
			}
		}
	}
	ours := probeOurs
	if !p.cfg.has("inbound") {
		ours = nil
	}
	if asked := slices.Sorted(maps.Keys(p.accepted)); !slices.Equal(asked, ours) {
		t.Errorf("something was accepted by %q, of which ours are %q", asked, ours)
	}
	t.Logf("%d mails were for a mailbox of ours, %d went on to it", p.sent, len(trap.got))
}

// probeClient says lines as they are.
type probeClient struct {
	conn net.Conn
	r    *bufio.Reader
	err  error // the connection is at its end
}

// dialProbe connects from an address of loopback, with TLS where the listener
// has it.
func dialProbe(t *testing.T, from, at string, l Listener) *probeClient {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}
	conn, err := d.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	c := &probeClient{conn: conn, r: bufio.NewReader(conn)}
	hello := map[string]string{"smtp": "EHLO", "lmtp": "LHLO"}[l.Protocol] + " probe.example\r\n"
	if l.TLS == "implicit" {
		c.secure()
	}
	if c.read() != '2' || c.say(hello) != '2' {
		c.err = fmt.Errorf("turned away: %v", c.err)
		return c
	}
	if l.TLS == "starttls" && c.say("STARTTLS\r\n") == '2' {
		c.secure()
		c.say(hello)
	}
	return c
}

func (c *probeClient) greeted() bool { return c.err == nil }

func (c *probeClient) secure() {
	c.conn = tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true})
	c.r = bufio.NewReader(c.conn)
}

// say sends and returns the first digit of the answer, 0 if none came.
func (c *probeClient) say(text string) byte {
	if c.err == nil {
		_, c.err = c.conn.Write([]byte(text))
	}
	return c.read()
}

func (c *probeClient) read() byte {
	for c.err == nil {
		var line string
		if line, c.err = c.r.ReadString('\n'); len(line) > 3 && line[3] == ' ' {
			if strings.HasPrefix(line, "421") {
				c.err = fmt.Errorf("%s", strings.TrimSpace(line))
			}
			return line[0]
		}
	}
	return 0
}
