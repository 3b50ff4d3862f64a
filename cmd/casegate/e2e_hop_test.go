package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/casegate/casegate/gateway/testbed"
)

// The next hop of the end-to-end tests, which keeps every byte it gets, and
// messages as bytes.

// nextHop is a real SMTP server that keeps each message as it came on the
// wire.
type nextHop struct {
	t    testing.TB
	url  string
	mu   sync.Mutex
	got  []arrived
	more chan struct{}

	defers   int       // so many messages are read and not taken: 451
	deferred []arrived // those
}

// refusedDomain is one that no next hop takes mail for; nor does any for a
// mailer-daemon.
const refusedDomain = "@refused.example"

// arrived is one message that a next hop took.
type arrived struct {
	from   string
	to     []string
	notify []string // NOTIFY and ORCPT of each
	wire   []byte   // behind DATA, as it came: dots doubled, the final one included
	eml
}

func startHop(t testing.TB) *nextHop {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &nextHop{t: t, url: "smtp://" + ln.Addr().String(), more: make(chan struct{}, 1)}
	server := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &hopSession{hop: h, tap: c.Conn().(*tap)}, nil
	}))
	server.Domain, server.MaxMessageBytes, server.EnableDSN = "next-hop.example", 64<<20, true
	server.MaxLineLength = 1 << 20 // real mail has such lines
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(tapped{ln})
	}()
	t.Cleanup(func() { server.Close(); <-done })
	return h
}

// take waits for a message with this Subject and returns it, each one once.
func (h *nextHop) take(t testing.TB, subject string) arrived {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		if m, ok := h.find(subject); ok {
			return m
		}
		select {
		case <-h.more:
		case <-late:
			t.Fatalf("the next hop did not get %q", subject)
		}
	}
}

func (h *nextHop) find(subject string) (arrived, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.got, func(m arrived) bool { return m.get("Subject") == subject })
	if i < 0 {
		return arrived{}, false
	}
	m := h.got[i]
	h.got = slices.Delete(h.got, i, i+1)
	return m, true
}

// left is how many messages came that nobody took.
func (h *nextHop) left() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.got)
}

type hopSession struct {
	hop *nextHop
	tap *tap
	msg arrived
}

func (s *hopSession) Logout() error { return nil }

// Reset also forgets a DATA that came with recipients all refused.
func (s *hopSession) Reset() {
	s.msg = arrived{}
	s.tap.in.Reset()
}

func (s *hopSession) Mail(from string, _ *smtp.MailOptions) error {
	s.msg.from = from
	return nil
}

func (s *hopSession) Rcpt(to string, o *smtp.RcptOptions) error {
	if strings.HasSuffix(to, refusedDomain) || strings.HasPrefix(to, "mailer-daemon@") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	}
	s.msg.to = append(s.msg.to, to)
	s.msg.notify = append(s.msg.notify, fmt.Sprintf("%v %s", o.Notify, o.OriginalRecipient))
	return nil
}

func (s *hopSession) Data(r io.Reader) error {
	read, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.msg.wire = s.tap.data()
	undotted := bytes.ReplaceAll(append([]byte("\n"), bytes.TrimSuffix(s.msg.wire, []byte(".\r\n"))...), []byte("\n."), []byte("\n"))[1:]
	if !bytes.Equal(read, undotted) {
		s.hop.t.Errorf("the next hop read other bytes than stand on the wire:\n%q\n%q", read, s.msg.wire)
	}
	s.msg.eml = parseEML(undotted)
	s.hop.mu.Lock()
	defer s.hop.mu.Unlock()
	if len(s.hop.deferred) < s.hop.defers {
		s.hop.deferred = append(s.hop.deferred, s.msg)
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "come again"}
	}
	s.hop.got = append(s.hop.got, s.msg)
	select {
	case s.hop.more <- struct{}{}:
	default:
	}
	return nil
}

// tap keeps what a connection brings in.
type tap struct {
	net.Conn
	in testbed.Buffer
}

type tapped struct{ net.Listener }

func (l tapped) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &tap{Conn: c}, err
}

func (t *tap) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	t.in.Write(p[:n])
	return n, err
}

// data is what came behind the last DATA, up to the end of data (RFC 5321
// §4.1.1.4); called when that has been read.
func (t *tap) data() []byte {
	_, data, _ := strings.Cut(t.in.String(), "\r\nDATA\r\n")
	data, _, _ = strings.Cut(data, "\r\n.\r\n") // a QUIT may follow
	t.in.Reset()
	return []byte(data + "\r\n.\r\n")
}

// eml is a message as bytes, its header split at the plainest: a line that
// begins with white space belongs to the field before it.
type eml struct {
	raw    []byte
	fields []string // with their CRLF
	body   []byte   // behind the empty line
}

func parseEML(raw []byte) eml {
	header, body, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
	m := eml{raw: raw, body: body}
	for line := range strings.SplitAfterSeq(string(header)+"\r\n", "\n") {
		switch n := len(m.fields); {
		case line == "":
		case n > 0 && (line[0] == ' ' || line[0] == '\t'):
			m.fields[n-1] += line
		default:
			m.fields = append(m.fields, line)
		}
	}
	return m
}

// named returns the fields of a name as they stand there.
func (m eml) named(name string) (list []string) {
	for _, f := range m.fields {
		if n, _, _ := strings.Cut(f, ":"); strings.EqualFold(strings.TrimRight(n, " \t"), name) {
			list = append(list, f)
		}
	}
	return list
}

// get returns the unfolded value of the first field of a name.
func (m eml) get(name string) string {
	list := m.named(name)
	if len(list) == 0 {
		return ""
	}
	_, v, _ := strings.Cut(list[0], ":")
	return strings.TrimSpace(strings.ReplaceAll(v, "\r\n", ""))
}

// without is the header's fields but those of these names.
func (m eml) without(names ...string) []string {
	return slices.DeleteFunc(slices.Clone(m.fields), func(f string) bool {
		name, _, _ := strings.Cut(f, ":")
		return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
	})
}
