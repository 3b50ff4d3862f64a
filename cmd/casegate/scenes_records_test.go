package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/casegate/casegate/gateway/console"
	"github.com/casegate/casegate/store"
)

// What a Then sees of the stored records.

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

// saysNot reads as somebody who may not see Bcc.
func (s *stage) saysNot(args, _ []string) error {
	m, err := s.last(args[0])
	if err != nil {
		return err
	}
	var d struct{ Decision struct{ Reasons []string } }
	if err := s.get(&d, "/messages/"+m.id+"/explain", nil); err != nil {
		return err
	}
	if text := strings.Join(d.Decision.Reasons, "\n"); strings.Contains(text, args[1]) {
		return wrongf("it says\n%s", text)
	}
	return nil
}

// decidedAsThen compares what was decided about a mail with what would be today.
func (s *stage) decidedAsThen(args, _ []string) error {
	m, err := s.mail(args[0])
	if err != nil {
		return err
	}
	type decided struct {
		Decision struct{ Rules, Reasons []string }
	}
	var then, today decided
	path := "/messages/" + m.id + "/explain"
	if err := errors.Join(s.get(&then, path, nil), s.get(&today, path, queryOf("today", "true"))); err != nil {
		return err
	}
	words := func(d decided) string {
		return strings.Join(d.Decision.Rules, " ") + "\n" + strings.Join(d.Decision.Reasons, "\n")
	}
	return differs("today's decision", "\n"+words(today), "\n"+words(then))
}

// replayed looks which mails a replay under a configuration would change: the
// scene's own one, with what the block lays over it.
func (s *stage) replayed(args, block []string) error {
	base, err := os.ReadFile(s.configFile())
	if err != nil {
		return err
	}
	text, err := mergeYAML(string(base), strings.Join(block, "\n"))
	if err != nil {
		return err
	}
	lines, err := whole(s.api.do(s.t.Context(), "POST", "/replay", nil, "application/yaml", bytes.NewReader(text)))
	if err != nil {
		return err
	}
	var changed []string
	for line := range strings.Lines(string(lines)) {
		var l console.ReplayLine
		if err := json.Unmarshal([]byte(line), &l); err != nil || l.Error != "" {
			return fmt.Errorf("replay: %s: %w", line, err)
		}
		if l.Change == nil {
			continue
		}
		i := slices.IndexFunc(s.mails, func(m *sentMail) bool { return m.id == l.Change.ID.String() })
		changed = append(changed, fmt.Sprintf("mail %d: %s, %s", i+1, l.Change.Before, l.Change.After))
	}
	got := "nothing"
	if len(changed) > 0 {
		got = strings.Join(changed, "; ")
	}
	return differs("what a replay would change", got, args[0])
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
