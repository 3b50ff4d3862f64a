package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What one connection may hold of memory that the runtime counts, stack and
// all. 10 000 of them in the clear must fit into 256 MiB of RSS with everything
// else that a daemon needs.
const (
	clearBytes = 10 << 10 // 4 KiB of it are the stack
	tlsBytes   = 20 << 10
)

// slowEnv makes the test's binary the clients of TestSlowConnections: their own
// process, because both ends of a connection take a descriptor.
const slowEnv = "CASEGATE_TEST_SLOW_CLIENTS"

func init() {
	address, ok := os.LookupEnv(slowEnv)
	if !ok {
		return
	}
	fmt.Println(slowClients(address))
	time.Sleep(time.Hour) // until we are killed
}

// slowClients opens connections that get as far as the middle of a body.
func slowClients(arg string) error {
	var address, secure string
	var n int
	if _, err := fmt.Sscan(arg, &address, &n, &secure); err != nil {
		return err
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var failed error
	places := make(chan struct{}, 64)
	for range n {
		places <- struct{}{}
		all.Go(func() {
			if err := slowClient(address, secure == "tls"); err != nil {
				mu.Lock()
				failed = err
				mu.Unlock()
			}
			<-places
		})
	}
	all.Wait()
	return failed
}

// openConns keeps the collector from closing what a client left open.
var openConns struct {
	sync.Mutex
	list []net.Conn
}

func slowClient(address string, secure bool) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	if secure {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	openConns.Lock()
	openConns.list = append(openConns.list, c)
	openConns.Unlock()
	for _, line := range []string{"", "EHLO c.test\r\n", "MAIL FROM:<a@b.test>\r\n", "RCPT TO:<c@d.test>\r\n", "DATA\r\n"} {
		if _, err := c.Write([]byte(line)); err != nil {
			return err
		}
		var got []byte
		for buf := make([]byte, 512); !strings.HasSuffix(string(got), "\r\n") || strings.Contains(string(got), "250-") && !strings.Contains(string(got), "\r\n250 "); {
			n, err := c.Read(buf)
			if err != nil {
				return fmt.Errorf("after %q: %q, %w", line, got, err)
			}
			got = append(got, buf[:n]...)
		}
		if got[0] != '2' && got[0] != '3' {
			return fmt.Errorf("after %q: %q", line, got)
		}
	}
	_, err = c.Write([]byte("Subject: I am sl"))
	return err
}

// TestSlowConnections: a connection that trickles in the middle of its body
// holds little, and as little when it is one of many.
func TestSlowConnections(t *testing.T) {
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("the race detector needs memory of its own")
	}
	p := testTLS(t)
	for _, x := range []struct {
		name   string
		n      int
		most   uint64
		change func(*ListenerOptions)
	}{
		{"clear", 1000, clearBytes, func(*ListenerOptions) {}},
		{"clear", 4000, clearBytes, func(*ListenerOptions) {}},
		{"tls", 1000, tlsBytes, func(o *ListenerOptions) { o.TLSMode, o.TLS = TLSImplicit, p.server }},
	} {
		t.Run(fmt.Sprint(x.name, " ", x.n), func(t *testing.T) {
			l := listen(t, &dropHandler{}, x.change)
			before := inUse()
			clients := startSlowClients(t, l, x.n, x.name)
			each := (inUse() - before) / uint64(x.n)
			t.Logf("%d bytes for each of %d connections", each, x.n)
			if each > x.most {
				t.Errorf("%d bytes for each connection, at most %d are allowed", each, x.most)
			}
			c := &client{}
			if x.name == "tls" {
				c = secured(t, l, p.client())
			} else {
				c = dial(t, l)
			}
			c.expect("220")
			c.do("EHLO good.test", "250")
			clients.Process.Kill()
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			l.Shutdown(ctx)
		})
	}
}

// inUse is what the runtime holds for heap and stacks, garbage aside.
func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// startSlowClients waits until all are in the middle of their bodies.
func startSlowClients(t *testing.T, l *Listener, n int, how string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %s", slowEnv, l.Addr(), n, how))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	buf := make([]byte, 256)
	k, err := out.Read(buf)
	if said := strings.TrimSpace(string(buf[:k])); err != nil || said != "<nil>" {
		t.Fatalf("the clients: %s, %v", said, err)
	}
	time.Sleep(200 * time.Millisecond) // for their last bytes
	return cmd
}
