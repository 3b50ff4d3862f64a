// Package testbed is what tests of several packages need around casegate: a
// Postfix and a Dovecot of the test's own, an authority that vouches for
// certificates, and small things besides. Only tests import it.
package testbed

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// Need skips a test whose programs are missing; under CI that is a failure.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%s is not installed, and CI is set", p)
			}
			t.Skipf("%s is not installed: run .ci/install", p)
		}
	}
}

// Free returns addresses on loopback, host:port, that were free a moment ago. They
// are below those that systems give to clients, so that no connection of another
// test takes one meanwhile.
func Free(t testing.TB, n int) (addresses []string) {
	t.Helper()
	const low, high = 10_000, 30_000
	for tries := 0; len(addresses) < n; tries++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", low+rand.IntN(high-low)))
		if err != nil {
			if tries > 100 {
				t.Fatal(err)
			}
			continue
		}
		defer l.Close() // when all are found
		addresses = append(addresses, l.Addr().String())
	}
	return addresses
}

// Port is that of an address or of a next hop's URL.
func Port(address string) string {
	return address[strings.LastIndexByte(address, ':')+1:]
}

// Write writes a file that servers of other users may read.
func Write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Until waits until cond holds, in real or in virtual time.
func Until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long until %s", what)
		}
	}
}

// Buffer is a bytes.Buffer for several goroutines.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Reset empties it.
func (b *Buffer) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b.Reset()
}
