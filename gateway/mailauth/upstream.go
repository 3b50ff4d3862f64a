package mailauth

import (
	"slices"
	"strings"

	"github.com/casegate/casegate/gateway/message"
)

// NoServID pins the fields that name no authserv-id, against RFC 8601 §2.2:
// those of Exchange Online, which renames all that come from outside.
const NoServID = "-"

// Upstream reads the verdict of a trusted peer from its Authentication-Results
// fields: those of the pinned authserv-id, or of NoServID. fromDomain is the
// domain of the single From address, or empty. No pin, or a header too large
// to be read whole, gives no verdict.
//
// A peer writes its results on top of what it got, and must remove fields with
// its own id from that (RFC 8601 §5). Not all do, and where between the
// Received fields they write differs. Hence: the first field that gives SPF,
// DKIM or DMARC is believed, and it alone; whatever an outsider wrote stands
// below. All others can only take trust away: where one says dmarc=fail the
// first gives no pass, and the fail counts if the first tells nothing of DMARC
// (filters that write one field each). So a forged field never helps its
// forger. A field that says none, or could be the peer's but can't be read, ends
// the search: else who breaks the true one could put his own in its place.
//
// What remains: a peer that neither removes forged fields nor always writes
// one must not be pinned.
func Upstream(h message.Header, servID, fromDomain string) Verdict {
	u := upstream{Verdict: Verdict{From: domainKey(fromDomain)}}
	name := domainKey(servID)
	switch {
	case servID == NoServID:
		name = "without a name"
	case name == "":
		name = "with an odd name"
	}
	u.Source = "upstream " + name
	switch {
	case servKey(servID) == "":
		u.Source, u.Words = "upstream", "upstream gave no verdict: none is pinned"
		return u.Verdict
	case h.TooLarge():
		u.Words = u.Source + " gave no verdict: the header is too large to be read whole"
		return u.Verdict
	}
	read, broken := ofPeer(h, servID, u.believe, u.doubt)
	if read == 0 {
		u.Words = u.Source + " gave no verdict: it wrote none"
		if broken {
			u.Words = u.Source + " gave no verdict: what it wrote says none or can't be read"
		}
		return u.Verdict
	}
	u.conclude(u.aligned && !u.denied)
	if u.denied {
		u.AlignedPass = false
	}
	u.Words = u.Source + " says " + u.results() + ": " + u.outcome()
	if u.results() == "" {
		u.Words = u.Source + " gave no verdict that counts: " + u.outcome()
	}
	if u.denied && u.From != "" {
		u.Words += ", since its results contradict each other or are for another domain"
	}
	return u.Verdict
}

// ofPeer has the fields of the peer read, top to bottom: the first, then each of
// the others. It returns how many they are; broken reports that one with nothing
// to be read in it stands above all others.
func ofPeer(h message.Header, servID string, first, other func(AuthRes)) (read int, broken bool) {
	id := servKey(servID)
	if servID == NoServID {
		id = ""
	}
	for _, f := range h.Named("Authentication-Results") {
		a, err := ParseAuthRes(f.Value())
		switch {
		case err == nil && a.ServID == id && a.Version == 1 && len(a.Results) > 0:
			if !slices.ContainsFunc(a.Results, isJudged) {
				continue
			}
			if read++; read == 1 {
				first(a)
			} else {
				other(a)
			}
		case read > 0:
		case err == nil && a.ServID == id, err != nil && id == "", id != "" && Claims(f.Value(), id):
			return 0, true
		}
	}
	return read, false
}

// isJudged tells the results that a verdict is made of (RFC 8601 §2.7.1,
// §2.7.2; RFC 7489 §11.1). Any other, such as arc or Exchange's compauth, which
// also passes what it only guesses, is not read.
func isJudged(r ResInfo) bool {
	return r.Version == 1 && (r.Method == "spf" || r.Method == "dkim" || r.Method == "dmarc")
}

// upstream is a verdict in the making.
type upstream struct {
	Verdict
	aligned bool // SPF or DKIM passes for the organisation of From
	denied  bool // there is a reason against a pass
	dmarc   bool // the believed field has a DMARC result
}

// believe takes all from the field that is trusted.
func (u *upstream) believe(a AuthRes) {
	for _, r := range a.Results {
		if !isJudged(r) {
			continue
		}
		switch r.Method {
		case "spf":
			u.spf(r)
		case "dkim":
			u.dkim(r)
		case "dmarc":
			u.readDMARC(r)
		}
	}
}

// spf takes the result for the envelope sender; one for the HELO name alone
// says nothing about a person.
func (u *upstream) spf(r ResInfo) {
	value, _ := r.property("smtp", "mailfrom")
	domain, found := addressDomain(value), result(r.Result)
	if found == Pass && guessed(r) {
		found = Neutral
	}
	switch {
	case domain == "":
		if u.SPF == "" {
			u.SPF = found
		}
		return
	case u.SPFDomain != "":
		u.denied = u.denied || domain != u.SPFDomain || found != u.SPF
		return
	}
	u.SPF, u.SPFDomain = found, domain
	u.aligned = u.aligned || found == Pass && Aligned(domain, u.From)
}

// dkim takes the best of several signatures: an aligned pass, any pass, the
// first.
func (u *upstream) dkim(r ResInfo) {
	domain, found := signer(r), result(r.Result)
	if found == None { // Exchange: header.d=none
		domain = ""
	}
	if found == Pass && guessed(r) {
		found = Neutral
	}
	aligned := found == Pass && Aligned(domain, u.From)
	if u.DKIM == "" || found == Pass && u.DKIM != Pass || aligned && !Aligned(u.DKIMDomain, u.From) {
		u.DKIM, u.DKIMDomain = found, domain
	}
	u.aligned = u.aligned || aligned
}

// signer is the domain of a signature. Google tells only whom it was made for,
// which is in that domain or below (RFC 6376 §3.5, tag i).
func signer(r ResInfo) string {
	if r.has("header", "d") {
		value, _ := r.property("header", "d")
		return domainKey(value)
	}
	value, _ := r.property("header", "i")
	return addressDomain(value)
}

// guessed tells a pass that is none: of a record that the domain never
// published, and of keys that are only tried out (RFC 6376 §3.6.1, t=y).
func guessed(r ResInfo) bool {
	return slices.ContainsFunc(r.Comments, func(c string) bool {
		return strings.Contains(c, "best guess") || strings.Contains(c, "test mode")
	})
}

// readDMARC takes a DMARC result. A fail stands whoever it is for; anything
// better must be for the From domain that we see, and not be contradicted.
func (u *upstream) readDMARC(r ResInfo) {
	found := result(r.Result)
	value, ok := r.property("header", "from")
	if (ok || r.has("header", "from")) && (u.From == "" || addressDomain(value) != u.From) {
		u.denied = true
		if found != Fail {
			return
		}
	}
	switch {
	case found == "" || u.dmarc && found == u.DMARC && found != Fail:
	case !u.dmarc:
		u.dmarc, u.DMARC, u.Policy = true, found, u.published(r)
	case found == Fail:
		policy := u.published(r)
		if u.DMARC != Fail || severity(policy) > severity(u.Policy) {
			u.Policy = policy
		}
		u.DMARC, u.denied = Fail, true
	case u.DMARC != Fail:
		u.DMARC, u.denied = "", true
	default:
		u.denied = true
	}
}

// doubt reads a further field: only what speaks against the sender.
func (u *upstream) doubt(a AuthRes) {
	for _, r := range a.Results {
		if !isJudged(r) || r.Method != "dmarc" || result(r.Result) != Fail {
			continue
		}
		if !u.dmarc {
			u.dmarc, u.DMARC, u.Policy = true, Fail, u.published(r)
		} else if u.DMARC == Pass || u.DMARC == None {
			u.DMARC, u.denied = "", true
		}
	}
}

// published finds the policy that the owner published, in the words of OpenDMARC
// and Google (p=REJECT sp=NONE), rspamd (policy=reject), Fastmail
// (policy.published-domain-policy) and Exchange (action=oreject); empty if
// nothing is told. Where several are told the strictest counts; the one for
// subdomains, if told, is that of a subdomain (RFC 7489 §6.3).
func (u *upstream) published(r ResInfo) string {
	var domain, sub string
	tell := func(name, value string) {
		value = strings.ToLower(value)
		switch name {
		case "p", "policy", "dmarc", "published-domain-policy":
			domain = strictest(domain, value)
		case "sp", "published-subdomain-policy":
			sub = strictest(sub, value)
		case "action":
			value = strings.TrimPrefix(value, "pct.")
			value = strings.TrimPrefix(strings.TrimPrefix(value, "o"), ".")
			if value != "none" { // that may be the mercy of the peer
				domain, sub = strictest(domain, value), strictest(sub, value)
			}
		}
	}
	for _, p := range r.Properties {
		if p.Type == "policy" || p.Type == "" && p.Name == "action" {
			tell(p.Name, p.Value)
		}
	}
	for _, c := range r.Comments {
		for word := range strings.FieldsFuncSeq(c, func(r rune) bool { return strings.ContainsRune(" \t,;", r) }) {
			if name, value, ok := strings.Cut(word, "="); ok {
				tell(strings.ToLower(name), value)
			}
		}
	}
	if from, _ := r.property("policy", "policy-from"); sub == "" || from == "p" || OrgDomain(u.From) == u.From {
		return domain
	}
	return sub
}

// severity orders the policies; 0 is none of them.
func severity(policy string) int {
	return slices.Index([]string{"none", "quarantine", "reject"}, policy) + 1
}

// strictest returns the stricter policy; what is none doesn't count.
func strictest(a, b string) string {
	if severity(b) > severity(a) {
		return b
	}
	return a
}
