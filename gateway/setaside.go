package gateway

import (
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/casegate/casegate/gateway/mailauth"
	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// maxTries is how often a message that makes us panic is tried, before it is
// kept unread, or, where we are to send it, refused.
const maxTries = 3

// defect is a panic of ours over a message. Its sender must not meet it again
// with each new attempt, for as long as he makes them.
type defect struct{ id string }

func (d defect) Error() string { return "reading it failed (id " + d.id + ")" }

func isDefect(err error) bool { return errors.As(err, &defect{}) }

// guarded runs a stage of a message's way and turns a panic into a defect.
func (p pipeline) guarded(m *resolver.Mail, stage func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			d := defect{newID()}
			p.Logger.Error("panic over a message", "id", d.id, "message", m.ID, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			err = d
		}
	}()
	return stage()
}

// setAside makes the arrival one of which nothing was read but its envelope: it
// is archived as it came, on the exceptions list or, where the envelope names the
// case, there (rules I3, I4).
func (p *inbound) setAside(a *arrival, why error) {
	a.header = message.Opaque(a.spool.parsed().Bytes())
	a.mail = describe(a.env, a.spool, a.header, p.Now())
	a.mail.Unparsable = why.Error()
	if p.Observe {
		a.mail.ContentHash = "observed " + a.mail.ContentHash
	}
	a.verdict, a.sealer = mailauth.Off(), nil
	a.ackID = store.NewID()
}
