package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// maxSocketPath is the most a UNIX address holds on Linux.
const maxSocketPath = 107

// shortest is the path by which a socket is reached from here: an address has
// little room, and a relative path may need less of it.
func shortest(path string) string {
	if len(path) <= maxSocketPath {
		return path
	}
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(wd, path); err == nil && len(rel) < len(path) {
		return rel
	}
	return path
}

// errNoDaemon: nobody listens on the socket, whether or not its file is there.
var errNoDaemon = errors.New("no daemon")

// dialSocket connects to a running daemon. A file that a dead one left behind
// is as good as none.
func dialSocket(path string) (net.Conn, error) {
	conn, err := net.DialTimeout("unix", shortest(path), 2*time.Second)
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOTDIR):
		return nil, errNoDaemon
	case errors.Is(err, fs.ErrPermission):
		return nil, hint("run the command as the user of the daemon, or as root", "%s may not be used by this user", path)
	}
	return nil, fmt.Errorf("connecting to the daemon: %w", err)
}

// listenSocket listens where the command line looks for a daemon, for the
// daemon's own user alone. Call it with the store open: then a file that is
// there already is a dead daemon's.
func listenSocket(path string) (net.Listener, error) {
	short := shortest(path)
	if len(short) > maxSocketPath {
		return nil, hint("choose a shorter data_dir, or start casegate within it", "%s is too long for a UNIX socket", path)
	}
	if conn, err := dialSocket(path); err == nil {
		conn.Close()
		return nil, hint("stop the other one first", "another daemon answers on %s", path)
	}
	if err := os.Remove(short); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	old := umask(0o177) // the file must never be open to others, not even for a moment
	defer umask(old)
	return net.Listen("unix", short)
}

// umask sets what new files may not be, and returns what it was.
func umask(mask int) int { return syscall.Umask(mask) }
