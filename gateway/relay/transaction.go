package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/casegate/casegate/store"
)

// flightSize bounds how much is written before replies are read, so that
// neither side waits for the other with full buffers (RFC 2920 §3.1).
const flightSize = 8 << 10

// errClosing: the next hop said 421 and will hang up (RFC 5321 §3.8).
var errClosing = errors.New("the next hop is closing")

// envelope is what MAIL and RCPT say.
type envelope struct {
	from, ret, envid string
	utf8             bool // asked for when the mail was handed in
	to               []store.Recipient
}

// needsUTF8 reports whether MAIL needs SMTPUTF8 (RFC 6531 §3.4).
func (e *envelope) needsUTF8() bool {
	need := e.utf8 || !ascii(e.from)
	for i := range e.to {
		need = need || !ascii(e.to[i].Address)
	}
	return need
}

// verdict is what came of one recipient.
type verdict struct {
	state      store.DeliveryState // Delivered, Queued (later), Failed; empty: none yet
	reply      string
	own        bool       // the reply is about this recipient alone
	again      bool       // refused only for want of room in this transaction
	ambiguous  bool       // the next hop may have taken it
	unreadable bool       // the archive does not give the message
	unreached  bool       // no session could be opened
	unfit      bool       // what the next hop does not offer kept it from being asked: another one may
	tls        *store.TLS // of the session
	relayed    bool       // delivered to who tells nobody of it: DSN is not offered
}

// transaction is one MAIL … final dot, and what came of it.
type transaction struct {
	ctx    context.Context
	c      *conn
	env    *envelope
	letter *letter
	src    *source

	to       []verdict // by index in env.to
	ask      []int     // recipients to ask for
	took     []int     // those the next hop took
	data     reply     // to DATA
	answered bool      // the next hop said something
	open     bool      // MAIL was taken and the data not ended
	broken   bool      // the connection is of no more use
	deaf     bool      // the next hop took no notice of commands sent at once
}

// send runs one transaction. Whatever happens, every recipient has a verdict
// after it.
func (c *conn) send(ctx context.Context, env *envelope, l *letter, src *source) *transaction {
	t := &transaction{ctx: ctx, c: c, env: env, letter: l, src: src, to: make([]verdict, len(env.to))}
	stop := c.closeWith(ctx)
	defer func() { t.broken = !stop() || t.broken || c.r.Buffered() > 0 }()
	if t.refuse(); len(t.ask) == 0 {
		return t
	}
	c.messages++
	if err := t.forward(); err != nil {
		t.lost("XFORWARD", err)
		return t
	}
	if stage, err := t.commands(); err != nil {
		t.lost(stage, err)
		return t
	}
	if t.data.code == 354 && len(t.took) > 0 {
		t.body()
	} else {
		t.turnedDown()
	}
	if t.open && !t.broken {
		t.broken = c.reset() != nil
	}
	return t
}

// refuse gives up, without a word to the next hop, on what it cannot take.
func (t *transaction) refuse() {
	if why := t.unfit(); why.state != "" {
		t.decide(why)
		return
	}
	for i, to := range t.env.to {
		switch {
		case !sendable(to.Address):
			t.to[i] = verdict{state: store.Failed, reply: "5.1.3 the address cannot be sent as it is written", own: true}
		case !ascii(to.Address) && !t.c.ext.utf8:
			t.to[i] = verdict{state: store.Failed, reply: "5.6.7 the address needs SMTPUTF8, which the next hop does not offer", own: true, unfit: true}
		default:
			t.ask = append(t.ask, i)
		}
	}
}

// unfit is the verdict on a message that the next hop cannot take for anyone.
func (t *transaction) unfit() verdict {
	ext, size := &t.c.ext, t.letter.size
	switch {
	case !sendable(t.env.from):
		return verdict{state: store.Failed, reply: "5.1.7 the sender's address cannot be sent as it is written"}
	case ext.size > 0 && size > ext.size:
		return verdict{state: store.Failed, reply: fmt.Sprintf("5.3.4 the message has %d octets, the next hop takes %d", size, ext.size), unfit: true}
	case !ext.utf8 && (t.env.utf8 || !ascii(t.env.from)):
		return verdict{state: store.Failed, reply: "5.6.7 the message needs SMTPUTF8, which the next hop does not offer", unfit: true}
	case ext.eightBit:
		return verdict{}
	}
	// RFC 6152 §3: without the offer 8-bit data must not be sent, and turning
	// it into 7-bit would break signatures.
	eight, err := t.letter.eightBit(t.ctx)
	if err != nil {
		return sourceVerdict(err)
	}
	if eight {
		return verdict{state: store.Failed, reply: "5.6.3 the message is 8-bit, and the next hop does not offer 8BITMIME", unfit: true}
	}
	return verdict{}
}

// commands sends MAIL, RCPT… and DATA, in one write where they may be
// pipelined, and reads the replies. The stage tells where an error struck.
func (t *transaction) commands() (stage string, err error) {
	last := len(t.ask) + 1 // 0 is MAIL, then the recipients, then DATA
	for next := 0; next <= last; {
		if next > 0 && (!t.open || next == last && len(t.took) == 0) {
			return "", nil
		}
		first := next
		t.c.out = t.c.out[:0]
		for next == first || next <= last && t.c.ext.pipelining && len(t.c.out) < flightSize {
			t.c.out = t.append(t.c.out, next)
			next++
		}
		if err := t.c.flush(t.c.timeouts.Mail); err != nil {
			return t.stage(first), err
		}
		for i := first; i < next; i++ {
			if err := t.answer(i); err != nil {
				t.deaf = i > first && errors.Is(err, os.ErrDeadlineExceeded)
				return t.stage(i), err
			}
		}
	}
	return "", nil
}

// append appends command i.
func (t *transaction) append(dst []byte, i int) []byte {
	switch {
	case i == 0:
		return t.env.appendMail(dst, t.c.ext, t.letter.size)
	case i <= len(t.ask):
		return appendRcpt(dst, t.env.to[t.ask[i-1]], t.c.ext)
	}
	return append(dst, "DATA\r\n"...)
}

func (t *transaction) stage(i int) string {
	switch {
	case i == 0:
		return "MAIL"
	case i <= len(t.ask):
		return "RCPT"
	}
	return "DATA"
}

// answer reads the reply to command i and draws the conclusion.
func (t *transaction) answer(i int) error {
	timeout := t.c.timeouts.Rcpt
	switch t.stage(i) {
	case "MAIL":
		timeout = t.c.timeouts.Mail
	case "DATA":
		timeout = t.c.timeouts.Data
	}
	rep, err := t.c.reply(timeout)
	if err != nil {
		return err
	}
	if rep.code == 421 {
		return fmt.Errorf("%w: %s", errClosing, rep)
	}
	t.answered = true
	switch t.stage(i) {
	case "MAIL":
		if t.open = rep.code/100 == 2; !t.open {
			t.decide(verdict{state: rep.state(), reply: rep.String()})
		}
	case "RCPT":
		t.recipient(t.ask[i-1], rep)
	case "DATA":
		t.data = rep
	}
	return nil
}

// recipient notes the reply to one RCPT.
func (t *transaction) recipient(i int, rep reply) {
	if !t.open {
		return // MAIL was refused: that was the verdict
	}
	if rep.code/100 == 2 {
		t.took = append(t.took, i)
		return
	}
	v := verdict{state: rep.state(), reply: rep.String(), own: true, again: rep.tooMany()}
	if v.again {
		v.state = store.Queued
	}
	t.to[i] = v
}

// turnedDown concludes a transaction without data. A 354 with no recipient
// taken wants an empty message; hanging up is safer than sending one. With more
// replies than commands, who knows what each was about.
func (t *transaction) turnedDown() {
	if codes := t.unasked(); codes != "" {
		clear(t.to)
		t.decide(verdict{state: store.Queued, reply: "4.5.0 replies are out of step: unasked, the next hop says " + codes})
		return
	}
	switch {
	case t.data.code == 0: // DATA was not sent: all have their verdict
	case t.data.code == 354: // and nobody was taken: all have their verdict
		t.broken = true
	case t.data.code < 400:
		// Out of step: who knows which recipient the other replies were about.
		t.broken = true
		clear(t.to)
		t.decide(verdict{state: store.Queued, reply: "4.5.0 the answer to DATA is " + t.data.String()})
	default:
		t.decide(verdict{state: t.data.state(), reply: t.data.String()})
	}
}

// unasked are the codes of a reply too many; empty if there is none. Noise is no
// reply; and that it will hang up a next hop may say at any time (RFC 5321 §3.8).
func (t *transaction) unasked() (codes string) {
	if t.c.r.Buffered() == 0 {
		return ""
	}
	t.broken = true
	rep, err := t.c.reply(time.Second)
	if err != nil || rep.code == 421 {
		return ""
	}
	return status(rep.String())
}

// body sends the message. Nothing but the end of a message that was read whole
// and clean ends the data: on any error the connection is closed without. While
// it takes long enough, somebody listens: a reply that comes before the final
// dot must not be taken for the reply to it.
func (t *transaction) body() {
	if t.c.r.Buffered() > 0 {
		t.early()
		return
	}
	if !t.src.ended {
		t.c.listen()
		defer t.c.hush()
	}
	for {
		if t.c.stirred != nil && (t.c.spoke() || t.src.ended) && !t.c.rouse() {
			t.early()
			return
		}
		t.c.SetWriteDeadline(time.Now().Add(t.c.timeouts.Block))
		if _, err := t.c.Write(t.src.block.out); err != nil {
			t.cutShort(err)
			return
		}
		if t.src.ended {
			t.open = false
			t.final()
			return
		}
		if err := t.src.next(); err != nil {
			t.broken = true
			t.c.Close()
			t.decide(sourceVerdict(err))
			return
		}
	}
}

// early concludes a body that was answered before it was sent. A refusal is as
// good as one later; but who takes what he has not got is out of step.
func (t *transaction) early() {
	t.broken = true
	rep, err := t.c.reply(time.Second)
	t.c.Close()
	if err == nil && rep.code >= 400 && !t.c.lmtp {
		t.decide(verdict{state: rep.state(), reply: rep.String()})
		return
	}
	if err != nil && !errors.Is(err, errReply) {
		t.lost("the message", err)
		return
	}
	t.decide(verdict{state: store.Queued, reply: "4.5.0 the message was answered before it was sent"})
}

// cutShort concludes a body that the next hop did not take to its end. It may
// have said why (552, say) before it hung up.
func (t *transaction) cutShort(err error) {
	t.broken = true
	t.c.hush()
	if t.ctx.Err() == nil && !t.c.lmtp {
		rep, e := t.c.reply(time.Second)
		if e == nil && rep.code >= 400 {
			t.decide(verdict{state: rep.state(), reply: rep.String()})
			return
		}
	}
	t.lost("the message", err)
}

// final reads the replies to the final dot: one, or with LMTP one for each
// recipient that was taken, in their order (RFC 2033 §4.2). Where none comes,
// nobody knows.
func (t *transaction) final() {
	for _, i := range t.took {
		rep, err := t.c.reply(t.c.timeouts.Dot)
		if err != nil {
			t.unknown(err)
			return
		}
		if rep.code/100 == 3 {
			t.unknown(fmt.Errorf("%w: it is %s", errReply, rep))
			return
		}
		t.broken = t.broken || rep.code == 421
		v := verdict{state: rep.state(), reply: rep.String(), relayed: !t.c.ext.dsn}
		if !t.c.lmtp {
			t.decide(v)
			break
		}
		v.own = true
		t.to[i] = v
	}
	if t.c.r.Buffered() > 0 {
		t.surplus()
	}
}

// surplus looks at replies to the final dot that are more than there should be:
// if not all are alike, who knows what each is about. A 421 is about nobody.
// Noise behind the one reply of SMTP takes nothing back: who makes it always
// would have the mail again and again.
func (t *transaction) surplus() {
	const patience = time.Second
	t.broken = true
	state := t.to[t.took[0]].state
	mixed := slices.ContainsFunc(t.took, func(i int) bool { return t.to[i].state != state })
	end := time.Now().Add(patience)
	for n := 0; t.c.r.Buffered() > 0; n++ {
		rep, err := t.c.reply(time.Until(end))
		if rep.code == 421 || !t.c.lmtp && (err != nil || n == maxReplyLines) {
			return
		}
		if err != nil || mixed || rep.state() != state || n == maxReplyLines {
			t.doubt()
			return
		}
	}
}

// doubt is the verdict on all that were taken where the replies to the final
// dot are out of step.
func (t *transaction) doubt() {
	for _, i := range t.took {
		t.to[i] = verdict{state: store.Queued, reply: "4.5.0 more replies to the final dot than there should be, it may have been taken", ambiguous: true}
	}
}

// unknown concludes what the final dot was sent for and no reply told of.
func (t *transaction) unknown(err error) {
	t.broken = true
	t.decide(verdict{
		state:     store.Queued,
		reply:     "4.4.2 no reply to the final dot, it may have been taken: " + t.why(err),
		ambiguous: true,
	})
}

// lost concludes a transaction whose connection failed before the final dot.
// Where replies are out of step none of those before can be trusted.
func (t *transaction) lost(stage string, err error) {
	t.broken = true
	reply := "4.4.2 connection lost at " + stage + ": "
	if errors.Is(err, errUnasked) {
		clear(t.to)
		reply = "4.5.0 replies are out of step at " + stage + ": "
	}
	t.decide(verdict{state: store.Queued, reply: reply + t.why(err)})
}

// why is the reason behind an error: if it was us who closed the connection,
// ours.
func (t *transaction) why(err error) string {
	if cause := context.Cause(t.ctx); cause != nil {
		err = cause
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "the next hop hung up"
	}
	return clean([]byte(err.Error()))
}

// decide gives a verdict to all that have none.
func (t *transaction) decide(v verdict) {
	for i := range t.to {
		if t.to[i].state == "" {
			t.to[i] = v
		}
	}
}

// stale reports whether the session had been ended before we used it again.
func (t *transaction) stale() bool {
	return t.broken && !t.answered && len(t.ask) > 0 && t.ctx.Err() == nil
}

// sourceVerdict is the verdict on a message that cannot be read, or not sent
// as it is.
func sourceVerdict(err error) verdict {
	switch {
	case unclean(err):
		return verdict{state: store.Failed, reply: "5.6.0 not sent: " + err.Error()}
	case errors.Is(err, store.ErrNotFound):
		return verdict{state: store.Held, reply: "5.3.0 not sent, held: " + err.Error()}
	}
	passing := errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrFull) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	return verdict{state: store.Queued, reply: notSent + err.Error(), unreadable: !passing}
}

// notSent begins the words about a message that could not be read.
const notSent = "4.3.0 not sent: "
