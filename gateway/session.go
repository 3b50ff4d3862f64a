package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/emersion/go-smtp"

	"github.com/casegate/casegate/store"
)

// Role says which pipeline a listener feeds.
type Role string

const (
	RoleInbound  Role = "inbound"  // mail for our mailboxes
	RoleOutbound Role = "outbound" // the smarthost of our own side
)

// Envelope is what a session learnt before the body. The session owns it; it
// is valid until Accept returns.
type Envelope struct {
	Listener  string
	Role      Role
	Protocol  string     // "SMTP", "ESMTP" or "LMTP", with S for TLS and A for AUTH (RFC 3848), for the Received field
	Peer      netip.Addr // zero for a UNIX socket, or when XCLIENT doesn't know; a PROXY header or XCLIENT names it
	PeerName  string     // for logs
	PeerNamed bool       // Peer is whom a PROXY header or XCLIENT named, not who connected
	PeerHost  string     // as XCLIENT says; empty: unknown
	Helo      string     // printable ASCII, at most 255 bytes; anything else in it is a ?
	Login     string     // the address of the agent who signed in; empty: nobody did
	TLS       *store.TLS // how the session is secured; nil: in the clear
	Client    Client     // from whom a trusted peer has the mail, as XFORWARD says; zero: not said

	From         Path
	Recipients   []Recipient // in order; a canonical path stands here once
	SMTPUTF8     bool
	EightBit     bool   // BODY=8BITMIME
	RET          string // FULL, HDRS or empty
	EnvID        string // decoded
	DeclaredSize int64  // SIZE= of MAIL; 0: not said

	Body BodyFacts // known in Accept
}

// Recipient is one accepted RCPT.
type Recipient struct {
	Path   Path
	Notify []string // NEVER, or some of SUCCESS, FAILURE, DELAY
	ORCPT  string   // "type;address", the address decoded; free of controls
}

// Handler is what a session hands over to: the inbound or the outbound
// pipeline. It is called by many sessions at once. An error that wraps a
// Verdict is the answer; any other is a temporary failure (see reply). The
// context ends when the connection is closed or the listener's grace is over.
type Handler interface {
	// Mail may refuse a sender; env.Recipients is empty.
	Mail(ctx context.Context, env *Envelope) error
	// Rcpt may refuse a recipient; it is not yet among env.Recipients.
	Rcpt(ctx context.Context, env *Envelope, to Recipient) error
	// Spool is called when the body begins and says where its bytes go.
	Spool(ctx context.Context, env *Envelope) (Sink, error)
	// Accept is called when the body is complete and nothing speaks against
	// it. The message is durable when it returns nil.
	Accept(ctx context.Context, env *Envelope, s Sink) (Receipt, error)
}

// Sink takes the bytes of one message, in blocks of at most 64 KiB. After a
// failed Write it gets no more, and the message is refused with that error.
// Discard is called exactly once for each Sink whatever happened, also after
// Accept.
type Sink interface {
	io.Writer
	Discard()
}

// Receipt is the answer for an accepted message.
type Receipt struct {
	ID   string
	Text string // all behind "250 2.0.0 "
}

// session is one go-smtp session: it collects the envelope, asks the handler
// and has the wire receive the body. It runs on the connection's goroutine.
//
// It is no smtp.LMTPSession on purpose: for a plain Session go-smtp gives each
// RCPT, duplicates included, the answer of Data in order, and its status
// collector, which panics on what it doesn't know, is not needed.
type session struct {
	wire *wire
	conn *smtp.Conn
	h    Handler
	env  *Envelope       // of the open transaction
	keys map[string]bool // of its recipients
}

var errNested = because(ReasonCommand, Verdict{503, [3]int{5, 5, 1}, "A transaction is open already, send RSET first"})

// Reset ends a transaction: RSET, EHLO, or a message answered.
func (s *session) Reset() {
	s.env, s.keys = nil, nil
	s.wire.forwarded = nil
	s.wire.dropBody()
}

// busy reports an open transaction.
func (s *session) busy() bool { return s.env != nil }

// Logout has nothing to do: go-smtp closes the wire with the session.
func (s *session) Logout() error { return nil }

func (s *session) Mail(from string, o *smtp.MailOptions) (err error) {
	defer s.guard(&err)
	if s.env != nil {
		return s.reply(errNested)
	}
	if s.wire.opts.Auth == AuthRequire && s.wire.login == "" {
		return s.reply(because(ReasonAuth, errAuthRequired))
	}
	path, err := pathOf(s.wire.line, "FROM:", from, o.UTF8)
	if err != nil {
		return s.reply(because(ReasonAddress, ofSender(err)))
	}
	env := s.envelope()
	env.From = path
	env.SMTPUTF8, env.EightBit = o.UTF8, o.Body == smtp.Body8BitMIME
	env.RET, env.EnvID, env.DeclaredSize = string(o.Return), o.EnvelopeID, o.Size
	if err := s.h.Mail(s.wire.ctx, env); err != nil {
		return s.reply(err)
	}
	s.env, s.keys = env, map[string]bool{}
	return nil
}

// ofSender gives a refusal of an address the code for senders.
func ofSender(err error) error {
	var v Verdict
	if errors.As(err, &v) && v.Enhanced == [3]int{5, 1, 3} && v != errPathView {
		v.Enhanced = [3]int{5, 1, 7}
		return v
	}
	return err
}

func (s *session) envelope() *Envelope {
	w := s.wire
	env := &Envelope{
		Listener:  w.opts.Name,
		Role:      w.opts.Role,
		Protocol:  w.protocol(),
		Peer:      w.peer,
		PeerName:  w.peerName,
		PeerNamed: w.named && w.peer != w.connected(),
		PeerHost:  w.peerHost,
		Helo:      plainText(cmp.Or(w.helo, s.conn.Hostname()), 255),
		Login:     w.login,
		TLS:       w.secured,
	}
	if w.forwarded != nil {
		env.Client = *w.forwarded
	}
	return env
}

func (s *session) Rcpt(to string, o *smtp.RcptOptions) (err error) {
	defer s.guard(&err)
	if s.env == nil { // go-smtp has asked for MAIL before
		return s.reply(errors.New("RCPT without a transaction"))
	}
	path, err := pathOf(s.wire.line, "TO:", to, s.env.SMTPUTF8)
	if err != nil {
		return s.reply(because(ReasonAddress, err))
	}
	rcpt, err := recipient(path, o)
	if err != nil {
		return s.reply(because(ReasonCommand, err))
	}
	key := path.Key()
	if s.keys[key] {
		return nil
	}
	if err := s.h.Rcpt(s.wire.ctx, s.env, rcpt); err != nil {
		return s.reply(err)
	}
	s.keys[key] = true
	s.env.Recipients = append(s.env.Recipients, rcpt)
	return nil
}

func recipient(path Path, o *smtp.RcptOptions) (Recipient, error) {
	r := Recipient{Path: path}
	for _, n := range o.Notify {
		r.Notify = append(r.Notify, string(n))
	}
	if o.OriginalRecipient != "" {
		r.ORCPT = string(o.OriginalRecipientType) + ";" + o.OriginalRecipient
	}
	if !printable(r.ORCPT) {
		return Recipient{}, Verdict{501, [3]int{5, 5, 4}, "Control characters in ORCPT are not allowed"}
	}
	return r, nil
}

// Data answers for a message. Its bytes never come through r: those of DATA
// are taken from the wire here, those of BDAT have been taken already.
func (s *session) Data(io.Reader) (err error) {
	defer s.guard(&err)
	b := s.wire.body
	if b == nil {
		if b = s.open(); b == nil {
			return s.reply(errors.New("DATA without a transaction"))
		}
		s.wire.body = b
		if err := s.wire.receive(b); err != nil {
			return errGone
		}
	}
	receipt, err := s.accept(b)
	if err != nil {
		return s.reply(err)
	}
	return accepted(receipt)
}

// errGone is for a connection that has ended; nobody reads it.
var errGone = smtpReply(Verdict{421, [3]int{4, 4, 2}, "Connection closed"})

// open begins the body of the open transaction.
func (s *session) open() *body {
	if s.env == nil || len(s.env.Recipients) == 0 {
		return nil
	}
	b := &body{max: s.wire.opts.MaxMessage}
	b.sink, b.err = s.h.Spool(s.wire.ctx, s.env)
	switch {
	case b.err != nil:
		b.sink = nil
	case b.sink == nil:
		b.err = errors.New("the handler gave no sink")
	default:
		b.out = b.sink
	}
	return b
}

// accept judges a complete body and hands it over.
func (s *session) accept(b *body) (Receipt, error) {
	s.env.Body = b.facts
	switch f := b.facts; {
	case b.tooLarge():
		return Receipt{}, because(ReasonSize, Verdict{552, [3]int{5, 3, 4}, "Max message size exceeded"})
	case f.LongLine:
		return Receipt{}, because(ReasonLine, Verdict{550, [3]int{5, 6, 0}, "The message has a line of more than 1 MiB"})
	case s.wire.opts.BareNewline != NewlineNormalize && (f.BareCR || f.BareLF):
		return Receipt{}, because(ReasonNewline, Verdict{550, [3]int{5, 6, 0}, "The message has a CR without LF or an LF without CR"})
	case f.NULBesideDot: // no new line end takes it away
		return Receipt{}, because(ReasonNewline, Verdict{550, [3]int{5, 6, 0}, "The message has a NUL beside a dot"})
	case b.err != nil:
		return Receipt{}, b.err
	}
	return s.h.Accept(s.wire.ctx, s.env, b.sink)
}

// reply is the funnel with this session's log; a 421 also ends the connection.
func (s *session) reply(err error) error {
	e := reply(s.wire.log, err)
	if e.Code == 421 {
		s.wire.hangup(reasonOf(err), e.Code, enhanced(e), e.Message, true)
	} else {
		s.wire.count(reasonOf(err), e.Code)
	}
	return e
}

func enhanced(e *smtp.SMTPError) string {
	return fmt.Sprintf("%d.%d.%d", e.EnhancedCode[0], e.EnhancedCode[1], e.EnhancedCode[2])
}

// guard turns a panic of the handler into the end of this connection.
func (s *session) guard(err *error) {
	if r := recover(); r != nil {
		s.wire.panicked(r)
		*err = errGone
	}
}
