package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDescriptors leaves the daemon without a file descriptor to spare, under
// load, and connections waiting for one (security, Durability 33). It lives;
// nobody is refused for good, and what it takes is kept. With descriptors again
// all goes on by itself.
func TestDescriptors(t *testing.T) {
	l := newLoad(t, rigOptions{})
	l.run(func(random *rand.Rand) int { return 1 + random.IntN(8<<10) })
	l.until(t, 30*time.Second, "no mail is taken", func() bool { return l.acked() > 50 })
	var was unix.Rlimit
	must(t, unix.Prlimit(l.pid(), unix.RLIMIT_NOFILE, nil, &was))
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", l.pid()))
	must(t, err)
	must(t, unix.Prlimit(l.pid(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(len(open)), Max: was.Max}, nil))
	var waiting []net.Conn
	for range 50 {
		for _, listener := range []string{"inbound", "lmtp", "smarthost"} {
			c, err := net.Dial("tcp", l.at(listener))
			must(t, err)
			waiting = append(waiting, c)
		}
	}
	before := l.acked()
	l.until(t, 10*time.Second, "who had a connection is not served any more", func() bool { return l.acked() > before+50 })
	l.until(t, 10*time.Second, "it does not say that it lacks descriptors", func() bool {
		l.rig.mu.Lock()
		defer l.rig.mu.Unlock()
		return strings.Contains(strings.Join(l.tail, "\n"), "too many open files")
	})
	for _, c := range waiting {
		c.Close()
	}
	must(t, unix.Prlimit(l.pid(), unix.RLIMIT_NOFILE, &was, nil))
	began := time.Now()
	l.until(t, 10*time.Second, "not all listeners take mail again within 10 s", func() bool { return l.allTook(began) })
	c, err := dialWire(l.at("inbound"), false)
	if err != nil {
		t.Errorf("a new connection: %v", err)
	} else {
		c.conn.Close()
	}
	l.stopped.Store(true)
	l.clients.Wait()
	l.emptied(time.Minute)
	l.finish()
	if code, _ := l.stop(); code != 0 {
		t.Errorf("serve ended with %d", code)
	}
	l.verify()
}
