package main

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway/console"
	"github.com/casegate/casegate/store"
)

// quiet waits until nothing moves at any of these daemons and nobody else is
// busy, or too many mails have gone round.
func quiet(t *testing.T, most int, busy func() bool, gates ...*rig) {
	t.Helper()
	still, before := 0, -1
	for end := time.Now().Add(60 * time.Second); still < 8; time.Sleep(50 * time.Millisecond) {
		moving, all := busy(), 0
		for _, g := range gates {
			list := rows[store.Delivery](g, "/queue", url.Values{})
			all += len(list)
			for _, d := range list {
				moving = moving || d.State == store.Queued
			}
		}
		if still++; moving || all != before {
			still = 0
		}
		if before = all; all > most || time.Now().After(end) {
			t.Fatalf("it does not end: %d deliveries", all)
		}
	}
}

// reroute has the daemon take other routes.
func (r *rig) reroute(inbound, outbound string) {
	r.t.Helper()
	text, err := os.ReadFile(r.config)
	if err == nil {
		text = regexp.MustCompile(`next_hop: .*}\n`).ReplaceAllFunc(text, func() func([]byte) []byte {
			hops := []string{inbound, outbound}
			return func([]byte) []byte {
				line := fmt.Sprintf("next_hop: %q}\n", hops[0])
				hops = hops[1:]
				return []byte(line)
			}
		}())
		err = os.WriteFile(r.config, text, 0o600)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.reload()
}

// reload has the daemon read its configuration anew, for the first time.
func (r *rig) reload() {
	r.t.Helper()
	r.cmd.Process.Signal(syscall.SIGHUP)
	for end := time.Now().Add(10 * time.Second); !r.said(`"msg":"reloaded"`); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatal("nothing came of SIGHUP")
		}
	}
}

// said reports whether a line near the end of the log has a text.
func (r *rig) said(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.tail, func(line string) bool { return strings.Contains(line, text) })
}

// habit is how a responder answers.
type habit struct {
	automatic bool   // says Auto-Submitted: auto-replied
	threads   bool   // says In-Reply-To and References
	null      bool   // its own MAIL FROM is null
	to        string // whom: From, Reply-To or MAIL FROM; From where there is none
}

// responder answers every mail that a next hop gets, at once, whatever it is.
type responder struct {
	t        *testing.T
	hop      *nextHop
	r        *rig
	listener string               // by which its answers go
	habit    func(arrived) *habit // for a mail; nil: it is not answered

	mu      sync.Mutex
	working bool
	answers map[string]int // by who answered
	refused []string
}

// respond answers until the test ends.
func respond(t *testing.T, hop *nextHop, r *rig, listener string, how func(arrived) *habit) *responder {
	a := &responder{t: t, hop: hop, r: r, listener: listener, habit: how, answers: map[string]int{}}
	stop, done, busy := make(chan struct{}), make(chan struct{}), make(chan struct{})
	close(busy)
	go func() {
		defer close(done)
		for {
			for _, m := range a.next() {
				a.answer(m)
			}
			wake := hop.more
			if a.busy() {
				wake = busy
			}
			select {
			case <-stop:
				return
			case <-wake:
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
	return a
}

// next takes what came; while there is something the responder is busy.
func (a *responder) next() []arrived {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hop.mu.Lock()
	defer a.hop.mu.Unlock()
	got := a.hop.got
	a.hop.got, a.working = nil, len(got) > 0
	return got
}

func (a *responder) busy() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.working || a.hop.left() > 0
}

func (a *responder) answer(m arrived) {
	self := m.to[0]
	h := a.habit(m)
	if h == nil {
		return
	}
	to := map[string]string{"From": bareAddress(m.get("From")), "Reply-To": bareAddress(m.get("Reply-To")), "MAIL FROM": m.from}[h.to]
	if to == "" {
		to = bareAddress(m.get("From"))
	}
	a.mu.Lock()
	a.answers[self]++
	n := a.answers[self]
	a.mu.Unlock()
	head := fmt.Sprintf("From: %s\nTo: %s\nSubject: Re: %s\nMessage-ID: <%d.%s>\nDate: Sun, 22 Nov 2026 19:00:00 +0000\n", self, to, m.get("Subject"), n, self)
	if h.automatic {
		head += "Auto-Submitted: auto-replied\n"
	}
	if h.threads {
		head += fmt.Sprintf("In-Reply-To: %s\nReferences: %s %s\n", m.get("Message-ID"), m.get("References"), m.get("Message-ID"))
	}
	from := self
	if h.null {
		from = ""
	}
	if reply := a.r.hand(a.t, a.listener, from, to, letter(fmt.Sprintf("%s\nI have your mail, %d.\n", head, n))); !strings.HasPrefix(reply, "250") {
		a.mu.Lock()
		a.refused = append(a.refused, reply)
		a.mu.Unlock()
	}
}

// hand hands a mail in, over a connection of its own.
func (r *rig) hand(t *testing.T, listener, from, to string, eml []byte) (reply string) {
	t.Helper()
	c, err := dialWire(r.at(listener), false)
	if err == nil {
		defer c.conn.Close()
		reply, err = c.send(from, []string{to}, writes(eml))
	}
	if err != nil {
		t.Errorf("%s: %v", listener, err)
	}
	return reply
}

func bareAddress(field string) string {
	if _, in, ok := strings.Cut(field, "<"); ok {
		field, _, _ = strings.Cut(in, ">")
	}
	return strings.TrimSpace(field)
}

// everyHabit is each way to answer.
func everyHabit() (list []habit) {
	for n := range 24 {
		list = append(list, habit{n&1 != 0, n&2 != 0, n&4 != 0, []string{"From", "Reply-To", "MAIL FROM"}[n/8]})
	}
	return list
}

// customerOf is the customer who has a habit, or meets it.
func customerOf(n int) string { return fmt.Sprintf("customer%d@example.net", n) }

// TestCustomersRespond: what customers' responders answer ends, however they do
// it. Only what looks like a new letter of a person is acknowledged anew, five
// times an hour.
func TestCustomersRespond(t *testing.T) {
	world := startHop(t)
	r := newRig(t, rigOptions{outbound: world.url, more: "ack: on\n"})
	r.start()
	habits, cases, acks := map[string]*habit{}, 0, 0
	want := map[string]int{}
	for n, h := range everyHabit() {
		who := customerOf(n)
		habits[who], want[who] = &h, 1
		if again := !h.automatic && !h.null && !h.threads && h.to != "Reply-To"; again {
			want[who] = 5
			cases++
		}
		cases += want[who]
		acks += want[who]
	}
	a := respond(t, world, r, "inbound", func(m arrived) *habit { return habits[m.to[0]] })
	for who := range habits {
		if reply := r.hand(t, "inbound", who, rigMailbox, simpleMail("first of "+who, who, rigMailbox)); !strings.HasPrefix(reply, "250") {
			t.Fatal(reply)
		}
	}
	quiet(t, 300, a.busy, r)
	same(t, "answers", a.answers, want)
	same(t, "refused", len(a.refused), 0)
	same(t, "cases", len(rows[console.Case](r, "/cases", url.Values{})), cases)
	same(t, "acknowledgements", len(rows[store.Delivery](r, "/queue", url.Values{})), acks)
}

// TestDeskResponds: a responder at the desk, which answers what customers write,
// and in the agent's name even delivery reports, to an address that nobody takes
// mail for.
func TestDeskResponds(t *testing.T) {
	world, desk := startHop(t), startHop(t)
	r := newRig(t, rigOptions{
		inbound: desk.url, outbound: world.url, more: "ack: on\n",
		listeners: "  - {name: kim, role: outbound, protocol: smtp, address: 127.0.0.1:0, peers: [127.0.0.0/8], send_as: [311@city.example, kim@city.example]}\n",
		routes:    fmt.Sprintf("  - {role: outbound, recipient_domain: city.example, next_hop: %q}\n", desk.url),
	})
	r.start()
	meets := map[string]*habit{}
	for n, h := range everyHabit() {
		meets[customerOf(n)], meets[lostOf(n)] = &h, &h
	}
	a := respond(t, desk, r, "kim", func(m arrived) *habit {
		if h := meets[bareAddress(m.get("From"))]; h != nil {
			return h
		}
		for who, h := range meets {
			if bytes.Contains(m.body, []byte("rfc822; "+who+"\r\n")) {
				return h // the report about mail to him
			}
		}
		t.Errorf("unexpected at the desk: %s", m.raw)
		return nil
	})
	for n := range everyHabit() {
		who, lost := customerOf(n), lostOf(n)
		if reply := r.hand(t, "inbound", who, rigMailbox, simpleMail("first of "+who, who, rigMailbox)); !strings.HasPrefix(reply, "250") {
			t.Fatal(reply)
		}
		if reply := r.hand(t, "kim", "kim@city.example", lost, simpleMail("to "+lost, "kim@city.example", lost)); !strings.HasPrefix(reply, "250") {
			t.Fatal(reply)
		}
	}
	quiet(t, 300, a.busy, r)
	n := len(everyHabit())
	same(t, "answers", a.answers, map[string]int{rigMailbox: n, "kim@city.example": n})
	same(t, "answers to reports refused", len(a.refused), n)
	for _, reply := range a.refused {
		same(t, "reply", reply, "550 5.1.1 nobody reads answers to this gateway's delivery reports")
	}
	same(t, "cases", len(rows[console.Case](r, "/cases", url.Values{})), n)
	same(t, "at the customers, acknowledgements and answers", world.left(), 2*n)
}

// lostOf is an address that every next hop refuses.
func lostOf(n int) string { return fmt.Sprintf("lost%d%s", n, refusedDomain) }

// TestTwoDaemons: two gateways whose routes lead to each other end, whichever
// way the routes lead, and so do those that are each other's customers.
func TestTwoDaemons(t *testing.T) {
	for _, c := range []struct{ name, inbound, outbound string }{
		{"each to its like", "inbound", "smarthost"},
		{"crossed", "smarthost", "inbound"},
		{"all into what takes mail in", "inbound", "inbound"},
		{"all into smarthosts", "smarthost", "smarthost"},
	} {
		t.Run(c.name, func(t *testing.T) {
			one := newRig(t, rigOptions{hostname: "one.example", more: "ack: on\n"})
			one.start()
			two := newRig(t, rigOptions{hostname: "two.example", more: "ack: on\n", inbound: "smtp://" + one.at(c.inbound), outbound: "smtp://" + one.at(c.outbound)})
			two.start()
			one.reroute("smtp://"+two.at(c.inbound), "smtp://"+two.at(c.outbound))
			for n, from := range []struct{ listener, from, to string }{
				{"inbound", "ana@x.example", rigMailbox}, {"smarthost", rigMailbox, "ana@x.example"},
			} {
				for _, r := range []*rig{one, two} {
					eml := simpleMail(fmt.Sprintf("round-%d-%p", n, r), from.from, from.to)
					if reply := r.hand(t, from.listener, from.from, from.to, eml); !strings.HasPrefix(reply, "250") {
						t.Fatal(reply)
					}
				}
			}
			quiet(t, 300, func() bool { return false }, one, two)
			for _, r := range []*rig{one, two} {
				if n := len(rows[store.Delivery](r, "/queue", url.Values{})); n > 12 {
					t.Errorf("%d deliveries", n)
				}
				if n := len(rows[console.Case](r, "/cases", url.Values{})); n > 2 {
					t.Errorf("%d cases", n)
				}
				r.verify()
			}
		})
	}
}

// TestCorrespondents: two gateways whose mailboxes write to each other, both
// with acknowledgements on. Each letter is acknowledged once, and nothing else
// happens.
func TestCorrespondents(t *testing.T) {
	one := newRig(t, rigOptions{hostname: "one.example", mailbox: "311@one.example", more: "ack: on\n"})
	one.start()
	two := newRig(t, rigOptions{hostname: "two.example", mailbox: "311@two.example", more: "ack: on\n", outbound: "smtp://" + one.at("inbound")})
	two.start()
	one.reroute("none", "smtp://"+two.at("inbound"))
	for r, letter := range map[*rig][2]string{one: {"311@one.example", "311@two.example"}, two: {"311@two.example", "311@one.example"}} {
		if reply := r.hand(t, "smarthost", letter[0], letter[1], simpleMail("letter of "+letter[0], letter[0], letter[1])); !strings.HasPrefix(reply, "250") {
			t.Fatal(reply)
		}
	}
	quiet(t, 300, func() bool { return false }, one, two)
	for r, letters := range map[*rig][2]string{one: {"incoming letter of 311@two.example", "outgoing letter of 311@one.example"}, two: {"incoming letter of 311@one.example", "outgoing letter of 311@two.example"}} {
		var list []string
		for _, m := range rows[console.MessageRow](r, "/messages", url.Values{}) {
			list = append(list, fmt.Sprintf("%s %s", m.Direction, m.Subject))
		}
		slices.Sort(list)
		same(t, "messages", list, []string{
			"incoming We have your message: case 1", letters[0], "outgoing We have your message: case 1", letters[1],
		})
	}
}
