package gateway

import (
	"context"

	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// lookInside reads what a report says, and the message that an agent forwards.
// What cannot be read is left out: the rules know what to do without it.
func (p *inbound) lookInside(ctx context.Context, a *arrival) {
	m := &a.mail
	if m.Reports() {
		m.Notification = notification(a.header, a.spool)
		return
	}
	if from, ok := m.Sender(); ok && (m.Login != "" || m.Verdict.AlignedPass) && p.isAgent(ctx, from) {
		m.Embedded = p.embedded(a.header, a.spool)
	}
}

func (p *inbound) isAgent(ctx context.Context, a resolver.Address) bool {
	found := false
	p.Store.View(ctx, func(r store.Reader) error {
		h, err := r.Holders(a.Key())
		found = len(h.Agents) > 0
		return err
	})
	return found
}

// notification is a report in the rules' words.
func notification(h message.Header, s *spool) *resolver.Notification {
	r, done := s.reader()
	defer done()
	report, _ := message.ReadReport(h, r)
	n := &resolver.Notification{}
	for _, one := range report.Recipients {
		n.Recipients = append(n.Recipients, resolver.ReportedRecipient{
			Address: one.FinalRecipient, Original: one.OriginalRecipient, Action: one.Action,
			Status: one.Status, Diagnostic: one.DiagnosticCode,
		})
	}
	switch back := report.Returned; {
	case back != nil:
		n.Returned = &resolver.Returned{
			InReplyTo: ids(*back, "In-Reply-To"), References: ids(*back, "References"),
			CaseRefs: back.Values("X-Case-Ref"),
		}
		if own := ids(*back, "Message-ID"); len(own) > 0 {
			n.Returned.MessageID = own[0]
		}
		if path := message.ParseList(back.Get("Return-Path")); len(path) == 1 {
			n.Returned.ReturnPath = path[0].Address
		}
	case report.OriginalMessageID != "":
		n.Returned = &resolver.Returned{MessageID: report.OriginalMessageID}
	}
	return n
}

// embedded is the one message that a message forwards whole, if it is just one.
func (p *inbound) embedded(h message.Header, s *spool) *resolver.Mail {
	inner, err := newSpool(&unkept{}, p.ContentKey)
	if err != nil {
		return nil
	}
	inner.inBody = true
	r, done := s.reader()
	defer done()
	header, n, err := message.Embedded(h, r, inner)
	if err != nil || n != 1 {
		return nil
	}
	m := describe(&Envelope{}, inner, header, p.Now())
	if from, ok := m.Sender(); ok {
		m.EnvelopeFrom = from.Address // whoever sent it, it is no bounce
	}
	return &m
}

// askDirectory brings our contacts up to date with an outside directory, as far
// as the mail names them.
func (p *inbound) askDirectory(ctx context.Context, m *resolver.Mail) {
	if p.Directory == nil {
		return
	}
	var addresses []string
	lists := [][]resolver.Address{m.From, m.To, m.CC}
	if e := m.Embedded; e != nil {
		lists = append([][]resolver.Address{m.From, e.From}, m.To, m.CC, e.To, e.CC)
	}
	for _, list := range lists {
		for _, a := range list {
			if _, own := p.Settings.Own(a.Address); own {
				continue
			}
			if len(addresses) == maxAsked {
				m.Unasked++
				continue
			}
			addresses = append(addresses, a.Key())
		}
	}
	if err := p.Directory(ctx, m.Received, addresses); err != nil {
		m.DirectoryOut = "the directory does not answer"
		p.Logger.Warn("the directory does not answer", "message", m.ID, "error", err)
	}
}

// maxAsked is how many addresses of a stranger's mail an outside directory is
// asked for, the sender's first.
const maxAsked = 50
