package main

import (
	"fmt"
	"log/slog"
	"net"

	"github.com/coreos/go-systemd/v22/activation"

	"github.com/casegate/casegate/gateway"
)

// consoleSocket is the name under which the console's socket may be handed over.
const consoleSocket = "console"

// sockets are those that the service manager opened for us (LISTEN_FDS), by
// name. They stay open while we restart, so that nobody is refused.
type sockets map[string]net.Listener

func inherited(log *slog.Logger) (sockets, error) {
	given, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("sockets of the service manager: %w", err)
	}
	s := sockets{}
	for name, list := range given {
		for i, ln := range list {
			if i > 0 {
				log.Warn("a socket of the service manager is closed: another one has its name", "name", name, "address", ln.Addr().String())
				ln.Close()
				continue
			}
			s[name] = ln
		}
	}
	return s, nil
}

// take returns the socket with a name, once; nil when there is none.
func (s sockets) take(name string) net.Listener {
	ln := s[name]
	delete(s, name)
	return ln
}

// closeRest closes what belongs to nobody.
func (s sockets) closeRest(log *slog.Logger) {
	for name, ln := range s {
		log.Warn("a socket of the service manager is closed: no listener has its name", "name", name, "address", ln.Addr().String())
		ln.Close()
	}
	clear(s)
}

// openDoor opens the socket of a listener, or takes over the one we were given.
func (d *daemon) openDoor(l Listener) error {
	ln := d.sockets.take(l.Name)
	if ln != nil && ln.Addr().String() != l.Address.Address {
		d.log.Warn("the service manager's socket has another address than the configuration", "listener", l.Name, "address", ln.Addr().String(), "configured", l.Address.Address)
	}
	if ln != nil && (ln.Addr().Network() == "unix") != (l.Address.Network == "unix") {
		ln.Close()
		return hint("give both the same address", "listener %q: the socket of the service manager is on %s, the configuration says %s", l.Name, ln.Addr(), l.Address)
	}
	if ln == nil {
		var err error
		if ln, err = gateway.OpenSocket(l.Address.String()); err != nil {
			return hint("stop the other program that uses the address, or change the listener's address", "listener %q: %w", l.Name, err)
		}
	}
	d.doors[l.Name] = &door{socket: ln, counts: d.metrics.door(l.Name), seats: gateway.NewSeats()}
	return nil
}
