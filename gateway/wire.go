package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"github.com/casegate/casegate/store"
)

// The states of a connection. "->" is the next state; "answer" is a reply of
// our own that go-smtp knows nothing of. Replies, ours and go-smtp's, wait in
// one buffer, in order, and leave in one write before we wait for the client.
//
//	state     event                              action                                   ->
//	greeting  a PROXY header is due, and comes   the client is whom it names              greeting
//	greeting  one is due: none in time, or bad   say nothing                              closing
//	greeting  the named client has its share     answer 421 4.7.0                         closing
//	greeting  TLS from the start                 shake hands                              greeting
//	greeting  input is there before the banner   answer 554 5.5.0                         closing
//	greeting  go-smtp writes its banner          keep it for the next flush               command
//	command   a line                             hand it to go-smtp, remember it          command
//	command   a line with control characters     answer 501 5.5.2                         command
//	command   a line over 4 KiB                  drop up to its LF, answer 500 5.5.2      command
//	command   too many of these two              answer 421 4.7.0                         closing
//	command   EHLO, LHLO: go-smtp answers        add what we offer beside it              command
//	command   MAIL, no accepted greeting since   answer 502 5.5.1                         command
//	          the start, STARTTLS or XCLIENT
//	command   TLS is required and not there: all answer 530 5.7.0                         command
//	          but greetings, NOOP, RSET, QUIT
//	command   STARTTLS, TLS there or transaction answer 503 5.5.1                         command
//	command   STARTTLS, input behind it          answer 554 5.5.0: somebody injects       closing
//	command   STARTTLS                           answer 220, shake hands, forget greeting
//	                                             and login                                command
//	any       the handshake fails or takes long  say nothing                              closing
//	command   AUTH, not offered or out of turn   answer 502, 503, 504 or 538              command
//	command   AUTH                               ask and read lines; answer 235 or 5xx    command
//	command   AUTH, the third failure            answer 535 5.7.8 and 421 4.7.0           closing
//	command   XFORWARD, XCLIENT, not trusted     answer 550 5.7.0                         command
//	command   either, in a transaction           answer 503 5.5.1                         command
//	command   XFORWARD                           keep it for the next transaction         command
//	command   XCLIENT                            the client is whom it names; answer 220  command
//	command   MAIL with a SIZE beyond 32 bits    answer 552 5.3.4                         command
//	command   BDAT that cannot be read           answer 501 5.5.4: its end is unknown     closing
//	command   BDAT n, no transaction             drop n bytes; go-smtp gets DATA, says no command
//	command   BDAT n                             open the sink, then as in bdat           bdat
//	command   go-smtp writes 354, input waiting  drop the 354, answer 554 5.5.0           closing
//	command   go-smtp writes 354                 keep it                                  data
//	command   no whole line in time              answer 421 4.4.2                         closing
//	command   shutdown, also while waiting       answer 421 4.3.2                         closing
//	data      less than 1 KiB, no end in it      wait for more                            data
//	data      bytes                              unstuff into the sink, note the flags    data
//	data      CRLF . CRLF                        go-smtp gets ".CRLF": an empty body      command
//	data      CR CRLF . CRLF                     the same; after the reply 421 4.7.0      command, closing
//	data      idle, too slow, too long in all    answer 421 4.4.2                         closing
//	bdat      BDAT n                             n bytes into the sink, answer 250        bdat
//	bdat      BDAT n LAST                        the same; go-smtp gets DATA, its 354 is
//	                                             dropped, its reply is the message's      command
//	bdat      BDAT beyond the message limit      drop n bytes, answer 552 5.3.4; go-smtp
//	                                             gets RSET, its reply is dropped          command
//	bdat      MAIL, RCPT, DATA                   answer 502 5.5.1                         bdat
//	bdat      STARTTLS, AUTH, XFORWARD, XCLIENT  answer 503 5.5.1: a transaction is open  bdat
//	bdat      RSET, EHLO, HELO, LHLO             go-smtp resets the session: sink gone    command
//	bdat      another line                       hand it to go-smtp                       bdat
//	bdat      idle, too slow, too long in all    answer 421 4.4.2                         closing
//	bdat      shutdown                           nothing: a body may finish               bdat
//	any       end of input, connection error     a half line is dropped                   closing
//	any       panic in our code                  log it with an id, answer 421 4.3.0      closing
//	closing   go-smtp writes                     swallow it                               closing
//	closing   go-smtp reads                      end of input                             closing
//
// STARTTLS, AUTH, XFORWARD and XCLIENT are ours alone. Where a listener doesn't
// take one of them go-smtp says that it knows no such command; of AUTH we do.
type wireState uint8

const (
	stateGreeting wireState = iota
	stateCommand
	stateData
	stateBDAT
	stateClosing
)

// bridge is a line go-smtp is given in place of BDAT, and what becomes of its
// reply.
type bridge uint8

const (
	bridgeNone   bridge = iota
	bridgeRefuse        // DATA without a transaction: the reply goes out
	bridgeLast          // DATA for a body already here: drop the 354
	bridgeReset         // RSET: drop the reply
)

const (
	lineMax   = 4 << 10 // a command line with its CRLF
	outMax    = 8 << 10 // replies kept back while commands are pipelined
	outKept   = 256     // of their buffer, between two flushes
	faultsMax = 20      // lines we refused ourselves, for one connection
)

var (
	endOfData = []byte(".\r\n")
	lineDATA  = []byte("DATA\r\n")
	lineRSET  = []byte("RSET\r\n")

	errDraining = errors.New("shutting down")
	errSlow     = errors.New("client is too slow")
)

// host is what the wire asks of the session above go-smtp: BDAT chunks arrive
// before go-smtp hears of them.
type host interface {
	// open begins the body of the open transaction; nil: there is none.
	open() *body
	// busy reports an open transaction.
	busy() bool
}

// wire is the net.Conn that go-smtp is given. All but drain and sever run on
// the goroutine that go-smtp serves the connection with.
type wire struct {
	socket   net.Conn // the connection itself: deadlines, and an end from outside
	raw      net.Conn // what is read and written: socket, or the TLS on it
	tls      *tls.Conn
	secured  *store.TLS // what is recorded of tls
	opts     *ListenerOptions
	log      *slog.Logger
	ctx      context.Context
	cancel   context.CancelFunc
	place    func(netip.Addr) bool // a place among the connections of a client that PROXY names
	released func()                // the listener forgets the connection

	input
	state    wireState
	out      []byte // replies not sent yet
	midLine  bool   // go-smtp has written half a line
	hand     []byte // what go-smtp reads next
	line     []byte // the command line go-smtp got last; valid until its next read
	greeting string // EHLO, HELO or LHLO that go-smtp has still to answer
	offering bool   // the first line of its answer is under way
	hello    string // EHLO, HELO or LHLO that was accepted last; none since STARTTLS or XCLIENT
	host     host
	identity
	body      *body // open, or complete and not yet taken by the session
	bridge    bridge
	ambiguous bool // a lax reader may disagree on where the last body ended
	faults    int
	counted   bool // a refusal of the command under way
	lingering bool
	closed    bool

	mu       sync.Mutex
	waiting  bool // in a read that drain may interrupt
	draining bool
}

func newWire(ctx context.Context, socket net.Conn, opts *ListenerOptions, log *slog.Logger) *wire {
	w := &wire{socket: socket, raw: socket, opts: opts, log: log}
	w.peer, w.peerName = peerOf(socket.RemoteAddr())
	w.ctx, w.cancel = context.WithCancel(ctx)
	return w
}

func (w *wire) LocalAddr() net.Addr                { return w.socket.LocalAddr() }
func (w *wire) RemoteAddr() net.Addr               { return w.socket.RemoteAddr() }
func (w *wire) SetDeadline(t time.Time) error      { return nil } // the deadlines are ours
func (w *wire) SetReadDeadline(t time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(t time.Time) error { return nil }

// Read gives go-smtp at most one command line, or the empty body that stands
// for the one we took.
func (w *wire) Read(p []byte) (n int, err error) {
	defer func() {
		if r := recover(); r != nil {
			w.panicked(r)
			n, err = 0, io.EOF
		}
	}()
	if len(w.hand) == 0 {
		if w.hand, err = w.next(); err != nil {
			return 0, err
		}
		w.counted = false
	}
	n = copy(p, w.hand)
	w.hand = w.hand[n:]
	return n, nil
}

func (w *wire) next() ([]byte, error) {
	switch w.state {
	case stateClosing:
		return nil, io.EOF
	case stateData: // nobody took the body: it must not be read as commands
		if err := w.receive(&body{}); err != nil {
			return nil, io.EOF
		}
		return w.hand, nil
	}
	if w.ambiguous {
		w.hangup(ReasonAmbiguous, 421, "4.7.0", "the end of the message was ambiguous, closing", true)
		return nil, io.EOF
	}
	return w.command()
}

// Write takes go-smtp's replies, which come a line at a time.
func (w *wire) Write(p []byte) (int, error) {
	if w.state == stateGreeting {
		w.greet()
	}
	if w.state == stateClosing {
		return len(p), nil
	}
	keep := true
	if !w.midLine {
		keep = w.keep(p)
	}
	w.midLine = !bytes.HasSuffix(p, []byte("\n"))
	if !keep || w.state == stateClosing {
		return len(p), nil
	}
	w.countReply(p)
	w.out = append(w.out, p...)
	if w.offering && !w.midLine {
		w.offer()
	}
	if len(w.out) > outMax {
		return len(p), w.flush()
	}
	return len(p), nil
}

// keep decides whether a reply of go-smtp goes out, and what it means for us.
func (w *wire) keep(reply []byte) bool {
	if w.greeting != "" && bytes.HasPrefix(reply, []byte("250")) {
		w.hello, w.offering = w.greeting, bytes.HasPrefix(reply, []byte("250-"))
	}
	w.greeting = ""
	bridge, goAhead := w.bridge, bytes.HasPrefix(reply, []byte("354 "))
	w.bridge = bridgeNone
	switch {
	case bridge == bridgeReset:
		return false
	case bridge == bridgeLast && goAhead:
		w.hand = endOfData
		return false
	case bridge == bridgeLast: // go-smtp knows of no transaction after all
		w.dropBody()
	case bridge == bridgeRefuse && goAhead:
		w.log.Error("go-smtp and the session disagree on the transaction")
		w.hangup(ReasonLocal, 421, "4.3.0", "internal error", false)
	case goAhead && w.buffered() > 0:
		w.hangup(ReasonEarly, 554, "5.5.0", "wait for 354 before you send the message", true)
	case goAhead:
		w.state = stateData
	}
	return true
}

// greet gets a connection to the point where a banner may be said.
func (w *wire) greet() {
	defer func() {
		if r := recover(); r != nil {
			w.panicked(r)
		}
	}()
	w.state = stateCommand
	if w.opts.ProxyProtocol && !w.introduced() || w.opts.TLSMode == TLSImplicit && !w.secure() {
		return
	}
	w.hearFirst()
}

// hearFirst looks for input that came before the banner: the client doesn't wait
// for its turn, or isn't speaking SMTP at all.
func (w *wire) hearFirst() {
	if w.opts.BannerPause < 0 {
		return
	}
	w.socket.SetReadDeadline(time.Now().Add(w.opts.BannerPause))
	n, err := w.raw.Read(w.small[:])
	switch {
	case n > 0:
		w.log.Info("client spoke before the banner")
		w.hangup(ReasonEarly, 554, "5.5.0", "wait for the banner before you speak", true)
	case err != nil && !isTimeout(err):
		w.state = stateClosing
	}
}

// answer adds a reply of our own behind those that wait.
func (w *wire) answer(code int, enhanced, text string) {
	w.out = fmt.Appendf(w.out, "%d %s %s\r\n", code, enhanced, text)
	if len(w.out) > outMax {
		w.flush()
	}
}

// fault answers a line we refuse ourselves; a client that sends nothing else
// is turned away.
func (w *wire) fault(why Reason, code int, enhanced, text string) {
	w.deny(why, code, enhanced, text)
	if w.faults++; w.faults > faultsMax {
		w.hangup(ReasonErrors, 421, "4.7.0", "too many errors, closing", true)
	}
}

// hangup says the last word on this connection. What go-smtp still says is
// swallowed, and nothing more is read. linger waits a moment for input under
// way, because closing on unread input makes the peer lose our reply.
func (w *wire) hangup(why Reason, code int, enhanced, text string, linger bool) {
	if w.state == stateClosing {
		return
	}
	w.deny(why, code, enhanced, text)
	w.state, w.lingering = stateClosing, linger
}

// flush sends what waits.
func (w *wire) flush() error {
	if len(w.out) == 0 {
		return nil
	}
	w.socket.SetWriteDeadline(time.Now().Add(w.opts.WriteTimeout))
	_, err := w.raw.Write(w.out)
	w.out = w.out[:0]
	if cap(w.out) > outKept {
		w.out = nil
	}
	if w.tls != nil { // reading may write, too
		w.socket.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		w.state = stateClosing
	}
	return err
}

// Close ends the connection; go-smtp may call it several times, always on the
// connection's own goroutine.
func (w *wire) Close() error {
	if w.closed {
		return nil
	}
	w.closed = true
	w.flush()
	w.state = stateClosing
	if w.lingering {
		w.linger()
	}
	w.dropBody()
	w.cancel()
	w.release()
	err := w.raw.Close()
	w.released()
	return err
}

func (w *wire) linger() {
	if c, ok := w.raw.(interface{ CloseWrite() error }); ok && c.CloseWrite() == nil {
		w.socket.SetReadDeadline(time.Now().Add(250 * time.Millisecond))
		io.CopyN(io.Discard, w.raw, 256<<10)
	}
}

// dropBody gives up a body that will not be accepted.
func (w *wire) dropBody() {
	if w.body == nil {
		return
	}
	w.body.discard(w.log)
	w.body = nil
	if w.state == stateBDAT {
		w.state = stateCommand
	}
}

// panicked logs a panic of ours or of a Handler and ends the connection.
func (w *wire) panicked(r any) {
	id := newID()
	w.log.Error("panic in a session", "id", id, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
	w.hangup(ReasonLocal, 421, "4.3.0", "internal error (id "+id+")", true)
}

// drain asks the session to end at the next command boundary, at once when it
// waits there. It may be called from any goroutine.
func (w *wire) drain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.draining = true
	if w.waiting {
		w.socket.SetReadDeadline(time.Unix(1, 0))
	}
}

// sever cuts the connection off. It may be called from any goroutine.
func (w *wire) sever() {
	w.cancel()
	w.socket.Close()
}

func (w *wire) isDraining() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.draining
}

// read waits for input until the deadline; wake lets drain end the wait.
func (w *wire) read(p []byte, deadline time.Time, wake bool) (int, error) {
	w.mu.Lock()
	if wake && w.draining {
		w.mu.Unlock()
		return 0, errDraining
	}
	w.waiting = wake
	w.socket.SetReadDeadline(deadline)
	w.mu.Unlock()

	n, err := w.raw.Read(p)

	w.mu.Lock()
	w.waiting = false
	if wake && w.draining && n == 0 && isTimeout(err) {
		err = errDraining
	}
	w.mu.Unlock()
	if n > 0 {
		err = nil
	}
	return n, err
}

// failed turns a read error into the end of the session.
func (w *wire) failed(err error) {
	switch {
	case errors.Is(err, errDraining):
		w.hangup(ReasonShutdown, 421, "4.3.2", w.opts.Hostname+" is shutting down", w.buffered() > 0)
	case errors.Is(err, errSlow):
		w.log.Info("client is too slow")
		w.hangup(ReasonSlow, 421, "4.4.2", "too slow, closing", false)
	case isTimeout(err):
		w.hangup(ReasonIdle, 421, "4.4.2", "Idle timeout, bye bye", false)
	default:
		w.state = stateClosing
	}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
