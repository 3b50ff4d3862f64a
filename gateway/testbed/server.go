package testbed

import (
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// server is a program of another's that runs in a folder of the test's.
type server struct {
	t   testing.TB
	dir string
	log string // its file, within dir
}

// newServer skips the test without the program, or without the right to run it
// as its own users.
func newServer(t testing.TB, program, log string) server {
	t.Helper()
	Need(t, program)
	if os.Geteuid() != 0 {
		t.Skipf("not root: a %s of the test's own needs to be", program)
	}
	s := server{t, t.TempDir(), log}
	for _, dir := range []string{filepath.Dir(s.dir), s.dir} { // its users get in
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// Path is where a file of the server's folder is.
func (s server) Path(name string) string { return filepath.Join(s.dir, name) }

// Log is what the server has logged.
func (s server) Log() string {
	text, _ := os.ReadFile(s.Path(s.log))
	return string(text)
}

// folder makes one that belongs to a user.
func (s server) folder(name, owner string) {
	s.t.Helper()
	uid, gid := s.ids(owner)
	if err := os.MkdirAll(s.Path(name), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Chown(s.Path(name), uid, gid); err != nil {
		s.t.Fatal(err)
	}
}

func (s server) ids(name string) (uid, gid int) {
	s.t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		s.t.Fatal(err)
	}
	uid, _ = strconv.Atoi(u.Uid)
	gid, _ = strconv.Atoi(u.Gid)
	return uid, gid
}

// run starts the server, which ends with the test, and waits until it listens.
func (s server) run(network, address string, command ...string) {
	s.t.Helper()
	c := exec.Command(command[0], command[1:]...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // some end their process group
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		c.Process.Signal(syscall.SIGTERM)
		c.Wait()
		if s.t.Failed() {
			s.t.Logf("%s of %s:\n%s", s.log, command[0], s.Log())
		}
	})
	Until(s.t, command[0]+" listens at "+address, func() bool {
		conn, err := net.Dial(network, address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}
