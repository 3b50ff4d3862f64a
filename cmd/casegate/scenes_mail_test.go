package main

import (
	"errors"
	"fmt"
	"net/textproto"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/casegate/casegate/gateway/message"
)

// How a scene hands mail over.

// writes hands a mail over by SMTP or LMTP. Whoever is "the desk" uses the
// smarthost, everyone else the inbound listener, unless the scene says by which.
func (s *stage) writes(args, block []string) error {
	m := &sentMail{listener: args[1], through: args[2], eml: []byte(strings.Join(block, "\r\n") + "\r\n")}
	if m.listener == "" {
		m.listener = "inbound"
		if args[0] == "the desk" {
			m.listener = "smarthost"
		}
	}
	given := parseEML(m.eml)
	if m.from = strings.Trim(args[5], "<>"); args[5] == "" {
		if list := message.ParseList(given.get("From")); len(list) > 0 {
			m.from = list[0].Address
		}
	}
	if args[6] != "" {
		m.to = bracketed(args[6])
	} else {
		m.to = s.addressees(given, s.listenerCalled(m.listener).Role)
	}
	if err := errors.Join(s.signMail(m, args[3]), s.sealMail(m, args[4])); err != nil {
		return err
	}
	return s.send(m)
}

// addressees are those of the header; of mail that comes in, ours.
func (s *stage) addressees(m eml, role string) (to []string) {
	for _, name := range []string{"To", "Cc", "Bcc"} {
		for _, box := range message.ParseList(m.get(name)) {
			if _, own := s.settings.Own(box.Address); (own || role == "outbound") && !slices.Contains(to, box.Address) {
				to = append(to, box.Address)
			}
		}
	}
	return to
}

func (s *stage) comesAgain(args, _ []string) error {
	first, err := s.mail(args[0])
	if err != nil {
		return err
	}
	again := &sentMail{listener: first.listener, through: first.through, from: first.from, to: first.to, eml: first.eml}
	if args[1] != "" {
		again.listener = args[1]
	}
	if args[2] != "" {
		again.from = strings.Trim(args[2], "<>")
	}
	if args[3] != "" {
		again.to = bracketed(args[3])
	}
	return s.send(again)
}

func (s *stage) listenerCalled(name string) (l Listener) {
	for _, l = range s.cfg.Listeners {
		if l.Name == name {
			return l
		}
	}
	return Listener{}
}

// acceptedAs is the id that a reply names.
var acceptedAs = regexp.MustCompile(`accepted ([0-9a-f-]{36})`)

func (s *stage) send(m *sentMail) error {
	untold := s.turn()
	s.mails = append(s.mails, m)
	if err := s.converse(m); err != nil {
		return fmt.Errorf("handing the mail over: %w", err)
	}
	if id := acceptedAs.FindStringSubmatch(m.answer()); id != nil {
		m.id = id[1]
		m.repeats = slices.ContainsFunc(s.mails[:len(s.mails)-1], func(before *sentMail) bool { return before.id == m.id })
	}
	return errors.Join(untold, s.settle())
}

// converse speaks SMTP, or LMTP, one command at a time.
func (s *stage) converse(m *sentMail) error {
	at := slices.IndexFunc(s.cfg.Listeners, func(l Listener) bool { return l.Name == m.listener })
	if at < 0 {
		return fmt.Errorf("no listener is called %q", m.listener)
	}
	c, err := textproto.Dial("tcp", s.daemon.listeners[at].Addr().String())
	if err != nil {
		return err
	}
	defer c.Close()
	if _, _, err := c.ReadResponse(220); err != nil {
		return err
	}
	lmtp := s.cfg.Listeners[at].Protocol == "lmtp"
	hello := map[bool]string{true: "LHLO", false: "EHLO"}[lmtp]
	if _, err := ask(c, hello+" mail.client.example"); err != nil {
		return err
	}
	if m.through != "" {
		if reply, err := ask(c, "XFORWARD ADDR="+m.through+" HELO=mail.client.example"); err != nil || reply[0] != '2' {
			return fmt.Errorf("XFORWARD: %s %w", reply, err)
		}
	}
	reply, err := ask(c, "MAIL FROM:<"+m.from+">")
	if m.answers = append(m.answers, reply); err != nil || reply[0] != '2' {
		return err
	}
	taken := 0
	for _, to := range m.to {
		reply, err := ask(c, "RCPT TO:<"+to+">")
		if err != nil {
			return err
		}
		if m.answers = append(m.answers, reply); reply[0] == '2' {
			taken++
		}
	}
	if taken == 0 {
		return nil
	}
	if reply, err = ask(c, "DATA"); err != nil || reply[0] != '3' {
		m.answers = append(m.answers, reply)
		return err
	}
	if err := writeDotted(c, m.eml); err != nil {
		return err
	}
	if !lmtp {
		taken = 1
	}
	for range taken {
		reply, err := answerOf(c)
		if err != nil {
			return err
		}
		m.answers = append(m.answers, reply)
	}
	_, err = ask(c, "QUIT")
	return err
}

func writeDotted(c *textproto.Conn, eml []byte) error {
	text := strings.ReplaceAll("\n"+string(eml), "\n.", "\n..")[1:]
	if _, err := c.W.WriteString(text + ".\r\n"); err != nil {
		return err
	}
	return c.W.Flush()
}

func ask(c *textproto.Conn, command string) (string, error) {
	if err := c.PrintfLine("%s", command); err != nil {
		return "", err
	}
	return answerOf(c)
}

// answerOf reads a reply, good or bad.
func answerOf(c *textproto.Conn) (string, error) {
	code, text, err := c.ReadResponse(0)
	var bad *textproto.Error
	if errors.As(err, &bad) {
		err = nil
	}
	return fmt.Sprintf("%d %s", code, text), err
}

// queryOf is a query with one value.
func queryOf(name, value string) url.Values { return url.Values{name: {value}} }
