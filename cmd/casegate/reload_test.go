package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// reloadWith writes a new configuration and has the daemon take it; it returns
// the line that says what came of it.
func (g *gate) reloadWith(replace ...string) map[string]any {
	g.t.Helper()
	g.edit(replace...)
	done, refused := len(g.lines("reloaded")), len(g.lines(refusedLine))
	g.cmd.Process.Signal(syscall.SIGHUP)
	for range 1000 {
		if list := g.lines("reloaded"); len(list) > done {
			return list[done]
		}
		if list := g.lines(refusedLine); len(list) > refused {
			return list[refused]
		}
		time.Sleep(10 * time.Millisecond)
	}
	g.t.Fatalf("nothing came of SIGHUP:\n%s", g.log.String())
	return nil
}

// edit replaces pieces of the configuration.
func (g *gate) edit(replace ...string) {
	g.t.Helper()
	path := filepath.Join(g.dir, "casegate.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		g.t.Fatal(err)
	}
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(string(text), replace[i]) {
			g.t.Fatalf("the configuration has no %q", replace[i])
		}
	}
	g.write("casegate.yaml", []byte(strings.NewReplacer(replace...).Replace(string(text))))
}

const refusedLine = "the new configuration is refused, the old one stays"

func list(v any) (out []string) {
	values, _ := v.([]any)
	for _, one := range values {
		out = append(out, fmt.Sprint(one))
	}
	return out
}

// TestReload: a new configuration counts for new sessions, and for those only.
func TestReload(t *testing.T) {
	crm, world := startHop(t), startHop(t)
	g := startGate(t, "none", world.url)
	began, err := dialWire(g.at["inbound"], false)
	if err != nil {
		t.Fatal(err)
	}
	defer began.conn.Close()

	line := g.reloadWith(
		"  - {address: parks@city.example, queue: parks}", "  - {address: trees@city.example, queue: trees}",
		`next_hop: "none"`, fmt.Sprintf("next_hop: %q", crm.url),
		"log: {format: json}", "log: {format: json, level: debug}\nlimits: {recipients: 3}")
	same(t, "changed", list(line["changed"]), []string{"limits.recipients", "mailboxes[1].address", "mailboxes[1].queue", "routes[0].next_hop", "log.level"})

	// A session of before: the mailboxes, the limits and the routes of before.
	for _, c := range []struct{ line, code string }{
		{"MAIL FROM:<dana@example.net>", "250"}, {"RCPT TO:<trees@city.example>", "550"}, {"RCPT TO:<parks@city.example>", "250"},
	} {
		if reply, err := began.say(c.line); err != nil || !strings.HasPrefix(reply, c.code) {
			t.Errorf("a session of before, %s: %s %v", c.line, reply, err)
		}
	}
	began.say("RSET")
	if reply, err := began.send("dana@example.net", []string{"parks@city.example"}, writes(simpleMail("old", "dana@example.net", "parks@city.example"))); err != nil || !strings.HasPrefix(reply, "250") {
		t.Fatal(reply, err)
	}
	same(t, "deliveries by the routes of before", len(g.newest(t).Delivery), 0)

	out := swaks(t, g.at["inbound"], "dana@example.net", "parks@city.example", simpleMail("no", "dana@example.net", "parks@city.example"))
	if !strings.Contains(out, "550 5.1.1") {
		t.Errorf("a new session takes mail for a mailbox that is gone:\n%s", out)
	}
	swaksTaken(t, g.at["inbound"], "dana@example.net", "trees@city.example", simpleMail("new", "dana@example.net", "trees@city.example"))
	crm.take(t, "new")
	g.run("explain", g.write("x.eml", simpleMail("x", "dana@example.net", "trees@city.example")), "--from", "dana@example.net", "--rcpt", "trees@city.example")

	text, _ := g.page("/metrics")
	same(t, "reloads", sample(text, `casegate_reloads_total{outcome="done"}`), 1.0)
	if sample(text, fmt.Sprintf(`casegate_route_since_success_seconds{next_hop=%q,role="inbound"}`, crm.url)) < 0 {
		t.Errorf("no metric of the new route:\n%s", text)
	}
	g.settle()
	g.stop()
	if reply, err := began.reply(); err != nil || !strings.HasPrefix(reply, "421 ") {
		t.Errorf("a session of before is told %q, %v by a stop", reply, err)
	}
}

// TestCapsOverReloads: connections of before a reload count towards the caps of
// after it.
func TestCapsOverReloads(t *testing.T) {
	g := newGate(t, "none", "smtp://127.0.0.1:9")
	text := fmt.Sprintf(gateConfig, g.dir, "none", "smtp://127.0.0.1:9")
	g.write("casegate.yaml", []byte(strings.Replace(text, "bare_newline: normalize", "max_connections_per_peer: 2", 1)))
	g.start()
	for range 2 {
		c, err := dialWire(g.at["border"], false)
		if err != nil {
			t.Fatal(err)
		}
		defer c.conn.Close()
		g.reloadWith()
	}
	if _, err := dialWire(g.at["border"], false); err == nil || !strings.Contains(err.Error(), "421 4.7.0 Too many connections from your address") {
		t.Errorf("a third connection over three editions: %v", err)
	}
	text, _ = g.page("/metrics")
	same(t, "refusals", sample(text, `casegate_refusals_total{code="421",listener="border",reason="connections"}`), 1.0)
}

// TestReloadRefused: on any error the old configuration stays, in all its parts,
// and the log says where the mistake is.
func TestReloadRefused(t *testing.T) {
	g := startGate(t, "none", "smtp://127.0.0.1:9")
	t.Cleanup(g.log.Reset) // before stop, which minds errors
	good, _ := os.ReadFile(filepath.Join(g.dir, "casegate.yaml"))
	for name, c := range map[string]struct{ old, new, says string }{
		"a wrong word":    {"protocol: lmtp", "protocol: smpt", "casegate.yaml:6:"},
		"an unknown key":  {"log: {", "lag: {", "casegate.yaml:17:"},
		"not YAML":        {"mailboxes:", "mailboxes: [", "casegate.yaml:"},
		"a missing file":  {"console: {", "directory: {url: 'http://127.0.0.1/{address}', token_file: /nowhere}\nconsole: {", "/nowhere"},
		"no certificate":  {"bare_newline: normalize", "tls: starttls, tls_cert: /nowhere, tls_key: /nowhere", "border"},
		"a hidden secret": {`"smtp://127.0.0.1:9"`, `"smtp://kim:canarysecret@127.0.0.1:port"`, "casegate.yaml:"},
		"what is fixed":   {"address: 127.0.0.1:0}\nlog", "address: 127.0.0.1:1}\nlog", ""},
	} {
		line := g.reloadWith(c.old, c.new, "address: parks@", "address: trees@")
		if c.says == "" {
			same(t, name, line["msg"], any("reloaded"))
		} else if said := fmt.Sprint(line["error"]); !strings.Contains(said, c.says) || line["msg"] != refusedLine {
			t.Errorf("%s: %v", name, line)
		}
		out := swaks(t, g.at["inbound"], "dana@example.net", "parks@city.example", simpleMail("kept", "dana@example.net", "parks@city.example"))
		if c.says != "" && !strings.Contains(out, "250 2.0.0 accepted") {
			t.Errorf("%s: the old configuration does not count any more:\n%s", name, out)
		}
		g.write("casegate.yaml", good)
		g.reloadWith()
	}
	same(t, "kept", list(g.await("these settings change with a restart only, and stay as they were", 1)["settings"]), []string{"console.address"})
	os.Remove(filepath.Join(g.dir, "casegate.yaml"))
	g.cmd.Process.Signal(syscall.SIGHUP)
	time.Sleep(200 * time.Millisecond)
	if said := g.lines(refusedLine); !strings.Contains(fmt.Sprint(said[len(said)-1]), "casegate.yaml is gone") {
		t.Errorf("a file that is gone: %v", said[len(said)-1])
	}
	if strings.Contains(g.log.String(), "canarysecret") {
		t.Errorf("a secret is in the log:\n%s", g.log.String())
	}
	g.write("casegate.yaml", good)
	g.log.Reset()
}

// TestReloadUnderLoad reloads again and again in the middle of a load: nobody
// is refused, and nothing is lost.
func TestReloadUnderLoad(t *testing.T) {
	l := newLoad(t, rigOptions{})
	text, err := os.ReadFile(l.config)
	if err != nil {
		t.Fatal(err)
	}
	l.run(func(r *rand.Rand) int { return 1 + r.IntN(60<<10) })
	// Clients that come anew for each mail: what a reload could refuse.
	var dials, failed atomic.Int64
	for n := range 2 {
		l.clients.Go(func() {
			for i := 0; !l.stopped.Load() && !t.Failed(); i++ {
				c, err := dialWire(l.at("inbound"), false)
				dials.Add(1)
				if err != nil {
					failed.Add(1)
					t.Errorf("connecting while it reloads: %v", err)
					continue
				}
				from := fmt.Sprintf("anew%d-%d@example.org", n, i)
				eml := loadMail(fmt.Sprintf("anew-%d-%d", n, i), from, rigMailbox, 1000)
				m := l.note(fmt.Sprintf("anew-%d-%d", n, i), eml, 0)
				reply, err := c.send(from, []string{rigMailbox}, writes(eml))
				if err != nil || !l.heard("inbound", reply) {
					t.Errorf("a session that met a reload: %s %v", reply, err)
				} else {
					l.ack(m, acceptedID(reply))
				}
				c.conn.Close()
			}
		})
	}
	const rounds = 30
	for round := range rounds {
		more := fmt.Sprintf("limits: {recipients: %d}\n", 100+round)
		if round%5 == 4 {
			more = "limits: {recipients: none}\n" // refused
		}
		if err := os.WriteFile(l.config, append(append([]byte{}, text...), more...), 0o600); err != nil {
			t.Fatal(err)
		}
		l.cmd.Process.Signal(syscall.SIGHUP)
		time.Sleep(100 * time.Millisecond)
	}
	if err := os.WriteFile(l.config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	refused := l.complaints()
	same(t, "refused reloads", len(refused) >= rounds/5-1, true)
	for _, line := range refused {
		if !strings.Contains(line, refusedLine) || !strings.Contains(line, "limits.recipients") {
			t.Errorf("the daemon complains: %s", line)
		}
	}
	before := l.acked()
	l.finish()
	same(t, "cut off", l.replies[""], 0)
	t.Logf("%d reloads, %d fresh connections, %d failed; %d acknowledged meanwhile", rounds, dials.Load(), failed.Load(), before)
	if dials.Load() < 10 {
		t.Errorf("only %d connections", dials.Load())
	}
}

// TestKeep: what needs a restart is put back and named; all else is listed by
// its path.
func TestKeep(t *testing.T) {
	base := fmt.Sprintf(gateConfig, "/x", "none", "smtp://127.0.0.1:9")
	was, err := parseConfig("a", []byte(base), nil)
	if err != nil {
		t.Fatal(err)
	}
	now, err := parseConfig("b", []byte(strings.NewReplacer(
		"hostname: gw.city.example", "hostname: gw2.city.example",
		"data_dir: ./data", "data_dir: ./elsewhere",
		"{name: lmtp, ", "{name: lmtp2, ",
		"lmtp.sock", "lmtp2.sock",
		"peers: [127.0.0.0/8], send_as: [kim@city.example]", "peers: [127.0.0.1], send_as: [311@city.example]",
		"log: {format: json}", "log: {format: text, level: warn}\nretry: {schedule: [1m]}\nreopen: {per_day: 9}",
	).Replace(base)), nil)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "kept", now.keep(was), []string{"hostname", "data_dir", "log.format",
		"listeners[lmtp2] (new)", "listeners[lmtp-unix].address", "listeners[lmtp] (gone)"})
	same(t, "changed", changes(was, now), []string{"listeners[desk].peers", "listeners[desk].send_as", "reopen.per_day", "retry.schedule", "log.level"})
	same(t, "the same", len(changes(now, now)), 0)
}

// TestKeptMustFit: an address that is kept and peers that are not must not make
// an open relay.
func TestKeptMustFit(t *testing.T) {
	text := func(listener string) []byte {
		return []byte("listeners:\n  - {name: desk, role: outbound, protocol: smtp, " + listener + "}\n")
	}
	was, err := parseConfig("a", text("address: 192.0.2.7:587, peers: [10.0.0.0/8]"), nil)
	if err != nil {
		t.Fatal(err)
	}
	now, err := parseConfig("b", text("address: 127.0.0.1:587"), nil)
	if err != nil {
		t.Fatal(err)
	}
	now.keep(was)
	if found := now.check(); len(found) != 1 || !strings.Contains(found[0].what, "would relay mail for everyone") {
		t.Errorf("what is kept and what is new: %v", found)
	}
}

// writes sends a message.
func writes(eml []byte) func(io.Writer) error {
	return func(w io.Writer) error { _, err := w.Write(eml); return err }
}

// TestReloadAuthentication: a listener begins to check senders, by a DNS server
// that is changed then, without a restart.
func TestReloadAuthentication(t *testing.T) {
	g := startGate(t, "none", "smtp://127.0.0.1:9")
	dns := startDNS(t)
	dns.set("_dmarc.bank.example", "v=DMARC1; p=reject")
	dns.set("bank.example", "v=spf1 -all")
	says := func(subject, words string, more ...string) {
		t.Helper()
		id, _ := swaksTaken(t, g.at["inbound"], "dana@bank.example", "311@city.example", simpleMail(subject, "dana@bank.example", "311@city.example"), more...)
		if text := string(g.run("explain", id)); strings.Contains(text, "authentication:") != (words != "") || !strings.Contains(text, words) {
			t.Errorf("%s: %s", subject, text)
		}
	}
	says("off", "")
	line := g.reloadWith(
		"{name: inbound,   role: inbound,", "{name: inbound, authentication: check, trust: [xclient], role: inbound,",
		"console:", "dns: {servers: [127.0.0.1:1], timeout: 1s}\nconsole:")
	same(t, "changed", list(line["changed"]), []string{"listeners[inbound].trust", "listeners[inbound].authentication", "dns.servers", "dns.timeout"})
	client := []string{"--xclient", "ADDR=198.51.100.7 NAME=mail.spoof.example"}
	says("dead", "dmarc=temperror", client...)
	g.reloadWith("127.0.0.1:1]", `"`+dns.address+`"]`)
	says("alive", "spf=fail (bank.example), dkim=none: forged: the policy of the domain is reject", client...)
}
