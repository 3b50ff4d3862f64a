package main

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/casegate/casegate/gateway"
)

// doorCounts are the counters of one listener's connections.
type doorCounts struct {
	connections, sessions, bytes prometheus.Counter
	open                         prometheus.Gauge
}

func (m *metrics) door(listener string) doorCounts {
	return doorCounts{
		connections: m.connections.WithLabelValues(listener), sessions: m.sessions.WithLabelValues(listener),
		bytes: m.bytes.WithLabelValues(listener), open: m.open.WithLabelValues(listener),
	}
}

// counted is a handler whose transactions are counted.
type counted struct {
	gateway.Handler
	mails prometheus.Counter
}

func (m *metrics) counted(listener string, h gateway.Handler) gateway.Handler {
	return counted{h, m.mails.WithLabelValues(listener)}
}

func (c counted) Mail(ctx context.Context, env *gateway.Envelope) error {
	err := c.Handler.Mail(ctx, env)
	if err == nil {
		c.mails.Inc()
	}
	return err
}
