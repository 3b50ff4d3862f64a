package gateway

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// maxHops is the number of Received fields that no real way has (RFC 5321
// §6.3 asks for at least 100).
const maxHops = 100

// read turns a spooled message into what the rules know of it.
func read(env *Envelope, s *spool, now time.Time) (resolver.Mail, message.Header) {
	h := s.parsed()
	return describe(env, s, h, now), h
}

// describe is what the rules know of a message with a header.
func describe(env *Envelope, s *spool, h message.Header, now time.Time) resolver.Mail {
	people := addresses{h: h, left: maxAddresses}
	m := resolver.Mail{
		ID: store.NewID(), NewCase: store.NewID(), NewContact: store.NewID(), Received: now,
		EnvelopeFrom: env.From.String(), Header: h,
		From: people.read("From"), To: people.read("To"), CC: people.read("Cc"), BCC: people.read("Bcc"),
		Subject:    subjectOf(h),
		InReplyTo:  ids(h, "In-Reply-To"),
		References: ids(h, "References"),
	}
	for _, r := range env.Recipients {
		m.Recipients = append(m.Recipients, r.Path.String())
	}
	m.Omitted = people.omitted
	if author, n := message.From(h); n == 1 {
		m.Author = addressOf(author)
	}
	if own := ids(h, "Message-ID"); len(own) > 0 {
		m.MessageID = own[0]
	}
	m.ContentHash, m.SubmitHash = contentHash(h, s), submitHash(env, s)
	if m.MessageID == "" {
		m.DerivedID = "derived." + m.ContentHash
		if s.size == int64(len(s.header)) { // without a body the whole header is what it says
			m.DerivedID = "derived." + s.digest()
		}
	}
	m.TooManyHops = len(h.Named("Received")) > maxHops
	switch {
	case s.tooLong || h.TooLarge():
		m.Unparsable = "its header is longer than 1 MiB or 10 000 fields"
	case h.Empty():
		m.Unparsable = "it has no header field"
	}
	return m
}

// clean is a header block with the line ends it is sent with. A block that has
// only CRLF, as all but listeners with bare_newline: normalize see to, stays as
// it is.
func clean(block []byte) []byte {
	crlf := bytes.Count(block, []byte("\r\n"))
	if crlf == bytes.Count(block, []byte("\n")) && crlf == bytes.Count(block, []byte("\r")) {
		return block
	}
	block, _ = io.ReadAll(message.Normalize(bytes.NewReader(block))) // neither can fail
	return block
}

// What a stranger writes must not decide how much work and record a decision
// makes.
const (
	maxAddresses = 1000   // of a header that are read
	maxText      = 998    // bytes of a subject or display name: a line
	maxIDs       = 10_000 // of the fields of one name, about
)

// addresses reads the address fields of a header until it has enough.
type addresses struct {
	h       message.Header
	left    int
	omitted int
}

// read returns the mailboxes of all fields with a name, in order.
func (a *addresses) read(name string) (list []resolver.Address) {
	for _, f := range a.h.Named(name) {
		boxes := message.ParseList(f.Value())
		n := min(len(boxes), a.left)
		a.left, a.omitted = a.left-n, a.omitted+len(boxes)-n
		for _, box := range boxes[:n] {
			list = append(list, *addressOf(box))
		}
	}
	return list
}

func addressOf(m message.Mailbox) *resolver.Address {
	return &resolver.Address{Name: short(m.Name), Address: m.Address}
}

// subjectOf decodes no more of a subject than anybody reads.
func subjectOf(h message.Header) string {
	const read = 64 << 10
	f, _ := h.First("Subject")
	s := strings.Trim(f.Value(), " \t\r\n")
	return short(message.Decode(s[:min(len(s), read)]))
}

func short(s string) string {
	if len(s) <= maxText {
		return s
	}
	end := maxText
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}

func ids(h message.Header, name string) []string {
	var list []string
	for _, f := range h.Named(name) {
		list = append(list, message.MessageIDs(f.Value())...)
		if len(list) >= maxIDs {
			break
		}
	}
	return list
}

// contentHash covers what rule I1 compares: the body, the fields that a relay
// leaves alone, and what stands among them without being a field: the text of a
// mail whose header never ends.
func contentHash(h message.Header, s *spool) string {
	sum := sha256.New()
	sum.Write(s.content.Sum(nil))
	w := bufio.NewWriterSize(sum, 512)
	for _, name := range []string{"From", "To", "Cc", "Subject", "Date"} {
		for _, v := range h.Values(name) {
			w.WriteString(name)
			w.WriteByte(':')
			w.WriteString(v)
			w.WriteByte('\n')
		}
	}
	w.Flush()
	for _, junk := range h.Junk() {
		sum.Write(h.Bytes()[junk.Start:junk.End])
	}
	return hex.EncodeToString(sum.Sum(nil))
}
