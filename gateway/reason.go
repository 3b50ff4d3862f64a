package gateway

import (
	"context"
	"errors"
)

// Reason says, in a word, why a client is answered 4xx or 5xx: for who counts
// refusals. They are few, and none holds what a client chose.
type Reason string

// The reasons.
const (
	ReasonRule        Reason = "rule"          // a rule refuses the sender, a recipient or the message
	ReasonLocal       Reason = "local"         // trouble of our own: the store, a full disk, a defect
	ReasonShutdown    Reason = "shutdown"      // we are going
	ReasonPeer        Reason = "peer"          // nobody serves this address
	ReasonConnections Reason = "connections"   // too many, in all or of this address
	ReasonEarly       Reason = "early"         // the client doesn't wait for its turn: before the banner, 220 or 354
	ReasonIdle        Reason = "idle"          // it says nothing for too long
	ReasonSlow        Reason = "slow"          // it sends too slowly
	ReasonErrors      Reason = "errors"        // it makes nothing but mistakes
	ReasonLine        Reason = "line"          // a line that is too long or has control characters
	ReasonCommand     Reason = "command"       // a command that is unknown, malformed or out of order
	ReasonAddress     Reason = "address"       // an address that is none, or that we don't take
	ReasonSize        Reason = "size"          // a message beyond the limit
	ReasonNewline     Reason = "newline"       // a message with a CR or LF alone, or a NUL beside a dot
	ReasonAmbiguous   Reason = "ambiguous-end" // readers may disagree on where the last message ended
	ReasonTLS         Reason = "tls"           // TLS is missing, or in the wrong place
	ReasonAuth        Reason = "auth"          // nobody has signed in, or with a wrong password
	ReasonTrust       Reason = "trust"         // XFORWARD or XCLIENT by who is not believed
)

// because gives an error a reason.
func because(r Reason, err error) error { return reasoned{r, err} }

type reasoned struct {
	Reason
	error
}

func (r reasoned) Unwrap() error { return r.error }

// reasonOf is why an error refuses something, as reply answers it.
func reasonOf(err error) Reason {
	var r reasoned
	if errors.As(err, &r) {
		return r.Reason
	}
	if _, ok := verdictIn(err); ok {
		return ReasonRule
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, errDraining) {
		return ReasonShutdown
	}
	return ReasonLocal
}

// count tells of a refusal.
func (w *wire) count(r Reason, code int) {
	w.counted = true
	if w.opts.Refused != nil {
		w.opts.Refused(r, code)
	}
}

// deny answers a refusal of our own.
func (w *wire) deny(r Reason, code int, enhanced, text string) {
	w.count(r, code)
	w.answer(code, enhanced, text)
}

// countReply counts a refusal of go-smtp's, about which nobody else knows: of its
// replies to one command the first is counted.
func (w *wire) countReply(reply []byte) {
	if !w.counted && len(reply) > 3 && reply[3] == ' ' && (reply[0] == '4' || reply[0] == '5') {
		w.count(ReasonCommand, int(reply[0]-'0')*100+int(reply[1]-'0')*10+int(reply[2]-'0'))
	}
}
