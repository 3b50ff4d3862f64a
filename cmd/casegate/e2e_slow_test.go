package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// slowConnections is how many there are in TestSlowClients, if not a few; `make
// slow` sets it.
const slowConnections = "CASEGATE_SLOW_CONNECTIONS"

// TestSlowClients holds many connections in the middle of their bodies, each of
// which sends a byte now and then and comes again when it is cut off. The daemon
// stays small, and who sends mail meanwhile gets what he got before. How long he
// waits is only judged with as many as `make slow` has, for which the machine must
// be quiet.
func TestSlowClients(t *testing.T) {
	n, mails, most := 500, 100, int64(128<<20)
	text, all := os.LookupEnv(slowConnections)
	if all {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
		mails, most = 2000, 256<<20
	}
	r := newRig(t, rigOptions{data: onDisk(t)})
	r.start()
	good := goodClient{t: t, r: r}
	good.send(mails / 4) // everything is warm
	idle, _ := good.watch(mails, resident, func() bool { return true })
	t.Logf("load %s; idle: a mail takes %v, %.1f MiB are resident", loadAverage(t), idle, mib(resident(t, r.pid())))
	slow := startSlow(t, r.at("inbound"), n)
	slow.await(n)
	meanwhile, high := good.watch(mails, resident, func() bool { return true })
	t.Logf("load %s; with %d slow connections: %v, at most %.1f MiB", loadAverage(t), n, meanwhile, mib(high))
	if ratio := float64(meanwhile.slow()) / float64(idle.slow()); all && ratio > 2 {
		t.Errorf("the slowest hundredth of mail takes %.2f times as long with the connections", ratio)
	}
	if all {
		// The store grows all the time, and what the system keeps of its file in RAM.
		later, rise := good.watch(100, anonymous, func() bool { return int(slow.again.Load()) >= n })
		t.Logf("until %d were cut off and came again: %v, at most %.1f MiB without the store's file", slow.again.Load(), later, mib(rise))
		high = max(high, rise)
	}
	if high > most {
		t.Errorf("%.1f MiB of memory, at most %.0f are allowed", mib(high), mib(most))
	}
	slow.end()
	if said := r.complaints(); len(said) > 0 {
		t.Errorf("the daemon complains: %q", said)
	}
	if code, _ := r.stop(); code != 0 {
		t.Errorf("serve ended with %d", code)
	}
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// goodClient sends mail as other servers do, each in a session of its own.
type goodClient struct {
	t *testing.T
	r *rig
	n int
}

// send returns how long each mail took, from the connection to the last reply.
func (g *goodClient) send(n int) quantiles {
	g.t.Helper()
	list := make(quantiles, n)
	for i := range list {
		g.n++
		from := fmt.Sprintf("good%d@example.net", g.n)
		eml := loadMail(fmt.Sprintf("good-%d", g.n), from, rigMailbox, 2<<10)
		began := time.Now()
		c, err := dialWire(g.r.at("inbound"), false)
		if err != nil {
			g.t.Fatal(err)
		}
		reply, err := c.send(from, []string{rigMailbox}, writes(eml))
		list[i] = time.Since(began)
		if acceptedID(reply) == "" {
			g.t.Fatalf("a mail is answered %q, %v", reply, err)
		}
		c.conn.Close()
	}
	return list
}

// watch sends n mails, and again until done, and looks at the daemon's memory.
func (g *goodClient) watch(n int, memory func(*testing.T, int) int64, done func() bool) (took quantiles, high int64) {
	g.t.Helper()
	for began := time.Now(); ; {
		for range parts {
			took = append(took, g.send(n/parts)...)
			high = max(high, memory(g.t, g.r.pid()))
		}
		if done() {
			return took, high
		}
		if time.Since(began) > 2*time.Minute {
			g.t.Fatal("what was waited for did not come")
		}
	}
}

// parts are what a measurement is divided into: what else the machine does falls
// into some of them, what the daemon does into all.
const parts = 8

// quantiles are durations, in the order in which they were taken.
type quantiles []time.Duration

func (q quantiles) at(percent int) time.Duration {
	list := slices.Sorted(slices.Values(q))
	return list[(len(list)-1)*percent/100]
}

// slow is the p99 of the middle part.
func (q quantiles) slow() time.Duration {
	var each quantiles
	for part := range slices.Chunk(q, (len(q)+parts-1)/parts) {
		each = append(each, part.at(99))
	}
	return each.at(50)
}

func (q quantiles) String() string {
	list := []any{q.at(50), q.at(99), q.slow()}
	for i, d := range list {
		list[i] = d.(time.Duration).Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("p50 %v, p99 %v (of the middle part %v)", list...)
}

// resident is the memory of a process that is in RAM, files included, in bytes.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

func loadAverage(t *testing.T) string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text))[0]
}

// slowProcess are the slow clients. They are a process of their own: each end of
// a connection takes a file descriptor.
type slowProcess struct {
	t           *testing.T
	cmd         *exec.Cmd
	open, again atomic.Int64
	ended       chan struct{}
}

func startSlow(t *testing.T, address string, n int) *slowProcess {
	t.Helper()
	p := &slowProcess{t: t, ended: make(chan struct{})}
	p.cmd = &exec.Cmd{Path: os.Args[0], Args: []string{"slowclients", address, strconv.Itoa(n)}, Env: os.Environ(), Stderr: os.Stderr}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.end)
	go func() {
		defer close(p.ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var open, again int64
			fmt.Sscan(lines.Text(), &open, &again)
			p.open.Store(open)
			p.again.Store(again)
		}
	}()
	return p
}

// await waits until so many connections are in the middle of their bodies.
func (p *slowProcess) await(n int) {
	p.t.Helper()
	for began := time.Now(); p.open.Load() < int64(n); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			p.t.Fatalf("only %d of %d connections are open", p.open.Load(), n)
		}
	}
}

func (p *slowProcess) end() {
	p.cmd.Process.Kill()
	<-p.ended
	p.cmd.Wait()
}

// slowMain is the program of a slowProcess: slowclients ADDRESS N. It prints how
// many connections are open, and how many it had to open again.
func slowMain() {
	address := os.Args[1]
	n, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	var open, again atomic.Int64
	opening := make(chan struct{}, 64)
	for range n {
		go func() {
			for ; ; again.Add(1) {
				opening <- struct{}{}
				c, err := openSlow(address)
				<-opening
				if err != nil {
					fmt.Fprintln(os.Stderr, "a slow client:", err)
					time.Sleep(time.Second)
					continue
				}
				open.Add(1)
				c.trickle()
				open.Add(-1)
			}
		}()
	}
	for {
		fmt.Println(open.Load(), again.Load())
		time.Sleep(50 * time.Millisecond)
	}
}

// slowClient is a connection in the middle of a body. It holds no buffers: there
// are many.
type slowClient struct{ conn net.Conn }

func openSlow(address string) (slowClient, error) {
	c, err := dialWire(address, false)
	if err != nil {
		return slowClient{}, err
	}
	for _, line := range []string{"MAIL FROM:<slow@example.net>", "RCPT TO:<" + rigMailbox + ">", "DATA"} {
		if reply, err := c.say(line); err != nil || reply[0] != '2' && reply[0] != '3' {
			c.conn.Close()
			return slowClient{}, fmt.Errorf("%s: %q, %w", line, reply, err)
		}
	}
	_, err = c.conn.Write([]byte("Subject: I am sl"))
	return slowClient{c.conn}, err
}

// trickle sends a byte every ten seconds until the daemon says something: it is
// too slow.
func (c slowClient) trickle() {
	defer c.conn.Close()
	for {
		c.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		c.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.conn.Write([]byte("o")); err != nil {
			return
		}
	}
}
