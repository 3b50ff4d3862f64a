package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// report is a delivery status notification on its way into the archive and the
// outbox (RFC 3464).
type report struct {
	m      store.Message
	d      store.Delivery
	header []byte
	body   store.Body
}

// notice is what one report says of one recipient.
type notice struct {
	to     store.Recipient
	action string // failed, delayed, relayed, delivered
	status string
	blind  bool
	last   *store.Attempt // that served the recipient; nil: none just now
}

// notices are what the submitter wants to hear (RFC 3461 §4.1).
func (n *news) notices(m *store.Message) (list []notice) {
	add := func(recipients []int, action, what string) {
		for _, i := range recipients {
			to := n.now.Recipients[i]
			if !wants(&to, what) {
				continue
			}
			about := notice{to: to, action: action, status: n.status(i, action), blind: blind(m, to.Address)}
			if last, ok := n.last[i]; ok {
				about.last = &last
			}
			if action == "relayed" && about.last != nil && strings.HasPrefix(about.last.NextHop, "lmtp") {
				about.action = "delivered" // LMTP brings it into the mailbox (RFC 2033 §1)
			}
			list = append(list, about)
		}
	}
	add(n.failed, "failed", "FAILURE")
	add(n.delayed, "delayed", "DELAY")
	add(n.relayed, "relayed", "SUCCESS")
	return list
}

// compose writes a report and stages its body; nil if nobody wants one. A fault
// of ours in it must not keep the outcome from being stored.
func (r *Relay) compose(ctx context.Context, n *news, m *store.Message, header []byte, at time.Time) (p *report, err error) {
	defer func() {
		if f := recover(); f != nil {
			r.opts.Logger.Error("panic in a delivery report", "delivery", n.now.ID, "message", m.ID, "panic", f, "stack", string(debug.Stack()))
			p, err = nil, nil
		}
	}()
	list := n.notices(m)
	if len(list) == 0 {
		return nil, nil
	}
	p = &report{m: r.reportMessage(n, m, list, at)}
	w := &writing{
		r: r, n: n, about: m, list: list, at: at, header: header,
		boundary: "=_" + strings.ReplaceAll(p.m.ID.String(), "-", ""),
	}
	w.full = w.returnsAll()
	if w.eight, err = w.isEightBit(ctx); err != nil {
		w.full = nil // it cannot be read: its header will do
	}
	err = p.stage(ctx, r, w)
	if err != nil && w.full != nil {
		w.full, w.eight = nil, false
		err = p.stage(ctx, r, w)
	}
	if err != nil {
		return nil, err
	}
	p.d = store.Delivery{
		ID: store.NewID(), Message: p.m.ID, Case: n.now.Case, Role: r.roleTowards(n.now.Submitter), Mailbox: n.now.Mailbox,
		Recipients: []store.Recipient{{Address: n.now.Submitter, Notify: []string{"NEVER"}, State: store.Queued}},
		State:      store.Queued, Due: at, CreatedAt: at,
	}
	return p, nil
}

// roleTowards is that of the routes which lead to a submitter. A mailbox of ours
// is read where the mail that came in goes; by the way out its report would come
// back to us, as a loop.
func (r *Relay) roleTowards(submitter string) string {
	if r.opts.Own != nil && r.opts.Own(submitter) {
		if rt, ok := r.Route("inbound", "", submitter); ok && rt.NextHop != None {
			return "inbound"
		}
	}
	return "outbound"
}

// stage writes the report, its body into the store.
func (p *report) stage(ctx context.Context, r *Relay, w *writing) error {
	p.header = w.head(p.m)
	body, err := r.st.Stage(ctx)
	if err != nil {
		return err
	}
	if err := p.fill(ctx, r, w, body); err != nil {
		body.Discard()
		return err
	}
	p.body = body
	return nil
}

// fill writes the body, signs, and works out the digest.
func (p *report) fill(ctx context.Context, r *Relay, w *writing, body store.Body) error {
	if err := w.body(ctx, body); err != nil {
		return err
	}
	if err := body.Seal(ctx); err != nil {
		return err
	}
	if r.opts.Sign != nil {
		fields, why, err := r.opts.Sign(p.header, body)
		if err != nil {
			return err
		}
		p.header = append(fields, p.header...)
		if why != "" {
			p.m.Decision.Reasons = append(p.m.Decision.Reasons[:1:1], why)
		}
	}
	sum := sha256.New()
	sum.Write(p.header)
	n, err := body.WriteTo(sum)
	digest, size := hex.EncodeToString(sum.Sum(nil)), int64(len(p.header))+n
	p.m.Archived = store.Archived{ReceivedSHA256: digest, ReceivedSize: size, SentSHA256: digest, SentSize: size}
	return err
}

// record puts the report into the archive and the outbox.
func (p *report) record(tx store.Tx) error {
	if err := tx.PutMessage(p.m); err != nil {
		return err
	}
	if err := tx.Archive(p.m.ID, p.header, p.header, nil, p.body); err != nil {
		return err
	}
	return tx.Enqueue(p.d) // in no lane: there are few of them
}

// reportMessage is the record of a report. It is on no case: the message that
// it is about tells of it.
func (r *Relay) reportMessage(n *news, about *store.Message, list []notice, at time.Time) store.Message {
	id := store.NewID()
	from := resolver.DaemonAddress(r.opts.Hostname)
	m := store.Message{
		ID: id, MessageID: id.String() + "@" + r.opts.Hostname, Direction: store.Outgoing,
		Subject: subjectOf(list), From: from, Class: "dsn", Identity: "gateway",
		Flags: []string{"bounce"}, CorrelationMethod: "none", ReceivedAt: at,
		Parties: []store.Party{
			{Role: store.RoleSender, AddressUsed: from, Why: "the gateway itself"},
			{Role: store.RoleTo, AddressUsed: n.now.Submitter, Sent: true, Why: "submitted message " + about.ID.String()},
		},
		Decision: store.Decision{Rules: []string{"RFC 3464"}, Reasons: []string{
			fmt.Sprintf("RFC 3464: %s of message %s: %d recipients", list[0].action, about.ID, len(list)),
		}},
		Envelope: store.Envelope{Listener: bounceListener, Recipients: []string{n.now.Submitter}},
	}
	if about.Case != 0 {
		m.Related = []uint64{about.Case}
	}
	return m
}

func subjectOf(list []notice) string {
	switch list[0].action {
	case "failed":
		return "Your message could not be delivered"
	case "delayed":
		return "Your message is delayed"
	}
	return "Your message was handed on"
}

// writing is a report being written.
type writing struct {
	r        *Relay
	n        *news
	about    *store.Message
	list     []notice
	at       time.Time
	header   []byte  // of the message reported on, as sent
	full     *letter // if all of it is returned
	eight    bool    // the returned message has octets above 127
	boundary string
}

// returnsAll: the whole message goes back if that was asked for, something
// failed (RFC 3461 §4.3), and it is small enough; not if the reason is what is
// in it.
func (w *writing) returnsAll() *letter {
	d, a := &w.n.now, w.about.Archived
	if d.RET != "FULL" || a.SentSize == 0 || a.SentSize > w.r.patience.Load().MaxReturned {
		return nil
	}
	failed := false
	for _, n := range w.list {
		failed = failed || n.action == "failed"
		if strings.HasPrefix(n.status, "5.6.") {
			return nil
		}
	}
	if !failed {
		return nil
	}
	l := w.r.letterOf(w.about)
	l.header = int64(len(w.header))
	return l
}

func (w *writing) isEightBit(ctx context.Context) (bool, error) {
	if w.full == nil {
		return false, nil
	}
	return w.full.eightBit(ctx)
}

// head is the header block of the report.
func (w *writing) head(m store.Message) []byte {
	var b bytes.Buffer
	field := func(name, value string) { fmt.Fprintf(&b, "%s: %s\r\n", name, value) }
	field("Date", w.at.Format(time.RFC1123Z))
	field("From", "Mail gateway <"+m.From+">")
	field("To", w.n.now.Submitter)
	field("Subject", m.Subject)
	field("Message-ID", "<"+m.MessageID+">")
	if id := w.about.MessageID; id != "" && len(id) < 900 && printable(id) && !strings.ContainsAny(id, "<>") {
		field("In-Reply-To", "<"+id+">")
		field("References", "<"+id+">")
	}
	field("Auto-Submitted", "auto-replied") // RFC 3834 §5
	field("MIME-Version", "1.0")
	field("Content-Type", "multipart/report; report-type=delivery-status;\r\n boundary=\""+w.boundary+`"`)
	if w.eight {
		field("Content-Transfer-Encoding", "8bit")
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// body writes the three parts (RFC 6522 §3).
func (w *writing) body(ctx context.Context, out io.Writer) error {
	var b bytes.Buffer
	w.open(&b)
	writeText(&b, "text/plain", w.text())
	w.open(&b)
	b.WriteString("Content-Type: message/delivery-status\r\n\r\n")
	w.status(&b)
	switch {
	case w.full != nil:
		return w.returned(ctx, out, &b)
	case len(w.header) > 0:
		w.open(&b)
		writeText(&b, "text/rfc822-headers", string(upTo(w.header, maxReturnedHeader)))
	}
	w.close(&b)
	_, err := b.WriteTo(out)
	return err
}

func (w *writing) open(b *bytes.Buffer)  { fmt.Fprintf(b, "\r\n--%s\r\n", w.boundary) }
func (w *writing) close(b *bytes.Buffer) { fmt.Fprintf(b, "\r\n--%s--\r\n", w.boundary) }

// returned writes what is in b and then the whole message, as it was sent.
func (w *writing) returned(ctx context.Context, out io.Writer, b *bytes.Buffer) error {
	w.open(b)
	b.WriteString("Content-Type: message/rfc822\r\n")
	if w.eight {
		b.WriteString("Content-Transfer-Encoding: 8bit\r\n")
	}
	b.WriteString("\r\n")
	if _, err := b.WriteTo(out); err != nil {
		return err
	}
	rc, err := w.full.read(ctx)
	if err != nil {
		return err
	}
	defer rc.Close()
	if _, err := io.Copy(out, rc); err != nil {
		return err
	}
	w.close(b)
	_, err = b.WriteTo(out)
	return err
}

// status writes the machine-readable part: a block for the message and one for
// each recipient (RFC 3464 §2.1).
func (w *writing) status(b *bytes.Buffer) {
	d := &w.n.now
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(b, "%s: %s\r\n", name, plain(value))
		}
	}
	field("Reporting-MTA", "dns; "+w.r.opts.Hostname)
	field("Original-Envelope-Id", d.EnvID)
	field("Arrival-Date", w.about.ReceivedAt.Format(time.RFC1123Z))
	for _, n := range w.list {
		b.WriteString("\r\n")
		if !n.blind {
			field("Original-Recipient", reported(n.to.ORcpt))
		}
		field("Final-Recipient", n.final())
		field("Action", n.action)
		field("Status", n.status)
		words := n.words()
		if len(words) > 3 && strings.Trim(words[:3], "0123456789") == "" {
			field("Remote-MTA", n.remote())
			field("Diagnostic-Code", "smtp; "+words)
		} else {
			field("Diagnostic-Code", "X-Casegate; "+words)
		}
		if n.last != nil {
			field("Last-Attempt-Date", n.last.At.Format(time.RFC1123Z))
		} else if k := len(d.Attempts); k > 0 {
			field("Last-Attempt-Date", d.Attempts[k-1].At.Format(time.RFC1123Z))
		}
		if n.action == "delayed" {
			field("Will-Retry-Until", w.r.expires(d, w.at).Format(time.RFC1123Z))
		}
	}
}

// hiddenRecipient stands for who got a blind copy: no report names him.
const hiddenRecipient = "blind-copy@undisclosed.invalid"

func (n notice) final() string {
	if n.blind {
		return "rfc822; " + hiddenRecipient
	}
	if ascii(n.to.Address) {
		return "rfc822; " + n.to.Address
	}
	return reported("utf-8;" + n.to.Address)
}

// words are the last about a recipient; of a blind copy, the codes alone.
func (n notice) words() string {
	if n.blind {
		return status(n.to.Reply)
	}
	return n.to.Reply
}

// reported writes an original recipient, kept as "type;address" (RFC 3464
// §2.3.1; RFC 6533 §3).
func reported(orcpt string) string {
	kind, address, ok := strings.Cut(orcpt, ";")
	switch {
	case !ok || kind == "" || !printable(kind):
		return ""
	case strings.EqualFold(kind, "utf-8"):
		return kind + "; " + string(appendUTF8Xtext(nil, address))
	}
	return kind + "; " + address
}

// remote is the host whose words the last attempt brought.
func (n notice) remote() string {
	if n.last == nil {
		return ""
	}
	u, err := url.Parse(n.last.NextHop)
	if err != nil || u.Hostname() == "" {
		return ""
	}
	if strings.Trim(u.Hostname(), "0123456789.:abcdef") == "" {
		return "dns; [" + u.Hostname() + "]"
	}
	return "dns; " + u.Hostname()
}

// text is what a person reads.
func (w *writing) text() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("This is the mail gateway %s.", w.r.opts.Hostname)
	line("")
	line("Your message of %s", w.about.ReceivedAt.Format(time.RFC1123Z))
	action := ""
	list := slices.Clone(w.list)
	for _, n := range list {
		if n.action != action {
			action = n.action
			line("")
			line("%s", map[string]string{
				"failed":    "could not be delivered to the following, and is not tried again:",
				"delayed":   "has not yet been delivered to the following; you need do nothing:",
				"relayed":   "was handed on, to a server that sends no confirmations, for:",
				"delivered": "was delivered to:",
			}[action])
		}
		line("")
		if n.blind {
			line("  a recipient of a blind copy")
		} else {
			line("  %s", n.to.Address)
		}
		line("    %s", n.words())
	}
	line("")
	if action == "delayed" {
		line("It is tried again until %s.", w.r.expires(&w.n.now, w.at).Format(time.RFC1123Z))
	}
	if w.n.now.Case != 0 {
		line("It belongs to case %d.", w.n.now.Case)
	}
	line("To look it up: casegate queue show %s", w.n.now.ID)
	return b.String()
}
