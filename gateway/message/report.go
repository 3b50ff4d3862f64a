package message

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ReportKind is what a report is about.
type ReportKind string

// The kinds of a Report. One without a kind is no standard report: a bounce as
// qmail or Exim write it, or no report at all; the caller knows by other marks.
const (
	DeliveryReport    ReportKind = "delivery-status"          // DSN: RFC 3464, RFC 6533
	DispositionReport ReportKind = "disposition-notification" // MDN: RFC 8098
	FeedbackReport    ReportKind = "feedback-report"          // ARF: RFC 5965
)

// Report is what a mail says about another mail. All of it is claimed, nothing
// proven. Texts are single lines, as they came.
type Report struct {
	Kind       ReportKind
	Recipients []ReportedRecipient // at most 1000

	Disposition       string // MDN: "manual-action/MDN-sent-manually; displayed"
	OriginalMessageID string // MDN: without angle brackets

	FeedbackType   string   // ARF: "abuse"
	OriginalRcptTo []string // ARF: addresses, at most 1000

	// Returned is the header of the mail reported on, perhaps in part; nil if
	// it isn't there.
	Returned *Header
}

// ReportedRecipient is what a report says of one recipient. Addresses are
// addr-specs as written; what is missing or can't be read is "".
type ReportedRecipient struct {
	FinalRecipient    string // the address that failed
	OriginalRecipient string // the one that the sender gave
	Action            string // failed, delayed, delivered, relayed, expanded; in lower case
	Status            string // RFC 3463: "5.1.1"
	DiagnosticCode    string // with its type: "smtp; 550 no such user"
	RemoteMTA         string // host name
}

// What one report may cost. Reading ends there; what was read before counts.
const (
	maxReported     = 1000      // recipients
	maxReportStatus = 256 << 10 // bytes of machine-readable parts
	maxReportText   = 256 << 10 // bytes of text parts
	maxReportHeader = 256 << 10 // bytes of the returned header, or of a part's
	maxReportField  = 998       // bytes of a field that are kept: a line
)

// ReadReport reads a report by its header and raw body, whatever form it has:
// of a standard one the machine-readable part, of others what a mailer writes
// into the header or text. An address is never taken from free text, only from
// Final-Recipient, X-Failed-Recipients or a line that begins with "<a@b>:".
// It stops reading once it has all it looks for.
//
// If it fails, as Walker.Next does but with ErrHeaderTooLarge from 256 KiB on,
// the report holds what was read by then.
func ReadReport(h Header, body io.Reader) (Report, error) {
	r := reporter{status: maxReportStatus, text: maxReportText}
	w := NewWalker(h, body)
	w.maxHeader = maxReportHeader
	for !r.complete() {
		p, err := w.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = r.read(p)
		}
		if err != nil {
			return r.finish(h), err
		}
	}
	return r.finish(h), nil
}

// reporter collects a report from the parts that stream by.
type reporter struct {
	Report
	status, text int // bytes that may still be read
	machine      bool
	prose        prose
}

// complete reports that no further part can say more.
func (r *reporter) complete() bool { return r.machine && r.Returned != nil }

func (r *reporter) read(p *Part) error {
	if p.Depth > 0 && r.Returned == nil && isReturned(p.Header) {
		returned := p.Header // a message pasted behind a boundary
		r.Returned = &returned
		return nil
	}
	switch p.Type {
	case "multipart/report":
		if r.Kind == "" {
			r.Kind = reportKind(p.Param("report-type"))
		}
	case "message/delivery-status", "message/global-delivery-status":
		return r.readStatus(p, DeliveryReport)
	case "message/disposition-notification", "message/global-disposition-notification":
		return r.readStatus(p, DispositionReport)
	case "message/feedback-report":
		return r.readStatus(p, FeedbackReport)
	case "message/rfc822", "message/global", "message/partial",
		"text/rfc822-headers", "text/rfc822-header", "message/rfc822-headers", "message/global-headers":
		return r.readReturned(p)
	case "text/plain":
		return r.readText(p)
	}
	if p.Multipart {
		return r.readText(p)
	}
	return nil
}

func reportKind(reportType string) ReportKind {
	switch kind := ReportKind(strings.ToLower(reportType)); kind {
	case DeliveryReport, DispositionReport, FeedbackReport:
		return kind
	}
	return ""
}

// readStatus reads a machine-readable part: blocks of fields, one for the
// message and, in a DSN, one for each recipient (RFC 3464 §2.1).
func (r *reporter) readStatus(p *Part, kind ReportKind) error {
	if !r.machine {
		r.Kind, r.machine = kind, true
	}
	b, err := readUpTo(p.Decoded(), &r.status)
	for len(b) > 0 {
		var f Finder
		n, _ := f.Feed(b)
		if isEmptyLine(b[:n]) {
			b = b[n:]
			continue
		}
		h := Parse(b[:n])
		r.Recipients = addRecipients(r.Recipients, h)
		r.addDisposition(h)
		r.addFeedback(h)
		b = b[n:]
	}
	return err
}

// readUpTo reads what is left of a budget.
func readUpTo(r io.Reader, left *int) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, int64(*left)))
	*left -= len(b)
	return b, err
}

func (r *reporter) addDisposition(h Header) {
	if r.Disposition == "" {
		r.Disposition = fieldText(h.Get("Disposition"))
	}
	if ids := MessageIDs(h.Get("Original-Message-ID")); len(ids) > 0 && r.OriginalMessageID == "" {
		r.OriginalMessageID = strings.Clone(ids[0])
	}
}

func (r *reporter) addFeedback(h Header) {
	if r.FeedbackType == "" {
		r.FeedbackType = strings.ToLower(fieldText(h.Get("Feedback-Type")))
	}
	for _, v := range h.Values("Original-Rcpt-To") {
		if a := reportedAddress(v); a != "" && len(r.OriginalRcptTo) < maxReported {
			r.OriginalRcptTo = append(r.OriginalRcptTo, a)
		}
	}
}

// addRecipients reads a block of per-recipient fields (RFC 3464 §2.3). Where
// the empty line between two recipients is missing, Final-Recipient begins the
// next one.
func addRecipients(list []ReportedRecipient, h Header) []ReportedRecipient {
	var one ReportedRecipient
	final, any := false, false
	add := func() {
		if any && len(list) < maxReported {
			list = append(list, one)
		}
		one, final, any = ReportedRecipient{}, false, false
	}
	for _, f := range h.Fields() {
		switch strings.ToLower(f.Name) {
		case "final-recipient":
			if final {
				add()
			}
			one.FinalRecipient = reportedAddress(f.Text())
			final, any = true, true
		case "original-recipient":
			setOnce(&one.OriginalRecipient, reportedAddress(f.Text()))
			any = true
		case "action":
			setOnce(&one.Action, firstWord(strings.ToLower(f.Text())))
			any = true
		case "status":
			setOnce(&one.Status, statusCode(f.Text()))
		case "diagnostic-code":
			setOnce(&one.DiagnosticCode, fieldText(f.Text()))
		case "remote-mta":
			_, host := typed(f.Text())
			setOnce(&one.RemoteMTA, firstWord(host))
		}
	}
	add()
	return list
}

func setOnce(to *string, v string) {
	if *to == "" {
		*to = v
	}
}

// typed splits `type; value` (RFC 3464 §2.1.2); the type may be missing.
func typed(v string) (kind, value string) {
	kind, value, ok := strings.Cut(v, ";")
	if !ok {
		return "", v
	}
	return strings.ToLower(strings.Trim(kind, " \t")), strings.Trim(value, " \t")
}

// reportedAddress reads a generic address if it is one of mail (RFC 3464
// §2.1.2, RFC 6533 §3), else it is "".
func reportedAddress(v string) string {
	kind, addr := typed(v)
	switch kind {
	case "", "rfc822", "rfc/822", "smtp":
	case "utf-8":
		addr = unicodeAddress(addr)
	default:
		return ""
	}
	if len(addr) > maxReportField {
		return ""
	}
	if list := ParseList(addr); len(list) == 1 && !list[0].Loose {
		return strings.Clone(list[0].Address)
	}
	return ""
}

// unicodeAddress undoes \x{HEX} (RFC 6533 §3, utf-8-addr-xtext).
func unicodeAddress(s string) string {
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(s, `\x{`)
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		digits, rest, _ := strings.Cut(after, "}")
		v, err := strconv.ParseUint(digits, 16, 21)
		if err != nil {
			return b.String() + s[len(before):]
		}
		b.WriteRune(rune(v))
		s = rest
	}
}

// statusCode reads an enhanced status code (RFC 3463 §2), or returns "".
func statusCode(v string) string {
	code := firstWord(v)
	parts := strings.Split(code, ".")
	if len(parts) != 3 || len(code) > len("5.999.999") {
		return ""
	}
	for _, part := range parts {
		if part == "" || strings.Trim(part, "0123456789") != "" {
			return ""
		}
	}
	return code
}

// firstWord is what stands before white space, a comment or a separator.
func firstWord(v string) string {
	if i := strings.IndexAny(v, " \t(;,"); i >= 0 {
		v = v[:i]
	}
	return fieldText(v)
}

// fieldText is the text of a field to keep: no longer than a line, nothing in
// it that people can't see. It holds no part of the block it comes from.
func fieldText(v string) string {
	v = v[:min(len(v), maxReportField)]
	v = strings.ToValidUTF8(v, string(utf8.RuneError))
	return strings.Clone(strings.TrimSpace(strings.Map(showRune, v)))
}

func (r *reporter) readReturned(p *Part) error {
	if r.Returned != nil {
		return nil
	}
	block, _, err := readHeader(openMessage(p), maxReportHeader)
	if h := Parse(block); !h.Empty() {
		r.Returned = &h
	}
	return err
}

func (r *reporter) readText(p *Part) error {
	b, err := readUpTo(p.Decoded(), &r.text)
	r.prose.read(b)
	return err
}

// finish fills up what no part of its own said: from X-Failed-Recipients, which
// Exim and Gmail add, and from the text.
func (r *reporter) finish(h Header) Report {
	for _, said := range [][]ReportedRecipient{failedRecipients(h), r.prose.fields, r.prose.lines} {
		if len(r.Recipients) == 0 {
			r.Recipients = said
		}
	}
	if r.Returned == nil && r.prose.returned != nil {
		returned := Parse(bytes.Clone(r.prose.returned))
		r.Returned = &returned
	}
	return r.Report
}

func failedRecipients(h Header) (list []ReportedRecipient) {
	for _, f := range h.Named("X-Failed-Recipients") {
		for _, m := range ParseList(f.Value()) {
			if !m.Loose && len(list) < maxReported {
				list = append(list, ReportedRecipient{FinalRecipient: m.Address, Action: "failed"})
			}
		}
	}
	return list
}
