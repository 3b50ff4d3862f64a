package main

import (
	"context"
	"errors"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/casegate/casegate/store"
)

// notify tells the service manager how we stand, if there is one (sd_notify).
func (d *daemon) notify(state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		d.log.Warn("telling the service manager", "error", err)
	}
}

// reloading is what systemctl reload waits to hear, and then READY again.
func reloading() string { return sd.SdNotifyMonotonicUsec() + sd.SdNotifyReloading }

// watchdog tells the service manager that we are alive, as often as it asks
// for, until ctx ends. Alive is who can begin to read the store: not one that
// is stuck, but also one whose disk is full or fails, which a restart would not
// cure.
func (d *daemon) watchdog(ctx context.Context) {
	within, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		d.log.Warn("the service manager's watchdog", "error", err)
	}
	if within <= 0 {
		return
	}
	tick := time.NewTicker(within / 3)
	defer tick.Stop()
	for {
		d.store.View(ctx, func(store.Reader) error { return nil })
		d.notify(sd.SdNotifyWatchdog)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// phase is how far the daemon has come.
type phase int32

const (
	starting phase = iota
	serving
	stopping
)

// readyTimeout is how long the store may take to answer a question whether we
// are ready.
const readyTimeout = 5 * time.Second

// ready says what keeps us from taking mail: what /readyz answers.
func (d *daemon) ready(ctx context.Context) error {
	switch phase(d.phase.Load()) {
	case starting:
		return errors.New("starting")
	case stopping:
		return errors.New("stopping")
	}
	if at := d.fullAt.Load(); at != nil && time.Since(*at) < fullHolds {
		return store.ErrFull
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	// An update that writes nothing costs no commit, and is refused when one
	// that writes would be.
	return d.store.Update(ctx, func(tx store.Tx) error { _, err := tx.Installation(); return err })
}

// fullHolds is how long a commit that found no room counts, unless one succeeds
// meanwhile.
const fullHolds = 30 * time.Second

// noteRoom remembers whether the last commit found room.
func (d *daemon) noteRoom(err error) {
	switch {
	case errors.Is(err, store.ErrFull):
		now := time.Now()
		d.fullAt.Store(&now)
	case err == nil && d.fullAt.Load() != nil:
		d.fullAt.Store(nil)
	}
}
