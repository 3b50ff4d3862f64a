package mailauth

import "strings"

// Result is what a method found (RFC 8601 §2.7.1, §2.7.2; RFC 7489 §11.2).
type Result string

// The results that are known; empty is none given.
const (
	None      Result = "none"
	Pass      Result = "pass"
	Fail      Result = "fail"
	SoftFail  Result = "softfail"
	Neutral   Result = "neutral"
	Policy    Result = "policy"
	TempError Result = "temperror"
	PermError Result = "permerror"
)

// result reads a result, also in the words of earlier RFCs and of Exchange. A
// word nobody knows is no result (RFC 8601 §2.2).
func result(word string) Result {
	switch r := Result(word); r {
	case None, Pass, Fail, SoftFail, Neutral, Policy, TempError, PermError:
		return r
	case "hardfail":
		return Fail
	case "bestguesspass": // Exchange: it would pass, had the domain a record
		return None
	}
	return ""
}

// Verdict is what is known of who sent a message, whoever found it out. Its
// texts hold no word of a stranger: results, policies, and domains as A-labels.
type Verdict struct {
	SPF, DKIM, DMARC Result
	ARC              Result // of the chain, if it was asked for; proves nothing by itself

	From       string // domain of the single From address, empty: there is none
	SPFDomain  string // of the envelope sender that SPF was asked about
	DKIMDomain string // of the signature that DKIM is about
	ARCDomain  string // of the last seal of the chain

	AlignedPass bool   // dmarc=pass for From, or without DMARC an SPF or DKIM pass aligned with it (relaxed)
	Forged      bool   // dmarc=fail under a published policy of quarantine or reject
	Policy      string // published: none, quarantine, reject; empty: not known
	Words       string // one sentence for people
	Source      string // off, upstream mx.example, Checked
}

// Checked is the Source of a verdict of our own.
const Checked = "check"

// Off is the verdict where nobody is asked.
func Off() Verdict {
	return Verdict{Source: "off", Words: "authentication is off: nothing is known of who sent this"}
}

// conclude draws from the results what the rules ask for (rules §4). aligned
// tells that SPF or DKIM passes for the organisation of From; it counts where
// DMARC says nothing, since a domain without a record has no other way.
func (v *Verdict) conclude(aligned bool) {
	switch v.DMARC {
	case Pass:
		v.AlignedPass = v.From != ""
	case None, "":
		v.AlignedPass = aligned && v.From != ""
	}
	v.Forged = v.DMARC == Fail && (v.Policy == "quarantine" || v.Policy == "reject")
}

// results lists what was found as people read it.
func (v *Verdict) results() string {
	var list []string
	for _, m := range []struct {
		method string
		result Result
		domain string
	}{{"dmarc", v.DMARC, ""}, {"spf", v.SPF, v.SPFDomain}, {"dkim", v.DKIM, v.DKIMDomain}, {"arc", v.ARC, v.ARCDomain}} {
		switch {
		case m.result == "", m.method == "arc" && m.result == None:
		case m.domain == "":
			list = append(list, m.method+"="+string(m.result))
		default:
			list = append(list, m.method+"="+string(m.result)+" ("+m.domain+")")
		}
	}
	return strings.Join(list, ", ")
}

// outcome is what follows from the results.
func (v *Verdict) outcome() string {
	from := v.From
	if from == "" {
		from = "anyone: From is not one plain address"
	}
	switch {
	case v.Forged:
		return "forged: the policy of the domain is " + v.Policy
	case v.AlignedPass:
		return "an aligned pass for " + from
	case v.DMARC == Fail && v.Policy == "":
		return "unverified: no published policy is told"
	case v.DMARC == Fail:
		return "unverified: the policy of the domain is " + v.Policy
	}
	return "no aligned pass for " + from
}
