package mailauth

import (
	"slices"
	"strings"
)

// dmarcPolicy is what the owner of a domain published (RFC 7489 §6.3).
type dmarcPolicy struct {
	policy     string // none, quarantine, reject: for the domain asked about
	strictSPF  bool   // aspf=s
	strictDKIM bool   // adkim=s
}

// findPolicy discovers the policy for a From domain (RFC 7489 §6.6.3): its own,
// or that of the organisational domain. The result is empty if there is one.
//
// pct is not read: a policy counts for all mail or for none, and which mail is
// forged must not be a matter of chance.
func findPolicy(l *lookups, from string) (p dmarcPolicy, found Result) {
	if from == "" {
		return p, None
	}
	org := OrgDomain(from)
	for _, domain := range slices.Compact([]string{from, org}) {
		records, err := l.ask(txt, "_dmarc."+domain)
		if err == errTemporary {
			return p, TempError
		}
		records = slices.DeleteFunc(slices.Clone(records), func(r string) bool { return !isDMARC(r) })
		switch {
		case len(records) == 0:
			continue
		case len(records) > 1: // §6.6.3 step 5: as if there were none
			return p, None
		}
		p, ok := parseDMARC(records[0], domain != from)
		if !ok {
			return p, None
		}
		return p, ""
	}
	return p, None
}

// isDMARC tells the records that are meant: the version comes first.
func isDMARC(record string) bool {
	first, _, _ := strings.Cut(record, ";")
	name, value, ok := strings.Cut(first, "=")
	return ok && strings.EqualFold(strings.TrimSpace(name), "v") && strings.EqualFold(strings.TrimSpace(value), "DMARC1")
}

// parseDMARC reads a record; names and values in any case, since their owners
// write them so. sub asks for the policy for subdomains. A record without a
// readable policy asks for reports only, or says nothing (RFC 7489 §6.6.3 step
// 6); any other tag that can't be read has its default (§6.3).
func parseDMARC(record string, sub bool) (p dmarcPolicy, ok bool) {
	t, ok := dmarcTags(record)
	if !ok {
		return p, false
	}
	p.strictSPF, p.strictDKIM = t["aspf"] == "s", t["adkim"] == "s"
	p.policy = t["p"]
	special, given := t["sp"]
	if severity(p.policy) == 0 || given && severity(special) == 0 {
		p.policy = "none"
		return p, strings.Contains(t["rua"], "mailto:")
	}
	if sub && given {
		p.policy = special
	}
	return p, true
}

// dmarcTags reads the tags in lower case; one that comes twice makes the
// record unusable.
func dmarcTags(record string) (t tags, ok bool) {
	t = tags{}
	for tag := range strings.SplitSeq(strings.ToLower(record), ";") {
		name, value, ok := strings.Cut(tag, "=")
		name = strings.TrimSpace(name)
		if !ok {
			continue
		}
		if _, twice := t[name]; twice {
			return nil, false
		}
		t[name] = strings.TrimSpace(value)
	}
	return t, true
}

// aligned is identifier alignment (RFC 7489 §3.1).
func aligned(domain, from string, strict bool) bool {
	if strict {
		return domain != "" && domainKey(domain) == from
	}
	return Aligned(domain, from)
}
