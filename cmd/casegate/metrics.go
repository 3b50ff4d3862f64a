package main

import (
	"net/http"
	"slices"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/gateway/relay"
	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/bolt"
)

// metrics is what /metrics shows, in a registry of its own. No label holds what
// a stranger chose: no address, no case number. What lies on the way of a
// message is a counter that is there already.
type metrics struct {
	registry *prometheus.Registry

	accepted    *counters // role
	repeated    *counters // role
	took        map[gateway.Role]prometheus.Observer
	decisions   *counters // rule, role
	exceptions  *counters // reason
	senders     *counters // verdict
	refusals    *counters // listener, code, reason
	deliveries  *counters // role, outcome
	reloads     *counters // outcome
	commits     prometheus.Observer
	updates     prometheus.Observer
	failures    prometheus.Counter // of commits
	connections *prometheus.CounterVec
	open        *prometheus.GaugeVec
	sessions    *prometheus.CounterVec
	mails       *prometheus.CounterVec
	bytes       *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), took: map[gateway.Role]prometheus.Observer{}}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "casegate_build_info", Help: "Always 1; says which version runs."}, []string{"version"})
	info.WithLabelValues(version).Set(1)
	m.registry.MustRegister(info)
	m.accepted = m.vec("casegate_accepted_total", "Messages made durable and answered 250, copies of one left out.", "role")
	m.repeated = m.vec("casegate_repeated_total", "Copies of a message that was there already (rule I1).", "role")
	m.decisions = m.vec("casegate_decisions_total", "Decisions that a rule had part in.", "rule", "role")
	m.exceptions = m.vec("casegate_exceptions_total", "Messages put on the exceptions list, by reason.", "reason")
	m.senders = m.vec("casegate_senders_checked_total", "Messages whose sender was checked: pass, forged, unverified, temperror.", "verdict")
	m.refusals = m.vec("casegate_refusals_total", "Answers 4xx and 5xx to clients, by code and reason.", "listener", "code", "reason")
	m.deliveries = m.vec("casegate_delivery_attempts_total", "Delivery attempts by outcome: delivered, deferred, failed; ambiguous: the next hop may have taken it.", "role", "outcome")
	m.reloads = m.vec("casegate_reloads_total", "Reloads of the configuration: done, refused.", "outcome")
	took := m.histogram("casegate_accept_seconds", "From the last byte of a message to its being durable.", seconds(), "role")
	for _, role := range []gateway.Role{gateway.RoleInbound, gateway.RoleOutbound} {
		m.took[role] = took.WithLabelValues(string(role))
	}
	m.commits = m.histogram("casegate_commit_seconds", "Time a commit of the store took.", seconds()).WithLabelValues()
	m.updates = m.histogram("casegate_commit_updates", "Updates that shared a commit.", prometheus.ExponentialBuckets(1, 2, 10)).WithLabelValues()
	m.failures = m.counter("casegate_commit_failures_total", "Commits that failed.").WithLabelValues()
	m.connections = m.counter("casegate_connections_total", "Connections accepted, those turned away at once included.", "listener")
	m.open = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "casegate_connections_open", Help: "Connections open now."}, []string{"listener"})
	m.sessions = m.counter("casegate_sessions_total", "Connections on which the client said something.", "listener")
	m.mails = m.counter("casegate_transactions_total", "MAIL FROM that was accepted.", "listener")
	m.bytes = m.counter("casegate_received_bytes_total", "Bytes read from clients, as they are on the wire.", "listener")
	m.registry.MustRegister(m.open)
	return m
}

func seconds() []float64 { return prometheus.ExponentialBuckets(0.0005, 2, 16) } // to 16 s

func (m *metrics) counter(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	m.registry.MustRegister(v)
	return v
}

func (m *metrics) histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	m.registry.MustRegister(v)
	return v
}

func (m *metrics) vec(name, help string, labels ...string) *counters {
	return &counters{vec: m.counter(name, help, labels...), labels: len(labels)}
}

// handler answers /metrics.
func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// onAccepted counts a message that a session handed over.
func (m *metrics) onAccepted(a gateway.Accepted) {
	role := string(a.Role)
	if took := m.took[a.Role]; took != nil {
		took.Observe(a.Took.Seconds())
	}
	if a.Repeats {
		m.repeated.With(role).Inc()
		return
	}
	m.accepted.With(role).Inc()
	for _, rule := range a.Message.Decision.Rules {
		m.decisions.With(rule, role).Inc()
	}
	if reason := a.Message.Exception; reason != "" {
		m.exceptions.With(reason).Inc()
	}
	if found := a.Message.Authentication; found != nil {
		m.senders.With(verdictOf(*found)).Inc()
	}
}

// verdictOf is what a check of the sender comes to. temperror: it could not be
// told, for the DNS.
func verdictOf(a store.Authentication) string {
	switch {
	case a.Forged:
		return "forged"
	case a.AlignedPass:
		return "pass"
	case slices.Contains([]string{a.DMARC, a.SPF, a.DKIM}, "temperror"):
		return "temperror"
	}
	return "unverified"
}

// onAttempt counts what came of an attempt at a delivery.
func (m *metrics) onAttempt(e relay.Event) {
	for _, a := range e.Attempts {
		m.deliveries.With(e.Delivery.Role, a.Result).Inc()
		if a.Ambiguous {
			m.deliveries.With(e.Delivery.Role, "ambiguous").Inc()
		}
	}
}

func (m *metrics) onCommit(c bolt.Commit) {
	m.commits.Observe(c.Took.Seconds())
	m.updates.Observe(float64(c.Updates))
	if c.Err != nil {
		m.failures.Inc()
	}
}

// refused counts the refusals of a listener.
func (m *metrics) refused(listener string) func(gateway.Reason, int) {
	return func(why gateway.Reason, code int) { m.refusals.With(listener, strconv.Itoa(code), string(why)).Inc() }
}

// counters are counters by one to three labels, found without a lock once made.
// The labels are words of the program's or the configuration's; should they
// ever not be, what is beyond maxCounters counts as "other".
type counters struct {
	vec    *prometheus.CounterVec
	labels int
	made   sync.Map // of [3]string
	mu     sync.Mutex
	n      int
}

const maxCounters = 500

// With returns the counter of some labels.
func (c *counters) With(labels ...string) prometheus.Counter {
	var key [3]string
	copy(key[:], labels)
	if found, ok := c.made.Load(key); ok {
		return found.(prometheus.Counter)
	}
	return c.make(key)
}

func (c *counters) make(key [3]string) prometheus.Counter {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n >= maxCounters {
		key = [3]string{"other", "other", "other"}
	}
	counter := c.vec.WithLabelValues(key[:c.labels]...)
	if _, had := c.made.LoadOrStore(key, counter); !had {
		c.n++
	}
	return counter
}
