package mailauth

import (
	"net/netip"
	"slices"
	"strings"
)

// Limits of one evaluation (RFC 7208 §4.6.4).
const (
	maxSPFTerms = 10 // that ask the DNS
	maxSPFVoid  = 2  // look-ups that find nothing
	maxSPFNames = 10 // hosts of one mx, names of one address
)

// spf is one check of a client against the policy of a domain (RFC 7208 §4).
type spf struct {
	*lookups
	client        netip.Addr
	helo          string
	local, domain string // of the sender
	terms, voids  int
	names         []string // of the client, validated (§5.5)
	named         bool     // that was found out already
}

// checkSPF finds out whether a client may send for the domain of an envelope
// sender; that of the null sender is the HELO name (§2.4). The domain is as it
// came.
//
// Stricter than most: the whole record must be of the grammar, also behind
// what matches (§4.6). Explanations are not read.
func checkSPF(l *lookups, client netip.Addr, helo, mailFrom string) (found Result, domain string) {
	s := spf{lookups: l, client: client.Unmap().WithZone(""), helo: helo, local: "postmaster", domain: helo}
	if mailFrom != "" {
		at := strings.LastIndexByte(mailFrom, '@')
		s.domain = mailFrom[at+1:]
		if at > 0 {
			s.local = mailFrom[:at]
		}
	}
	if key := domainKey(s.domain); !isASCII(s.domain) && key != "" {
		s.domain = key
	}
	return s.check(s.domain), s.domain
}

// check is check_host() (RFC 7208 §4).
func (s *spf) check(domain string) Result {
	domain = strings.TrimSuffix(domain, ".")
	if !isName(domain) || !strings.Contains(domain, ".") {
		return None
	}
	texts, err := s.ask(txt, domain)
	switch {
	case err == errVoid:
		return None
	case err != nil:
		return TempError
	}
	records := slices.DeleteFunc(slices.Clone(texts), func(t string) bool { return !isSPF(t) })
	switch {
	case len(records) == 0:
		return None
	case len(records) > 1:
		return PermError
	}
	record, ok := parseSPF(records[0])
	if !ok {
		return PermError
	}
	return s.evaluate(record, domain)
}

func (s *spf) evaluate(record spfRecord, domain string) Result {
	for _, d := range record.directives {
		matches, trouble := s.match(d, domain)
		switch {
		case trouble != "":
			return trouble
		case matches:
			return d.result
		}
	}
	if record.redirect == nil {
		return Neutral
	}
	if s.terms++; s.terms > maxSPFTerms {
		return PermError
	}
	found := s.check(s.expand(record.redirect, domain))
	if found == None {
		return PermError
	}
	return found
}

// match evaluates a mechanism (RFC 7208 §5); trouble ends the whole check.
func (s *spf) match(d directive, domain string) (matches bool, trouble Result) {
	switch d.mechanism {
	case "all":
		return true, ""
	case "ip4", "ip6":
		return d.network.Contains(s.client), ""
	}
	if s.terms++; s.terms > maxSPFTerms {
		return false, PermError
	}
	target := domain
	if d.domain != nil {
		target = s.expand(d.domain, domain)
	}
	switch d.mechanism {
	case "include":
		return s.include(target)
	case "exists":
		addrs, trouble := s.find(ip4, target)
		return len(addrs) > 0, trouble
	case "a":
		addrs, trouble := s.find(s.family(), target)
		return s.within(addrs, d), trouble
	case "mx":
		return s.matchMX(d, target)
	}
	if trouble := s.nameClient(); trouble != "" { // ptr
		return false, trouble
	}
	return slices.ContainsFunc(s.names, func(n string) bool { return isBelow(n, target) }), ""
}

// include is a match if the other policy passes (RFC 7208 §5.2).
func (s *spf) include(domain string) (matches bool, trouble Result) {
	switch found := s.check(domain); found {
	case Pass:
		return true, ""
	case Fail, SoftFail, Neutral:
		return false, ""
	case TempError:
		return false, TempError
	}
	return false, PermError
}

func (s *spf) matchMX(d directive, domain string) (matches bool, trouble Result) {
	hosts, trouble := s.find(mx, domain)
	switch {
	case trouble != "":
		return false, trouble
	case len(hosts) > maxSPFNames:
		return false, PermError
	}
	for _, host := range hosts {
		addrs, err := s.ask(s.family(), host)
		switch {
		case s.within(addrs, d):
			return true, ""
		case err != nil && err != errVoid:
			return false, TempError
		}
	}
	return false, ""
}

// find asks for what a mechanism needs; finding nothing is allowed twice.
func (s *spf) find(kind recordType, name string) (records []string, trouble Result) {
	records, err := s.ask(kind, name)
	switch {
	case err == nil:
		return records, ""
	case err != errVoid:
		return nil, TempError
	}
	if s.voids++; s.voids > maxSPFVoid {
		return nil, PermError
	}
	return nil, ""
}

// nameClient finds the names that the client's address has and that have that
// address (RFC 7208 §5.5). What the owner of the address does wrong is no
// trouble of the domain's.
func (s *spf) nameClient() (trouble Result) {
	if s.named {
		return ""
	}
	s.named = true
	names, err := s.ask(ptr, s.client.String())
	if err == errVoid {
		if s.voids++; s.voids > maxSPFVoid {
			return PermError
		}
	}
	for _, name := range names[:min(len(names), maxSPFNames)] {
		addrs, _ := s.ask(s.family(), name)
		if slices.Contains(addrs, s.client.String()) {
			s.names = append(s.names, strings.ToLower(strings.TrimSuffix(name, ".")))
		}
	}
	return ""
}

func (s *spf) family() recordType {
	if s.client.Is4() {
		return ip4
	}
	return ip6
}

// within reports whether the client is in a network of these addresses.
func (s *spf) within(addrs []string, d directive) bool {
	bits := d.bits6
	if s.client.Is4() {
		bits = d.bits4
	}
	return slices.ContainsFunc(addrs, func(text string) bool {
		addr, err := netip.ParseAddr(text)
		return err == nil && netip.PrefixFrom(addr, bits).Contains(s.client)
	})
}

// isBelow reports that a name is a domain or in it.
func isBelow(name, domain string) bool {
	domain = strings.ToLower(strings.TrimSuffix(domain, "."))
	return name == domain || strings.HasSuffix(name, "."+domain)
}
