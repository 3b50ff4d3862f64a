package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/casegate/casegate/store"
)

// runServe runs the daemon until ctx ends, and drains.
func (p *program) runServe(ctx context.Context, cfg *Config) error {
	memory := boundMemory()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	d, err := p.startDaemon(cfg)
	if err != nil {
		return err
	}
	d.hangup, d.load = hangup, p.config
	for _, one := range d.doors {
		one.memory = memory
	}
	return d.run(ctx, func() {
		for i, l := range cfg.Listeners {
			d.log.Info("listening", "listener", l.Name, "role", l.Role, "protocol", l.Protocol, "address", d.listeners[i].Addr().String())
		}
		d.log.Info("ready", "version", version, "data_dir", cfg.DataDir, "console", d.nets[1].Addr().String())
	})
}

// startDaemon opens the store and binds the addresses.
func (p *program) startDaemon(cfg *Config) (*daemon, error) {
	if err := refuseVolatile(cfg.DataDir, p.environ); err != nil {
		return nil, err
	}
	level := new(slog.LevelVar)
	level.UnmarshalText([]byte(cfg.Log.Level)) // validated with the configuration
	log := p.loggerAt(cfg, level)
	st, err := p.openStore(cfg, log)
	switch {
	case errors.Is(err, store.ErrInUse):
		return nil, hint("another casegate runs on this data_dir: stop it, or set another data_dir", "opening %s: %w", cfg.store(), err)
	case err != nil:
		return nil, fmt.Errorf("opening %s: %w", cfg.store(), err)
	}
	d, err := newDaemon(cfg, st, log)
	if err == nil {
		d.level = level
	}
	return d, err
}

// logger is the daemon's log, on standard error.
func (p *program) logger(cfg *Config) *slog.Logger {
	var level slog.Level
	level.UnmarshalText([]byte(cfg.Log.Level))
	return p.loggerAt(cfg, level)
}

// loggerAt is logger with a level that may change.
func (p *program) loggerAt(cfg *Config, level slog.Leveler) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if cfg.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(p.err, o))
	}
	return slog.New(slog.NewTextHandler(p.err, o))
}
