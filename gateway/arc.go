package gateway

import (
	"errors"
	"fmt"
	"strings"

	"github.com/casegate/casegate/gateway/mailauth"
	"github.com/casegate/casegate/gateway/message"
)

// sealer is who seals what is handed on of an arrival (RFC 8617), the domain of
// its mailbox; nil: nobody. Only what we have checked is sealed: a seal says what
// a message was worth when it came, before our stamps.
func (p *inbound) sealer(a *arrival) *mailauth.Signer {
	if !p.Check || p.Observe || p.Signers == nil {
		return nil
	}
	for _, r := range a.env.Recipients {
		if own, ok := p.Settings.Own(r.Path.String()); ok && p.Route(RoleInbound, a.env.From.String(), own.Address) {
			return p.Signers.For(own.Address[strings.LastIndexByte(own.Address, '@')+1:])
		}
	}
	return nil
}

// seal puts an ARC set on top of a plan's header block, which is final but for
// that, and records it or why there is none.
func (p *inbound) seal(n *plan, a arrival) error {
	if a.sealer == nil || len(n.deliveries) == 0 {
		return nil
	}
	sum, err := a.hash()
	if err != nil {
		return err
	}
	set, err := a.sealer.Seal(n.sent, sum, a.verdict.ARC, mailauth.Results(p.Settings.Hostname, a.verdict))
	switch {
	case errors.Is(err, mailauth.ErrUnsealable):
		n.say("handed on without an ARC seal: " + err.Error())
		return nil
	case err != nil:
		return err
	}
	n.say("handed on with an ARC seal of " + a.sealer.Domain())
	n.sent = message.OnTop(n.sent, set)
	return nil
}

// noteBroken records the foreign signatures that do not hold for what is handed
// on; of more than a few how many there are. They stay: we change nothing but
// what the rules say.
func (a arrival) noteBroken(n *plan) {
	if len(n.deliveries) == 0 {
		return
	}
	broken := brokenSignatures(a.header, n.sent)
	for _, b := range broken[:min(len(broken), maxBroken)] {
		n.say("the DKIM-Signature of " + b.domain + " does not hold for what is handed on: it covers " + b.covers + ", which our stamps change")
	}
	if more := len(broken) - maxBroken; more > 0 {
		n.say(fmt.Sprintf("%d more signatures do not hold for what is handed on", more))
	}
}

// maxBroken is how many broken signatures are named.
const maxBroken = 8
