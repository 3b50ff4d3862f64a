package relay

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/casegate/casegate/store"
)

// The stages of a session, as Probed names where it ended.
const (
	StageConnect = "connect" // and greeting, EHLO
	StageTLS     = "tls"
	StageSignIn  = "sign-in"
	StageMail    = "mail"
	StageRcpt    = "rcpt"
)

// staged is an error that knows its stage.
type staged struct {
	error
	stage string
}

func (s staged) Unwrap() error { return s.error }

// inStage notes the stage of an error.
func inStage(stage string, err error) error {
	if err == nil {
		return nil
	}
	return staged{err, stage}
}

// Probed is what a look at a next hop found.
type Probed struct {
	NextHop string
	Mode    string     // how it is to be secured
	TLS     *store.TLS // nil: in the clear
	Signed  bool       // we signed in
	Lacks   []string   // extensions without which some mail cannot be handed on
	Stage   string     // where it ended; empty: it takes mail
	Err     error
	Lasting bool // Err stays until somebody changes something: waiting does not help
}

// lasting tells a next hop that will not do from one that does not answer now:
// it is somebody else, lacks what the route asks for, or refuses how we sign in.
func lasting(err error) bool {
	return errors.Is(err, errNotOurs) || errors.As(err, new(without)) || errors.As(err, new(refused))
}

// Probe looks at each next hop of a route as an attempt would: connect, TLS,
// login, MAIL and RCPT; then RSET. No mail is sent.
func (r *Relay) Probe(ctx context.Context, rt Route, from, to string) ([]Probed, error) {
	c, err := rt.compile()
	if err != nil {
		return nil, err
	}
	var list []Probed
	for _, e := range c.endpoints {
		s, err := c.settings(e)
		if err != nil {
			return nil, err
		}
		s.limit = 1
		list = append(list, r.look(ctx, newHop(r, s), from, to))
	}
	return list, nil
}

// probeTime is how long a look at one next hop takes at most.
const probeTime = 30 * time.Second

var errMute = fmt.Errorf("no answer within %v", probeTime)

// look looks at one next hop.
func (r *Relay) look(ctx context.Context, h *hop, from, to string) (p Probed) {
	ctx, cancel := context.WithTimeoutCause(ctx, probeTime, errMute)
	defer cancel()
	p = Probed{NextHop: h.name, Mode: h.mode}
	defer func() {
		if p.Err != nil && ctx.Err() != nil { // it was us who closed the connection
			p.Err = context.Cause(ctx)
		}
	}()
	c, err := r.connect(ctx, h)
	if err != nil {
		p.Stage, p.Err, p.Lasting = StageConnect, err, lasting(err)
		var where staged
		if errors.As(err, &where) {
			p.Stage = where.stage
		}
		return p
	}
	defer c.quit()
	stop := c.closeWith(ctx)
	defer stop()
	p.TLS, p.Signed = c.tls, h.auth != nil
	for name, offered := range map[string]bool{"8BITMIME": c.ext.eightBit, "SMTPUTF8": c.ext.utf8} {
		if !offered {
			p.Lacks = append(p.Lacks, name)
		}
	}
	p.Stage, p.Err = c.ask(from, to)
	return p
}

// ask says MAIL and RCPT, and takes them back.
func (c *conn) ask(from, to string) (stage string, err error) {
	for _, step := range [][2]string{{StageMail, "MAIL FROM:<" + from + ">"}, {StageRcpt, "RCPT TO:<" + to + ">"}} {
		c.out = append(c.out[:0], step[1]+"\r\n"...)
		if err := c.flush(c.timeouts.Mail); err != nil {
			return step[0], err
		}
		rep, err := c.reply(c.timeouts.Mail)
		if err == nil && rep.code/100 != 2 {
			verb, _, _ := strings.Cut(step[1], " ")
			err = fmt.Errorf("the answer to %s is %s", verb, rep)
		}
		if err != nil {
			return step[0], err
		}
	}
	return "", c.reset()
}
