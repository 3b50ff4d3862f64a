package gateway

import (
	"crypto/tls"
	"strings"
	"time"
)

// barred reports a command that must wait for TLS (RFC 3207 §4), answered or
// not. BDAT is not among them: its chunk has to be read whatever the answer.
func (w *wire) barred(verb, text string) bool {
	if !w.opts.RequireTLS || w.tls != nil || isGreeting(verb) || verb == "NOOP" || verb == "RSET" || verb == "QUIT" {
		return false
	}
	command, _, _ := strings.Cut(text, " ")
	return !strings.EqualFold(command, "STARTTLS")
}

// startTLS answers STARTTLS. Whatever came in the same packets behind it was not
// sent under TLS, and is somebody else's.
func (w *wire) startTLS(args string) bool {
	switch {
	case args != "":
		w.deny(ReasonCommand, 501, "5.5.4", "STARTTLS takes no arguments")
	case w.tls != nil:
		w.deny(ReasonTLS, 503, "5.5.1", "TLS is active already")
	case w.busy():
		w.deny(ReasonTLS, 503, "5.5.1", "STARTTLS not allowed during a mail transaction")
	case w.buffered() > 0:
		w.log.Warn("input behind STARTTLS")
		w.hangup(ReasonEarly, 554, "5.5.0", "wait for 220 before you send more", true)
	default:
		w.answer(220, "2.0.0", "Ready to start TLS")
		if w.flush() == nil && w.secure() {
			w.hello, w.login, w.forwarded = "", "", nil // RFC 3207 §4.2
		}
	}
	return true
}

// secure shakes hands. When that fails the connection is at its end: there is
// nothing to say in the clear to a client that has begun to speak TLS.
func (w *wire) secure() bool {
	conn := tls.Server(w.socket, w.opts.TLS.config)
	err := w.shakeHands(conn)
	if err != nil {
		w.log.Info("TLS handshake failed", "error", err)
		w.state, w.lingering = stateClosing, true // for the alert
		return false
	}
	w.raw, w.tls = conn, conn
	w.secured = w.opts.TLS.facts(conn.ConnectionState())
	return true
}

// shakeHands is the handshake within its time; drain may end it.
func (w *wire) shakeHands(conn *tls.Conn) error {
	if !w.await(time.Now().Add(w.opts.HandshakeTimeout)) {
		return errDraining
	}
	err := conn.Handshake()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = false
	w.socket.SetDeadline(time.Time{})
	return err
}

// await sets the deadline of something that is more than one read.
func (w *wire) await(deadline time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.draining {
		return false
	}
	w.waiting = true
	w.socket.SetDeadline(deadline)
	return true
}
