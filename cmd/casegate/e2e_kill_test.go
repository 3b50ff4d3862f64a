package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway/console"
)

// load is eight clients on one daemon: four bring mail in, by SMTP and LMTP,
// and four answer on cases. Both routes lead to the sink.
type load struct {
	*rig
	*ledger
	to        *sink
	cases     []loadCase
	held      map[string]string // the sockets that a service manager holds, by listener
	stopped   atomic.Bool
	clients   sync.WaitGroup
	mu        sync.Mutex
	replies   map[string]int // by their codes; empty: none came
	lastTaken map[string]time.Time
}

// loadCase is a case that the clients write on.
type loadCase struct {
	number              uint64
	customer, messageID string
}

// newLoad starts a daemon with a few cases in it.
func newLoad(t testing.TB, o rigOptions) *load {
	t.Helper()
	to := newSink(t)
	o.inbound, o.outbound = to.address, to.address
	l := loadOn(newRig(t, o), to)
	l.start()
	l.seed()
	return l
}

func loadOn(r *rig, to *sink) *load {
	return &load{rig: r, ledger: newLedger(), to: to, replies: map[string]int{}, lastTaken: map[string]time.Time{}}
}

// seed opens the cases.
func (l *load) seed() {
	l.t.Helper()
	s := &sender{r: l.rig, listener: "inbound"}
	defer s.close()
	for n := range 8 {
		c := loadCase{customer: fmt.Sprintf("customer%d@example.net", n)}
		key := fmt.Sprintf("seed-%d", n)
		eml := loadMail(key, c.customer, rigMailbox, 1000)
		m := l.note(key, eml, 0)
		reply := s.try(c.customer, rigMailbox, eml)
		if _, err := fmt.Sscanf(reply[strings.LastIndexByte(reply, ' ')+1:], "%d", &c.number); err != nil {
			l.t.Fatalf("no case: %s", reply)
		}
		l.ack(m, acceptedID(reply))
		c.messageID = m.messageID()
		l.cases = append(l.cases, c)
	}
}

// run starts the clients. A client whose number is even sends what was not
// answered again until it is, as an MTA does; the others let it be.
func (l *load) run(size func(*rand.Rand) int) {
	for n, listener := range []string{"inbound", "inbound", "lmtp", "lmtp", "smarthost", "smarthost", "smarthost", "smarthost"} {
		l.clients.Go(func() {
			s := &sender{r: l.rig, listener: listener, held: l.held[listener]}
			defer s.close()
			random := rand.New(rand.NewPCG(1, uint64(n)))
			for i := 0; !l.stopped.Load() && !l.t.Failed(); i++ {
				l.one(s, fmt.Sprintf("%s-%d-%d", listener, n, i), n%2 == 0, i, size(random))
			}
		})
	}
}

// one sends one message of one client.
func (l *load) one(s *sender, key string, again bool, i, size int) {
	c := l.cases[i%len(l.cases)]
	from, to, on := fmt.Sprintf("%s@example.org", key), rigMailbox, uint64(0)
	var headers []string
	switch {
	case s.listener == "smarthost":
		from, to, on = rigMailbox, c.customer, c.number
	case i%2 == 0:
		from, on = c.customer, c.number
	}
	if on != 0 {
		headers = append(headers, "In-Reply-To: <"+c.messageID+">")
	}
	eml := loadMail(key, from, to, size, headers...)
	m := l.note(key, eml, on)
	for {
		reply := s.try(from, to, eml)
		if l.heard(s.listener, reply) {
			l.ack(m, acceptedID(reply))
			return
		}
		if !again || l.t.Failed() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// heard counts a reply and reports whether it is an acceptance.
func (l *load) heard(listener, reply string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	code, _, _ := strings.Cut(reply, " ")
	l.replies[code]++
	if strings.HasPrefix(code, "5") {
		l.t.Errorf("%s answered %s", listener, reply)
	}
	if code != "250" {
		return false
	}
	l.lastTaken[listener] = time.Now()
	return true
}

// finish lets the clients end what they have begun, waits for the outbox and
// draws the balance.
func (l *load) finish() {
	l.t.Helper()
	l.stopped.Store(true)
	l.clients.Wait()
	took := l.emptied(30 * time.Second)
	l.t.Logf("replies (the empty one: cut off): %s; %d acknowledged; outbox empty after %v", perKey(l.replies), l.acked(), took.Round(time.Millisecond))
	l.audit(l.rig, l.to)
	counts := l.verify()
	l.t.Logf("verify: %+v", counts)
}

// rounds is how often a test tries its luck, unless make torture says otherwise.
func rounds(t *testing.T, n int) int {
	if told := os.Getenv("CASEGATE_ROUNDS"); told != "" {
		var err error
		if n, err = strconv.Atoi(told); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// TestKill kills the daemon in the middle of a load, again and again. What was
// acknowledged is archived exactly once and reaches the sink; what was not is
// there whole or not at all.
func TestKill(t *testing.T) {
	l := newLoad(t, rigOptions{})
	l.run(func(random *rand.Rand) int {
		if random.IntN(20) == 0 {
			return 600 << 10 // staged in pieces
		}
		return 1 + random.IntN(30<<10)
	})
	rounds := rounds(t, 8)
	random := rand.New(rand.NewPCG(2, 3))
	for round := range rounds {
		time.Sleep(time.Duration(300+random.IntN(1500)) * time.Millisecond)
		before := l.acked()
		l.kill()
		if round%2 == 1 { // and again while it starts
			l.spawn()
			time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
			l.kill()
		}
		ready := l.start()
		t.Logf("kill %d: %d acknowledged so far, ready again after %v", round+1, before, ready.Round(time.Millisecond))
	}
	time.Sleep(500 * time.Millisecond)
	l.finish()
	if cut := l.replies[""]; cut < rounds {
		t.Errorf("only %d messages were cut off by %d kills", cut, rounds)
	}
}

// TestTerminate stops the daemon in order in the middle of a load, with a next
// hop that is far behind: it ends in time and with 0, every client is told 421
// between two commands, and what it acknowledged is there when it runs again
// and arrives once.
func TestTerminate(t *testing.T) {
	l := newLoad(t, rigOptions{})
	idle := l.connect("inbound")
	begun := l.connect("inbound")
	begun.mustSay(t, "MAIL FROM:<begun@example.org>")
	sending := l.connect("smarthost")
	eml := loadMail("sending", rigMailbox, "customer0@example.net", 100<<10)
	last := l.note("sending", eml, 0)
	last.uncased = true
	for _, line := range []string{"MAIL FROM:<" + rigMailbox + ">", "RCPT TO:<customer0@example.net>", "DATA"} {
		sending.mustSay(t, line)
	}
	body := &dotWriter{w: sending.w, atStart: true}
	body.Write(eml[:len(eml)/2])
	l.to.pause.Store(int64(700 * time.Millisecond))
	l.run(func(random *rand.Rand) int { return 1 + random.IntN(100<<10) })
	time.Sleep(2 * time.Second)
	before := l.acked()
	// The client in mid body goes on once others were told of the stop.
	told := make(chan string, 1)
	go func() {
		reply, _ := idle.reply()
		body.Write(eml[len(eml)/2:])
		answer, _ := sending.say(".")
		if id := acceptedID(answer); id != "" {
			l.ack(last, id)
		}
		then, _ := sending.reply()
		told <- reply + "|" + answer + "|" + then
	}()
	code, took := l.stop()
	t.Logf("%d acknowledged when SIGTERM came; serve ended with %d after %v", before, code, took.Round(time.Millisecond))
	if code != 0 || took > grace {
		t.Errorf("serve ended with %d after %v", code, took)
	}
	if said := strings.Split(<-told, "|"); !strings.HasPrefix(said[0], "421 ") || !strings.HasPrefix(said[1], "250 2.0.0 accepted ") || !strings.HasPrefix(said[2], "421 ") {
		t.Errorf("an idle client was told %q; one in mid body %q, then %q", said[0], said[1], said[2])
	}
	if reply, err := begun.reply(); err != nil || !strings.HasPrefix(reply, "421 ") {
		t.Errorf("a client after MAIL was told %q, %v", reply, err)
	}
	if list := l.complaints(); len(list) > 0 {
		t.Errorf("the daemon complained %d times, first: %s", len(list), list[0])
	}
	counts := l.verify()
	if counts.Messages < before {
		t.Errorf("%d messages are archived, %d were acknowledged", counts.Messages, before)
	}
	if counts.Queued < 50 {
		t.Errorf("only %d deliveries were left: the next hop was not behind", counts.Queued)
	}
	t.Logf("%d deliveries left", counts.Queued)
	l.to.pause.Store(0)
	l.start()
	time.Sleep(500 * time.Millisecond)
	l.finish()
	l.to.once(t)
	same(t, "cut off", l.replies[""], 0)
}

// connect greets a listener.
func (l *load) connect(listener string) *wireClient {
	l.t.Helper()
	c, err := dialWire(l.at(listener), false)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.conn.Close() })
	return c
}

// TestSecondServe: two daemons on one store would destroy it; the second says
// so and leaves.
func TestSecondServe(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.start()
	began := time.Now()
	out, err := r.command("serve").CombinedOutput()
	took := time.Since(began)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitFailed || took > 5*time.Second ||
		!strings.Contains(string(out), "in use by another process") || !strings.Contains(string(out), "hint: another casegate runs on this data_dir") {
		t.Errorf("after %v: %v\n%s", took, err, out)
	}
	t.Logf("after %v: %s", took.Round(time.Millisecond), out)
	if list := rows[console.Case](r, "/cases", url.Values{}); len(list) != 0 {
		t.Errorf("the first daemon has cases: %v", list)
	}
}

// TestServeRefusesVolatile: mail accepted on a tmpfs would be lost with the next reboot.
func TestServeRefusesVolatile(t *testing.T) {
	const shm = "/dev/shm"
	if kind, err := volatile(shm); err != nil || kind == "" {
		t.Skipf("%s is not a file system in memory (%q, %v)", shm, kind, err)
	}
	r := newRig(t, rigOptions{data: shm + "/casegate-e2e-volatile/data", strict: true})
	out, err := r.command("serve").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitConfig || !strings.Contains(string(out), "which a reboot empties") {
		t.Errorf("%v\n%s", err, out)
	}
	if err := syscall.Access(shm+"/casegate-e2e-volatile", 0); err == nil {
		t.Error("it has made the folder it refused")
	}
}
