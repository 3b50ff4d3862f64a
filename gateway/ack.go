package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"mime"
	"slices"
	"strings"
	"time"

	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// Acknowledgement is the text that tells a customer his case's number (rules
// §5); {number} stands for it.
type Acknowledgement struct {
	Subject string
	Text    string
}

// ackBody is the staged body of the acknowledgement that an arrival causes. It
// is staged with the plan made before the transaction: staging may wait for a
// commit. A transaction that finds otherwise than the plan makes no new one.
type ackBody struct {
	body    store.Body
	planned bool
}

func (b *ackBody) discard() {
	if b.body != nil {
		b.body.Discard()
	}
}

// acknowledge plans the answer to a mail that opens a case: it has the null
// reverse-path and says that it is automatic, so that nothing answers it in
// turn (RFC 3834).
func (p *inbound) acknowledge(ctx context.Context, a arrival, d resolver.InboundDecision, in store.Installation) (*plan, error) {
	c := d.Case
	c.Ordinal++
	token, err := resolver.Sign(in, c.Number, c.Ordinal)
	if err != nil {
		return nil, err
	}
	thread, err := resolver.Sign(in, c.Number, 0)
	if err != nil {
		return nil, err
	}
	text := p.ackText(p.Ack.Text, c.Number)
	if a.ack.body == nil {
		if a.ack.planned {
			return nil, nil
		}
		if a.ack.body, err = stageText(ctx, p.Store, text); err != nil {
			return nil, err
		}
	}
	m := store.Message{
		ID: a.ackID, MessageID: resolver.MessageID(token, p.Settings.Hostname), Direction: store.Outgoing,
		Case: c.Number, Ordinal: c.Ordinal, Subject: p.ackText(p.Ack.Subject, c.Number), From: c.Mailbox,
		Class: string(resolver.AutoReply), Identity: "gateway", Flags: []string{"acknowledgement"},
		CorrelationMethod: "none", Mailboxes: []string{c.Mailbox}, ReceivedAt: a.mail.Received,
		Parties: []store.Party{
			{Role: store.RoleSender, AddressUsed: c.Mailbox, Party: store.PartyRef{Kind: store.PartyMailbox, Address: c.Mailbox}, Why: "our mailbox " + c.Mailbox},
			ackParty(d),
		},
		Links:    []store.Link{{Address: store.Key(d.Ack)}},
		Decision: store.Decision{Rules: []string{d.Row}, Reasons: []string{d.Row + ": the new case is acknowledged"}},
		Envelope: store.Envelope{Listener: "acknowledgement", Recipients: []string{d.Ack}},
	}
	references := []string{resolver.PseudoReference(thread, p.Settings.Hostname)}
	if id := a.mail.MessageID; id != "" && len(id) < maxThreadID {
		references = append(references, a.mail.MessageID)
		m.References = []string{a.mail.MessageID}
	}
	n := &plan{kase: &c, message: m, sent: p.ackHeader(m, token, references), body: a.ack.body}
	if err := p.sign(n, textHash(text)); err != nil {
		return nil, err
	}
	n.received = n.sent
	sum, size := sha256.Sum256(append(slices.Clone(n.sent), text...)), int64(len(n.sent)+len(text))
	digest := hex.EncodeToString(sum[:])
	n.message.Archived = store.Archived{ReceivedSHA256: digest, ReceivedSize: size, SentSHA256: digest, SentSize: size}
	n.log = p.logMail(n.message, "Case email-out")
	n.tally(store.TallyAcknowledged, store.Key(d.Ack))
	n.deliveries = []store.Delivery{{
		ID: store.NewID(), Message: m.ID, Case: c.Number, Role: string(RoleOutbound), Mailbox: c.Mailbox,
		Recipients: []store.Recipient{{Address: d.Ack, Notify: []string{"NEVER"}, State: store.Queued}},
		State:      store.Queued, Due: m.ReceivedAt, CreatedAt: m.ReceivedAt,
	}}
	return n, nil
}

// ackParty is who gets the answer: the customer, if the reverse-path is his.
func ackParty(d resolver.InboundDecision) store.Party {
	row := store.Party{Role: store.RoleTo, AddressUsed: d.Ack, Why: "the reverse-path of the mail that opened the case"}
	if d.Customer.HeldAt(store.Key(d.Ack), d.Case.CreatedAt) {
		row.Party, row.Why = store.PartyRef{Kind: store.PartyContact, ID: d.Customer.ID}, "Case.Customer"
	}
	return row
}

// ackHeader is the header block. Nothing that a stranger chose stands in it but
// his address, which the session has checked, and ids.
func (p *inbound) ackHeader(m store.Message, token string, references []string) []byte {
	var b strings.Builder
	for _, f := range [][2]string{
		{"Date", m.ReceivedAt.Format(time.RFC1123Z)},
		{"From", m.From},
		{"To", m.Envelope.Recipients[0]},
		{"Reply-To", resolver.PlusAddress(m.From, token)},
		{"Subject", mime.QEncoding.Encode("utf-8", m.Subject)},
		{"Message-ID", "<" + m.MessageID + ">"},
		{"In-Reply-To", "<" + references[len(references)-1] + ">"},
		{"References", "<" + strings.Join(references, ">\r\n <") + ">"},
		{"Auto-Submitted", "auto-replied"},
		{"X-Auto-Response-Suppress", "All"},
		{"X-Case-Ref", token},
		{"MIME-Version", "1.0"},
		{"Content-Type", "text/plain; charset=utf-8"},
		{"Content-Transfer-Encoding", "8bit"},
	} {
		b.WriteString(f[0] + ": " + f[1] + "\r\n")
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}

// maxThreadID is the longest id that still fits into a line of an answer.
const maxThreadID = 900

func (p *inbound) ackText(text string, number uint64) string {
	return strings.NewReplacer("{number}", fmt.Sprint(number), "\n", "\r\n").Replace(text)
}

// prepareAck stages the answer to a message that may yet open a case, where
// nothing but the transaction decides.
func (p *inbound) prepareAck(ctx context.Context, a arrival) error {
	a.ack.planned = true
	if !p.Settings.Ack {
		return nil
	}
	number, err := a.number()
	if err == nil {
		a.ack.body, err = stageText(ctx, p.Store, p.ackText(p.Ack.Text, number))
	}
	return err
}

func stageText(ctx context.Context, st store.Store, text string) (store.Body, error) {
	body, err := st.Stage(ctx)
	if err != nil {
		return nil, err
	}
	if _, err = io.WriteString(body, text); err == nil {
		err = body.Seal(ctx)
	}
	if err != nil {
		body.Discard()
		return nil, err
	}
	return body, nil
}
