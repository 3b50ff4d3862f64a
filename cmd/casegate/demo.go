package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"time"

	"github.com/casegate/casegate/gateway/console"
	"github.com/casegate/casegate/store"
)

// runDemo serves with a sample next hop and plays one case through SMTP; once
// leaves afterwards. A store that has the case already is not played to again.
func (p *program) runDemo(ctx context.Context, cfg *Config, once bool) error {
	hop := newDemoHop()
	ln, err := net.Listen("tcp", demoHopAddress(cfg))
	if err != nil {
		return hint("stop the other program that uses the address; the demo plays the next hop of route role outbound", "the sample next hop: %w", err)
	}
	go hop.server.Serve(ln)
	defer hop.server.Close()
	quiet := *cfg
	quiet.Log.Level = "warn"
	d, err := p.startDaemon(&quiet)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	up, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- d.run(ctx, func() { close(up) }) }()
	select {
	case <-up:
	case err := <-done:
		return err
	}
	err = p.tellDemo(ctx, cfg, d, hop)
	if once || err != nil {
		stop()
	} else {
		p.whereNext(cfg)
	}
	if ended := <-done; err == nil {
		err = ended
	}
	return err
}

// demoHopAddress is where the outbound route leads: there the demo listens.
func demoHopAddress(cfg *Config) string {
	for _, r := range cfg.Routes {
		if r.Role == "outbound" {
			return r.NextHop.Endpoint.Address
		}
	}
	return "127.0.0.1:2526"
}

// tellDemo plays the conversation, unless it is there, and prints the case.
func (p *program) tellDemo(ctx context.Context, cfg *Config, d *daemon, hop *demoHop) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c := socketClient(cfg.socket())
	defer c.close()
	number, err := demoCase(ctx, d.store)
	if err != nil {
		return err
	}
	if number == 0 {
		if number, err = p.playAll(ctx, c, d, hop); err != nil {
			return err
		}
	}
	text, err := c.get(ctx, "/cases/"+strconv.FormatUint(number, 10), url.Values{})
	if err != nil {
		return err
	}
	var detail console.CaseDetail
	if err := json.Unmarshal(text, &detail); err != nil {
		return err
	}
	fmt.Fprintln(p.out)
	p.caseDetail(p.out, detail)
	return nil
}

// demoCase finds the case of an earlier demo; 0 when there is none.
func demoCase(ctx context.Context, st store.Store) (number uint64, err error) {
	err = st.View(ctx, func(r store.Reader) error {
		f, err := r.Facts(store.Query{MessageIDs: []string{demoFirstID}})
		for _, ref := range f.MessageIDs[demoFirstID] {
			if ref.Own {
				number = ref.Case
			}
		}
		return err
	})
	return number, err
}

// playAll fills the directory, plays the conversation and waits until the
// answer is known to be delivered.
func (p *program) playAll(ctx context.Context, c *client, d *daemon, hop *demoHop) (uint64, error) {
	say := func(format string, args ...any) { fmt.Fprintf(p.out, format+"\n", args...) }
	for _, who := range demoPeople() {
		if _, err := c.add(ctx, "/contacts", who); err != nil {
			return 0, err
		}
		say("contact %s (%s) has %s", who.Name, who.Kind, who.EmailAddresses[0])
	}
	inbound, smarthost, err := d.demoListeners()
	if err != nil {
		return 0, err
	}
	if err := playDemo(ctx, inbound, smarthost, hop, say); err != nil {
		return 0, err
	}
	number, err := demoCase(ctx, d.store)
	if err != nil {
		return 0, err
	}
	return number, settled(ctx, d.store, number)
}

// settled waits until every delivery of a case is done.
func settled(ctx context.Context, st store.Store, number uint64) error {
	for {
		var open int
		err := st.View(ctx, func(r store.Reader) error {
			list, _, err := r.Deliveries(store.DeliveryFilter{Case: number, State: store.Queued}, store.Page{})
			open = len(list)
			return err
		})
		if err != nil || open == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the outbox still has %d deliveries of case %d: %w", open, number, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// demoListeners finds an inbound and an outbound SMTP listener.
func (d *daemon) demoListeners() (inbound, smarthost string, err error) {
	for i, l := range d.cfg.Listeners {
		address := d.listeners[i].Addr()
		switch {
		case l.Protocol != "smtp" || address.Network() != "tcp":
		case l.Role == "inbound":
			inbound = address.String()
		default:
			smarthost = address.String()
		}
	}
	if inbound == "" || smarthost == "" {
		return "", "", hint("use config.example.yaml", "the demo needs an inbound and an outbound SMTP listener on TCP")
	}
	return inbound, smarthost, nil
}

func (p *program) whereNext(cfg *Config) {
	fmt.Fprintf(p.out, `
casegate is serving; stop it with Ctrl-C. Where to look next, in another terminal:
  ./bin/casegate case list
  ./bin/casegate message list
  ./bin/casegate queue list
  ./bin/casegate --help
Or send it a mail of your own:
  swaks --server %s --from you@example.net --to %s
`, demoInbound(cfg), cfg.Mailboxes[0].Address)
}

func demoInbound(cfg *Config) string {
	for _, l := range cfg.Listeners {
		if l.Role == "inbound" && l.Protocol == "smtp" {
			return l.Address.Address
		}
	}
	return ""
}
