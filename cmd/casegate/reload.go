package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/gateway/console"
	"github.com/casegate/casegate/gateway/relay"
	"github.com/casegate/casegate/resolver"
)

// edition is one configuration made ready to work. A reload makes the next one
// and, when nothing can fail any more, puts it in the place of the one before.
// What has begun under an edition ends under it.
type edition struct {
	cfg       *Config
	rules     resolver.Settings
	routes    []relay.Route
	patience  relay.Patience
	options   gateway.Options
	book      gateway.Rulebook
	listeners []*gateway.Listener
	handlers  []gateway.Handler
	turns     []*turn
	service   console.Service
	stop      context.CancelFunc // what it does in the background
}

// edition makes one; it changes nothing.
func (d *daemon) edition(cfg *Config) (*edition, error) {
	e := &edition{cfg: cfg, rules: settings(cfg), book: rulebook(cfg), stop: func() {}}
	out := relayOptions(cfg, d.log)
	e.routes, e.patience = out.Routes, out.Patience()
	// Only to be asked: a message is decided by the routes of one edition.
	routes, err := relay.New(d.store, out)
	if err != nil {
		return nil, err
	}
	e.options = pipelineOptions(cfg, d.store, routes, d.log)
	e.options.Queued, e.options.Accepted = d.relay.Wake, d.metrics.onAccepted
	e.options.Now, e.options.ContentKey, e.options.Checker.Now = d.now, d.contentKey, d.now
	if e.options.Signers, err = cfg.signers(); err != nil {
		return nil, err
	}
	if e.options.Directory, err = directory(cfg, d.store); err != nil {
		return nil, err
	}
	for i, l := range cfg.Listeners {
		if err := d.addListener(e, l, handler(e.options, l, sendAsOf(i))); err != nil {
			e.drop()
			return nil, err
		}
	}
	e.service = service(cfg, e.options)
	e.service.Store = d.relay.Acts() // so that attempts under way heed what people do to the outbox
	e.service.Ready = d.ready
	return e, nil
}

func (d *daemon) addListener(e *edition, l Listener, h gateway.Handler) error {
	o, err := d.listenerOptions(e.cfg, l)
	if err != nil {
		return hint("make tls_cert, tls_key and client_ca PEM files that this user can read", "listener %q: %w", l.Name, err)
	}
	t := d.doors[l.Name].turn(memoryOf(o.TLSMode))
	ln, err := gateway.NewListener(t, o)
	if err != nil {
		return fmt.Errorf("listener %q: %w", l.Name, err)
	}
	e.turns, e.listeners = append(e.turns, t), append(e.listeners, ln)
	e.handlers = append(e.handlers, d.metrics.counted(l.Name, h))
	return nil
}

// drop gives up an edition that never came to work; its sockets stay open.
func (e *edition) drop() {
	for i, ln := range e.listeners {
		e.turns[i].over.Store(true)
		ln.Shutdown(ended())
	}
}

// ended is a context that has no patience.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// serve lets an edition's listeners accept.
func (d *daemon) serve(ctx context.Context, e *edition) {
	if e.options.Directory != nil {
		ctx, e.stop = context.WithCancel(ctx)
		go gateway.ResolvePending(ctx, e.options, func(listener string) gateway.Intake { return e.book.Intakes[listener] }, 30*time.Second)
	}
	for i, ln := range e.listeners {
		go func() {
			err := ln.Serve(e.handlers[i])
			close(e.turns[i].served)
			if !e.turns[i].over.Load() {
				d.fail(err)
			}
		}()
	}
}

// use makes an edition the one that new sessions and requests meet.
func (d *daemon) use(e *edition) {
	d.cfg, d.current, d.options, d.listeners = e.cfg, e, e.options, e.listeners
	d.rules.Store(&e.rules)
	d.signers.Store(e.options.Signers)
	d.gauges.setRoutes(e.routes)
	if d.level != nil {
		d.level.UnmarshalText([]byte(e.cfg.Log.Level)) // validated with the configuration
	}
	d.socketAPI.use(console.New(e.service, console.Options{Access: console.Operator, Version: version, Now: d.now, Logger: d.log, Metrics: d.metrics.handler()}))
	d.console.use(console.New(e.service, console.Options{Access: console.Nobody, Version: version, Logger: d.log, Metrics: d.metrics.handler()}))
}

// reload loads the configuration anew, validates it, and swaps. On any error
// the old one stays as it is, in all its parts.
func (d *daemon) reload(ctx context.Context) {
	d.notify(reloading())
	changed, kept, err := d.swap(ctx)
	outcome, status := "done", "serving"
	switch {
	case err != nil:
		outcome, status = "refused", "serving with the configuration of before: the new one is refused, see the log"
		d.complain(err)
	default:
		d.log.Info("reloaded", "file", cmp.Or(d.cfg.file, "built in"), "changed", changed)
	}
	if len(kept) > 0 {
		d.log.Warn("these settings change with a restart only, and stay as they were", "settings", kept)
	}
	d.metrics.reloads.With(outcome).Inc()
	d.notify("STATUS=" + status + "\nREADY=1")
}

// swap puts the configuration as it is now into use. It says which settings
// changed, and which would have but need a restart.
func (d *daemon) swap(ctx context.Context) (changed, kept []string, err error) {
	cfg, err := d.load()
	if err != nil {
		return nil, nil, err
	}
	if d.cfg.file != "" && cfg.file == "" {
		return nil, nil, hint("put it back; without it the built-in defaults would count", "%s is gone", d.cfg.file)
	}
	kept = cfg.keep(d.cfg)
	if found := cfg.check(); len(found) > 0 {
		return nil, kept, fmt.Errorf("with what only a restart changes the new configuration does not fit: %w", found)
	}
	next, err := d.edition(cfg)
	if err != nil {
		return nil, kept, err
	}
	if err := d.relay.SetRoutes(next.routes); err != nil {
		next.drop()
		return nil, kept, err
	}
	if err := d.relay.SetPatience(next.patience); err != nil { // edition has made a relay of it
		d.log.Error("the retry schedule stays", "error", err)
	}
	// From here on nothing fails.
	old := d.current
	changed = changes(old.cfg, cfg)
	old.stop()
	for _, t := range old.turns {
		t.end()
	}
	d.use(next)
	d.serve(ctx, next)
	for i := range old.listeners {
		d.retire(old.listeners[i], old.turns[i])
	}
	return changed, kept, nil
}

// retire lets the sessions of a listener that accepts no more come to their
// end.
func (d *daemon) retire(ln *gateway.Listener, t *turn) {
	d.past.add(ln)
	go func() {
		select {
		case <-t.empty:
			ln.Shutdown(ended())
			d.past.remove(ln)
		case <-d.ended:
		}
	}()
}

// complain logs why a configuration is refused, with file and line.
func (d *daemon) complain(err error) {
	const refused = "the new configuration is refused, the old one stays"
	var list problems
	if !errors.As(err, &list) || list[0].place == (place{}) {
		list = problems{{what: err.Error()}}
		var told hinted
		if errors.As(err, &told) {
			list[0].hint = told.hint
		}
	}
	for _, p := range list {
		d.log.Error(refused, "error", withoutSecrets(p.Error()), "hint", p.hint)
	}
}

// withoutSecrets takes out what stands before the @ of a URL.
func withoutSecrets(s string) string {
	return regexp.MustCompile(`://[^/\s"]*@`).ReplaceAllString(s, "://...@")
}

// swapped is a handler that another one takes the place of; requests under way
// end with the one they began with.
type swapped struct{ now atomic.Pointer[http.Handler] }

func (s *swapped) use(h http.Handler) { s.now.Store(&h) }

func (s *swapped) ServeHTTP(w http.ResponseWriter, r *http.Request) { (*s.now.Load()).ServeHTTP(w, r) }
