package gateway

import (
	"net"
	"strings"
)

// OpenSocket opens "host:port" or "unix:/path" to be served by NewListener, as
// Listen does: for who keeps the socket while listeners come and go.
func OpenSocket(address string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return listenUnix(path)
	}
	return net.Listen("tcp", address)
}
