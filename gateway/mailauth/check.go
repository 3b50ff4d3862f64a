package mailauth

import (
	"context"
	"io"
	"net/netip"
	"time"

	"github.com/casegate/casegate/gateway/message"
)

// Checker finds out who sent a message by asking the DNS. One serves all
// sessions; its fields must not change.
type Checker struct {
	Resolver Resolver
	Budget   Budget
	Now      func() time.Time // nil: time.Now
	// Rests is told when look-ups begin to rest, since the DNS doesn't answer;
	// nil: nobody asks.
	Rests func(until time.Time)

	shared dns
}

// CheckRequest is what is known of a message when it has come.
type CheckRequest struct {
	ClientIP   netip.Addr // of who brought it to our side; zero: not known, and no SPF
	Helo       string     // what that client called itself
	MailFrom   string     // envelope sender, empty: null
	FromDomain string     // of the single From address, or empty
	Header     message.Header
	Body       io.Reader // all behind the header; read at most once, and only if there is a signature
	Chain      bool      // check the ARC chain too, if there is one
}

// Check gives a verdict by SPF (RFC 7208), DKIM (RFC 6376, RFC 8301, RFC 8463)
// and DMARC (RFC 7489). It always gives one: what can't be found out is
// temperror, or not told, and makes nobody forged.
//
// The questions that decide about From come first: its policy, the signatures
// aligned with it, the envelope sender. So whoever adds signatures or records
// of his own that cost the budget only spoils what is his.
func (c *Checker) Check(ctx context.Context, q CheckRequest) Verdict {
	r := c.begin(ctx, q)
	r.lookUp()
	r.verify(ctx)
	r.judge()
	return r.Verdict
}

// check is a verdict in the making.
type check struct {
	Verdict
	CheckRequest
	*lookups
	policy  dmarcPolicy
	noDMARC Result // why there is no policy; empty: there is one
	sigs    []*signature
	chain   *arcChain
	cancel  context.CancelFunc
}

func (c *Checker) begin(ctx context.Context, q CheckRequest) *check {
	now := c.Now
	if now == nil {
		now = time.Now
	}
	b := c.Budget.orDefault()
	limited, cancel := context.WithTimeout(ctx, b.Time)
	r := &check{Verdict: Verdict{From: domainKey(q.FromDomain), Source: Checked}, CheckRequest: q, cancel: cancel}
	r.lookups = &lookups{ctx: limited, resolver: c.Resolver, now: now, shared: &c.shared, left: b.Queries, rests: c.Rests}
	if !q.Header.TooLarge() { // otherwise the fields don't tell all
		r.sigs = signatures(q.Header, r.From, b.Signatures, now())
		if q.Chain {
			r.chain = readChain(q.Header)
		}
	}
	return r
}

// lookUp asks all questions.
func (r *check) lookUp() {
	defer r.cancel()
	defer func() { r.shared.settle(r.lookups) }()
	r.policy, r.noDMARC = findPolicy(r.lookups, r.From)
	i := 0
	for ; i < len(r.sigs) && Aligned(r.sigs[i].domain, r.From); i++ {
		r.sigs[i].fetch(r.lookups)
	}
	if r.ClientIP.IsValid() {
		var domain string
		r.SPF, domain = checkSPF(r.lookups, r.ClientIP, r.Helo, r.MailFrom)
		r.SPFDomain = domainKey(domain)
	}
	for ; i < len(r.sigs); i++ {
		r.sigs[i].fetch(r.lookups)
	}
	if r.chain != nil {
		r.chain.fetch(r.lookups)
	}
}

// verify reads the body, once, and decides about the signatures.
func (r *check) verify(ctx context.Context) {
	wanted := map[canon]bool{}
	open := r.sigs
	if r.chain != nil {
		open = append(open[:len(open):len(open)], r.chain.message())
	}
	for _, s := range open {
		if s != nil && s.result == "" {
			wanted[s.body] = true
		}
	}
	if len(wanted) == 0 && r.chain == nil {
		return
	}
	bodies, err := hashBody(ctx, r.Body, wanted)
	fields := newPicker(r.Header)
	for _, s := range open {
		switch {
		case s == nil || s.result != "":
		case err != nil:
			s.end(TempError, "the body can't be read")
		default:
			s.verify(fields, bodies)
		}
	}
	if r.chain != nil {
		r.ARC, r.ARCDomain = r.chain.verdict(), r.chain.sealer()
	}
}

// judge draws the verdict from what was found.
func (r *check) judge() {
	r.DKIM = None
	best := -1
	for i, s := range r.sigs {
		if best < 0 || s.result == Pass && (r.DKIM != Pass || !Aligned(r.DKIMDomain, r.From) && Aligned(s.domain, r.From)) {
			best, r.DKIM, r.DKIMDomain = i, s.result, s.domain
		}
	}
	r.DMARC = r.noDMARC
	if r.noDMARC == "" {
		r.Policy, r.DMARC = r.policy.policy, r.dmarc()
	}
	pass := r.SPF == Pass && Aligned(r.SPFDomain, r.From) || r.DKIM == Pass && Aligned(r.DKIMDomain, r.From)
	if r.MailFrom == "" { // the HELO name is no envelope sender
		r.SPFDomain = ""
	}
	r.conclude(pass)
	r.say(best)
}

// dmarc is the result under a policy (RFC 7489 §6.6.2). It fails only if
// nothing aligned could have passed: where the client isn't known and SPF might
// have, it is not told.
func (r *check) dmarc() Result {
	var unsure, unknown bool
	for _, s := range r.sigs {
		if aligned(s.domain, r.From, r.policy.strictDKIM) {
			if s.result == Pass {
				return Pass
			}
			unsure = unsure || s.result == TempError
		}
	}
	sender := r.SPFDomain
	if !r.ClientIP.IsValid() {
		sender = addressDomain(r.MailFrom)
		unknown = r.MailFrom == "" || aligned(sender, r.From, r.policy.strictSPF)
	} else if aligned(sender, r.From, r.policy.strictSPF) {
		if r.SPF == Pass {
			return Pass
		}
		unsure = unsure || r.SPF == TempError
	}
	switch {
	case unsure:
		return TempError
	case unknown:
		return ""
	}
	return Fail
}

// say puts the verdict in a sentence.
func (r *check) say(best int) {
	r.Words = "our check says " + r.results() + ": " + r.outcome()
	if best >= 0 && r.sigs[best].why != "" {
		r.Words += "; DKIM: " + r.sigs[best].why
	}
	if r.noDMARC == "" && r.DMARC == "" {
		r.Words += "; whether the sender's server is allowed can't be told: its address is not known"
	}
	if r.trouble != "" {
		r.Words += "; " + r.trouble
	}
	if r.Header.TooLarge() {
		r.Words += "; the header is too large to be read whole"
	}
}
