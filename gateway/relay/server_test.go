package relay

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"go.uber.org/goleak"

	"github.com/casegate/casegate/gateway/testbed"
	"github.com/casegate/casegate/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sink is a real next hop on go-smtp: it keeps what it is given, by recipient.
type sink struct {
	nextHop string
	srv     *smtp.Server
	mu      sync.Mutex
	mails   map[string][][]byte
	from    []string
	count   int
	keep    bool
	mailed  []smtp.MailOptions          // of each MAIL
	asked   map[string]smtp.RcptOptions // by recipient
	rcpt    func(to string) error       // instead of what Rcpt says
	data    func()                      // before the answer to a message
	auth    map[string]func() sasl.Server
}

// newSink serves SMTP or LMTP on loopback or a UNIX socket.
func newSink(t testing.TB, scheme string, edit func(*smtp.Server)) *sink {
	s := &sink{mails: map[string][][]byte{}, keep: true}
	network, address := "tcp", "127.0.0.1:0"
	scheme, unix := strings.CutSuffix(scheme, "+unix")
	if unix {
		network, address = "unix", filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	s.serve(t, l, scheme, edit)
	return s
}

// newPipeSink serves SMTP over pipes, for virtual time.
func newPipeSink(t testing.TB) (*sink, dialer) {
	s, l := &sink{mails: map[string][][]byte{}, keep: true}, make(pipes)
	s.serve(t, l, "smtp", nil)
	return s, l.Dial
}

type dialer = func(context.Context, string, string) (net.Conn, error)

// pipes is a listener for those who dial it.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 2526} }

func (p pipes) Dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	p <- server
	return client, nil
}

func (s *sink) serve(t testing.TB, l net.Listener, scheme string, edit func(*smtp.Server)) {
	srv := smtp.NewServer(s)
	s.srv = srv
	srv.Domain, srv.LMTP, srv.EnableSMTPUTF8, srv.EnableDSN = "mx.example", strings.HasPrefix(scheme, "lmtp"), true, true
	srv.ErrorLog = log.New(io.Discard, "", 0)
	if edit != nil {
		edit(srv)
	}
	if scheme == "smtps" {
		l = tls.NewListener(l, srv.TLSConfig)
	}
	done := make(chan struct{})
	go func() { srv.Serve(l); close(done) }()
	t.Cleanup(func() { srv.Close(); <-done })
	s.nextHop = scheme + "://" + l.Addr().String()
}

func (s *sink) NewSession(*smtp.Conn) (smtp.Session, error) {
	if s.auth != nil {
		return &authSession{sinkSession: &sinkSession{sink: s}}, nil
	}
	return &sinkSession{sink: s}, nil
}

func (s *sink) got(to string) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mails[to]
}

// authSession takes mail from those who have signed in.
type authSession struct {
	*sinkSession
	in bool
}

func (s *authSession) AuthMechanisms() []string { return slices.Sorted(maps.Keys(s.auth)) }

func (s *authSession) Auth(mech string) (sasl.Server, error) {
	return &noting{s.auth[mech](), s}, nil
}

// noting notes that somebody has signed in.
type noting struct {
	sasl.Server
	s *authSession
}

func (n *noting) Next(response []byte) (challenge []byte, done bool, err error) {
	challenge, done, err = n.Server.Next(response)
	n.s.in = n.s.in || done && err == nil
	return challenge, done, err
}

func (s *authSession) Mail(from string, o *smtp.MailOptions) error {
	if !s.in {
		return smtp.ErrAuthRequired
	}
	return s.sinkSession.Mail(from, o)
}

type sinkSession struct {
	*sink
	to []string
}

func (s *sinkSession) Reset()        { s.to = nil }
func (s *sinkSession) Logout() error { return nil }

func (s *sinkSession) Mail(from string, o *smtp.MailOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from, s.mailed = append(s.from, from), append(s.mailed, *o)
	return nil
}

func (s *sinkSession) Rcpt(to string, o *smtp.RcptOptions) error {
	s.mu.Lock()
	if s.asked == nil {
		s.asked = map[string]smtp.RcptOptions{}
	}
	s.asked[to] = *o
	s.mu.Unlock()
	switch {
	case s.rcpt != nil:
		if err := s.rcpt(to); err != nil {
			return err
		}
	case strings.HasPrefix(to, "unknown"):
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user " + to}
	case strings.HasPrefix(to, "busy"):
		return &smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 2, 1}, Message: "busy"}
	}
	s.to = append(s.to, to)
	return nil
}

func (s *sinkSession) Data(r io.Reader) error { return s.LMTPData(r, nil) }

func (s *sinkSession) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	if !s.keep {
		_, err := io.Copy(io.Discard, r)
		s.mu.Lock()
		s.count++
		s.mu.Unlock()
		return err
	}
	mail, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if s.data != nil {
		s.data()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, to := range s.to {
		if status != nil && strings.HasPrefix(to, "full") {
			status.SetStatus(to, &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 2, 2}, Message: "full"})
			continue
		}
		s.mails[to] = append(s.mails[to], mail)
		if status != nil {
			status.SetStatus(to, nil)
		}
	}
	return nil
}

// bigMail is about size octets of lines of all lengths, many with dots first.
func bigMail(size int) string {
	var b strings.Builder
	b.WriteString("From: desk@city.example\r\nSubject: =?utf-8?q?stra=C3=9Fe?=\r\n\r\n")
	for b.Len() < size {
		b.WriteString(strings.Repeat(".", rand.IntN(3)))
		b.WriteString(strings.Repeat("ä\x00x", rand.IntN(100)))
		b.WriteString("\r\n")
	}
	return b.String()
}

func TestRealServers(t *testing.T) {
	for _, scheme := range []string{"smtp", "lmtp", "smtp+unix", "lmtp+unix"} {
		t.Run(scheme, func(t *testing.T) {
			s, m := newSink(t, scheme, nil), newMemory()
			mails := map[store.ID]string{}
			for i := range 30 {
				eml := bigMail([]int{100, 70_000, 300_000}[i%3])
				mails[m.add(eml, time.Now(), fmt.Sprintf("ana%d@x.example", i), fmt.Sprintf("ben%d@x.example", i))] = eml
			}
			refused := m.add(eml, time.Now(), "unknown@x.example", "ana@x.example", "busy@x.example", "full@x.example")
			_, stop := run(t, m, Options{Routes: []Route{{Role: "outbound", NextHop: s.nextHop}}})
			testbed.Until(t, "all are tried", func() bool {
				for id := range mails {
					if m.get(id).State != store.Delivered {
						return false
					}
				}
				return len(m.get(refused).Attempts) > 0
			})
			stop()
			for id, want := range mails {
				d := m.get(id)
				for _, to := range d.Recipients {
					if got := s.got(to.Address); len(got) != 1 || string(got[0]) != want {
						t.Errorf("%s: %d mails, not just the one sent", to.Address, len(got))
					}
				}
				if len(d.Attempts) != 1 || d.Attempts[0].NextHop != s.nextHop {
					t.Errorf("%+v", d.Attempts)
				}
			}
			states := ""
			for _, to := range m.get(refused).Recipients {
				states += string(to.State) + " "
			}
			want := "failed delivered queued delivered "
			if strings.HasPrefix(scheme, "lmtp") { // a word on each recipient
				want = "failed delivered queued queued "
			}
			if states != want || m.get(refused).State != store.Queued {
				t.Errorf("%s: %+v", states, m.get(refused))
			}
		})
	}
}

// TestRealServerLimits: a next hop's SIZE is heeded before anything is sent.
func TestRealServerLimits(t *testing.T) {
	s := newSink(t, "smtp", func(srv *smtp.Server) { srv.MaxMessageBytes = 1000 })
	m := newMemory()
	id := m.add(bigMail(5000), time.Now(), "ana@x.example")
	_, stop := run(t, m, Options{Routes: []Route{{Role: "outbound", NextHop: s.nextHop}}})
	testbed.Until(t, "it is tried", func() bool { return m.get(id).State == store.Failed })
	stop()
	if d := m.get(id); !strings.HasPrefix(d.Recipients[0].Reply, "5.3.4 ") || len(s.from) != 0 {
		t.Errorf("%+v, %d MAIL", d, len(s.from))
	}
}

// TestTransforms: the body goes out as the transforms make it, the header
// block as it is.
func TestTransforms(t *testing.T) {
	s, m := newSink(t, "smtp", nil), newMemory()
	header, body := "A: b\r\n\r\n", "a\nb\nc"
	id := m.put(mail{header: header, body: body, msg: store.Message{Archived: store.Archived{
		Transforms: []string{"crlf", "final"}, SentSize: int64(len(header) + len("a\r\nb\r\nc\r\n")),
	}}}, time.Now(), "ana@x.example")
	_, stop := run(t, m, Options{
		Routes: []Route{{Role: "outbound", NextHop: s.nextHop}},
		Transform: func(r io.Reader, names []string) io.Reader {
			b, err := io.ReadAll(r)
			if err != nil || string(b) != body || fmt.Sprint(names) != "[crlf final]" {
				t.Errorf("%q %v %v", b, names, err)
			}
			return strings.NewReader("a\r\nb\r\nc\r\n")
		},
	})
	testbed.Until(t, "it is tried", func() bool { return len(m.get(id).Attempts) > 0 })
	stop()
	if got := s.got("ana@x.example"); len(got) != 1 || string(got[0]) != header+"a\r\nb\r\nc\r\n" {
		t.Errorf("%q, %+v", got, m.get(id))
	}
}

// rawSink takes all and keeps every octet behind each 354, to be read with
// other eyes.
func rawSink(t *testing.T) (nextHop string, data func() []byte) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var got bytes.Buffer
	var wg sync.WaitGroup
	serve := func(c net.Conn) {
		defer c.Close()
		io.WriteString(c, "220 hi\r\n")
		for _, rep := range []string{"250-mx\r\n250 8BITMIME\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n"} {
			c.Read(make([]byte, 4096))
			io.WriteString(c, rep)
		}
		all, _ := io.ReadAll(c)
		mu.Lock()
		defer mu.Unlock()
		got.Write(all)
	}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { serve(c) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return "smtp://" + l.Addr().String(), func() []byte {
		mu.Lock()
		defer mu.Unlock()
		return bytes.Clone(got.Bytes())
	}
}

// TestSmugglingOut (security, Wire 2): no bare line end leaves, at whatever
// place of a message of several blocks it stands; neither does an end of data,
// for any reader.
func TestSmugglingOut(t *testing.T) {
	nextHop, data := rawSink(t)
	m := newMemory()
	var ids []store.ID
	for _, evil := range []string{"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\r\r\n.\r\n", "\n"} {
		for _, at := range []int{0, 10, blockSize - 8 - 3, blockSize - 8 - 2, blockSize - 8 - 1, blockSize - 8, blockSize + 100} {
			fill := strings.Repeat("x", at) // the header block has 8 octets
			ids = append(ids, m.add("A: b\r\n\r\n"+fill+evil+"MAIL FROM:<evil@x>\r\n"+strings.Repeat("line\r\n", 20000), time.Now(), "ana@x.example"))
		}
	}
	_, stop := run(t, m, Options{Routes: []Route{{Role: "outbound", NextHop: nextHop}}})
	testbed.Until(t, "all are tried", func() bool {
		for _, id := range ids {
			if len(m.get(id).Attempts) == 0 {
				return false
			}
		}
		return true
	})
	stop()
	for _, id := range ids {
		if d := m.get(id); d.State != store.Failed || !strings.HasPrefix(d.Recipients[0].Reply, "5.6.0 not sent: the message has ") {
			t.Errorf("%+v", d)
		}
	}
	time.Sleep(20 * time.Millisecond)
	got := string(data())
	if got == "" {
		t.Error("nothing was sent at all: this test tests nothing")
	}
	if rest := strings.ReplaceAll(got, "\r\n", ""); strings.ContainsAny(rest, "\r\n") || strings.Contains(got, "evil") {
		t.Errorf("it left in %d octets", len(got))
	}
}

// TestLogNamesNobody (invariant 7): what is logged names nobody.
func TestLogNamesNobody(t *testing.T) {
	var logged bytes.Buffer
	var mu sync.Mutex
	s, m := newSink(t, "smtp", nil), newMemory()
	id := m.add(eml, time.Now(), "unknown-secret@x.example", "busy-secret@x.example", "ok-secret@x.example")
	_, stop := run(t, m, Options{
		Routes: []Route{{Role: "outbound", NextHop: s.nextHop}},
		Logger: newLogger(&mu, &logged),
	})
	testbed.Until(t, "it is tried", func() bool { return len(m.get(id).Attempts) > 0 })
	stop()
	if log := logged.String(); !strings.Contains(log, id.String()) || strings.Contains(log, "secret") {
		t.Errorf("logged: %s", log)
	}
	if a := m.get(id).Attempts[0]; strings.Contains(a.Reply, "secret") {
		t.Errorf("%+v", a)
	}
}
