package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/emersion/go-smtp"
)

// NewlinePolicy says what becomes of a message with a CR or an LF alone.
type NewlinePolicy string

const (
	// NewlineReject refuses it with 550 5.6.0, after all of it was read. The
	// zero policy is the same.
	NewlineReject NewlinePolicy = "reject"
	// NewlineNormalize takes it as it is and sets the flags of BodyFacts: for
	// trusted relays. Whoever sends the message on must normalise it.
	NewlineNormalize NewlinePolicy = "normalize"
)

// ListenerOptions describes one listener. The zero value of a field means its
// default, where one is named.
type ListenerOptions struct {
	Name     string
	Role     Role
	Protocol string // "smtp" (default) or "lmtp"
	Address  string // "host:port" or "unix:/path"; unused by NewListener

	// Peers may connect, nothing more. Default: loopback. A UNIX socket is
	// guarded by its mode (0660) instead.
	Peers []netip.Prefix

	Hostname       string        // in the banner; default: the machine's name
	MaxMessage     int64         // bytes, advertised as SIZE; default 50 MiB, at most 4 GiB-1
	MaxRecipients  int           // of one transaction; default 1000
	MaxConnections int           // at the same time; default 16000
	MaxPerPeer     int           // of one address; default: MaxConnections
	BareNewline    NewlinePolicy // default NewlineReject

	TLSMode    TLSMode    // default TLSNone
	TLS        *ServerTLS // with every other mode
	RequireTLS bool       // nothing is done for a client before STARTTLS

	Authenticator  Authenticator // nil: AUTH is not offered
	Auth           AuthMode      // default AuthOffer
	AuthWithoutTLS bool          // also in the clear, from this machine

	XForward bool // peers are believed whom their mail is from, by XFORWARD
	XClient  bool // peers are proxies: the client is whom they name by XCLIENT
	// ProxyProtocol: peers are proxies, which begin with a PROXY header. Excludes
	// XForward and XClient: whoever connects to the proxy is no peer of ours.
	ProxyProtocol bool

	HandshakeTimeout time.Duration // for a PROXY header, and for TLS; default 20 s

	IdleTimeout  time.Duration // for a whole command line; default 5 min
	WriteTimeout time.Duration // for a reply to leave; default 1 min
	BodyIdle     time.Duration // between two reads of a body; default 3 min
	BodyTotal    time.Duration // waiting for one body in all; default 30 min
	// MinRate is the least bytes a second, on average, that a body must come
	// with once we have waited 30 s (or BodyIdle) for it. Default 256, negative
	// none.
	MinRate int64
	// BannerPause is how long a client is watched for speaking before the
	// banner. Default 1 ms: enough for one that doesn't wait at all, and no more
	// delay than a new connection bears. Negative: none.
	BannerPause time.Duration

	// Seats are shared by listeners that follow each other; default: its own.
	Seats *Seats
	// Refused is told of everything that is answered 4xx or 5xx, on the goroutine of
	// the connection or of Serve; nil: nobody is.
	Refused func(why Reason, code int)

	Logger *slog.Logger // default slog.Default
}

func (o ListenerOptions) withDefaults() (ListenerOptions, error) {
	host, _ := os.Hostname()
	o.Protocol = cmp.Or(o.Protocol, "smtp")
	o.Hostname = cmp.Or(o.Hostname, host, "localhost")
	o.MaxMessage = cmp.Or(o.MaxMessage, 50<<20)
	o.MaxRecipients = cmp.Or(o.MaxRecipients, 1000)
	o.MaxConnections = cmp.Or(o.MaxConnections, 16000)
	o.MaxPerPeer = cmp.Or(o.MaxPerPeer, o.MaxConnections)
	o.BareNewline = cmp.Or(o.BareNewline, NewlineReject)
	o.TLSMode = cmp.Or(o.TLSMode, TLSNone)
	o.Auth = cmp.Or(o.Auth, AuthOffer)
	o.HandshakeTimeout = cmp.Or(o.HandshakeTimeout, 20*time.Second)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, 5*time.Minute)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, time.Minute)
	o.BodyIdle = cmp.Or(o.BodyIdle, 3*time.Minute)
	o.BodyTotal = cmp.Or(o.BodyTotal, 30*time.Minute)
	o.MinRate = cmp.Or(o.MinRate, 256)
	o.BannerPause = cmp.Or(o.BannerPause, time.Millisecond)
	o.Logger = cmp.Or(o.Logger, slog.Default())
	if o.Seats == nil {
		o.Seats = NewSeats()
	}
	if o.Peers == nil {
		o.Peers = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	}
	return o, o.check()
}

func (o *ListenerOptions) check() error {
	switch {
	case o.Protocol != "smtp" && o.Protocol != "lmtp":
		return fmt.Errorf("unknown protocol %q", o.Protocol)
	case o.Role != RoleInbound && o.Role != RoleOutbound:
		return fmt.Errorf("unknown role %q", o.Role)
	case o.BareNewline != NewlineReject && o.BareNewline != NewlineNormalize:
		return fmt.Errorf("unknown bare-newline policy %q", o.BareNewline)
	case o.MaxMessage < 0 || o.MaxMessage > 1<<32-1:
		return fmt.Errorf("message limit %d is not within 1 and %d", o.MaxMessage, int64(1<<32-1))
	case o.ProxyProtocol && (o.XForward || o.XClient):
		return errors.New("a PROXY header with XFORWARD or XCLIENT would let every client tell who it is")
	}
	return o.checkSecrecy()
}

func (o *ListenerOptions) checkSecrecy() error {
	switch {
	case o.TLSMode != TLSNone && o.TLSMode != TLSStart && o.TLSMode != TLSImplicit:
		return fmt.Errorf("unknown TLS mode %q", o.TLSMode)
	case o.TLSMode != TLSNone && o.TLS == nil:
		return fmt.Errorf("TLS mode %s needs a certificate", o.TLSMode)
	case o.TLSMode == TLSNone && o.RequireTLS:
		return errors.New("TLS is required but not offered")
	case o.Auth != AuthOffer && o.Auth != AuthRequire && o.Auth != AuthOff:
		return fmt.Errorf("unknown mode of authentication %q", o.Auth)
	case o.Auth == AuthRequire && o.Authenticator == nil:
		return errors.New("authentication is required, but nobody can tell who may")
	}
	return nil
}

// Listener accepts connections for one role and serves their sessions.
type Listener struct {
	opts   ListenerOptions
	log    *slog.Logger
	ln     net.Listener
	ctx    context.Context // of all sessions; ends when the grace is over
	cancel context.CancelFunc

	mu      sync.Mutex
	conns   map[*wire]netip.Addr // by the address that they count for
	closing chan struct{}        // closed: no new connections
	empty   chan struct{}        // closed: closing, and no connection is left
}

// Listen opens the address of the options.
func Listen(o ListenerOptions) (*Listener, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	var ln net.Listener
	if path, ok := strings.CutPrefix(o.Address, "unix:"); ok {
		ln, err = listenUnix(path)
	} else {
		ln, err = net.Listen("tcp", o.Address)
	}
	if err != nil {
		return nil, err
	}
	return NewListener(ln, o)
}

// NewListener serves a listener that is open already.
func NewListener(ln net.Listener, o ListenerOptions) (*Listener, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	l := &Listener{
		opts: o, log: o.Logger.With("listener", o.Name), ln: ln,
		conns:   map[*wire]netip.Addr{},
		closing: make(chan struct{}), empty: make(chan struct{}),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l, nil
}

// listenUnix opens a socket for owner and group. A socket that a dead process
// left behind is removed; one that answers is not.
func listenUnix(path string) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("%s is in use by another process", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// Addr is where the listener listens.
func (l *Listener) Addr() net.Addr { return l.ln.Addr() }

// Connections is how many there are now.
func (l *Listener) Connections() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

// Serve accepts connections until Shutdown, after which it returns nil. Call it
// once.
func (l *Listener) Serve(h Handler) error {
	srv := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		w, ok := c.Conn().(*wire)
		if !ok {
			return nil, smtpReply(Verdict{Code: 421, Text: "Internal error"})
		}
		s := &session{wire: w, conn: c, h: h}
		w.host = s
		slim(c, w)
		return s, nil
	}))
	srv.Domain = l.opts.Hostname
	srv.LMTP = l.opts.Protocol == "lmtp"
	srv.MaxMessageBytes = l.opts.MaxMessage // of MAIL SIZE=; it never sees a body
	srv.MaxRecipients = l.opts.MaxRecipients
	srv.MaxLineLength = 0 // ours
	srv.EnableSMTPUTF8, srv.EnableDSN = true, true
	srv.ErrorLog = libraryLog{l.log}
	err := srv.Serve(acceptor{l})
	if l.isClosing() {
		return nil
	}
	return err
}

// libraryLog is where go-smtp reports what it didn't expect.
type libraryLog struct{ log *slog.Logger }

func (l libraryLog) Printf(format string, v ...any) {
	level := slog.LevelDebug // a connection that broke, most of the time
	if strings.HasPrefix(format, "panic") {
		level = slog.LevelError
	}
	l.log.Log(context.Background(), level, "go-smtp", "text", fmt.Sprintf(format, v...))
}

func (l libraryLog) Println(v ...any) { l.Printf("%s", fmt.Sprint(v...)) }

// acceptor is the net.Listener that go-smtp sees: its connections are wires,
// let in by peer and number.
type acceptor struct{ *Listener }

func (a acceptor) Close() error { return nil } // Shutdown does it

func (a acceptor) Accept() (net.Conn, error) {
	delay := time.Duration(0)
	for {
		c, err := a.ln.Accept()
		switch {
		case err == nil:
			delay = 0
			if w := a.admit(c); w != nil {
				return w, nil
			}
		case a.isClosing() || errors.Is(err, net.ErrClosed):
			return nil, net.ErrClosed
		default: // no file descriptors left, mostly
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			a.log.Error("accept failed", "error", err, "retry", delay)
			select {
			case <-time.After(delay):
			case <-a.closing:
			}
		}
	}
}

// admit lets a connection in, or says why not and closes it.
func (l *Listener) admit(c net.Conn) *wire {
	peer, name := peerOf(c.RemoteAddr())
	if !l.mayConnect(c.RemoteAddr(), peer) {
		l.turnAway(c, name, ReasonPeer, Verdict{554, [3]int{5, 7, 1}, l.opts.Hostname + " does not serve your address"})
		return nil
	}
	w := newWire(l.ctx, c, &l.opts, l.log.With("peer", name))
	if why, answer := l.seat(w, peer); why != "" {
		w.cancel()
		l.turnAway(c, name, why, answer)
		return nil
	}
	w.place = func(client netip.Addr) bool { return l.place(w, client) }
	w.released = func() { l.forget(w) }
	return w
}

// seat finds a place for a connection, or says why there is none.
func (l *Listener) seat(w *wire, peer netip.Addr) (Reason, Verdict) {
	if l.opts.ProxyProtocol { // the header says for whom it counts
		peer = netip.Addr{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.isClosing():
		return ReasonShutdown, Verdict{421, [3]int{4, 3, 2}, l.opts.Hostname + " is shutting down"}
	case !l.opts.Seats.enter(l.opts.MaxConnections):
		return ReasonConnections, Verdict{421, [3]int{4, 7, 0}, "Too many connections, try again later"}
	case !l.opts.Seats.take(peer, l.opts.MaxPerPeer):
		l.opts.Seats.leave(netip.Addr{})
		return ReasonConnections, errCrowded
	}
	l.conns[w] = peer
	return "", Verdict{}
}

var errCrowded = Verdict{421, [3]int{4, 7, 0}, "Too many connections from your address, try again later"}

// place counts a connection for the client that a proxy named.
func (l *Listener) place(w *wire, client netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.opts.Seats.take(client, l.opts.MaxPerPeer) {
		return false
	}
	l.conns[w] = client
	return true
}

func (l *Listener) turnAway(c net.Conn, peer string, why Reason, answer Verdict) {
	l.log.Info("connection refused", "peer", peer, "answer", answer.Error())
	if l.opts.Refused != nil {
		l.opts.Refused(why, answer.Code)
	}
	if l.opts.TLSMode != TLSImplicit {
		c.SetWriteDeadline(time.Now().Add(time.Second)) // it fits the socket's buffer
		c.Write([]byte(answer.Error() + "\r\n"))
	}
	c.Close()
}

func (l *Listener) mayConnect(a net.Addr, peer netip.Addr) bool {
	if _, unix := a.(*net.UnixAddr); unix {
		return true
	}
	return slices.ContainsFunc(l.opts.Peers, func(p netip.Prefix) bool { return p.Contains(peer) })
}

// peerOf is the address of a peer, zero when it has none, and its name for
// logs.
func peerOf(a net.Addr) (netip.Addr, string) {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}, a.Network()
	}
	ap := tcp.AddrPort()
	addr := ap.Addr().Unmap().WithZone("")
	return addr, netip.AddrPortFrom(addr, ap.Port()).String()
}

func (l *Listener) forget(w *wire) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opts.Seats.leave(l.conns[w])
	delete(l.conns, w)
	if l.isClosing() && len(l.conns) == 0 {
		close(l.empty)
	}
}

func (l *Listener) isClosing() bool {
	select {
	case <-l.closing:
		return true
	default:
		return false
	}
}

// Shutdown stops accepting, tells waiting clients 421, and lets those in the
// middle of a body finish. When ctx ends first, it cuts off what is left and
// returns the error of ctx.
func (l *Listener) Shutdown(ctx context.Context) error {
	l.beginClosing()
	select {
	case <-l.empty:
		l.cancel()
		return nil
	case <-ctx.Done():
	}
	l.cancel()
	l.each((*wire).sever)
	select { // handlers see their context end; what they do in the end is theirs
	case <-l.empty:
	case <-time.After(time.Second):
		l.log.Error("sessions did not end in time")
	}
	return ctx.Err()
}

func (l *Listener) beginClosing() {
	l.mu.Lock()
	if !l.isClosing() {
		close(l.closing)
		if len(l.conns) == 0 {
			close(l.empty)
		}
	}
	l.mu.Unlock()
	l.ln.Close()
	l.each((*wire).drain)
}

func (l *Listener) each(do func(*wire)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.conns {
		do(w)
	}
}
