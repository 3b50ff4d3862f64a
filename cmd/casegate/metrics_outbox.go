package main

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/casegate/casegate/gateway/relay"
	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/bolt"
)

// outboxGauges look at the outbox when somebody asks, not before. What a look
// found holds for a moment, so that asking often costs nothing.
type outboxGauges struct {
	outbox                  func(context.Context) (bolt.Outbox, error)
	now                     func() time.Time
	started                 time.Time
	oldest, rows, since, up *prometheus.Desc

	mu     sync.Mutex
	routes [][2]string             // role and next hop, of the configuration
	last   map[[2]string]time.Time // success

	looking sync.Mutex // not mu: attempts must not wait for the store
	looked  time.Time
	seen    bolt.Outbox
	err     error
}

const (
	outboxLook    = 2 * time.Second // how long a look holds
	outboxTimeout = 5 * time.Second
)

// watchOutbox adds the gauges; outbox is nil for a store that cannot count.
func (m *metrics) watchOutbox(outbox func(context.Context) (bolt.Outbox, error), now func() time.Time) *outboxGauges {
	g := &outboxGauges{
		outbox: outbox, now: now, started: now(), last: map[[2]string]time.Time{},
		oldest: prometheus.NewDesc("casegate_outbox_oldest_seconds", "Age of the oldest message that is queued; 0: none is.", nil, nil),
		rows:   prometheus.NewDesc("casegate_outbox", "Deliveries in the outbox by state.", []string{"state"}, nil),
		up:     prometheus.NewDesc("casegate_store_up", "1: the store can be read.", nil, nil),
		since:  prometheus.NewDesc("casegate_route_since_success_seconds", "Time since a next hop of a route took a message; since the start, if none did.", []string{"role", "next_hop"}, nil),
	}
	m.registry.MustRegister(g)
	return g
}

// Describe says nothing in advance: the routes change.
func (g *outboxGauges) Describe(chan<- *prometheus.Desc) {}

// Collect looks.
func (g *outboxGauges) Collect(out chan<- prometheus.Metric) {
	now := g.now()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	g.mu.Lock()
	for _, r := range g.routes {
		gauge(g.since, max(0, now.Sub(g.last[r]).Seconds()), r[0], r[1])
	}
	g.mu.Unlock()
	if g.outbox == nil {
		return
	}
	g.looking.Lock()
	defer g.looking.Unlock()
	g.look(now)
	if g.err != nil {
		gauge(g.up, 0)
		return
	}
	gauge(g.up, 1)
	age := 0.0
	if !g.seen.Oldest.IsZero() {
		age = max(0, now.Sub(g.seen.Oldest).Seconds())
	}
	gauge(g.oldest, age)
	for _, state := range []store.DeliveryState{store.Queued, store.Held, store.Failed} {
		gauge(g.rows, float64(g.seen.Counts[state]), string(state))
	}
}

func (g *outboxGauges) look(now time.Time) {
	if d := now.Sub(g.looked); d >= 0 && d < outboxLook {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), outboxTimeout)
	defer cancel()
	g.seen, g.err = g.outbox(ctx)
	g.looked = now
}

// setRoutes says which next hops there are now; nothing is told of others.
func (g *outboxGauges) setRoutes(routes []relay.Route) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.routes = nil
	last := map[[2]string]time.Time{}
	for _, r := range routes {
		if r.NextHop == relay.None {
			continue
		}
		for _, hop := range append([]string{r.NextHop}, r.Further...) {
			key := [2]string{r.Role, hop}
			if _, twice := last[key]; twice {
				continue
			}
			last[key] = g.last[key]
			if last[key].IsZero() {
				last[key] = g.started
			}
			g.routes = append(g.routes, key)
		}
	}
	g.last = last
}

// onAttempt notes who took a message.
func (g *outboxGauges) onAttempt(e relay.Event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, a := range e.Attempts {
		key := [2]string{e.Delivery.Role, a.NextHop}
		if _, known := g.last[key]; known && a.Result == "delivered" {
			g.last[key] = g.now()
		}
	}
}
