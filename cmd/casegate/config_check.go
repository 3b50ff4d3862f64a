package main

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/casegate/casegate/gateway/console"
	"github.com/casegate/casegate/gateway/relay"
	"github.com/casegate/casegate/store"
)

// check finds what is wrong with a configuration as a whole. Paths are set,
// places are not.
func (c *Config) check() problems {
	return slices.Concat(
		checkFields("", reflect.ValueOf(c).Elem()),
		c.checkHost(),
		c.checkListeners(),
		c.checkAddresses(),
		c.checkMailboxes(),
		c.checkRoutes(),
		c.checkNumbers(),
		c.checkCaseLog(),
		c.checkOutbound(),
		c.checkFlood(),
		c.checkDirectory(),
		c.checkDKIM(),
		c.checkDNS(),
	)
}

// checkFields applies the tags of Config: required and oneof.
func checkFields(path string, section reflect.Value) problems {
	var found problems
	for field, value := range section.Fields() {
		name := key(field)
		if name == "" {
			continue
		}
		here := strings.TrimPrefix(path+"."+name, ".")
		switch {
		case value.IsZero() && field.Tag.Get("required") != "":
			if name != "next_hop" { // its zero is none
				found = append(found, missing(path, name, field))
			}
		case isSection(field.Type):
			found = append(found, checkFields(here, value)...)
		case value.Kind() == reflect.Slice && isSection(field.Type.Elem()):
			for i := range value.Len() {
				found = append(found, checkFields(fmt.Sprintf("%s[%d]", here, i), value.Index(i))...)
			}
		default:
			found = append(found, checkValue(here, field, value)...)
		}
	}
	return found
}

func missing(path, name string, field reflect.StructField) problem {
	p := problem{path: strings.TrimPrefix(path+"."+name, "."), what: "missing", hint: "write " + name + ": and a value"}
	if words := strings.Fields(field.Tag.Get("oneof")); len(words) > 0 {
		p.hint = fmt.Sprintf("write %s: %s", name, choices(words))
	}
	return p
}

// checkValue holds one value, or each of a list, to the words it may have.
func checkValue(path string, field reflect.StructField, value reflect.Value) problems {
	oneof := strings.Fields(field.Tag.Get("oneof"))
	if len(oneof) == 0 || isText(field.Type) {
		return nil
	}
	if value.Kind() == reflect.Slice {
		var found problems
		for i := range value.Len() {
			found = append(found, checkValue(fmt.Sprintf("%s[%d]", path, i), field, value.Index(i))...)
		}
		return found
	}
	word := fmt.Sprint(value.Interface())
	if word == "" || slices.Contains(oneof, word) {
		return nil
	}
	what := fmt.Sprintf("%q is not one of its values", word)
	if noun := field.Tag.Get("noun"); noun != "" {
		what = fmt.Sprintf("%q is not a %s", word, noun)
	}
	return problems{{path: path, what: what, hint: "write " + choices(oneof)}}
}

func (c *Config) checkHost() problems {
	if c.Hostname != "" && !console.IsDomain(c.Hostname) {
		return problems{{path: "hostname", what: fmt.Sprintf("%q is not a host name", c.Hostname), hint: "write the full name of this machine, such as gw.city.example"}}
	}
	return nil
}

func (c *Config) checkListeners() problems {
	var found problems
	names := map[string]int{}
	for i, l := range c.Listeners {
		path := fmt.Sprintf("listeners[%d]", i)
		if first, twice := names[l.Name]; twice && l.Name != "" {
			found = append(found, problem{path: path + ".name", what: fmt.Sprintf("%q is the name of listeners[%d] already", l.Name, first), hint: "give each listener a name of its own"})
		} else {
			names[l.Name] = i
		}
		found = append(found, l.check(path)...)
	}
	return found
}

func (l Listener) check(path string) problems {
	var found problems
	if l.Role == "outbound" && l.open() {
		found = append(found, problem{path: path + ".peers",
			what: fmt.Sprintf("outbound listener %q on %s would relay mail for everyone", l.Name, l.Address),
			hint: "set peers to the networks of the desk, such as [10.1.0.0/16], or listen on 127.0.0.1"})
	}
	if len(l.SendAs) > 0 && l.Role == "inbound" {
		found = append(found, problem{path: path + ".send_as", what: "an inbound listener sends as nobody", hint: "remove it, or set it on the outbound listener"})
	}
	if l.TrustedForm && (l.Role != "inbound" || l.open()) {
		found = append(found, problem{path: path + ".trusted_form", what: fmt.Sprintf("listener %q would let anyone say who a customer is", l.Name),
			hint: "set it on an inbound listener whose peers are the form's own machines"})
	}
	found = append(found, l.checkBelief(path)...)
	found = append(found, l.checkTLS(path)...)
	found = append(found, l.checkAuth(path)...)
	found = append(found, l.checkProxy(path)...)
	for i, address := range l.SendAs {
		if err := console.CheckAddress(address); err != nil {
			found = append(found, problem{path: fmt.Sprintf("%s.send_as[%d]", path, i), what: err.Error(), hint: "write an address such as 311@city.example"})
		}
	}
	found = append(found, positive(path+".max_connections", l.MaxConnections)...)
	found = append(found, positive(path+".max_connections_per_peer", l.MaxConnectionsPerPeer)...)
	return found
}

// open reports whether anyone on a network may connect.
func (l Listener) open() bool {
	return !l.Address.loopback() && (len(l.Peers) == 0 || slices.ContainsFunc(l.Peers, Prefix.everyone))
}

// checkAddresses refuses two servers on one address; port 0 is a fresh one.
func (c *Config) checkAddresses() problems {
	type server struct {
		path, name string
		Endpoint
	}
	var servers []server
	for i, l := range c.Listeners {
		servers = append(servers, server{fmt.Sprintf("listeners[%d].address", i), fmt.Sprintf("listener %q", l.Name), l.Address})
	}
	servers = append(servers, server{"console.address", "the console", c.Console.Address})
	var found problems
	for i, s := range servers {
		for _, earlier := range servers[:i] {
			if s.clash(earlier.Endpoint) {
				found = append(found, problem{path: s.path, what: fmt.Sprintf("%s is taken by %s already", s.Endpoint, earlier.name), hint: "give each its own port"})
			}
		}
	}
	if a := c.Console.Address; a.Network != "" && !a.loopback() {
		found = append(found, problem{path: "console.address", what: fmt.Sprintf("%s is open to a network, and signing in is not built yet", a), hint: "write an address on 127.0.0.1"})
	}
	return found
}

// clash reports whether both cannot be listened on at once.
func (e Endpoint) clash(other Endpoint) bool {
	if e.Network != other.Network || e.Network == "" {
		return false
	}
	if e.Network == "unix" {
		return e.Address == other.Address
	}
	host, port, _ := net.SplitHostPort(e.Address)
	otherHost, otherPort, _ := net.SplitHostPort(other.Address)
	return port == otherPort && port != "0" && (sameHost(host, otherHost) || anyHost(host) || anyHost(otherHost))
}

func sameHost(a, b string) bool {
	local := func(h string) string { return strings.Replace(h, "localhost", "127.0.0.1", 1) }
	return local(a) == local(b)
}

func anyHost(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsUnspecified()
}

// tokenLength is the most a tracking token takes behind mailbox+ (rules §2).
const tokenLength = 36

func (c *Config) checkMailboxes() problems {
	var found problems
	seen := map[string]int{}
	for i, m := range c.Mailboxes {
		path := fmt.Sprintf("mailboxes[%d].address", i)
		local, domain, _ := strings.Cut(m.Address, "@")
		plain, _, plus := strings.Cut(local, "+")
		switch err := console.CheckAddress(m.Address); {
		case m.Address == "": // missing, said already
		case err != nil:
			found = append(found, problem{path: path, what: err.Error(), hint: "write an address such as 311@city.example"})
		case plus:
			found = append(found, problem{path: path, what: fmt.Sprintf("%q has a plus, which is kept for tracking", m.Address),
				hint: fmt.Sprintf("write %s@%s; mailbox+anything is the same mailbox", plain, domain)})
		case len(local)+1+tokenLength > 64:
			found = append(found, problem{path: path, what: fmt.Sprintf("%q leaves no room for tracking: its local part has %d octets, at most %d fit", m.Address, len(local), 64-1-tokenLength),
				hint: "choose a shorter mailbox name"})
		}
		if first, twice := seen[store.Key(m.Address)]; twice && m.Address != "" {
			found = append(found, problem{path: path, what: fmt.Sprintf("%q is mailboxes[%d] already", m.Address, first), hint: "remove one of the two"})
		} else {
			seen[store.Key(m.Address)] = i
		}
	}
	if len(c.Mailboxes) == 0 && c.has("inbound") {
		found = append(found, problem{path: "mailboxes", what: "an inbound listener has no mailbox to take mail for", hint: "write such as [{address: 311@city.example, queue: general}]"})
	}
	return found
}

// has reports whether any listener has the role.
func (c *Config) has(role string) bool {
	return slices.ContainsFunc(c.Listeners, func(l Listener) bool { return l.Role == role })
}

func (c *Config) checkRoutes() problems {
	var found problems
	taken := map[narrowing]int{}
	for i, r := range c.Routes {
		path, all, own := fmt.Sprintf("routes[%d]", i), narrowing{role: r.Role}, r.narrowing()
		if earlier, never := taken[all]; never && r.Role != "" {
			found = append(found, problem{path: path, what: fmt.Sprintf("never used: routes[%d] takes all %s mail", earlier, r.Role), hint: "move the route without recipient_domain behind the others"})
		} else if earlier, never := taken[own]; never {
			found = append(found, problem{path: path, what: fmt.Sprintf("never used: routes[%d] takes that mail", earlier), hint: "remove one of the two"})
		} else {
			taken[own] = i
		}
		found = append(found, r.check(path, c)...)
	}
	if _, ok := taken[narrowing{role: "outbound"}]; c.has("outbound") && !ok {
		found = append(found, problem{path: "routes", what: "outbound mail has no way out", hint: "add {role: outbound, next_hop: smtp://HOST:25}"})
	}
	return found
}

// narrowing is the mail that a route is for; empty fields narrow nothing.
type narrowing struct{ role, domain, sender, mailbox string }

func (r Route) narrowing() narrowing {
	return narrowing{r.Role, strings.ToLower(r.RecipientDomain), strings.ToLower(r.Sender), strings.ToLower(r.Mailbox)}
}

// hops are the next hops in their order; empty is none.
func (r Route) hops() []NextHop {
	if len(r.NextHops) > 0 || r.NextHop.None() {
		return r.NextHops
	}
	return []NextHop{r.NextHop}
}

// relay is the route as the relay knows it.
func (r Route) relay() relay.Route {
	out := relay.Route{
		Role: r.Role, Sender: r.Sender, Recipient: r.RecipientDomain, Mailbox: r.Mailbox, NextHop: relay.None,
		TLS: r.TLS, TLSPin: r.TLSPin, TLSCA: r.TLSCA, XForward: r.XForward,
		MaxConnections: r.MaxConnections, MaxPerSecond: float64(r.MaxPerSecond),
	}
	for i, n := range r.hops() {
		if i == 0 {
			out.NextHop = n.String()
		} else {
			out.Further = append(out.Further, n.String())
		}
	}
	if a := r.Auth; a != (RouteAuth{}) {
		out.Auth = &relay.Auth{User: a.User, PasswordFile: a.PasswordFile, TokenURL: a.TokenURL, ClientID: a.ClientID, SecretFile: a.ClientSecretFile, Scope: a.Scope}
	}
	return out
}

func (r Route) check(path string, c *Config) problems {
	var found problems
	if r.RecipientDomain != "" && !console.IsDomain(r.RecipientDomain) {
		found = append(found, problem{path: path + ".recipient_domain", what: fmt.Sprintf("%q is not a domain", r.RecipientDomain), hint: "write such as city.example"})
	}
	if r.Sender != "" && r.Sender != "<>" && !console.IsDomain(strings.TrimLeft(r.Sender, "@.")) && console.CheckAddress(r.Sender) != nil {
		found = append(found, problem{path: path + ".sender", what: fmt.Sprintf("%q is no address, domain or <>", r.Sender), hint: "write such as 311@city.example, city.example, .city.example or <>"})
	}
	if r.Mailbox != "" && !slices.ContainsFunc(c.Mailboxes, func(m Mailbox) bool { return store.Key(m.Address) == store.Key(r.Mailbox) }) {
		found = append(found, problem{path: path + ".mailbox", what: fmt.Sprintf("%q is none of our mailboxes", r.Mailbox), hint: "write one of those of mailboxes"})
	}
	if len(r.NextHops) > 0 && !r.NextHop.None() {
		found = append(found, problem{path: path + ".next_hops", what: "there is a next_hop too", hint: "write it as the first of next_hops"})
	}
	if len(r.hops()) == 0 {
		if r.Role == "outbound" {
			found = append(found, problem{path: path + ".next_hop", what: "none would accept outbound mail and send it nowhere", hint: "write such as smtp://127.0.0.1:25"})
		}
		return found
	}
	for i, n := range r.hops() {
		here := path + ".next_hop"
		if len(r.NextHops) > 0 {
			here = fmt.Sprintf("%s.next_hops[%d]", path, i)
		}
		if n.None() {
			found = append(found, problem{path: here, what: "none leads nowhere", hint: "remove it"})
		} else if k := slices.IndexFunc(c.Listeners, func(l Listener) bool { return l.Address.clash(n.Endpoint) && n.loopback() }); k >= 0 {
			found = append(found, problem{path: here, what: fmt.Sprintf("%s is our own listener %q, a loop", n, c.Listeners[k].Name), hint: "write the address of the mail server behind us"})
		}
	}
	if len(found) == 0 && r.wordsKnown() {
		if err := r.relay().Validate(); err != nil {
			found = append(found, problem{path: path + ".tls", what: err.Error(), hint: "see tls, tls_pin, tls_ca and auth in config.example.yaml"})
		}
	}
	return found
}

// wordsKnown reports whether checkFields finds nothing wrong with the words.
func (r Route) wordsKnown() bool { return len(checkFields("", reflect.ValueOf(r))) == 0 }

func positive(path string, n int) problems {
	if n > 0 {
		return nil
	}
	return problems{{path: path, what: fmt.Sprintf("%d is too few", n), hint: "write 1 or more"}}
}

func (c *Config) checkNumbers() problems {
	var found problems
	found = append(found, positive("limits.recipients", c.Limits.Recipients)...)
	found = append(found, atLeast("limits.idle_timeout", c.Limits.IdleTimeout, Duration(time.Second))...)
	found = append(found, atLeast("limits.body_timeout", c.Limits.BodyTimeout, Duration(time.Second))...)
	if c.Limits.MessageSize < 64<<10 {
		found = append(found, problem{path: "limits.message_size", what: fmt.Sprintf("%s is too small for mail", c.Limits.MessageSize), hint: "write 64KiB or more"})
	}
	if c.Reopen.PerDay < 0 {
		found = append(found, problem{path: "reopen.per_day", what: fmt.Sprintf("%d is less than none", c.Reopen.PerDay), hint: "write 0 for never, or more"})
	}
	if len(c.Retry.Schedule) == 0 {
		found = append(found, problem{path: "retry.schedule", what: "empty", hint: "write such as [1m, 5m, 15m, 1h]"})
	}
	for i, pause := range c.Retry.Schedule {
		found = append(found, atLeast(fmt.Sprintf("retry.schedule[%d]", i), pause, Duration(time.Second))...)
	}
	if len(c.Retry.Schedule) > 0 {
		found = append(found, atLeast("retry.expire", c.Retry.Expire, c.Retry.Schedule[0])...)
	}
	return found
}

func atLeast(path string, d, least Duration) problems {
	if d >= least {
		return nil
	}
	return problems{{path: path, what: fmt.Sprintf("%s is too short", d), hint: fmt.Sprintf("write %s or more", least)}}
}

func (c *Config) checkCaseLog() problems {
	var found problems
	for i, t := range c.CaseLog.FileTypes {
		if clean := strings.ToLower(strings.TrimLeft(t, ".*")); t != clean || clean == "" {
			found = append(found, problem{path: fmt.Sprintf("case_log.file_types[%d]", i), what: fmt.Sprintf("%q is not a file type", t), hint: "write the letters behind the dot, small, such as eml"})
		}
	}
	if c.CaseLog.DocumentType != "" && !slices.Contains(c.CaseLog.FileTypes, "eml") {
		found = append(found, problem{path: "case_log.document_type",
			what: fmt.Sprintf("%q asks for the EML of each answer, but eml is not among case_log.file_types", c.CaseLog.DocumentType),
			hint: "add eml to case_log.file_types, or remove document_type"})
	}
	return found
}

// checkOutbound refuses choices that undo each other.
func (c *Config) checkOutbound() problems {
	var found problems
	o := c.Outbound
	if o.Unresolved == "drop" && o.NewRecipients == "hold" {
		found = append(found, problem{path: "outbound.new_recipients", what: "hold would hold nothing: unresolved: drop takes new recipients out", hint: "remove it, or write unresolved: text"})
	}
	if o.Unresolved == "drop" && (o.UnresolvedOriginals == "cc" || o.UnresolvedOriginals == "bcc") {
		found = append(found, problem{path: "outbound.unresolved_originals", what: o.UnresolvedOriginals + " would add those whom unresolved: drop takes out", hint: "remove one of the two"})
	}
	if (o.OnUnknown == "text" || o.OnUnknown == "pass") && c.Directory.URL == "" {
		found = append(found, problem{path: "outbound.on_unknown", what: o.OnUnknown + " is about an outside directory, and there is none", hint: "set directory.url, or remove it"})
	}
	if c.has("outbound") && len(c.Mailboxes) == 0 && (o.Sender == "mailbox" || o.Uncased == "create") {
		found = append(found, problem{path: "mailboxes", what: "outbound.sender: mailbox and outbound.uncased: create need a mailbox that answers come back to", hint: "write such as [{address: 311@city.example, queue: general}]"})
	}
	return found
}

// checkFlood: what is remembered of an address is a day, and so many events.
func (c *Config) checkFlood() problems {
	return append(c.Flood.NewCases.countable("flood.new_cases"), c.Flood.Answers.countable("flood.answers")...)
}

func (r Rates) countable(path string) problems {
	var found problems
	for _, one := range r {
		if one.Per < time.Hour || one.N > store.MaxTally {
			found = append(found, problem{path: path, what: fmt.Sprintf("%q cannot be counted", Rates{one}),
				hint: fmt.Sprintf("write bounds of at most %d an hour (h) or a day (d), such as 100/h,500/d, or off", store.MaxTally)})
		}
	}
	return found
}

// checkDirectory: where {address} goes must be said.
func (c *Config) checkDirectory() problems {
	d := c.Directory
	if d.URL == "" {
		return nil
	}
	u, err := url.Parse(d.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || !strings.Contains(d.URL, "{address}") {
		return problems{{path: "directory.url", what: fmt.Sprintf("%q cannot be asked for an address", d.URL),
			hint: "write such as https://crm.city.example/contacts?email={address}"}}
	}
	if d.Timeout <= 0 {
		return problems{{path: "directory.timeout", what: "the directory needs some time to answer", hint: "write such as 3s"}}
	}
	return nil
}

// checkDNS: what is asked for one message fits what a client waits for, and what
// the records of an honest one need.
func (c *Config) checkDNS() problems {
	found := atLeast("dns.timeout", c.DNS.Timeout, Duration(100*time.Millisecond))
	if most := Duration(time.Minute); c.DNS.Timeout > most {
		found = append(found, problem{path: "dns.timeout", what: fmt.Sprintf("%s is too long: the client waits meanwhile", c.DNS.Timeout), hint: fmt.Sprintf("write %s or less", most)})
	}
	if c.DNS.Queries < 20 {
		found = append(found, problem{path: "dns.queries", what: fmt.Sprintf("%d is too few: SPF alone may take more", c.DNS.Queries), hint: "write 20 or more"})
	}
	return found
}

// checkBelief: whose words count must be few, and known.
func (l Listener) checkBelief(path string) problems {
	var found problems
	if len(l.Trust) > 0 && l.open() {
		found = append(found, problem{path: path + ".trust", what: fmt.Sprintf("listener %q would believe everyone", l.Name),
			hint: "set peers to the machines whose words count"})
	}
	if l.Authentication != "upstream" && l.Authentication != "check" {
		return found
	}
	switch {
	case l.Role != "inbound":
		found = append(found, problem{path: path + ".authentication", what: "only mail from outside is authenticated", hint: "remove it, or set it on the inbound listener"})
	case l.TrustedForm:
		found = append(found, problem{path: path + ".authentication", what: "a trusted form says itself who the sender is", hint: "remove it, or trusted_form"})
	case l.Authentication == "check" && l.AuthServID != "":
		found = append(found, problem{path: path + ".authserv_id", what: "check believes nobody's Authentication-Results", hint: "remove it, or write authentication: upstream"})
	case l.Authentication == "check":
	case !slices.Contains(l.Trust, "authres"):
		found = append(found, problem{path: path + ".authentication", what: "upstream reads Authentication-Results, which nobody is trusted for", hint: "add trust: [authres]"})
	case l.AuthServID == "":
		found = append(found, problem{path: path + ".authentication", what: "upstream needs to know whose Authentication-Results count", hint: "add authserv_id: and the name that the peer writes into them, such as mx.city.example"})
	}
	return found
}
