package gateway

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// identity is who a session's client is.
type identity struct {
	peer      netip.Addr // zero for a UNIX socket, or when XCLIENT doesn't know
	peerName  string
	peerHost  string  // as XCLIENT says
	helo      string  // as XCLIENT says, until the next greeting
	login     string  // the agent who signed in
	forwarded *Client // by XFORWARD, for the next transaction; nil: nothing
	named     bool    // by a PROXY header or XCLIENT: peer is not who connected
	sealed    bool    // what named the client is over: others may speak now
	refusals  int     // of AUTH
}

// trusted reports whether the client may say XFORWARD and XCLIENT, where the
// listener takes them. Peers may; a client that XCLIENT named may not, unless it
// is a peer as well: whoever speaks through a proxy must not change the facts
// that the proxy gave. XCLIENT may come in parts, so its client is bound by the
// first command behind them.
func (w *wire) trusted() bool {
	return !w.sealed || slices.ContainsFunc(w.opts.Peers, func(p netip.Prefix) bool { return p.Contains(w.peer) })
}

// local reports a client on this machine, with nobody between.
func (w *wire) local() bool {
	if w.named && !w.peer.IsLoopback() {
		return false
	}
	_, unix := w.socket.RemoteAddr().(*net.UnixAddr)
	return unix || w.connected().IsLoopback()
}

// connected is the address of who connected, whomever he speaks for.
func (w *wire) connected() netip.Addr {
	real, _ := peerOf(w.socket.RemoteAddr())
	return real
}

// busy reports an open transaction.
func (w *wire) busy() bool { return w.host != nil && w.host.busy() }

// extension answers the commands that go-smtp knows nothing of. It reports false
// for one that is not offered here.
func (w *wire) extension(text string) bool {
	command, args, _ := strings.Cut(text, " ")
	args = strings.TrimSpace(args)
	switch strings.ToUpper(command) {
	case "STARTTLS":
		return w.opts.TLSMode == TLSStart && w.startTLS(args)
	case "AUTH":
		return w.auth(args)
	case "XFORWARD":
		return w.opts.XForward && w.xforward(args)
	case "XCLIENT":
		return w.opts.XClient && w.xclient(args)
	}
	return false
}

// offer lists our extensions behind the first line of go-smtp's answer to EHLO.
func (w *wire) offer() {
	w.offering = false
	if w.opts.TLSMode == TLSStart && w.tls == nil {
		w.out = append(w.out, "250-STARTTLS\r\n"...)
	}
	if names := w.mechanisms(); len(names) > 0 && w.private() {
		w.out = append(w.out, "250-AUTH "+strings.Join(names, " ")+"\r\n"...)
	}
	if w.opts.XForward && w.trusted() {
		w.out = append(w.out, "250-XFORWARD "+xforwardAttributes+"\r\n"...)
	}
	if w.opts.XClient && w.trusted() {
		w.out = append(w.out, "250-XCLIENT "+xclientAttributes+"\r\n"...)
	}
}

// xforward keeps what a trusted peer says of the client before it. It is about
// one transaction; RSET, EHLO or the message's end forget it.
func (w *wire) xforward(args string) bool {
	if !w.mayTell("XFORWARD") {
		return true
	}
	var c Client
	if w.forwarded != nil {
		c = *w.forwarded
	}
	if _, err := c.readAttributes(args, xforwardAttributes); err != nil {
		w.refuse(err)
		return true
	}
	w.forwarded = &c
	w.answer(250, "2.0.0", "Ok")
	return true
}

// xclient takes the client that a trusted peer names for the one who speaks. The
// session begins again; what the listener allows its peers does not change. A
// login that it gives is believed if it is an agent's.
func (w *wire) xclient(args string) bool {
	if !w.mayTell("XCLIENT") {
		return true
	}
	c := Client{Addr: w.peer, Name: w.peerHost, Helo: w.helo}
	given, err := c.readAttributes(args, xclientAttributes)
	if err != nil {
		w.refuse(err)
		return true
	}
	login, err := w.vouched(c.Login)
	if err != nil {
		w.refuse(err)
		return true
	}
	w.become(c, given)
	if given["LOGIN"] || given["ADDR"] {
		w.login = login
	}
	w.answer(220, "2.0.0", w.opts.Hostname+" Service Ready")
	return true
}

// become makes the client of an XCLIENT the session's.
func (w *wire) become(c Client, given said) {
	w.peerHost, w.helo, w.forwarded = c.Name, c.Helo, nil
	w.named, w.sealed = true, false
	if given["ADDR"] {
		w.peer, w.peerName = c.Addr, "unknown"
		if c.Addr.IsValid() {
			w.peerName = netip.AddrPortFrom(c.Addr, c.Port).String()
		}
		w.log = w.log.With("client", w.peerName)
	}
	w.hello = ""
	if w.helo != "" { // it need not greet again
		w.hello = cmp.Or(map[string]string{"SMTP": "HELO"}[c.Protocol], "EHLO")
	}
}

// mayTell refuses a command that tells of clients where it is out of place.
func (w *wire) mayTell(command string) bool {
	switch {
	case !w.trusted():
		w.deny(ReasonTrust, 550, "5.7.0", "You may not use "+command)
	case w.busy():
		w.deny(ReasonCommand, 503, "5.5.1", command+" not allowed during a mail transaction")
	default:
		return true
	}
	return false
}

// refuse answers a command of ours by the funnel.
func (w *wire) refuse(err error) {
	e := reply(w.log, err)
	w.deny(ReasonCommand, e.Code, enhanced(e), e.Message)
}

// protocol is the "with" of a Received field (RFC 3848).
func (w *wire) protocol() string {
	name := map[string]string{"LHLO": "LMTP", "EHLO": "ESMTP"}[w.hello]
	if name == "" {
		return "SMTP"
	}
	if w.tls != nil {
		name += "S"
	}
	if w.login != "" {
		name += "A"
	}
	return name
}
