package main

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/casegate/casegate/store"
)

// looks are what Then may say.
func looks() []sentence {
	return []sentence{
		words(`the answer is (.+)`, (*stage).answerIs),
		words(`the answer to (RCPT \d+|MAIL) is (.+)`, (*stage).answerTo),
		words(`the gateway takes it for mail (\d+)`, (*stage).sameAs),
		words(`the (desk|world) gets`, (*stage).gets),
		words(`the (desk|world) gets nothing(?: more)?`, (*stage).getsNothing),
		words(`nothing is sent anywhere`, func(s *stage, _, _ []string) error {
			if err := s.getsNothing([]string{"desk"}, nil); err != nil {
				return err
			}
			return s.getsNothing([]string{"world"}, nil)
		}),
		words(`today mail (\d+) would be decided as it was`, (*stage).decidedAsThen),
		words(`a replay would change (nothing|mail .+)`, (*stage).replayed),
		words(`the DNS was asked (something|nothing more)`, (*stage).dnsAsked),
		words(`nobody is ever mailed at (\S+)`, (*stage).neverMailed),
		words(`the mail for (\S+) went out (once|\d+ times)`, (*stage).wentOut),
		words(`it is told "(.+)"`, func(s *stage, args, _ []string) error {
			if s.told == nil {
				return wrongf("nobody objected")
			}
			return differs("what was said", s.told.Error(), args[0])
		}),
		words(`before long (.+)`, (*stage).beforeLong),
		words(`case (\d+) has (.+)`, (*stage).caseHas),
		words(`there (?:is|are) (no|\d+) (case|mail|contact|exception|account)s?`, (*stage).thereAre),
		words(`(?:the )?contacts with (\S+) are (.+)`, (*stage).contactsWith),
		words(`no contact has (\S+)`, func(s *stage, a, _ []string) error { return s.contactsWith([]string{a[0], ""}, nil) }),
		words(`(?:its record|the record of mail (\d+)) has (.+)`, (*stage).recordHas),
		words(`(?:its parties|the parties of mail (\d+)) are`, (*stage).partiesAre),
		words(`(?:it|mail (\d+)) is linked to (.+)`, (*stage).linkedTo),
		words(`the rules(?: of mail (\d+))? are (.+)`, (*stage).rulesAre),
		words(`the explanation(?: of mail (\d+))? says "(.+)"`, (*stage).says),
		words(`the explanation(?: of mail (\d+))? does not say "(.+)"`, (*stage).saysNot),
		words(`a dry run of mail (\d+) as (inbound|outbound) says "(.+)"`, (*stage).dryRunSays),
		words(`the log of case (\d+) is`, (*stage).logIs),
		words(`the EML(?: of mail (\d+))? as (received|sent) (shows|does not show) (.+)`, (*stage).emlShows),
		words(`the outbox of case (\d+) is`, (*stage).outboxIs),
		words(`the messages of case (\d+) are`, (*stage).timelineIs),
	}
}

// like matches a text against one in which ... stands for anything.
func like(pattern, text string) bool {
	parts := strings.Split(pattern, "...")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(`(?s)^` + strings.Join(parts, ".*") + `$`).MatchString(text)
}

func differs(what, got, want string) error {
	if like(want, got) {
		return nil
	}
	return wrongf("%s is  %s\nand not  %s", what, got, want)
}

// last is the mail that a sentence is about: the newest, unless it has a number.
func (s *stage) last(number string) (*sentMail, error) {
	if number == "" {
		number = strconv.Itoa(len(s.mails))
	}
	return s.mail(number)
}

func (s *stage) answerIs(args, _ []string) error {
	m, err := s.last("")
	if err != nil {
		return err
	}
	return differs("the answer", m.answer(), args[0])
}

func (s *stage) answerTo(args, _ []string) error {
	m, err := s.last("")
	if err != nil {
		return err
	}
	n := 0
	if number, ok := strings.CutPrefix(args[0], "RCPT "); ok {
		n, _ = strconv.Atoi(number)
	}
	if n >= len(m.answers) {
		return wrongf("there was no such command: the answers are %q", m.answers)
	}
	return differs("the answer to "+args[0], m.answers[n], args[1])
}

func (s *stage) sameAs(args, _ []string) error {
	before, err := s.mail(args[0])
	if err != nil {
		return err
	}
	now, _ := s.last("")
	if now.id == "" || now.id != before.id {
		return wrongf("it was answered %q, mail %s %q", now.answer(), args[0], before.answer())
	}
	return nil
}

// coming is what came at a next hop and was not told of yet.
func (s *stage) coming(who string) *[]arrived {
	if who == "desk" {
		return &s.atDesk
	}
	return &s.inWorld
}

// gets waits for a mail at a next hop and compares it line by line.
func (s *stage) gets(args, block []string) error {
	list := s.coming(args[0])
	for late := time.Now().Add(2 * time.Second); len(*list) == 0; time.Sleep(5 * time.Millisecond) {
		if err := s.settle(); err != nil {
			return err
		}
		if len(*list) == 0 && time.Now().After(late) {
			return wrongf("the %s got nothing", args[0])
		}
	}
	m := (*list)[0]
	*list = (*list)[1:]
	if err := s.compare(m, block); err != nil {
		return wrongf("%w\nthe %s got, MAIL FROM <%s>, RCPT TO %s:\n%s", err, args[0], m.from, strings.Join(m.to, ", "), beginning(m.raw))
	}
	return nil
}

func beginning(b []byte) []byte { return b[:min(len(b), 4000)] }

// compare looks at one mail as the next hop got it.
func (s *stage) compare(m arrived, block []string) error {
	var named []string
	values := map[string][]string{}
	for _, line := range block {
		if name, value, ok := fieldLine(line); ok {
			named = append(named, name)
			values[name] = append(values[name], value)
		}
	}
	for name, want := range values {
		if err := fieldsAre(m.eml, name, want); err != nil {
			return err
		}
	}
	for _, line := range block {
		if _, _, ok := fieldLine(line); ok {
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		switch {
		case word == "no":
			named = append(named, rest)
			if got := m.named(rest); len(got) > 0 {
				return fmt.Errorf("there is %q", got)
			}
		case word == "signed":
			named = append(named, "DKIM-Signature")
			if err := s.signedBy(m.eml, strings.TrimPrefix(rest, "by ")); err != nil {
				return err
			}
		case word == "sealed":
			if err := s.sealedBy(m.eml, strings.TrimPrefix(rest, "by ")); err != nil {
				return err
			}
		case word == "nowhere":
			// Not a part of a longer word: the letters of a token fall by chance.
			shown := regexp.MustCompile(`(?i)(^|[^a-z0-9])` + regexp.QuoteMeta(rest) + `($|[^a-z0-9])`)
			if shown.Match(m.wire) || strings.Contains(m.from, rest) {
				return fmt.Errorf("%s shows", rest)
			}
		case strings.HasPrefix(line, "MAIL FROM "):
			if err := differs("MAIL FROM", "<"+m.from+">", strings.TrimPrefix(line, "MAIL FROM ")); err != nil {
				return err
			}
		case strings.HasPrefix(line, "RCPT TO "):
			want := sorted(bracketed(strings.TrimPrefix(line, "RCPT TO ")))
			if err := differs("RCPT TO", strings.Join(sorted(m.to), ", "), strings.Join(want, ", ")); err != nil {
				return err
			}
		case line == "everything else as it was sent":
			if err := s.elseAsSent(m, named); err != nil {
				return err
			}
		case strings.HasPrefix(line, "body "):
			if got := strings.TrimRight(string(m.body), "\r\n"); !like(strings.TrimPrefix(line, "body "), got) {
				return fmt.Errorf("the body is %q", got)
			}
		default:
			return fmt.Errorf("nobody knows the line %q", line)
		}
	}
	return nil
}

// fieldLine tells a line about a field from the others.
func fieldLine(line string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(line, ": ")
	return name, value, ok && !strings.Contains(name, " ")
}

// fieldsAre: as many fields of the name as lines, with these values, unfolded.
func fieldsAre(m eml, name string, want []string) error {
	got := m.named(name)
	if len(got) != len(want) {
		return fmt.Errorf("%s stands %d times, not %d: %q", name, len(got), len(want), got)
	}
	for i, field := range got {
		_, value, _ := strings.Cut(field, ":")
		if err := differs(name, strings.Join(strings.Fields(value), " "), want[i]); err != nil {
			return err
		}
	}
	return nil
}

// elseAsSent: no byte differs from the mail as it was sent, but for the fields
// that the scene has named.
func (s *stage) elseAsSent(m arrived, named []string) error {
	sent, err := s.last("")
	if err != nil {
		return err
	}
	given := parseEML(sent.eml)
	want, got := given.without(named...), m.without(named...)
	if !slices.Equal(got, want) {
		return fmt.Errorf("the other fields are\n%sas sent they were\n%s", strings.Join(got, ""), strings.Join(want, ""))
	}
	if !bytes.Equal(given.body, m.body) {
		return fmt.Errorf("the body is %q, was %q", m.body, given.body)
	}
	return nil
}

func (s *stage) getsNothing(args, _ []string) error {
	if err := s.settle(); err != nil {
		return err
	}
	for _, m := range *s.coming(args[0]) {
		return wrongf("the %s got, for %s:\n%s", args[0], strings.Join(m.to, ", "), m.raw)
	}
	return nil
}

func (s *stage) neverMailed(args, _ []string) error {
	if err := s.settle(); err != nil {
		return err
	}
	for _, m := range s.mailed {
		if slices.ContainsFunc(m.to, func(to string) bool { return store.Key(to) == store.Key(args[0]) }) {
			return wrongf("mailed:\n%s", m.raw)
		}
	}
	return nil
}

// wentOut counts the copies that left for an address.
func (s *stage) wentOut(args, _ []string) error {
	n, want := 0, 1
	fmt.Sscanf(args[1], "%d times", &want)
	for _, m := range s.mailed {
		if slices.Contains(m.to, args[0]) {
			n++
		}
	}
	if n != want {
		return wrongf("it went out %d times", n)
	}
	return nil
}

// beforeLong looks again until it is so, for what is decided later.
func (s *stage) beforeLong(args, block []string) error {
	for late := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := s.play(step{text: args[0], block: block})
		if err == nil || time.Now().After(late) {
			return errors.Join(err, s.settle())
		}
	}
}
