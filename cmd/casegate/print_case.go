package main

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/casegate/casegate/gateway/console"
	"github.com/casegate/casegate/store"
)

// say prints one line of a record: a word, then what it is, at a depth.
func say(w io.Writer, depth int, word, text string) {
	if text != "" {
		fmt.Fprintf(w, "%s%-10s %s\n", strings.Repeat("  ", depth), word, clean(text))
	}
}

// caseDetail tells a case in words, its timeline below.
func (p *program) caseDetail(w io.Writer, c console.CaseDetail) {
	fmt.Fprintf(w, "case %d  %s  %s\n", c.Number, c.State, clean(c.Title))
	say(w, 1, "customer", personName(c.Customer))
	say(w, 1, "queue", c.Queue+", by "+c.Origin)
	say(w, 1, "opened", p.at(c.CreatedAt))
	say(w, 1, "changed", p.at(c.UpdatedAt))
	for _, account := range c.Accounts {
		say(w, 1, "account", personName(account))
	}
	if c.MergedInto != 0 {
		say(w, 1, "merged", "into case "+strconv.FormatUint(c.MergedInto, 10))
	}
	for _, l := range c.HandLinks {
		say(w, 1, "by hand", fmt.Sprintf("%s = contact %s, by %s", l.Address, personName(l.Contact), l.By))
	}
	say(w, 1, "flags", strings.Join(c.Flags, ", "))
	for _, act := range c.Timeline {
		fmt.Fprintln(w)
		p.activity(w, act)
	}
	if len(c.Log) > 0 {
		fmt.Fprintln(w, "\nlog")
	}
	for _, row := range c.Log {
		fmt.Fprintf(w, "  %s  %s\n", p.at(row.At), clean(logLine(row)))
	}
}

func logLine(row store.LogEntry) string {
	line := row.SourceType
	if row.Document != nil {
		line += fmt.Sprintf(" (%s %s, %d bytes)", row.DocumentType, row.Document.FileName, row.Document.Size)
	}
	if row.Text != "" {
		line += ": " + row.Text
	}
	if row.By != "" {
		line += ", by " + row.By
	}
	return line
}

// activity tells one message in words.
func (p *program) activity(w io.Writer, act console.Activity) {
	fmt.Fprintf(w, "%s  %s%s  %s\n", p.at(act.ReceivedAt), act.Direction, internal(act), cmp.Or(clean(act.Subject), "(no subject)"))
	for _, party := range act.Parties {
		say(w, 1, roleWord(party.Role), partyLine(party))
	}
	if len(act.Parties) == 0 {
		say(w, 1, "from", act.From)
	}
	for _, l := range act.Links {
		say(w, 1, "linked", personName(l.Person)+" by "+l.Address)
	}
	say(w, 1, "exception", messageException(act.MessageRow))
	say(w, 1, "judged", judged(act))
	say(w, 1, "flags", strings.Join(act.Flags, ", "))
	decision(w, act.Decision)
	for _, d := range act.Delivery {
		p.deliveryLines(w, 1, d)
	}
	for _, e := range act.Events {
		say(w, 1, "report", eventLine(p.at(e.At), e))
	}
	say(w, 1, "id", act.ID.String())
}

// eventLine tells what a report says of a recipient.
func eventLine(at string, e store.DeliveryEvent) string {
	line := fmt.Sprintf("%s %s %s", at, cmp.Or(e.Recipient, "a recipient it does not name"), e.Action)
	if e.Status != "" {
		line += " " + e.Status
	}
	if e.Diagnostic != "" {
		line += ": " + e.Diagnostic
	}
	return line
}

// judged tells what kind of mail it was, whose, and how it found its case.
func judged(act console.Activity) string {
	line := act.Class + " mail"
	if act.Identity != "" {
		line += ", sender " + act.Identity
	}
	if act.CorrelationMethod == "" || act.CorrelationMethod == "none" {
		return line + ", no evidence of a case"
	}
	return line + ", case by " + act.CorrelationMethod
}

func internal(act console.Activity) string {
	if act.Internal {
		return " (internal)"
	}
	return ""
}

// decision tells which rules fired, and each reason on its own line.
func decision(w io.Writer, d store.Decision) {
	say(w, 1, "rules", strings.Join(d.Rules, " "))
	word := "because"
	for _, reason := range d.Reasons {
		fmt.Fprintf(w, "  %-10s %s\n", word, clean(reason))
		word = ""
	}
}

func roleWord(r store.Role) string {
	switch r {
	case store.RoleSender:
		return "from"
	case store.RoleCC, store.RoleBCC, store.RoleTo:
		return strings.ToLower(string(r))
	}
	return strings.ToLower(string(r))
}

// partyLine tells who an address was taken to be, and why.
func partyLine(a console.ActivityParty) string {
	who := "unresolved"
	switch {
	case a.Party == nil && a.Name != "":
		who = fmt.Sprintf("unresolved %q", a.Name)
	case a.Party == nil:
	case a.Party.Kind == store.PartyMailbox:
		who = "our mailbox"
	default:
		who = fmt.Sprintf("%s %s", a.Party.Kind, cmp.Or(a.Party.Name, a.Party.ID.String()))
	}
	line := a.AddressUsed + " = " + who
	if a.Why != "" && a.Why != who {
		line += " (" + a.Why + ")"
	}
	return line
}

func personName(p console.Person) string {
	return fmt.Sprintf("%s (%s)", cmp.Or(p.Name, p.ID.String()), p.Kind)
}

// message tells a message and how it came.
func (p *program) message(w io.Writer, m console.MessageDetail) {
	p.activity(w, m.Activity)
	if m.Case != nil {
		say(w, 1, "case", strconv.FormatUint(*m.Case, 10))
	}
	for _, related := range m.RelatedCases {
		say(w, 1, "related", "case "+strconv.FormatUint(related, 10))
	}
	say(w, 1, "message-id", m.MessageID)
	say(w, 1, "came by", fmt.Sprintf("listener %s, peer %s, helo %s", m.Envelope.Listener, cmp.Or(m.Envelope.Peer, "-"), cmp.Or(m.Envelope.Helo, "-")))
	if t := m.Envelope.TLS; t != nil {
		say(w, 1, "secured", securedBy(*t))
	}
	say(w, 1, "signed in", m.Envelope.Login)
	if c := m.Envelope.Client; c != nil {
		say(w, 1, "for", fmt.Sprintf("client %s, name %s, helo %s, as the peer says", cmp.Or(c.Address, "-"), cmp.Or(c.Name, "-"), cmp.Or(c.Helo, "-")))
	}
	say(w, 1, "envelope", fmt.Sprintf("<%s> to %s", m.Envelope.From, strings.Join(m.Envelope.Recipients, ", ")))
	say(w, 1, "mailboxes", strings.Join(m.Mailboxes, ", "))
	say(w, 1, "received", fmt.Sprintf("%d bytes, sha256 %s", m.Archived.ReceivedSize, m.Archived.ReceivedSHA256))
	if m.Archived.SentSHA256 != "" {
		say(w, 1, "sent", fmt.Sprintf("%d bytes, sha256 %s", m.Archived.SentSize, m.Archived.SentSHA256))
	}
}

// delivery tells a row of the outbox.
func (p *program) delivery(w io.Writer, d store.Delivery) {
	fmt.Fprintf(w, "delivery %s  %s\n", d.ID, d.State)
	say(w, 1, "message", d.Message.String())
	if d.Case != 0 {
		say(w, 1, "case", strconv.FormatUint(d.Case, 10))
	}
	say(w, 1, "mail from", "<"+d.From+">")
	if d.State == store.Queued {
		say(w, 1, "due", p.at(d.Due))
	}
	p.deliveryLines(w, 1, d)
}

// deliveryLines tells how each recipient of a delivery stands, and each attempt.
func (p *program) deliveryLines(w io.Writer, depth int, d store.Delivery) {
	for _, r := range d.Recipients {
		line := r.Address + " " + string(r.State)
		if r.Reply != "" {
			line += ": " + r.Reply
		}
		say(w, depth, "delivery", line)
	}
	for _, a := range d.Attempts {
		line := fmt.Sprintf("%s %s, %s", p.moment(a.At), a.NextHop, a.Result)
		if a.TLS != nil {
			line += fmt.Sprintf(" over %s (%s)", a.TLS.Version, a.TLS.Trust)
		}
		if a.Ambiguous {
			line += " (ambiguous: the next hop may have taken it)"
		}
		if a.Reply != "" {
			line += ": " + a.Reply
		}
		say(w, depth, "attempt", line)
	}
}

// securedBy tells how a message came.
func securedBy(t store.TLS) string {
	text := t.Version + ", " + t.Cipher
	if t.Trust != "" {
		text += fmt.Sprintf(", client certificate of %s, %s, key %s", cmp.Or(t.Peer, "nobody"), t.Trust, t.Pin)
	}
	return text
}
