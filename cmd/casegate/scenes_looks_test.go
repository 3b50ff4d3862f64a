package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
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
	for _, line := range block {
		if name, value, ok := strings.Cut(line, ": "); ok && !strings.Contains(name, " ") {
			named = append(named, name)
			if err := fieldIs(m.eml, name, value); err != nil {
				return err
			}
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		switch {
		case word == "no":
			named = append(named, rest)
			if got := m.named(rest); len(got) > 0 {
				return fmt.Errorf("there is %q", got)
			}
		case word == "nowhere":
			if bytes.Contains(bytes.ToLower(m.wire), bytes.ToLower([]byte(rest))) || strings.Contains(m.from, rest) {
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

// fieldIs: exactly one field of the name, with this value when unfolded.
func fieldIs(m eml, name, want string) error {
	got := m.named(name)
	if len(got) != 1 {
		return fmt.Errorf("%s stands %d times: %q", name, len(got), got)
	}
	return differs(name, strings.Join(strings.Fields(m.get(name)), " "), want)
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

// sceneCase and sceneMessage add what the contract's records have beyond those
// of the other tests.
type sceneCase struct {
	shownCase
	Accounts   []shownPerson
	MergedInto uint64 `json:"merged_into"`
	Flags      []string
	Timeline   []sceneMessage
	Log        []store.LogEntry
}

type sceneMessage struct {
	shownMessage
	RelatedCases []uint64 `json:"related_cases"`
	Mailboxes    []string
	beside       struct {
		Observed bool
		Events   []struct{ Recipient, Action, Status string }
	}
}

// facts are what a record says, by the words a scene may ask for.
type facts map[string]string

// has compares "state Active, customer Ana (guest), log none".
func (f facts) has(text string) error {
	var asked []string
	for part := range strings.SplitSeq(text, ", ") {
		word, _, _ := strings.Cut(part, " ")
		if _, known := f[word]; known || len(asked) == 0 {
			asked = append(asked, part)
		} else {
			asked[len(asked)-1] += ", " + part
		}
	}
	for _, part := range asked {
		word, want, _ := strings.Cut(part, " ")
		got, known := f[word]
		if !known {
			return fmt.Errorf("a record has no %q", word)
		}
		if err := differs(word, got, want); err != nil {
			return err
		}
	}
	return nil
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

func yesNo(b bool) string { return map[bool]string{true: "yes", false: "no"}[b] }

func called(p shownPerson) string { return fmt.Sprintf("%s (%s)", p.Name, p.Kind) }

func (s *stage) caseHas(args, _ []string) error {
	var c sceneCase
	if err := s.get(&c, "/cases/"+args[0], nil); err != nil {
		return wrongf("%w", err)
	}
	var log, accounts []string
	for _, row := range c.Log {
		log = append(log, row.SourceType)
	}
	for _, a := range c.Accounts {
		accounts = append(accounts, called(a))
	}
	merged := "nothing"
	if c.MergedInto != 0 {
		merged = fmt.Sprint("case ", c.MergedInto)
	}
	f := facts{
		"state": c.State, "customer": called(c.Customer), "queue": c.Queue, "title": c.Title, "origin": c.Origin,
		"messages": fmt.Sprint(len(c.Timeline)), "flags": orNone(c.Flags), "log": orNone(log), "accounts": orNone(accounts), "merged_into": merged,
	}
	return f.has(args[1])
}

func (s *stage) timelineIs(args, block []string) error {
	var c sceneCase
	if err := s.get(&c, "/cases/"+args[0], nil); err != nil {
		return wrongf("%w", err)
	}
	var got []string
	for _, m := range c.Timeline {
		line := m.Direction + " " + m.Subject
		if m.Internal {
			line += " (internal)"
		}
		got = append(got, line)
	}
	return differs("the timeline", "\n"+strings.Join(got, "\n"), "\n"+strings.Join(block, "\n"))
}

func (s *stage) logIs(args, block []string) error {
	var c sceneCase
	if err := s.get(&c, "/cases/"+args[0], nil); err != nil {
		return wrongf("%w", err)
	}
	var got []string
	for _, row := range c.Log {
		line := row.SourceType
		if row.Document != nil {
			line += fmt.Sprintf(" (%s, %s)", row.DocumentType, row.Document.FileType)
		}
		got = append(got, line+": "+row.Text)
	}
	return differs("the log", "\n"+strings.Join(got, "\n"), "\n"+strings.Join(block, "\n"))
}

func (s *stage) outboxIs(args, block []string) error {
	var rows []store.Delivery
	if err := s.get(&rows, "/queue", url.Values{"case": {args[0]}, "bcc": {"true"}}); err != nil {
		return wrongf("%w", err)
	}
	var got []string
	for _, d := range rows {
		for _, r := range d.Recipients {
			state := r.State
			if d.State == store.Held && state == store.Queued {
				state = store.Held
			}
			got = append(got, fmt.Sprintf("%s %s %s", d.Role, r.Address, state))
		}
	}
	return differs("the outbox", "\n"+strings.Join(got, "\n"), "\n"+strings.Join(block, "\n"))
}

func (s *stage) thereAre(args, _ []string) error {
	path := map[string]string{"case": "/cases", "mail": "/messages", "contact": "/contacts", "exception": "/exceptions", "account": "/accounts"}[args[1]]
	var rows []any
	if err := s.get(&rows, path, queryOf("limit", "500")); err != nil {
		return err
	}
	got := strconv.Itoa(len(rows))
	if len(rows) == 0 {
		got = "no"
	}
	if got != args[0] {
		return wrongf("there are %s", got)
	}
	return nil
}

func (s *stage) contactsWith(args, _ []string) error {
	var rows []store.Contact
	if err := s.get(&rows, "/contacts", queryOf("address", args[0])); err != nil {
		return err
	}
	var got []string
	for _, c := range rows {
		kind := string(c.Kind)
		if c.Unverified {
			kind = "unverified " + kind
		}
		got = append(got, fmt.Sprintf("%s (%s)", c.Name, kind))
	}
	return differs("the list", strings.Join(got, ", "), args[1])
}

func (s *stage) record(number string) (m sceneMessage, err error) {
	sent, err := s.last(number)
	if err != nil {
		return m, err
	}
	if sent.id == "" {
		return m, wrongf("it was not accepted: %s", sent.answer())
	}
	if err := s.get(&m, "/messages/"+sent.id, queryOf("bcc", "true")); err != nil {
		return m, err
	}
	return m, s.view(func(r store.Reader) error { // what the API doesn't tell
		id, err := store.ParseID(sent.id)
		if err != nil {
			return err
		}
		record, err := r.Message(id)
		if err != nil {
			return err
		}
		text, err := json.Marshal(record)
		if err != nil {
			return err
		}
		return json.Unmarshal(text, &m.beside)
	})
}

func (s *stage) recordHas(args, _ []string) error {
	m, err := s.record(args[0])
	if err != nil {
		return err
	}
	onCase, exception := "none", "none"
	if m.Case != nil {
		onCase = fmt.Sprint(*m.Case)
	}
	if m.Exception != nil {
		exception = *m.Exception
	}
	var related, events []string
	for _, n := range m.RelatedCases {
		related = append(related, fmt.Sprint(n))
	}
	for _, e := range m.beside.Events {
		events = append(events, strings.TrimSpace(e.Recipient+" "+e.Action+" "+e.Status))
	}
	f := facts{
		"case": onCase, "exception": exception, "direction": m.Direction, "class": m.Class, "sender": m.Identity,
		"method": m.CorrelationMethod, "flags": orNone(m.Flags), "internal": yesNo(m.Internal), "subject": m.Subject,
		"related": orNone(related), "mailboxes": orNone(m.Mailboxes), "observed": yesNo(m.beside.Observed), "events": orNone(events),
	}
	return f.has(args[1])
}

func (s *stage) partiesAre(args, block []string) error {
	m, err := s.record(args[0])
	if err != nil {
		return err
	}
	return differs("the list", "\n"+strings.Join(m.people(), "\n"), "\n"+strings.Join(block, "\n"))
}

func (s *stage) linkedTo(args, _ []string) error {
	m, err := s.record(args[0])
	if err != nil {
		return err
	}
	got := strings.Join(m.linked(), ", ")
	if got == "" {
		got = "nobody"
	}
	return differs("the list", got, args[1])
}

// explained is what explain says of a stored mail; its words are those of the
// timeline.
func (s *stage) explained(number string) (d struct {
	Decision struct{ Rules, Reasons []string }
}, err error) {
	m, err := s.record(number)
	if err != nil {
		return d, err
	}
	if err := s.get(&d, "/messages/"+m.ID+"/explain", queryOf("bcc", "true")); err != nil {
		return d, err
	}
	if !slices.Equal(d.Decision.Reasons, m.Decision.Reasons) || !slices.Equal(d.Decision.Rules, m.Decision.Rules) {
		return d, wrongf("explain says %q, the record %q", d.Decision, m.Decision)
	}
	return d, nil
}

func (s *stage) rulesAre(args, _ []string) error {
	d, err := s.explained(args[0])
	if err != nil {
		return err
	}
	return differs("the list", strings.Join(d.Decision.Rules, " "), args[1])
}

func (s *stage) says(args, _ []string) error {
	d, err := s.explained(args[0])
	if err != nil {
		return err
	}
	for _, reason := range d.Decision.Reasons {
		if strings.Contains(reason, args[1]) || like(args[1], reason) {
			return nil
		}
	}
	return wrongf("it says\n%s", strings.Join(d.Decision.Reasons, "\n"))
}

func (s *stage) saysNot(args, _ []string) error {
	d, err := s.explained(args[0])
	if err != nil {
		return err
	}
	if text := strings.Join(d.Decision.Reasons, "\n"); strings.Contains(text, args[1]) {
		return wrongf("it says\n%s", text)
	}
	return nil
}

// dryRunSays asks what would be decided about a mail, by the command explain's
// own way: of a mail that was refused there is no record.
func (s *stage) dryRunSays(args, _ []string) error {
	m, err := s.mail(args[0])
	if err != nil {
		return err
	}
	q := url.Values{"role": {args[1]}, "from": {m.from}, "rcpt": m.to}
	if m.from == "" {
		q.Set("from", "<>")
	}
	text, err := whole(s.api.do(s.t.Context(), "POST", "/explain", q, "message/rfc822", bytes.NewReader(m.eml)))
	if err != nil {
		return err
	}
	var e struct{ Decision struct{ Reasons []string } }
	if err := json.Unmarshal(text, &e); err != nil {
		return err
	}
	if said := strings.Join(e.Decision.Reasons, "\n"); !strings.Contains(said, args[2]) {
		return wrongf("it says\n%s", said)
	}
	return nil
}

func (s *stage) emlShows(args, _ []string) error {
	m, err := s.last(args[0])
	if err != nil {
		return err
	}
	got, err := s.export(m.id, queryOf("as", args[1]))
	if err != nil {
		return err
	}
	if bytes.Contains(got, []byte(args[3])) != (args[2] == "shows") {
		return wrongf("it is\n%s", got)
	}
	return nil
}
