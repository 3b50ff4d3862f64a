package main

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/store"
)

// doorCounts are the counters of one listener's connections.
type doorCounts struct {
	connections, sessions, bytes prometheus.Counter
	open                         prometheus.Gauge
	refused                      func(code int)
}

func (m *metrics) door(listener string) doorCounts {
	return doorCounts{
		connections: m.connections.WithLabelValues(listener), sessions: m.sessions.WithLabelValues(listener),
		bytes: m.bytes.WithLabelValues(listener), open: m.open.WithLabelValues(listener),
		refused: func(code int) { m.onRefusal(listener, code) },
	}
}

// counted is a handler whose refusals are counted.
type counted struct {
	gateway.Handler
	mails   prometheus.Counter
	refused func(code int)
}

func (m *metrics) counted(listener string, h gateway.Handler) gateway.Handler {
	return counted{h, m.mails.WithLabelValues(listener), func(code int) { m.onRefusal(listener, code) }}
}

func (c counted) note(err error) error {
	if err != nil {
		c.refused(codeOf(err))
	}
	return err
}

func (c counted) Mail(ctx context.Context, env *gateway.Envelope) error {
	err := c.Handler.Mail(ctx, env)
	if err == nil {
		c.mails.Inc()
	}
	return c.note(err)
}

func (c counted) Rcpt(ctx context.Context, env *gateway.Envelope, to gateway.Recipient) error {
	return c.note(c.Handler.Rcpt(ctx, env, to))
}

func (c counted) Spool(ctx context.Context, env *gateway.Envelope) (gateway.Sink, error) {
	sink, err := c.Handler.Spool(ctx, env)
	return sink, c.note(err)
}

func (c counted) Accept(ctx context.Context, env *gateway.Envelope, sink gateway.Sink) (gateway.Receipt, error) {
	receipt, err := c.Handler.Accept(ctx, env, sink)
	return receipt, c.note(err)
}

// codeOf is the code that a session answers an error with.
func codeOf(err error) int {
	var v gateway.Verdict
	switch {
	case errors.As(err, &v):
		return v.Code
	case errors.Is(err, store.ErrFull):
		return 452
	}
	return 451
}
