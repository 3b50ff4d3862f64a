package relay

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/casegate/casegate/store"
)

// extensions are what a next hop offered in its answer to EHLO or LHLO.
type extensions struct {
	pipelining bool // RFC 2920
	eightBit   bool // RFC 6152
	utf8       bool // RFC 6531
	dsn        bool // RFC 3461
	sized      bool // RFC 1870
	size       int64
	startTLS   bool     // RFC 3207
	auth       []string // RFC 4954, in upper case
	xforward   []string // the attributes that XFORWARD takes, in upper case
}

// conn is a session with a next hop, past its EHLO or LHLO.
type conn struct {
	net.Conn
	r        *bufio.Reader
	out      []byte // commands about to be written
	lmtp     bool
	ext      extensions
	tls      *store.TLS // nil: in the clear
	xforward bool       // to be used where it is offered
	timeouts *Timeouts
	messages int        // transactions begun
	idle     time.Time  // since when it lies unused
	stirred  chan error // what ended the wait for an unasked word; nil: nobody listens
}

// connect opens a session: TCP or UNIX, greeting, EHLO or LHLO, TLS, login.
func (r *Relay) connect(ctx context.Context, h *hop) (*conn, error) {
	c, err := r.open(ctx, h, h.security)
	if h.mode == TLSOpportunistic && errors.Is(err, errTLS) && ctx.Err() == nil {
		inTheClear := *h.security
		inTheClear.mode = TLSNone
		c, err = r.open(ctx, h, &inTheClear) // RFC 7435 §3: better than not at all
	}
	return c, err
}

func (r *Relay) open(ctx context.Context, h *hop, s *security) (*conn, error) {
	dial, cancel := context.WithTimeout(ctx, r.opts.Timeouts.Connect)
	defer cancel()
	nc, err := r.opts.Dial(dial, h.network, h.address)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	c := &conn{Conn: nc, r: bufio.NewReaderSize(nc, maxReplyLine), lmtp: h.lmtp, xforward: h.xforward, timeouts: &r.opts.Timeouts}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	defer stop()
	if err := c.begin(ctx, r, s, h.endpoint); err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

// begin takes a connection to where mail can be handed over.
func (c *conn) begin(ctx context.Context, r *Relay, s *security, e endpoint) error {
	if e.implicit {
		if err := c.handshake(ctx, r, s, e); err != nil {
			return inStage(StageTLS, err)
		}
	}
	if err := c.hello(r.opts.Hostname); err != nil {
		return err
	}
	if !e.implicit && s.mode != TLSNone {
		if err := c.startTLS(ctx, r, s, e); err != nil {
			return inStage(StageTLS, err)
		}
	}
	return inStage(StageSignIn, c.signIn(ctx, s.auth))
}

// closeWith closes the connection when ctx ends, until stop is called.
func (c *conn) closeWith(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { c.Close() })
}

// hello waits for the greeting, and introduces us. Whatever goes wrong here is
// the next hop's trouble, not the mail's: it is told as an error, never as a
// verdict, be it 4xx or 5xx.
func (c *conn) hello(name string) error {
	if rep, err := c.reply(c.timeouts.Greeting); err != nil {
		return fmt.Errorf("waiting for the greeting: %w", err)
	} else if rep.code != 220 {
		return fmt.Errorf("the greeting is %s", rep)
	}
	return c.meet(name)
}

// meet introduces us.
func (c *conn) meet(name string) error {
	verb := "EHLO"
	if c.lmtp {
		verb = "LHLO"
	}
	rep, err := c.introduce(verb, name)
	if err == nil && rep.code/100 == 5 && !c.lmtp {
		verb, c.ext = "HELO", extensions{} // RFC 5321 §3.2
		rep, err = c.introduce(verb, name)
	}
	if err != nil {
		return fmt.Errorf("saying %s: %w", verb, err)
	}
	if rep.code != 250 {
		return fmt.Errorf("the answer to %s is %s", verb, rep)
	}
	return nil
}

// introduce says EHLO, LHLO or HELO and reads what is offered: one keyword on
// each line but the first (RFC 5321 §4.1.1.1).
func (c *conn) introduce(verb, name string) (reply, error) {
	c.out = append(c.out[:0], verb+" "+name+"\r\n"...)
	if err := c.flush(c.timeouts.Greeting); err != nil {
		return reply{}, err
	}
	c.SetReadDeadline(time.Now().Add(c.timeouts.Greeting))
	var rep reply
	first := true
	err := readLines(c.r, func(code int, line []byte) error {
		if !first && code != rep.code {
			return fmt.Errorf("%w: it changes from %d to %d", errReply, rep.code, code)
		}
		if first {
			rep = reply{code, clean(line[:min(len(line), maxReplyText)])}
		} else if verb != "HELO" {
			c.ext.offer(line)
		}
		first = false
		return nil
	})
	return rep, err
}

// offer notes one keyword; its case does not matter.
func (x *extensions) offer(line []byte) {
	words := bytes.Fields(line)
	if len(words) == 0 {
		return
	}
	switch strings.ToUpper(string(words[0])) {
	case "PIPELINING":
		x.pipelining = true
	case "8BITMIME":
		x.eightBit = true
	case "SMTPUTF8":
		x.utf8 = true
	case "DSN":
		x.dsn = true
	case "STARTTLS":
		x.startTLS = true
	case "AUTH":
		x.auth = appendWords(x.auth, words[1:])
	case "XFORWARD":
		x.xforward = appendWords(x.xforward, words[1:])
	case "SIZE":
		x.sized = true
		if len(words) > 1 { // 0 is no limit
			x.size, _ = strconv.ParseInt(string(words[1]), 10, 64)
		}
	}
}

// maxWords is how many words of one kind are kept of an offer.
const maxWords = 64

// appendWords appends words in upper case, while there is room.
func appendWords(list []string, words [][]byte) []string {
	for _, w := range words[:min(len(words), maxWords-len(list))] {
		list = append(list, strings.ToUpper(string(w)))
	}
	return list
}

// errUnasked: a reply came before there was anything to reply to. Whatever comes
// next would be taken for the answer to something else.
var errUnasked = errors.New("the next hop spoke before it was asked")

// flush writes what is in c.out, unless replies are out of step. Of one that was
// not asked for only the codes are told: it may be about a recipient.
func (c *conn) flush(timeout time.Duration) error {
	if c.r.Buffered() > 0 {
		rep, err := c.reply(time.Second)
		if err != nil {
			return fmt.Errorf("%w: %w", errUnasked, err)
		}
		return fmt.Errorf("%w: %s", errUnasked, status(rep.String()))
	}
	c.SetWriteDeadline(time.Now().Add(timeout))
	_, err := c.Write(c.out)
	return err
}

// reply reads one reply, all of it within timeout.
func (c *conn) reply(timeout time.Duration) (reply, error) {
	c.SetReadDeadline(time.Now().Add(timeout))
	return readReply(c.r)
}

// reset drops a transaction that came to nothing (RFC 5321 §4.1.1.5).
func (c *conn) reset() error {
	c.out = append(c.out[:0], "RSET\r\n"...)
	if err := c.flush(c.timeouts.Mail); err != nil {
		return err
	}
	rep, err := c.reply(c.timeouts.Mail)
	if err == nil && rep.code != 250 {
		err = fmt.Errorf("the answer to RSET is %s", rep)
	}
	return err
}

// rest has somebody listen while the session lies unused.
func (c *conn) rest() {
	c.idle = time.Now()
	c.listen()
}

// listen has somebody wait for an unasked word. Nothing else reads until rouse.
func (c *conn) listen() {
	stirred := make(chan error, 1)
	c.stirred = stirred
	c.SetReadDeadline(time.Time{})
	go func() {
		_, err := c.r.Peek(1)
		stirred <- err
	}()
}

// spoke reports whether the one who listens has heard something.
func (c *conn) spoke() bool { return len(c.stirred) > 0 }

// rouse ends the listening. It is false if the next hop has hung up or said
// something: that would be taken for the answer to what is asked next.
func (c *conn) rouse() bool {
	c.SetReadDeadline(time.Unix(1, 0))
	err := <-c.stirred
	c.stirred = nil
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// hush ends the listening, if there is any.
func (c *conn) hush() {
	if c.stirred != nil {
		c.rouse()
	}
}

// quit ends an unused session in good manners, but briefly. Only for one that
// is not inside DATA.
func (c *conn) quit() {
	const patience = time.Second
	defer c.Close()
	if c.stirred != nil && !c.rouse() {
		return
	}
	c.out = append(c.out[:0], "QUIT\r\n"...)
	if c.flush(patience) == nil {
		c.reply(patience)
	}
}
