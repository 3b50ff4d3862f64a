package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/mail"
	"strings"
	"sync"
	"text/template"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/casegate/casegate/gateway/console"
	"github.com/casegate/casegate/store"
)

// The demo's messages lie beside this file because a binary must carry them.
//
//go:embed demo/*.eml
var demoMail embed.FS

// demoHop is the sample next hop: an SMTP server that keeps what it gets.
type demoHop struct {
	server *smtp.Server
	mu     sync.Mutex
	got    []delivered
	more   chan struct{}
}

// delivered is one message as the next hop got it.
type delivered struct {
	from string
	to   []string
	eml  []byte
}

func newDemoHop() *demoHop {
	h := &demoHop{more: make(chan struct{}, 1)}
	h.server = smtp.NewServer(h)
	h.server.Domain = "next-hop.example"
	h.server.ReadTimeout, h.server.WriteTimeout = time.Minute, time.Minute
	h.server.MaxMessageBytes = 64 << 20
	return h
}

// NewSession implements smtp.Backend.
func (h *demoHop) NewSession(*smtp.Conn) (smtp.Session, error) { return &demoSession{hop: h}, nil }

type demoSession struct {
	hop *demoHop
	msg delivered
}

func (s *demoSession) Reset()        { s.msg = delivered{} }
func (s *demoSession) Logout() error { return nil }

func (s *demoSession) Mail(from string, _ *smtp.MailOptions) error {
	s.msg.from = from
	return nil
}

func (s *demoSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.msg.to = append(s.msg.to, to)
	return nil
}

func (s *demoSession) Data(r io.Reader) (err error) {
	if s.msg.eml, err = io.ReadAll(r); err != nil {
		return err
	}
	s.hop.mu.Lock()
	s.hop.got = append(s.hop.got, s.msg)
	s.hop.mu.Unlock()
	select {
	case s.hop.more <- struct{}{}:
	default:
	}
	return nil
}

// find waits for a message with the subject.
func (h *demoHop) find(ctx context.Context, subject string) (delivered, error) {
	for {
		h.mu.Lock()
		for _, d := range h.got {
			if m, err := mail.ReadMessage(bytes.NewReader(d.eml)); err == nil && m.Header.Get("Subject") == subject {
				h.mu.Unlock()
				return d, nil
			}
		}
		h.mu.Unlock()
		select {
		case <-h.more:
		case <-ctx.Done():
			return delivered{}, errors.New("the answer did not reach the sample next hop in time")
		}
	}
}

// demoFirstID is the Message-ID of the first message.
const demoFirstID = "demo-1@example.net"

// demoPeople are a family that shares one address, a registered contact, and
// an office whose address two contacts have.
func demoPeople() []console.NewContact {
	person := func(kind store.ContactKind, name, address string) console.NewContact {
		return console.NewContact{Name: name, Kind: kind, EmailAddresses: []string{address}}
	}
	return []console.NewContact{
		person(store.Guest, "Ana Miller", "miller.family@example.net"),
		person(store.Guest, "Ben Miller", "miller.family@example.net"),
		person(store.Guest, "Cleo Miller", "miller.family@example.net"),
		person(store.Registered, "Paul Miller", "paul@miller.example.net"),
		person(store.Registered, "Iris Hall", "hall@example.org"),
		person(store.Registered, "Jan Hall", "hall@example.org"),
	}
}

// demoValues fill in what a mail client would.
type demoValues struct{ Date, ReplyTo, References string }

func demoMessage(name string, v demoValues) ([]byte, error) {
	t, err := template.ParseFS(demoMail, "demo/"+name)
	if err != nil {
		return nil, err
	}
	v.Date = time.Now().Format(time.RFC1123Z)
	var b bytes.Buffer
	err = t.Execute(&b, v)
	return bytes.ReplaceAll(b.Bytes(), []byte("\n"), []byte("\r\n")), err
}

// playDemo sends the three messages of the sample conversation by SMTP, each
// when the one before it has arrived: a customer writes; the desk answers all,
// with a blind copy; the customer's reply comes back by a relay that replaced
// the Message-ID. say reports each step.
func playDemo(ctx context.Context, inbound, smarthost string, hop *demoHop, say func(string, ...any)) error {
	const customer, foreman = "miller.family@example.net", "foreman@city.example"
	eml, err := demoMessage("1-customer.eml", demoValues{})
	if err != nil {
		return err
	}
	if err := submit(ctx, inbound, customer, eml, say, "311@city.example"); err != nil {
		return err
	}
	if eml, err = demoMessage("2-answer.eml", demoValues{}); err != nil {
		return err
	}
	if err := submit(ctx, smarthost, "311@city.example", eml, say,
		customer, "311@city.example", "hall@example.org", "paul@miller.example.net", foreman); err != nil {
		return err
	}
	answer, err := hop.find(ctx, "Re: Street light out on Elm Street")
	if err != nil {
		return err
	}
	say("next hop got the answer for %s", strings.Join(answer.to, ", "))
	m, err := mail.ReadMessage(bytes.NewReader(answer.eml))
	if err != nil {
		return err
	}
	v := demoValues{ReplyTo: m.Header.Get("Reply-To"), References: m.Header.Get("References")}
	if eml, err = demoMessage("3-reply.eml", v); err != nil {
		return err
	}
	return submit(ctx, inbound, customer, eml, say, v.ReplyTo)
}

// submit sends one message by SMTP and reports the reply.
func submit(ctx context.Context, address, from string, eml []byte, say func(string, ...any), to ...string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	c := smtp.NewClient(conn)
	defer c.Close()
	if err := c.Mail(from, nil); err != nil {
		return err
	}
	for _, r := range to {
		if err := c.Rcpt(r, nil); err != nil {
			return err
		}
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(eml); err != nil {
		return err
	}
	reply, err := w.CloseWithResponse()
	if err != nil {
		return fmt.Errorf("%s: %w", address, err)
	}
	say("%s <- %s: 250 %s", address, from, reply.StatusText)
	return c.Quit()
}
