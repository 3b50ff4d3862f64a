package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/gateway/mailauth"
	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/gateway/relay"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/bolt"
)

// grace is how long a stop waits for open transactions, and then once more for
// running deliveries: together less than what a supervisor allows.
const grace = 15 * time.Second

// daemon is everything that serve runs, joined. It stops upstream to
// downstream: no new mail, open transactions finish, deliveries settle, the
// API closes, the store closes.
type daemon struct {
	cfg     *Config
	log     *slog.Logger
	store   store.Store
	now     func() time.Time
	relay   *relay.Relay
	logins  gateway.Authenticator
	metrics *metrics
	gauges  *outboxGauges
	http    []*http.Server
	nets    []net.Listener

	// What a reload goes by, and what it replaces. The goroutine of run alone
	// reads and writes current, cfg and listeners.
	load               func() (*Config, error) // the configuration as it is now
	hangup             <-chan os.Signal        // asks for a reload
	level              *slog.LevelVar          // of the log
	contentKey         gateway.ContentKey
	sockets            sockets
	doors              map[string]*door // by listener
	current            *edition
	options            gateway.Options     // of current
	listeners          []*gateway.Listener // of current
	past               pastListeners
	rules              atomic.Pointer[resolver.Settings]
	signers            atomic.Pointer[mailauth.Signers]
	socketAPI, console swapped

	phase  atomic.Int32
	fullAt atomic.Pointer[time.Time] // when a commit found no room
	failed chan error                // a listener ended by itself
	ended  chan struct{}             // closed: run is over
}

// newDaemon binds every address; nothing is served yet. The store is the
// daemon's from now on.
func newDaemon(cfg *Config, st store.Store, log *slog.Logger) (*daemon, error) {
	d := &daemon{cfg: cfg, store: st, now: time.Now, log: log}
	if err := d.build(); err != nil {
		d.release()
		return nil, err
	}
	return d, nil
}

func (d *daemon) build() error {
	var err error
	d.metrics, d.doors = newMetrics(), map[string]*door{}
	d.failed, d.ended = make(chan error), make(chan struct{})
	d.observe()
	rules := settings(d.cfg)
	d.rules.Store(&rules)
	out := relayOptions(d.cfg, d.log)
	out.Now = d.now
	out.Own = func(address string) bool { _, own := d.rules.Load().Own(address); return own }
	out.Sign = func(header []byte, body io.WriterTo) ([]byte, string, error) {
		return gateway.SignReport(d.signers.Load(), header, body)
	}
	out.Events = func(e relay.Event) { d.metrics.onAttempt(e); d.gauges.onAttempt(e) }
	if d.relay, err = relay.New(d.store, out); err != nil {
		return err
	}
	if d.contentKey, err = gateway.ReadContentKey(context.Background(), d.store); err != nil {
		return err
	}
	d.logins = gateway.NewLogins(agentLogins(d.store))
	if d.sockets, err = inherited(d.log); err != nil {
		return err
	}
	for _, l := range d.cfg.Listeners {
		if err := d.openDoor(l); err != nil {
			return err
		}
	}
	first, err := d.edition(d.cfg)
	if err != nil {
		return err
	}
	d.use(first)
	if err := d.serveAPI(); err != nil {
		return err
	}
	d.sockets.closeRest(d.log)
	return nil
}

// observe has the store tell of its commits and its outbox, if it can.
func (d *daemon) observe() {
	if st, ok := d.store.(interface{ OnCommit(func(bolt.Commit)) }); ok {
		st.OnCommit(func(c bolt.Commit) { d.metrics.onCommit(c); d.noteRoom(c.Err) })
	}
	var look func(context.Context) (bolt.Outbox, error)
	if st, ok := d.store.(interface {
		Outbox(context.Context) (bolt.Outbox, error)
	}); ok {
		look = st.Outbox
	}
	d.gauges = d.metrics.watchOutbox(look, d.now)
}

func newRelay(cfg *Config, st store.Store, log *slog.Logger) (*relay.Relay, error) {
	return relay.New(st, relayOptions(cfg, log))
}

func relayOptions(cfg *Config, log *slog.Logger) relay.Options {
	o := relay.Options{
		Hostname: cfg.Hostname, Expire: time.Duration(cfg.Retry.Expire),
		Transform: message.Apply, Grace: grace, Logger: log,
	}
	if o.MaxReturned, o.DelayAfter = int64(cfg.Retry.MaxReturned), time.Duration(cfg.Retry.DelayNotice); o.DelayAfter == 0 {
		o.DelayAfter = -1
	}
	rules := settings(cfg)
	o.Own = func(address string) bool { _, own := rules.Own(address); return own }
	for _, r := range cfg.Routes {
		o.Routes = append(o.Routes, r.relay())
	}
	for _, wait := range cfg.Retry.Schedule {
		o.Retry = append(o.Retry, time.Duration(wait))
	}
	return o
}

// pipelineOptions tells both pipelines what the configuration says.
func pipelineOptions(cfg *Config, st store.Store, r *relay.Relay, log *slog.Logger) gateway.Options {
	return gateway.Options{
		Store: st, Settings: settings(cfg), Lane: r.Lane, Queued: r.Wake, Now: time.Now, Logger: log,
		Ack: gateway.Acknowledgement(cfg.Acknowledgement), Checker: senderChecker(cfg.DNS, log),
		Route: func(role gateway.Role, sender, recipient string) bool {
			route, ok := r.Route(string(role), sender, recipient)
			return ok && route.NextHop != relay.None
		},
	}
}

func handler(o gateway.Options, l Listener, sendAs string) gateway.Handler {
	if l.Role == string(gateway.RoleOutbound) {
		return gateway.NewOutbound(o, submitters(l, sendAs))
	}
	return gateway.NewInbound(o, intake(l))
}

// sendAsOf names the setting of a listener that says who may send as whom.
func sendAsOf(i int) string { return fmt.Sprintf("listeners[%d].send_as", i) }

// submitters are the peers of an outbound listener; setting names their list.
func submitters(l Listener, setting string) gateway.Submitters {
	return gateway.Submitters{
		SendAs: l.SendAs, Setting: setting, Observe: l.Mode == "observe",
		ControlHeaders: slices.Contains(l.Trust, "control_headers"),
	}
}

// directory asks the outside directory, if there is one.
func directory(cfg *Config, st store.Store) (func(context.Context, time.Time, []string) error, error) {
	c := cfg.Directory
	if c.URL == "" {
		return nil, nil
	}
	d := &gateway.Directory{Store: st, URL: c.URL, Timeout: time.Duration(c.Timeout), Client: &http.Client{}}
	if c.TokenFile != "" {
		token, err := os.ReadFile(c.TokenFile)
		if err != nil {
			return nil, hint("make directory.token_file a file with the token", "directory.token_file: %w", err)
		}
		d.Token = strings.TrimSpace(string(token))
	}
	return d.Refresh, nil
}

// intake is what an inbound listener's peers are believed for.
func intake(l Listener) gateway.Intake {
	in := gateway.Intake{
		TrustedForm: l.TrustedForm, Observe: l.Mode == "observe",
		ControlHeaders: slices.Contains(l.Trust, "control_headers"),
	}
	switch l.Authentication {
	case "upstream":
		in.AuthServID = l.AuthServID
	case "check":
		in.Check, in.Border = true, l.open()
	}
	return in
}

// senderChecker finds out who sent a message, by asking the DNS.
func senderChecker(c DNS, log *slog.Logger) *mailauth.Checker {
	return &mailauth.Checker{
		Resolver: c.resolver(),
		Budget:   mailauth.Budget{Queries: c.Queries, Time: time.Duration(c.Timeout)},
		Rests: func(until time.Time) {
			log.Warn("the DNS does not answer: look-ups rest, and senders stay unverified meanwhile", "until", until.Format(time.TimeOnly))
		},
	}
}

// resolver asks the servers that dns names, or those of the system.
func (c DNS) resolver() mailauth.Resolver {
	var servers []string
	for _, s := range c.Servers {
		servers = append(servers, string(s))
	}
	return mailauth.NewResolver(servers...)
}

// listenerOptions are what a listener's part of the configuration says.
func (d *daemon) listenerOptions(cfg *Config, l Listener) (gateway.ListenerOptions, error) {
	o := gateway.ListenerOptions{
		Name: l.Name, Role: gateway.Role(l.Role), Protocol: l.Protocol, Address: l.Address.String(),
		Hostname: cfg.Hostname, BareNewline: gateway.NewlinePolicy(l.BareNewline),
		MaxMessage: int64(cfg.Limits.MessageSize), MaxRecipients: cfg.Limits.Recipients,
		MaxConnections: l.MaxConnections, MaxPerPeer: l.MaxConnectionsPerPeer,
		IdleTimeout: time.Duration(cfg.Limits.IdleTimeout), BodyTotal: time.Duration(cfg.Limits.BodyTimeout),
		Seats: d.doors[l.Name].seats, Refused: d.metrics.refused(l.Name), Logger: d.log,
	}
	for _, p := range l.Peers {
		o.Peers = append(o.Peers, p.Prefix)
	}
	if len(l.Peers) == 0 && !l.Address.loopback() { // checked: an inbound listener
		o.Peers = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	}
	return o, d.secure(&o, l)
}

// secure adds TLS, sign-in and what the peers may tell of their clients.
func (d *daemon) secure(o *gateway.ListenerOptions, l Listener) (err error) {
	o.TLSMode, o.RequireTLS = gateway.TLSMode(l.TLS), l.RequireTLS
	o.Authenticator, o.Auth, o.AuthWithoutTLS = d.logins, gateway.AuthMode(l.Auth), l.AuthWithoutTLS
	o.XForward, o.XClient = slices.Contains(l.Trust, "xforward"), slices.Contains(l.Trust, "xclient")
	o.ProxyProtocol = l.ProxyProtocol
	if o.TLSMode == gateway.TLSStart || o.TLSMode == gateway.TLSImplicit {
		o.TLS, err = gateway.LoadTLS(l.TLSCert, l.TLSKey, l.ClientCA, d.log)
	}
	return err
}

// agentLogins finds agents by their addresses, as they sign in.
func agentLogins(st store.Store) gateway.Lookup {
	return func(ctx context.Context, login string) (address, hash string, err error) {
		key := store.Key(login)
		err = st.View(ctx, func(r store.Reader) error {
			holders, err := r.Holders(key)
			if err != nil || len(holders.Agents) == 0 {
				return err
			}
			agent := holders.Agents[0]
			hash = agent.PasswordHash
			for _, own := range agent.EmailAddresses {
				if store.Key(own) == key {
					address = own
				}
			}
			return nil
		})
		return address, hash, err
	}
}

// serveAPI binds the command line's socket, for whoever owns the data folder,
// and the console's address.
func (d *daemon) serveAPI() error {
	socket, err := listenSocket(d.cfg.socket())
	if err != nil {
		return fmt.Errorf("the command line's socket: %w", err)
	}
	d.addHTTP(socket, &d.socketAPI)
	ln := d.sockets.take(consoleSocket)
	if ln == nil {
		if ln, err = net.Listen("tcp", d.cfg.Console.Address.Address); err != nil {
			return hint("change console.address", "console: %w", err)
		}
	}
	d.addHTTP(ln, &d.console)
	return nil
}

func (d *daemon) addHTTP(ln net.Listener, h http.Handler) {
	d.nets = append(d.nets, ln)
	d.http = append(d.http, &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelWarn),
	})
}

// run serves until ctx ends, then stops in order. ready is called once
// everything is up.
func (d *daemon) run(ctx context.Context, ready func()) error {
	defer d.release()
	defer close(d.ended)
	relayCtx, stopRelay := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRelay()
	relayDone := make(chan error, 1)
	go func() { relayDone <- d.relay.Run(relayCtx) }()
	d.serve(relayCtx, d.current)
	for i, s := range d.http {
		go func() { d.fail(s.Serve(d.nets[i])) }()
	}
	d.phase.Store(int32(serving))
	ready()
	d.notify("STATUS=serving\nREADY=1")
	go d.watchdog(relayCtx)
	err := d.wait(ctx, relayCtx)
	d.phase.Store(int32(stopping))
	d.notify("STATUS=stopping\nSTOPPING=1")
	d.stop()
	stopRelay()
	return errors.Join(err, <-relayDone)
}

// wait returns when ctx ends or a listener fails; until then it reloads when
// asked to.
func (d *daemon) wait(ctx, work context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-d.failed:
			d.log.Error("a listener ended", "error", err)
			return err
		case <-d.hangup:
			d.reload(work)
		}
	}
}

// fail tells wait that a listener ended.
func (d *daemon) fail(err error) {
	select {
	case d.failed <- err:
	case <-d.ended:
	}
}

// stop ends what takes things in: listeners first, then the API.
func (d *daemon) stop() {
	d.log.Info("stopping")
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	// Nobody is let in only to be sent away: who waits in a socket that the
	// service manager holds is the next daemon's.
	for _, t := range d.current.turns {
		t.end()
		t.socket.Close()
	}
	list := append(d.past.all(), d.listeners...)
	done := make(chan error, len(list))
	for _, ln := range list {
		go func() { done <- ln.Shutdown(ctx) }()
	}
	for range list {
		if err := <-done; err != nil {
			d.log.Warn("a listener was closed with sessions open", "error", err)
		}
	}
	for _, s := range d.http {
		if s.Shutdown(ctx) != nil {
			s.Close() // a client that reads slowly must not keep the store open
		}
	}
}

// release closes what is left open; the store last.
func (d *daemon) release() {
	for _, ln := range append(d.past.all(), d.listeners...) {
		ln.Shutdown(ended())
	}
	for _, one := range d.doors {
		one.socket.Close()
	}
	for _, ln := range d.nets {
		ln.Close()
	}
	if err := d.store.Close(); err != nil {
		d.log.Error("closing the store", "error", err)
		return
	}
	d.log.Info("stopped: the store is closed")
}
