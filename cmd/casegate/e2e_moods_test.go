package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/gateway/testbed"
	"github.com/casegate/casegate/store"
)

// TestMoods sends by the daemon to next hops that have what a next hop can
// have. Each mail arrives once, or the attempt that leaves that in doubt says
// so; who submitted it hears what the next hop said.
func TestMoods(t *testing.T) {
	office := startHop(t) // where the reports go
	authority := testbed.NewAuthority(t)
	pinned, verified := authority.Issue(nil), authority.Issue(nil)
	hops := map[string]*moody{
		"slow":     newMoody(t, nil, mood{pause: 500 * time.Millisecond}),
		"torn":     newMoody(t, nil, mood{hangsUp: 1}),
		"picky":    newMoody(t, nil, mood{refuses: "nobody@"}),
		"pinned":   newMoody(t, pinned, mood{}),
		"verified": newMoody(t, verified, mood{}),
		"stripped": newMoody(t, pinned, mood{}),
		"gone":     newMoody(t, nil, mood{}),
		"cut":      newMoody(t, nil, mood{cutsOff: 1}),
	}
	secure := map[string]string{
		"pinned":   "tls: pin, tls_pin: [" + pinned.Pin + "]",
		"verified": fmt.Sprintf("tls: verify, tls_ca: %q", authority.File),
		"stripped": "tls: require",
	}
	g := newGate(t, "none", office.url)
	var routes strings.Builder
	for name, hop := range hops {
		route := fmt.Sprintf("  - {role: outbound, recipient_domain: %s.example, next_hop: %q", name, hop.url())
		if secure[name] != "" {
			route += ", " + secure[name]
		}
		routes.WriteString(route + "}\n")
	}
	g.edit("routes:\n", "routes:\n"+routes.String(), "log: {", "retry: {schedule: [1s]}\nlog: {")
	g.start()

	slow := g.submit(t, "slow", "ana@slow.example")
	t.Run("drops after the dot", func(t *testing.T) {
		g.submit(t, "torn", "ana@torn.example")
		d := g.went(t, "ana@torn.example", store.Delivered)
		if len(d.Attempts) != 2 || !d.Attempts[0].Ambiguous || d.Attempts[1].Ambiguous || hops["torn"].count("torn") != 2 {
			t.Errorf("at the next hop %d times: %+v", hops["torn"].count("torn"), d.Attempts)
		}
		shown := string(g.run("queue", "show", d.ID.String()))
		if strings.Count(shown, "(ambiguous: the next hop may have taken it): 4.4.2 no reply to the final dot, it may have been taken: the next hop hung up") != 1 {
			t.Errorf("queue show:\n%s", shown)
		}
	})
	t.Run("drops before the dot", func(t *testing.T) {
		g.submitLong(t, "cut", 4<<20, "ana@cut.example") // more than a connection holds
		d := g.went(t, "ana@cut.example", store.Delivered)
		if len(d.Attempts) != 2 || d.Attempts[0].Ambiguous || d.Attempts[1].Ambiguous || hops["cut"].count("cut") != 1 {
			t.Errorf("at the next hop %d times: %+v", hops["cut"].count("cut"), d.Attempts)
		}
	})
	t.Run("5xx for one of three", func(t *testing.T) {
		g.submit(t, "picky", "ana@picky.example", "nobody@picky.example", "ben@picky.example")
		d := g.went(t, "nobody@picky.example", store.Failed)
		if len(d.Attempts) != 1 || hops["picky"].count("picky") != 1 || hops["picky"].recipients("picky") != "ana@picky.example ben@picky.example" {
			t.Errorf("%+v\nat the next hop for %s", d, hops["picky"].recipients("picky"))
		}
		told := office.take(t, "Your message could not be delivered")
		same(t, "MAIL FROM and RCPT TO", append([]string{told.from}, told.to...), []string{"", "kim@city.example"})
		g.reported(t, told, message.ReportedRecipient{
			FinalRecipient: "nobody@picky.example", OriginalRecipient: "nobody@picky.example", Action: "failed", Status: "5.1.1",
			DiagnosticCode: "smtp; 550 5.1.1 no such user", RemoteMTA: "[127.0.0.1]",
		})
	})
	t.Run("changes its certificate, pinned", func(t *testing.T) {
		hop, renewed := hops["pinned"], authority.Issue(nil)
		g.submit(t, "pin-1", "ana@pinned.example")
		g.went(t, "ana@pinned.example", store.Delivered)
		hop.restart(renewed)
		g.submit(t, "pin-2", "ben@pinned.example")
		d := g.went(t, "ben@pinned.example", "")
		if d.State != store.Queued || hop.count("pin-2") != 0 || !strings.Contains(d.Attempts[0].Reply, "its key is "+renewed.Pin+", which is not pinned") {
			t.Errorf("%+v", d)
		}
		g.reloadWith(pinned.Pin, renewed.Pin)
		g.run("queue", "flush", "--address", "ben@pinned.example")
		d = g.went(t, "ben@pinned.example", store.Delivered)
		if last := d.Attempts[len(d.Attempts)-1]; hop.count("pin-2") != 1 || last.TLS == nil || last.TLS.Pin != renewed.Pin || last.TLS.Trust != "pinned" {
			t.Errorf("%d times, %+v", hop.count("pin-2"), d)
		}
	})
	t.Run("changes its certificate, verified", func(t *testing.T) {
		hop := hops["verified"]
		g.submit(t, "verify-1", "ana@verified.example")
		g.went(t, "ana@verified.example", store.Delivered)
		hop.restart(testbed.NewAuthority(t).Issue(nil)) // of another authority
		g.submit(t, "verify-2", "ben@verified.example")
		d := g.went(t, "ben@verified.example", "")
		if d.State != store.Queued || hop.count("verify-2") != 0 || !strings.Contains(d.Attempts[0].Reply, "certificate is not the one expected") {
			t.Errorf("%+v", d)
		}
		hop.restart(authority.Issue(nil)) // the same authority's: nobody need do anything
		g.run("queue", "flush", "--address", "ben@verified.example")
		d = g.went(t, "ben@verified.example", store.Delivered)
		if last := d.Attempts[len(d.Attempts)-1]; hop.count("verify-2") != 1 || last.TLS == nil || last.TLS.Trust != "verified" {
			t.Errorf("%d times, %+v", hop.count("verify-2"), d)
		}
	})
	t.Run("strips STARTTLS", func(t *testing.T) {
		hop := hops["stripped"]
		hop.restart(nil)
		g.submit(t, "stripped", "ana@stripped.example")
		d := g.went(t, "ana@stripped.example", "")
		if d.State != store.Queued || hop.count("stripped") != 0 || d.Attempts[0].Reply != "4.7.4 STARTTLS is not offered, and tls is require" {
			t.Errorf("%+v", d)
		}
		hop.restart(pinned)
		g.run("queue", "flush", "--address", "ana@stripped.example")
		if g.went(t, "ana@stripped.example", store.Delivered); hop.count("stripped") != 1 {
			t.Errorf("%d times", hop.count("stripped"))
		}
	})
	t.Run("disappears, and comes back", func(t *testing.T) {
		hop := hops["gone"]
		hop.stop()
		g.submit(t, "gone", "ana@gone.example")
		if d := g.went(t, "ana@gone.example", ""); d.State != store.Queued || !strings.HasPrefix(d.Attempts[0].Reply, "4.4.1 connecting: ") {
			t.Errorf("%+v", d)
		}
		hop.start(nil)
		g.run("queue", "flush", "--address", "ana@gone.example") // by itself it goes some seconds later
		d := g.went(t, "ana@gone.example", store.Delivered)
		for _, a := range d.Attempts {
			if a.Ambiguous || hop.count("gone") != 1 {
				t.Errorf("%d times: %+v", hop.count("gone"), d)
			}
		}
	})
	t.Run("accepts slowly", func(t *testing.T) {
		d := g.went(t, "ana@slow.example", store.Delivered)
		if d.Message.String() != slow || len(d.Attempts) != 1 || d.Attempts[0].Ambiguous || hops["slow"].count("slow") != 1 {
			t.Errorf("%d times: %+v", hops["slow"].count("slow"), d)
		}
	})
	g.settle()
	same(t, "further reports", office.left(), 0)
}

// TestBusyForADay: a next hop that answers 451 for a day gets the mail once, by
// the retry table; its submitter hears after four hours that it takes long, and
// nothing more.
func TestBusyForADay(t *testing.T) {
	s := newStage(t, `
routes:
  - {role: outbound, sender: <>, next_hop: DESK}
  - {role: outbound, next_hop: WORLD}
`)
	s.world.defers = 1000
	begin := s.clock.now()
	at := s.daemon.listeners[slices.IndexFunc(s.cfg.Listeners, func(l Listener) bool { return l.Name == "smarthost" })].Addr().String()
	c, err := dialWire(at, false)
	if err != nil {
		t.Fatal(err)
	}
	defer c.conn.Close()
	if reply, err := c.send(rigMailbox, []string{"ana@x.example"}, writes(simpleMail("patience", rigMailbox, "ana@x.example"))); err != nil || acceptedID(reply) == "" {
		t.Fatal(reply, err)
	}
	// passes lets time pass until the delivery is due, and awaits its attempt.
	passes := func(tries int) (d store.Delivery) {
		s.daemon.relay.Wake()
		for end := time.Now().Add(10 * time.Second); len(d.Attempts) < tries; time.Sleep(5 * time.Millisecond) {
			var list []store.Delivery
			if err := s.view(func(r store.Reader) (err error) {
				list, _, err = r.Deliveries(store.DeliveryFilter{Address: "ana@x.example"}, store.Page{})
				return err
			}); err != nil || len(list) != 1 || time.Now().After(end) {
				t.Fatalf("attempt %d: %+v, %v", tries, list, err)
			}
			d = list[0]
		}
		s.clock.ahead.Add(int64(d.Due.Sub(s.clock.now())))
		return d
	}
	d := passes(1)
	for n := 2; d.State == store.Queued; n++ {
		if s.clock.now().Sub(begin) > 24*time.Hour {
			s.world.mu.Lock()
			s.world.defers = 0
			s.world.mu.Unlock()
		}
		d = passes(n)
	}
	last := d.Attempts[len(d.Attempts)-1]
	if took := last.At.Sub(begin); d.State != store.Delivered || took < 24*time.Hour || took > 29*time.Hour || len(d.Attempts) > 20 {
		t.Errorf("%s after %v and %d attempts", d.State, took, len(d.Attempts))
	}
	for _, a := range d.Attempts[:len(d.Attempts)-1] {
		if a.Ambiguous || a.Reply != "451 4.3.0 come again" {
			t.Errorf("%+v", a)
		}
	}
	s.world.take(t, "patience")
	told := s.desk.take(t, "Your message is delayed")
	same(t, "RCPT TO of the report", told.to, []string{rigMailbox})
	same(t, "mail besides", s.world.left()+s.desk.left(), 0)
	t.Logf("%d attempts in %v", len(d.Attempts), last.At.Sub(begin).Round(time.Minute))
}

// submit hands kim's mail to the listener desk, with an envelope id and the
// original recipients (RFC 3461), and returns its id.
func (g *gate) submit(t *testing.T, subject string, to ...string) string {
	t.Helper()
	return g.submitLong(t, subject, 0, to...)
}

// submitLong is submit for a mail with so many octets more.
func (g *gate) submitLong(t *testing.T, subject string, more int, to ...string) string {
	t.Helper()
	c, err := dialWire(g.at["desk"], false)
	if err != nil {
		t.Fatal(err)
	}
	defer c.conn.Close()
	lines := []string{"MAIL FROM:<kim@city.example> RET=HDRS ENVID=of-" + subject}
	for _, one := range to {
		lines = append(lines, "RCPT TO:<"+one+"> ORCPT=rfc822;"+one)
	}
	for _, line := range append(lines, "DATA") {
		c.mustSay(t, line)
	}
	eml := append(simpleMail(subject, "kim@city.example", strings.Join(to, ", ")), bytes.Repeat([]byte("and so on\r\n"), more/11)...)
	(&dotWriter{w: c.w, atStart: true}).Write(eml)
	reply, err := c.say(".")
	if err != nil || acceptedID(reply) == "" {
		t.Fatalf("not taken: %s %v", reply, err)
	}
	return acceptedID(reply)
}

// went waits until the delivery to an address is in a state, or has at least
// been tried if that is empty.
func (g *gate) went(t *testing.T, to string, state store.DeliveryState) store.Delivery {
	t.Helper()
	var list []store.Delivery
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		g.json(&list, "queue", "list", "--address", to)
		if len(list) == 1 && len(list[0].Attempts) > 0 && (state == "" || list[0].State == state) {
			return list[0]
		}
	}
	t.Fatalf("mail for %s is not %s: %+v", to, state, list)
	return store.Delivery{}
}

// reported reads a report as the submitter's software does.
func (g *gate) reported(t *testing.T, m arrived, want ...message.ReportedRecipient) {
	t.Helper()
	header, body, _ := bytes.Cut(m.raw, []byte("\r\n\r\n"))
	report, err := message.ReadReport(message.Parse(append(header, "\r\n\r\n"...)), bytes.NewReader(body))
	if err != nil {
		t.Fatalf("%v:\n%s", err, m.raw)
	}
	same(t, "the report's recipients", report.Recipients, want)
	for _, field := range []string{"\r\nOriginal-Envelope-Id: of-picky\r\n", "\r\nContent-Type: text/rfc822-headers\r\n", "\r\nAuto-Submitted: auto-replied\r\n"} {
		if !bytes.Contains(m.raw, []byte(field)) || report.Returned == nil {
			t.Errorf("it lacks %q:\n%s", field, m.raw)
		}
	}
}

// mood is how a next hop is; the zero mood takes all mail at once.
type mood struct {
	pause   time.Duration // before each reply of its own
	refuses string        // recipients that begin so: 550
	hangsUp int           // so many mails are taken whole, and nothing said
	cutsOff int           // so many mails are cut off in mid body
}

// moody is a real SMTP server that can go away and come back on its port.
type moody struct {
	t       *testing.T
	address string
	server  *smtp.Server
	done    chan struct{}

	mu    sync.Mutex
	mood  mood
	taken map[string]int    // by Subject
	to    map[string]string // its recipients
}

func newMoody(t *testing.T, c *testbed.Certificate, m mood) *moody {
	h := &moody{t: t, address: "127.0.0.1:0", mood: m, taken: map[string]int{}, to: map[string]string{}}
	h.start(c)
	t.Cleanup(h.stop)
	return h
}

func (h *moody) url() string { return "smtp://" + h.address }

// start serves on the port it had; STARTTLS is offered with a certificate only.
func (h *moody) start(c *testbed.Certificate) {
	h.t.Helper()
	ln, err := net.Listen("tcp", h.address)
	if err != nil {
		h.t.Fatal(err)
	}
	server := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		time.Sleep(h.mood.pause)
		return &moodySession{moody: h, conn: c}, nil
	}))
	server.Domain, server.ErrorLog = "moody.example", log.New(io.Discard, "", 0)
	if c != nil {
		server.TLSConfig = c.Server()
	}
	done := make(chan struct{})
	go func() { server.Serve(ln); close(done) }()
	h.address, h.server, h.done = ln.Addr().String(), server, done
}

func (h *moody) stop() {
	h.server.Close()
	<-h.done
}

func (h *moody) restart(c *testbed.Certificate) {
	h.t.Helper()
	h.stop()
	h.start(c)
}

func (h *moody) count(subject string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.taken[subject]
}

func (h *moody) recipients(subject string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.to[subject]
}

type moodySession struct {
	*moody
	conn *smtp.Conn
	rcpt []string
}

func (s *moodySession) Reset()        { s.rcpt = nil }
func (s *moodySession) Logout() error { return nil }

func (s *moodySession) Mail(string, *smtp.MailOptions) error {
	time.Sleep(s.mood.pause)
	return nil
}

func (s *moodySession) Rcpt(to string, _ *smtp.RcptOptions) error {
	time.Sleep(s.mood.pause)
	if s.mood.refuses != "" && strings.HasPrefix(to, s.mood.refuses) {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	}
	s.rcpt = append(s.rcpt, to)
	return nil
}

func (s *moodySession) Data(r io.Reader) error {
	s.mu.Lock()
	cut := s.mood.cutsOff > 0
	s.mood.cutsOff--
	s.mu.Unlock()
	if cut {
		r.Read(make([]byte, 10))
		s.conn.Close()
		return io.ErrUnexpectedEOF
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	time.Sleep(s.mood.pause)
	s.mu.Lock()
	defer s.mu.Unlock()
	subject := parseEML(raw).get("Subject")
	s.taken[subject]++
	s.to[subject] = strings.Join(s.rcpt, " ")
	if s.mood.hangsUp--; s.mood.hangsUp >= 0 {
		s.conn.Close()
	}
	return nil
}
