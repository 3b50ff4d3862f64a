package main

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// sameConfig compares all that a file can set.
func sameConfig(t *testing.T, got, want *Config) {
	t.Helper()
	opts := cmp.Options{
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".file" || p.Last().String() == ".places" }, cmp.Ignore()),
		cmp.AllowUnexported(Config{}),
		cmpopts.EquateEmpty(),
	}
	if diff := cmp.Diff(want, got, opts); diff != "" {
		t.Errorf("differs (-want +got):\n%s", diff)
	}
}

func example(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestExampleIsDefaults(t *testing.T) {
	c, err := parseConfig("config.example.yaml", []byte(example(t)), nil)
	if err != nil {
		t.Fatal(err)
	}
	sameConfig(t, c, defaults())
}

// commented is an option, as opposed to prose: # and at once a key.
var commented = regexp.MustCompile(`(?m)^#((?:  )?[a-z_]+:)`)

func TestExampleUncommentedIsDefaults(t *testing.T) {
	text := commented.ReplaceAllString(example(t), "$1")
	c, err := parseConfig("config.example.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	sameConfig(t, c, defaults())
}

// TestExampleSaysEverything: each setting, and each key of objects in lists,
// stands in the example; each by a line of its own.
func TestExampleSaysEverything(t *testing.T) {
	text := example(t)
	tree, _, found := readYAML("x", []byte(commented.ReplaceAllString(text, "$1")))
	if len(found) > 0 {
		t.Fatal(found)
	}
	for _, l := range leaves(defaults()) {
		section := tree
		for _, name := range l.path[:len(l.path)-1] {
			section, _ = section[name].(map[string]any)
		}
		if _, ok := section[l.path[len(l.path)-1]]; !ok {
			t.Errorf("%s is not in the example", l.dots())
		}
		if l.value.Kind().String() != "slice" || !isSection(l.value.Type().Elem()) {
			continue
		}
		for _, name := range keysOf(l.value.Type().Elem()) {
			if !regexp.MustCompile(`(?m)^#   ` + name + `  `).MatchString(text) {
				t.Errorf("%s[].%s is not in the manual", l.dots(), name)
			}
		}
	}
}

// TestExampleObjects: the objects shown in the manual are valid where they say.
func TestExampleObjects(t *testing.T) {
	text := example(t)
	objects := regexp.MustCompile(`(?m)^# (- \{.*\})$`).FindAllStringSubmatch(text, -1)
	if len(objects) != 6 {
		t.Fatalf("%d objects", len(objects))
	}
	for _, m := range objects {
		before := "listeners:\n"
		if strings.Contains(m[1], "next_hop") || strings.Contains(m[1], "next_hops") {
			before = "routes:\n"
		}
		with := strings.Replace(text, before, before+"  "+m[1]+"\n", 1)
		if strings.Contains(m[1], "selector") {
			with = strings.Replace(text, "#dkim: []", "dkim:\n"+m[1], 1)
		}
		if _, err := parseConfig("example", []byte(with), nil); err != nil {
			t.Errorf("%s: %v", m[1], err)
		}
	}
}

// TestMistakes: for each mistake the exact words, at the exact place. The base
// is the example, with the change made in it.
func TestMistakes(t *testing.T) {
	for _, tc := range []struct {
		name     string
		old, new string // replaced in the example; old empty: appended
		want     string // error / hint lines
	}{
		{"protocol", "protocol: lmtp", "protocol: lmpt",
			`c.yaml:5:49: listeners[1].protocol: "lmpt" is not a protocol / write smtp or lmtp`},
		{"role", "role: outbound, next_hop", "role: out, next_hop",
			`c.yaml:10:3: routes: outbound mail has no way out / add {role: outbound, next_hop: smtp://HOST:25}` + "\n" +
				`c.yaml:11:12: routes[1].role: "out" is not a role / write inbound or outbound`},
		{"unknown key", "data_dir:", "datadir:",
			`c.yaml:2:1: unknown key "datadir" / did you mean data_dir?`},
		{"unknown key in a list", "name: lmtp,     ", "nam: lmtp,     ",
			`c.yaml:5:6: listeners[1]: unknown key "nam" / did you mean name?`},
		{"unknown key far from all", "", "zzzzzzzz: 1",
			`c.yaml:LAST:1: unknown key "zzzzzzzz" / keys here: hostname, data_dir, listeners, limits, mailboxes, routes, console, identity, reopen, dedupe_window, flood, ack, acknowledgement, orphan_auto, directory, dns, subject_tag, outbound, dkim, case_log, retry, log`},
		{"capital key", "hostname:", "Hostname:",
			`c.yaml:1:1: unknown key "Hostname" / did you mean hostname?`},
		{"duplicate key", "", "hostname: other.example",
			`c.yaml:LAST:1: hostname: set already in line 1 / keep one of the two`},
		{"duplicate key below", "", "reopen: {window: 1d, per_day: 3, window: 2d}",
			`c.yaml:LAST:34: reopen.window: set already in line LAST / keep one of the two`},
		{"bare duration", "", "dedupe_window: 30",
			`c.yaml:LAST:16: dedupe_window: 30 has no unit / write "30s" for seconds (or m, h, d)`},
		{"no duration", "", "dedupe_window: soon",
			`c.yaml:LAST:16: dedupe_window: "soon" is not a duration / write a number with a unit, such as "30s", "5m", "4h" or "30d"`},
		{"negative duration", "", "dedupe_window: -4h",
			`c.yaml:LAST:16: dedupe_window: "-4h" is not a duration / write a number with a unit, such as "30s", "5m", "4h" or "30d"`},
		{"bare number in a list", "", "retry: {schedule: [1m, 5]}",
			`c.yaml:LAST:24: retry.schedule[1]: 5 has no unit / write "5s" for seconds (or m, h, d)`},
		{"bare size", "", "limits: {message_size: 35}",
			`c.yaml:LAST:24: limits.message_size: 35 has no unit / write "35MiB" (or KiB, GiB, KB, MB, GB, B)`},
		{"no size", "", "limits: {message_size: 35M}",
			`c.yaml:LAST:24: limits.message_size: "35M" is not a size / write a whole number with a unit, such as "64KiB", "35MiB" or "25MB"`},
		{"small size", "", "limits: {message_size: 1KiB}",
			`c.yaml:LAST:24: limits.message_size: 1KiB is too small for mail / write 64KiB or more`},
		{"no number", "", "limits: {recipients: many}",
			`c.yaml:LAST:22: limits.recipients: "many" is not a whole number / write a number such as 100`},
		{"broken number", "", "limits: {recipients: 1.5}",
			`c.yaml:LAST:22: limits.recipients: 1.5 is not a whole number / write a number such as 100`},
		{"too few", "", "limits: {recipients: 0}",
			`c.yaml:LAST:22: limits.recipients: 0 is too few / write 1 or more`},
		{"no boolean", "", "outbound: {bcc_current_user: maybe}",
			`c.yaml:LAST:30: outbound.bcc_current_user: "maybe" is neither true nor false / write true or false`},
		{"no text", "hostname: gw.city.example", "hostname: 42",
			`c.yaml:1:11: hostname: 42 is not text / put it in quotes: "42"`},
		{"no list", "peers: [127.0.0.0/8]}   #", "peers: 127.0.0.0/8}   #",
			`c.yaml:5:87: listeners[1].peers: "127.0.0.0/8" is not a list / write a list: [a, b], or one line with a dash for each`},
		{"no section", "console: {address: 127.0.0.1:8025}", "console: 127.0.0.1:8025",
			`c.yaml:12:10: console: "127.0.0.1:8025" is not a section / write {key: value, ...}, or one key per line below it`},
		{"no object", "  - {address: 311@city.example, queue: general}", "  - 311@city.example",
			`c.yaml:8:5: mailboxes[0]: "311@city.example" is not a section / write {key: value, ...}, or one key per line below it`},
		{"null list", "  - {address: 311@city.example, queue: general}\n", "",
			`c.yaml:7:1: mailboxes: has no value / write [] for none, or remove the line for the default`},
		{"null text", "hostname: gw.city.example", "hostname:",
			`c.yaml:1:1: hostname: has no value / write hostname: "" for none, or remove the line for the default`},
		{"missing", "name: lmtp, ", "",
			`c.yaml:5:5: listeners[1].name: missing / write name: and a value`},
		{"missing with words", "role: inbound,  protocol: lmtp", "protocol: lmtp",
			`c.yaml:5:5: listeners[1].role: missing / write role: inbound or outbound`},
		{"two names", "name: lmtp,     ", "name: inbound,  ",
			`c.yaml:5:12: listeners[1].name: "inbound" is the name of listeners[0] already / give each listener a name of its own`},
		{"two listeners on one address", "127.0.0.1:2524", "127.0.0.1:2525",
			`c.yaml:5:64: listeners[1].address: 127.0.0.1:2525 is taken by listener "inbound" already / give each its own port`},
		{"a listener for all addresses", "127.0.0.1:2524", "0.0.0.0:2525",
			`c.yaml:5:64: listeners[1].address: 0.0.0.0:2525 is taken by listener "inbound" already / give each its own port`},
		{"console on a listener", "127.0.0.1:8025", "localhost:2587",
			`c.yaml:12:20: console.address: localhost:2587 is taken by listener "smarthost" already / give each its own port`},
		{"console on a network", "127.0.0.1:8025", "0.0.0.0:8025",
			`c.yaml:12:20: console.address: 0.0.0.0:8025 is open to a network, and signing in is not built yet / write an address on 127.0.0.1`},
		{"no port", "127.0.0.1:2524", "127.0.0.1",
			`c.yaml:5:64: listeners[1].address: "127.0.0.1" is not host:port / write such as "127.0.0.1:2525", "[::1]:2525" or "unix:/run/casegate/lmtp.sock"`},
		{"large port", "127.0.0.1:2524", "127.0.0.1:70000",
			`c.yaml:5:64: listeners[1].address: "70000" is not a port / write a port number from 1 to 65535`},
		{"host name", "127.0.0.1:2524", "gw.city.example:2524",
			`c.yaml:5:64: listeners[1].address: "gw.city.example" is not an IP address to listen on / write such as "127.0.0.1:2525", "[::1]:2525" or "unix:/run/casegate/lmtp.sock"`},
		{"relative socket", "127.0.0.1:2524", "unix:lmtp.sock",
			`c.yaml:5:64: listeners[1].address: "lmtp.sock" is not the path of a UNIX socket / write an absolute path of at most 107 characters: unix:/run/casegate/lmtp.sock`},
		{"network", "peers: [127.0.0.0/8]}   #", "peers: [127.0.0.0/33]}   #",
			`c.yaml:5:88: listeners[1].peers[0]: "127.0.0.0/33" is not a network / write such as "10.1.0.0/16", "192.0.2.7" or "2001:db8::/32"`},
		{"host bits", "peers: [127.0.0.0/8]}   #", "peers: [127.0.0.1/8]}   #",
			`c.yaml:5:88: listeners[1].peers[0]: "127.0.0.1/8" is an address within a network, not a network / write 127.0.0.0/8 for the network, or 127.0.0.1 for the one address`},
		{"open relay", "127.0.0.1:2587, peers: [127.0.0.0/8]", "0.0.0.0:2587",
			`c.yaml:6:5: listeners[2].peers: outbound listener "smarthost" on 0.0.0.0:2587 would relay mail for everyone / set peers to the networks of the desk, such as [10.1.0.0/16], or listen on 127.0.0.1`},
		{"open relay by a network", "127.0.0.1:2587, peers: [127.0.0.0/8]", "192.0.2.1:2587, peers: [0.0.0.0/1, 128.0.0.0/1]",
			`c.yaml:6:87: listeners[2].peers: outbound listener "smarthost" on 192.0.2.1:2587 would relay mail for everyone / set peers to the networks of the desk, such as [10.1.0.0/16], or listen on 127.0.0.1`},
		{"send_as inbound", "protocol: lmtp", "protocol: lmtp, send_as: [a@b.example]",
			`c.yaml:5:64: listeners[1].send_as: an inbound listener sends as nobody / remove it, or set it on the outbound listener`},
		{"trust in what", "protocol: lmtp", "protocol: lmtp, trust: [me]",
			`c.yaml:5:63: listeners[1].trust[0]: "me" is not one of its values / write authres, control_headers, xforward or xclient`},
		{"authentication", "protocol: lmtp", "protocol: lmtp, authentication: checked",
			`c.yaml:5:71: listeners[1].authentication: "checked" is not one of its values / write off, upstream or check`},
		{"check of the desk", "127.0.0.1:2587", "127.0.0.1:2587, authentication: check",
			`c.yaml:6:96: listeners[2].authentication: only mail from outside is authenticated / remove it, or set it on the inbound listener`},
		{"check of a form", "127.0.0.1:2524", "127.0.0.1:2524, trusted_form: true, authentication: check",
			`c.yaml:5:116: listeners[1].authentication: a trusted form says itself who the sender is / remove it, or trusted_form`},
		{"check of a peer's results", "127.0.0.1:2524", "127.0.0.1:2524, authserv_id: mx.example, authentication: check",
			`c.yaml:5:93: listeners[1].authserv_id: check believes nobody's Authentication-Results / remove it, or write authentication: upstream`},
		{"a DNS server by name", "", "dns: {servers: [127.0.0.1, dns.example]}",
			`c.yaml:LAST:28: dns.servers[1]: "dns.example" is not the address of a DNS server / write such as "127.0.0.1", "10.1.0.53:5353" or "[2001:db8::53]:53"`},
		{"few queries", "", "dns: {queries: 3}",
			`c.yaml:LAST:16: dns.queries: 3 is too few: SPF alone may take more / write 20 or more`},
		{"no time for the DNS", "", "dns: {timeout: 5ms}",
			`c.yaml:LAST:16: dns.timeout: 5ms is too short / write 100ms or more`},
		{"too much time for the DNS", "", "dns: {timeout: 5m}",
			`c.yaml:LAST:16: dns.timeout: 5m is too long: the client waits meanwhile / write 1m or less`},
		{"trust of everyone", "127.0.0.1:2524, peers: [127.0.0.0/8]", "0.0.0.0:2524, trust: [authres]",
			`c.yaml:5:85: listeners[1].trust: listener "lmtp" would believe everyone / set peers to the machines whose words count`},
		{"upstream without trust", "protocol: lmtp", "protocol: lmtp, authentication: upstream, authserv_id: mx.example",
			`c.yaml:5:71: listeners[1].authentication: upstream reads Authentication-Results, which nobody is trusted for / add trust: [authres]`},
		{"upstream of nobody", "protocol: lmtp", "protocol: lmtp, trust: [authres], authentication: upstream",
			`c.yaml:5:89: listeners[1].authentication: upstream needs to know whose Authentication-Results count / add authserv_id: and the name that the peer writes into them, such as mx.city.example`},
		{"directory", "", "directory: {url: https://crm.example/}",
			`c.yaml:LAST:18: directory.url: "https://crm.example/" cannot be asked for an address / write such as https://crm.city.example/contacts?email={address}`},
		{"trusted form for everyone", "127.0.0.1:2524, peers: [127.0.0.0/8]", "0.0.0.0:2524, trusted_form: true",
			`c.yaml:5:92: listeners[1].trusted_form: listener "lmtp" would let anyone say who a customer is / set it on an inbound listener whose peers are the form's own machines`},
		{"trusted form of the desk", "127.0.0.1:2587", "127.0.0.1:2587, trusted_form: true",
			`c.yaml:6:94: listeners[2].trusted_form: listener "smarthost" would let anyone say who a customer is / set it on an inbound listener whose peers are the form's own machines`},
		{"no connections", "protocol: lmtp", "protocol: lmtp, max_connections: 0",
			`c.yaml:5:72: listeners[1].max_connections: 0 is too few / write 1 or more`},
		{"ack", "", "ack: maybe",
			`c.yaml:LAST:6: ack: "maybe" is not one of its values / write off or on`},
		{"mailbox", "311@city.example", "office",
			`c.yaml:8:15: mailboxes[0].address: "office" is not an e-mail address: it has no @ / write an address such as 311@city.example`},
		{"mailbox with a blank", "311@city.example", "3 11@city.example",
			`c.yaml:8:15: mailboxes[0].address: "3 11@city.example" is not an e-mail address: "3 11" cannot stand before the @ / write an address such as 311@city.example`},
		{"mailbox too long", "311@city.example", "office-of-the-mayor-and-council@city.example",
			`c.yaml:8:15: mailboxes[0].address: "office-of-the-mayor-and-council@city.example" leaves no room for tracking: its local part has 31 octets, at most 27 fit / choose a shorter mailbox name`},
		{"mailbox with a plus", "311@city.example", "311+tips@city.example",
			`c.yaml:8:15: mailboxes[0].address: "311+tips@city.example" has a plus, which is kept for tracking / write 311@city.example; mailbox+anything is the same mailbox`},
		{"mailbox twice", "queue: general}", "queue: general}\n  - {address: 311@CITY.example}",
			`c.yaml:9:15: mailboxes[1].address: "311@CITY.example" is mailboxes[0] already / remove one of the two`},
		{"no mailbox", "mailboxes:\n  - {address: 311@city.example, queue: general}", "mailboxes: []",
			`c.yaml:7:12: mailboxes: an inbound listener has no mailbox to take mail for / write such as [{address: 311@city.example, queue: general}]`},
		{"next hop", "smtp://127.0.0.1:2526", "127.0.0.1:2526",
			`c.yaml:11:32: routes[1].next_hop: "127.0.0.1:2526" is not a next hop / write such as "smtp://mx.city.example:25", "lmtp://127.0.0.1:24", "lmtp:///run/dovecot/lmtp" or none`},
		{"next hop with a password", "smtp://127.0.0.1:2526", "smtp://me:secret@127.0.0.1:2526",
			`c.yaml:11:32: routes[1].next_hop: a next hop holds no credentials / write auth: {user: NAME, password_file: PATH} instead of what stands before the @`},
		{"outbound to nowhere", "smtp://127.0.0.1:2526, tls: none", "none",
			`c.yaml:11:32: routes[1].next_hop: none would accept outbound mail and send it nowhere / write such as smtp://127.0.0.1:25`},
		{"next hop is us", "smtp://127.0.0.1:2526", "smtp://127.0.0.1:2525",
			`c.yaml:11:32: routes[1].next_hop: smtp://127.0.0.1:2525 is our own listener "inbound", a loop / write the address of the mail server behind us`},
		{"a pin without pinning", "tls: none", "tls: verify, tls_pin: [ab]",
			`c.yaml:11:60: routes[1].tls: next hop smtp://127.0.0.1:2526: tls pin and the pins themselves go together / see tls, tls_pin, tls_ca and auth in config.example.yaml`},
		{"a password in the clear", "tls: none", "tls: require, auth: {user: kim, password_file: /x}",
			`c.yaml:11:60: routes[1].tls: next hop smtp://127.0.0.1:2526: signing in needs tls verify or pin, not require: credentials are for the next hop alone / see tls, tls_pin, tls_ca and auth in config.example.yaml`},
		{"two words on the next hop", "tls: none", "next_hops: [smtp://127.0.0.1:2627]",
			`c.yaml:11:66: routes[1].next_hops: there is a next_hop too / write it as the first of next_hops`},
		{"a mailbox that is not ours", "tls: none", "mailbox: 312@city.example",
			`c.yaml:10:3: routes: outbound mail has no way out / add {role: outbound, next_hop: smtp://HOST:25}` + "\n" +
				`c.yaml:11:64: routes[1].mailbox: "312@city.example" is none of our mailboxes / write one of those of mailboxes`},
		{"a sender that nobody is", "tls: none", "sender: a b",
			`c.yaml:10:3: routes: outbound mail has no way out / add {role: outbound, next_hop: smtp://HOST:25}` + "\n" +
				`c.yaml:11:63: routes[1].sender: "a b" is no address, domain or <> / write such as 311@city.example, city.example, .city.example or <>`},
		{"TLS of no kind", "tls: none", "tls: yes",
			`c.yaml:11:60: routes[1].tls: "yes" is not one of its values / write none, opportunistic, require, verify or pin`},
		{"route never used", "  - {role: inbound,  next_hop: none} ", "  - {role: inbound,  next_hop: none}\n  - {role: inbound, next_hop: none} ",
			`c.yaml:11:5: routes[1]: never used: routes[0] takes all inbound mail / move the route without recipient_domain behind the others`},
		{"no way out", "  - {role: outbound, next_hop: smtp://127.0.0.1:2526, tls: none} ", "  ",
			`c.yaml:10:3: routes: outbound mail has no way out / add {role: outbound, next_hop: smtp://HOST:25}`},
		{"flood per minute", "", "flood: {new_cases: 100/m}",
			`c.yaml:LAST:20: flood.new_cases: "100/m" cannot be counted / write bounds of at most 1000 an hour (h) or a day (d), such as 100/h,500/d, or off`},
		{"too many to count", "", "flood: {answers: '30/h,2000/d'}",
			`c.yaml:LAST:18: flood.answers: "2000/d" cannot be counted / write bounds of at most 1000 an hour (h) or a day (d), such as 100/h,500/d, or off`},
		{"flood", "", "flood: {new_cases: 100}",
			`c.yaml:LAST:20: flood.new_cases: "100" is not a rate / write such as "100/h,500/d", or off`},
		{"on_unverified", "", "identity: {on_unverified: customer}",
			`c.yaml:LAST:27: identity.on_unverified: "customer" is not one of its values / write contact or guest`},
		{"mode", "protocol: lmtp", "protocol: lmtp, mode: watch",
			`c.yaml:5:61: listeners[1].mode: "watch" is not one of its values / write normal or observe`},
		{"uncased", "", "outbound: {uncased: open}",
			`c.yaml:LAST:21: outbound.uncased: "open" is not one of its values / write pass, reject or create`},
		{"nobody to hold for", "", "outbound: {unresolved: drop, new_recipients: hold}",
			`c.yaml:LAST:46: outbound.new_recipients: hold would hold nothing: unresolved: drop takes new recipients out / remove it, or write unresolved: text`},
		{"added and taken out", "", "outbound: {unresolved: drop, unresolved_originals: cc}",
			`c.yaml:LAST:52: outbound.unresolved_originals: cc would add those whom unresolved: drop takes out / remove one of the two`},
		{"on_unknown without a directory", "", "outbound: {on_unknown: pass}",
			`c.yaml:LAST:24: outbound.on_unknown: pass is about an outside directory, and there is none / set directory.url, or remove it`},
		{"create without a mailbox", "ALL", "hostname: gw.city.example\ndata_dir: ./data\nlisteners: [{name: desk, role: outbound, protocol: smtp, address: 127.0.0.1:2587}]\nmailboxes: []\nroutes: [{role: outbound, next_hop: smtp://127.0.0.1:2526}]\noutbound: {uncased: create}\n",
			`c.yaml:4:12: mailboxes: outbound.sender: mailbox and outbound.uncased: create need a mailbox that answers come back to / write such as [{address: 311@city.example, queue: general}]`},
		{"no selector", "", "dkim: [{domain: city.example, selector: a b, key: k}]",
			`c.yaml:LAST:41: dkim[0].selector: "a b" is not a selector / write letters, digits and hyphens, such as casegate1`},
		{"no signing domain", "", "dkim: [{domain: 311@city.example, selector: a, key: k}]",
			`c.yaml:LAST:17: dkim[0].domain: "311@city.example" is not a domain / write what stands behind the @ of your addresses, such as city.example`},
		{"no key", "", "dkim: [{domain: city.example, selector: a}]",
			`c.yaml:LAST:8: dkim[0].key: missing / write key: and a value`},
		{"a selector twice", "", "dkim: [{domain: city.example, selector: a, key: k}, {domain: city.example, selector: a, key: l}]",
			`c.yaml:LAST:86: dkim[1].selector: "a" of city.example is dkim[0] already / give each key a selector of its own`},
		{"on_signed", "", "outbound: {on_signed: keep}",
			`c.yaml:LAST:23: outbound.on_signed: "keep" is not one of its values / write strip or hold`},
		{"document type without eml", "", "case_log: {document_type: Letter, file_types: [pdf]}",
			`c.yaml:LAST:27: case_log.document_type: "Letter" asks for the EML of each answer, but eml is not among case_log.file_types / add eml to case_log.file_types, or remove document_type`},
		{"file type with a dot", "", "case_log: {file_types: [.eml]}",
			`c.yaml:LAST:25: case_log.file_types[0]: ".eml" is not a file type / write the letters behind the dot, small, such as eml`},
		{"no retry", "", "retry: {schedule: []}",
			`c.yaml:LAST:19: retry.schedule: empty / write such as [1m, 5m, 15m, 1h]`},
		{"level", "", "log: {level: loud}",
			`c.yaml:LAST:14: log.level: "loud" is not a level / write info, debug, warn or error`},
		{"host name of one word too many", "gw.city.example", "gw city",
			`c.yaml:1:11: hostname: "gw city" is not a host name / write the full name of this machine, such as gw.city.example`},
		{"syntax", "console: {address", "console: {{address",
			`c.yaml:12: did not find expected ',' or '}' / indent with spaces, not tabs, and put text with special characters in quotes`},
		{"second document", "", "---\nhostname: other.example",
			`c.yaml:LAST:1: a second document begins here / remove the line ---`},
		{"not a section at all", "ALL", "- a",
			`c.yaml:1:1: this is not a section / begin with a line such as hostname: gw.city.example`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := strings.Join(strings.SplitAfter(example(t), "\n")[:12], "")
			switch {
			case tc.old == "ALL":
				text = tc.new
			case tc.old == "":
				text += tc.new
			case !strings.Contains(text, tc.old):
				t.Fatalf("%q is not in the example", tc.old)
			default:
				text = strings.Replace(text, tc.old, tc.new, 1)
			}
			_, err := parseConfig("c.yaml", []byte(text), nil)
			want := strings.ReplaceAll(tc.want, "LAST", "13")
			if got := told(t, err); got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// told is every mistake as "error / hint", a line each.
func told(t *testing.T, err error) string {
	t.Helper()
	var list problems
	if !errors.As(err, &list) {
		t.Fatalf("no problems but %v", err)
	}
	var lines []string
	for _, p := range list {
		lines = append(lines, p.Error()+" / "+p.hint)
	}
	return strings.Join(lines, "\n")
}

// TestAllMistakes: every mistake is told, in the order of the file.
func TestAllMistakes(t *testing.T) {
	_, err := parseConfig("c.yaml", []byte(`hostnam: a
dedupe_window: 30
listeners:
  - {name: a, role: inbound, protocol: smpt, address: 127.0.0.1:2525}
  - {name: a, role: outbound, protocol: smtp, address: "[::]:587"}
limits: {message_size: 10}
`), []string{"CASEGATE_LIMITS_RECIPIENTS=lots", "PATH=/bin", "CASEGATE_LIMITS_RECIPIENT=3", "CASEGATE_SERVICE_HOST=10.0.0.1"})
	want := `c.yaml:1:1: unknown key "hostnam" / did you mean hostname?
c.yaml:2:16: dedupe_window: 30 has no unit / write "30s" for seconds (or m, h, d)
c.yaml:4:40: listeners[0].protocol: "smpt" is not a protocol / write smtp or lmtp
c.yaml:5:5: listeners[1].peers: outbound listener "a" on [::]:587 would relay mail for everyone / set peers to the networks of the desk, such as [10.1.0.0/16], or listen on 127.0.0.1
c.yaml:5:12: listeners[1].name: "a" is the name of listeners[0] already / give each listener a name of its own
c.yaml:6:24: limits.message_size: 10 has no unit / write "10MiB" (or KiB, GiB, KB, MB, GB, B)
CASEGATE_LIMITS_RECIPIENT: unknown variable / did you mean CASEGATE_LIMITS_RECIPIENTS?
CASEGATE_LIMITS_RECIPIENTS: limits.recipients: "lots" is not a whole number / write a number such as 100`
	if got := told(t, err); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestEnvironment(t *testing.T) {
	text := "hostname: file.example\nretry: {expire: 1d}\n"
	c, err := parseConfig("c.yaml", []byte(text), []string{
		"CASEGATE_HOSTNAME=env.example", "CASEGATE_DATA_DIR=/var/lib/casegate", "CASEGATE_CONSOLE_ADDRESS=127.0.0.1:9",
		"CASEGATE_LIMITS_RECIPIENTS=7", "CASEGATE_LIMITS_MESSAGE_SIZE=1MiB", "CASEGATE_OUTBOUND_BCC_CURRENT_USER=true",
		"CASEGATE_CASE_LOG_FILE_TYPES=eml, pdf", "CASEGATE_RETRY_SCHEDULE=1m,2m", "CASEGATE_FLOOD_NEW_CASES=off",
		`CASEGATE_MAILBOXES=[{address: a@b.example}]`, "CASEGATE_ALLOW_VOLATILE=1",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Hostname, want.DataDir, want.Console.Address = "env.example", "/var/lib/casegate", Endpoint{"tcp", "127.0.0.1:9"}
	want.Limits.Recipients, want.Limits.MessageSize, want.Outbound.BCCCurrentUser = 7, 1<<20, true
	want.CaseLog.FileTypes, want.Flood.NewCases = []string{"eml", "pdf"}, nil
	want.Retry.Schedule, want.Retry.Expire = []Duration{Duration(time.Minute), Duration(2 * time.Minute)}, Duration(24*time.Hour)
	want.Mailboxes = []Mailbox{{Address: "a@b.example", Queue: "general"}}
	sameConfig(t, c, want)
}

// TestEnvironmentNames: no two settings share a variable.
func TestEnvironmentNames(t *testing.T) {
	seen := map[string]string{}
	for _, l := range leaves(defaults()) {
		if other, twice := seen[l.env()]; twice {
			t.Errorf("%s is both %s and %s", l.env(), other, l.dots())
		}
		seen[l.env()] = l.dots()
	}
}

func TestLoadConfigFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	c, err := loadConfig("", nil)
	if err != nil {
		t.Fatal(err)
	}
	sameConfig(t, c, defaults())
	if _, err := loadConfig("no.yaml", nil); told(t, err) != "no.yaml: no such file or directory / write --config FILE with the path of the configuration" {
		t.Error(told(t, err))
	}
	for name, text := range map[string]string{"casegate.yaml": "hostname: a.example", "empty.yaml": "", "comment.yaml": "# nothing\n", "null.yaml": "---\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if c, err = loadConfig("", nil); err != nil || c.Hostname != "a.example" || c.file != "casegate.yaml" {
		t.Errorf("%+v, %v", c, err)
	}
	for _, name := range []string{"empty.yaml", "comment.yaml", "null.yaml"} {
		if c, err = loadConfig(name, nil); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		sameConfig(t, c, defaults())
	}
}

func TestValues(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"30s": 30 * time.Second, "5m": 5 * time.Minute, "4h": 4 * time.Hour, "30d": 720 * time.Hour,
		"1d12h": 36 * time.Hour, "1h30m": 90 * time.Minute, "250ms": time.Second / 4, "0s": 0, "0d": 0,
	} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || time.Duration(d) != want {
			t.Errorf("%s: %v, %v", text, d, err)
		}
		var again Duration
		if err := again.UnmarshalText([]byte(d.String())); err != nil || again != d {
			t.Errorf("%s is written %s: %v", text, d, err)
		}
	}
	for text, want := range map[string]Size{"64KiB": 64 << 10, "35MiB": 35 << 20, "25MB": 25e6, "1GiB": 1 << 30, "100B": 100, "2 KB": 2000} {
		var z Size
		if err := z.UnmarshalText([]byte(text)); err != nil || z != want {
			t.Errorf("%s: %v, %v", text, z, err)
		}
		if text != "2 KB" && z.String() != text {
			t.Errorf("%s is written %s", text, z)
		}
	}
	for text, want := range map[string]NextHop{
		"none":                       {},
		"smtp://mx.city.example":     {"smtp", Endpoint{"tcp", "mx.city.example:25"}},
		"smtp://[2001:db8::1]:26":    {"smtp", Endpoint{"tcp", "[2001:db8::1]:26"}},
		"lmtp://127.0.0.1":           {"lmtp", Endpoint{"tcp", "127.0.0.1:24"}},
		"lmtp:///run/dovecot/lmtp":   {"lmtp", Endpoint{"unix", "/run/dovecot/lmtp"}},
		"smtp://mx.city.example:25/": {"smtp", Endpoint{"tcp", "mx.city.example:25"}},
	} {
		var n NextHop
		if err := n.UnmarshalText([]byte(text)); err != nil || n != want {
			t.Errorf("%s: %+v, %v", text, n, err)
		}
		var again NextHop
		if err := again.UnmarshalText([]byte(n.String())); err != nil || again != n {
			t.Errorf("%s is written %s: %v", text, n, err)
		}
	}
}

func TestDNSServer(t *testing.T) {
	for text, want := range map[string]DNSServer{
		"127.0.0.1": "127.0.0.1:53", "10.1.0.53:5353": "10.1.0.53:5353", "2001:db8::53": "[2001:db8::53]:53",
		"[2001:db8::53]": "[2001:db8::53]:53", "[2001:db8::53]:54": "[2001:db8::53]:54",
		"": "", "127.0.0.1:0": "", "127.0.0.1:": "", "dns.example:53": "", "127.0.0.1:70000": "",
	} {
		var d DNSServer
		if err := d.UnmarshalText([]byte(text)); (err == nil) != (want != "") || d != want {
			t.Errorf("%q: %q, %v", text, d, err)
		}
	}
}

func TestSuggest(t *testing.T) {
	keys := keysOf(reflect.TypeFor[Config]())
	for typed, want := range map[string]string{"hostnmae": "hostname", "listener": "listeners", "case-log": "case_log", "dedupewindow": "dedupe_window", "foo": "", "q": ""} {
		if got := suggest(typed, keys); got != want {
			t.Errorf("%s: %q, want %q", typed, got, want)
		}
	}
}

func TestVolatile(t *testing.T) {
	if _, err := os.Stat("/dev/shm"); err != nil {
		t.Skip("no tmpfs here")
	}
	dir := filepath.Join("/dev/shm", "casegate-no-such-folder")
	err := refuseVolatile(dir, nil)
	if err == nil || !strings.Contains(err.Error(), "is on a tmpfs, which a reboot empties") {
		t.Errorf("%v", err)
	}
	if err := refuseVolatile(dir, []string{"CASEGATE_ALLOW_VOLATILE=1"}); err != nil {
		t.Error(err)
	}
	if kind, err := volatile("/proc"); err != nil || kind != "" {
		t.Error(kind, err)
	}
}

// FuzzConfig: no text makes the reader panic, and what it refuses it explains.
func FuzzConfig(f *testing.F) {
	for _, text := range []string{
		"", "a", "- a", "{}", "listeners:\n  -\n", "listeners: [~, 1, a, {}]", "listeners: {a: 1}", "retry: {schedule: [~]}",
		"reopen: &a {window: 1d}\nretry: *a\n", "<<: {hostname: a}", "? [a]\n: b", "hostname: !!binary aGk=", "hostname: 2001-01-01",
		"console: {address: {a: b}}", "flood: {new_cases: [1]}", "mailboxes: [[a]]", "limits:\n\trecipients: 3", "hostname: [", "routes: [{next_hop: 'smtp://%zz'}]",
		"case_log: {file_types: [1, true, ~]}", "dedupe_window: 99999999999999999999d", "limits: {message_size: 9999999999GiB}", "a: &a [*a]",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		_, err := parseConfig("c.yaml", []byte(text), nil)
		var list problems
		if err != nil && !errors.As(err, &list) {
			t.Fatalf("%T", err)
		}
		for _, p := range list {
			if p.what == "" || p.source != "c.yaml" || p.hint == "" {
				t.Errorf("%q: no words: %+v", text, p)
			}
		}
	})
}
