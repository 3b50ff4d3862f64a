package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/gateway/console"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// sentence is one form of words that a scene may use. Its pattern's groups are
// the arguments.
type sentence struct {
	pattern *regexp.Regexp
	does    func(s *stage, args []string, block []string) error
}

func words(pattern string, does func(*stage, []string, []string) error) sentence {
	return sentence{regexp.MustCompile("^" + pattern + "$"), does}
}

// acts are what Given and When may say.
func acts() []sentence {
	return []sentence{
		words(`(registered contact|guest) (.+?) (<.+>)(?:, of (.+?))?(, who wants no e-mail)?`, (*stage).givenContact),
		words(`(business|property) account (.+?) (<.+>)`, (*stage).givenAccount),
		words(`agent (.+?) (<.+>)(?:, who may send as (.+))?`, (*stage).givenAgent),
		words(`the outside directory knows (.+?) (<.+>) as (\S+)`, (*stage).givenOutside),
		words(`the outside directory is (out|back)`, (*stage).outsideDirectoryIs),
		words(`the DNS says`, (*stage).dnsSays),
		words(`the DNS is (silent|out|back)`, (*stage).dnsIs),
		words(`(\d+) (second|minute|hour|day)s? pass(?:es)?`, (*stage).timePasses),
		words(`mail (\d+) comes again(?: by (\S+))?(?: from (<\S*>))?(?: to (.+))?`, (*stage).comesAgain),
		words(`the desk (resolves|reopens|cancels) case (\d+)`, (*stage).changesCase),
		words(`the desk merges case (\d+) into case (\d+)`, (*stage).mergesCase),
		words(`the desk tries to merge case (\d+) into case (\d+)`, func(s *stage, args, _ []string) error {
			s.told = s.mergesCase(args, nil)
			return nil
		}),
		words(`the desk makes (.+) the customer of case (\d+)`, (*stage).setsCustomer),
		words(`the desk takes (\S+) off case (\d+)`, (*stage).takesOff),
		words(`the desk links (\S+@\S+) to (.+) in case (\d+)`, (*stage).linksByHand),
		words(`the operator rotates the signing key`, func(s *stage, _, _ []string) error { return s.casegate("key", "rotate") }),
		words(`(\S+@\S+) moves from (.+) to (.+)`, (*stage).addressMoves),
		words(`(.+?) (?:writes?|answers?|forwards?|sends?|submits?)(?: by (\S+))?(?: through (\S+))?(?: signed by (\S+))?(?: sealed by (\S+))?(?: from (<\S*>))?(?: to (.+))?`, (*stage).writes),
	}
}

// play does what one step says.
func (s *stage) play(st step) error {
	list := looks()
	if st.when {
		list = acts()
	}
	for _, w := range list {
		if w.pattern.MatchString(st.text) {
			text, err := s.fill(st.text)
			if err != nil {
				return err
			}
			block := slices.Clone(st.block)
			for i := range block {
				if block[i], err = s.fill(block[i]); err != nil {
					return err
				}
			}
			if args := w.pattern.FindStringSubmatch(text); args != nil {
				return w.does(s, args[1:], block)
			}
		}
	}
	return fmt.Errorf("nobody knows this sentence: see testdata/scenes/README.txt")
}

// brace is a placeholder: {reply-to of 2}, {token of case 1}, {bytes C3 28}.
var brace = regexp.MustCompile(`\{([a-z][^{}]*)\}`)

func (s *stage) fill(text string) (string, error) {
	var failed error
	out := brace.ReplaceAllStringFunc(text, func(b string) string {
		value, err := s.placeholder(b[1 : len(b)-1])
		if err != nil && failed == nil {
			failed = fmt.Errorf("%s: %w", b, err)
		}
		return value
	})
	return out, failed
}

func (s *stage) placeholder(text string) (string, error) {
	what, of, _ := strings.Cut(text, " of ")
	number, isCase := strings.CutPrefix(of, "case ")
	switch {
	case strings.HasPrefix(text, "bytes "):
		var b []byte
		for _, hex := range strings.Fields(text)[1:] {
			n, err := strconv.ParseUint(hex, 16, 8)
			if err != nil {
				return "", err
			}
			b = append(b, byte(n))
		}
		return string(b), nil
	case isCase:
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			return "", err
		}
		return s.sign(what, n)
	case what == "id":
		who, err := s.contactNamed(of)
		return who.ID.String(), err
	}
	m, err := s.mail(of)
	if err != nil {
		return "", err
	}
	seen, from := parseEML(m.eml), m.from
	if len(m.copies) > 0 {
		seen, from = m.copies[0].eml, m.copies[0].from
	}
	switch what {
	case "gateway id":
		return m.id, nil
	case "mail from":
		return from, nil
	case "token":
		return seen.get("X-Case-Ref"), nil
	case "message-id":
		return strings.Trim(seen.get("Message-ID"), "<>"), nil
	case "reply-to", "references", "subject", "from", "to":
		return seen.get(what), nil
	}
	return "", errors.New("no such placeholder")
}

// sign makes the token of a case, or one that only looks like it.
func (s *stage) sign(what string, number uint64) (string, error) {
	var in store.Installation
	err := s.view(func(r store.Reader) (err error) {
		in, err = r.Installation()
		return err
	})
	if err != nil {
		return "", err
	}
	if what == "another installation's token" {
		in.ID = store.NewID()
	}
	token, err := resolver.Sign(in, number, 0)
	if what == "altered token" && err == nil {
		other := map[bool]string{true: "b", false: "a"}[token[20] == 'a']
		token = token[:20] + other + token[21:]
	}
	return token, err
}

// mail is the one with a number, counted from 1 as they were sent.
func (s *stage) mail(number string) (*sentMail, error) {
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || n > len(s.mails) {
		return nil, fmt.Errorf("there is no mail %q: %d were sent", number, len(s.mails))
	}
	return s.mails[n-1], nil
}

func (s *stage) contactNamed(name string) (found store.Contact, err error) {
	var list []store.Contact
	if err := s.get(&list, "/contacts", nil); err != nil {
		return found, err
	}
	for _, c := range list {
		if c.Name == name {
			found = c
		}
	}
	if found.Name == "" {
		return found, fmt.Errorf("no contact is called %q", name)
	}
	return found, nil
}

// bracketed reads <a@x>, <b@x>.
func bracketed(text string) (list []string) {
	for part := range strings.SplitSeq(text, ",") {
		list = append(list, strings.Trim(part, " <>"))
	}
	return list
}

func (s *stage) givenContact(args, _ []string) error {
	who := console.NewContact{Name: args[1], Kind: store.Guest, EmailAddresses: bracketed(args[2])}
	if args[0] != "guest" {
		who.Kind = store.Registered
	}
	if args[3] != "" {
		var accounts []store.Account
		if err := s.get(&accounts, "/accounts", nil); err != nil {
			return err
		}
		for _, a := range accounts {
			if a.Name == args[3] {
				who.Account = a.ID.String()
			}
		}
	}
	text, err := s.api.add(context.Background(), "/contacts", who)
	if err != nil || args[4] == "" {
		return err
	}
	var c store.Contact
	if err := json.Unmarshal(text, &c); err != nil {
		return err
	}
	c.DoNotEmail = true
	return s.daemon.store.Update(context.Background(), func(tx store.Tx) error { return tx.PutContact(c) })
}

func (s *stage) givenAccount(args, _ []string) error {
	_, err := s.api.add(context.Background(), "/accounts", console.NewAccount{
		Name: args[1], Kind: store.AccountKind(args[0]), EmailAddresses: bracketed(args[2]),
	})
	return err
}

func (s *stage) givenAgent(args, _ []string) error {
	who := console.NewAgent{Name: args[0], EmailAddresses: bracketed(args[1])}
	if args[2] != "" {
		who.SendAs = bracketed(args[2])
	}
	_, err := s.api.add(context.Background(), "/agents", who)
	return err
}

func (s *stage) givenOutside(args, _ []string) error {
	s.people.mu.Lock()
	defer s.people.mu.Unlock()
	s.people.known = append(s.people.known, map[string]any{"id": args[2], "name": args[0], "email_addresses": bracketed(args[1])})
	return nil
}

func (s *stage) outsideDirectoryIs(args, _ []string) error {
	s.people.mu.Lock()
	s.people.out = args[0] == "out"
	s.people.mu.Unlock()
	if args[0] == "back" {
		s.resolveOften()
	}
	return nil
}

// resolveOften runs the job that looks at what waits for the directory, as
// serve runs it but with no half minute between.
func (s *stage) resolveOften() {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan bool)
	go func() {
		defer close(done)
		gateway.ResolvePending(ctx, s.daemon.options, func(listener string) gateway.Intake {
			return rulebook(s.cfg).Intakes[listener]
		}, 10*time.Millisecond)
	}()
	s.t.Cleanup(func() { stop(); <-done })
}

func (s *stage) timePasses(args, _ []string) error {
	n, err := strconv.Atoi(args[0])
	unit := map[string]time.Duration{"second": time.Second, "minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour}[args[1]]
	s.clock.ahead.Add(int64(time.Duration(n) * unit))
	s.daemon.relay.Wake()
	return err
}

func (s *stage) changesCase(args, _ []string) error {
	return s.casegate("case", strings.TrimSuffix(args[0], "s"), args[1])
}

func (s *stage) mergesCase(args, _ []string) error {
	return s.casegate("case", "merge", args[0], "--into", args[1])
}

func (s *stage) takesOff(args, _ []string) error {
	return s.casegate("case", "unflag", args[1], "--flag", args[0])
}

func (s *stage) setsCustomer(args, _ []string) error {
	who, err := s.contactNamed(args[0])
	if err != nil {
		return err
	}
	return s.casegate("case", "set-customer", args[1], "--contact", who.ID.String())
}

func (s *stage) linksByHand(args, _ []string) error {
	who, err := s.contactNamed(args[1])
	if err != nil {
		return err
	}
	return s.casegate("case", "link", args[2], "--address", args[0], "--contact", who.ID.String())
}

// addressMoves: from now on the address is another contact's.
func (s *stage) addressMoves(args, _ []string) error {
	from, err := s.contactNamed(args[1])
	if err != nil {
		return err
	}
	to, err := s.contactNamed(args[2])
	if err != nil {
		return err
	}
	now := s.clock.now().UTC()
	for i, e := range from.EmailAddresses {
		if store.Key(e.Address) == store.Key(args[0]) && e.To.IsZero() {
			from.EmailAddresses[i].To = now
		}
	}
	to.EmailAddresses = append(to.EmailAddresses, store.EmailAddress{Address: args[0], From: now})
	return s.daemon.store.Update(context.Background(), func(tx store.Tx) error {
		return errors.Join(tx.PutContact(from), tx.PutContact(to))
	})
}
