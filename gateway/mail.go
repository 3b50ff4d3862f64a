package gateway

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"time"

	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// maxHops is the number of Received fields that no real way has (RFC 5321
// §6.3 asks for at least 100).
const maxHops = 100

// read turns a spooled message into what the rules know of it.
func read(env *Envelope, s *spool, now time.Time) (resolver.Mail, message.Header) {
	h := message.Parse(clean(s.header))
	m := resolver.Mail{
		ID: store.NewID(), NewCase: store.NewID(), NewContact: store.NewID(), Received: now,
		EnvelopeFrom: env.From.String(), Header: h,
		From: addresses(h, "From"), To: addresses(h, "To"), CC: addresses(h, "Cc"), BCC: addresses(h, "Bcc"),
		Subject:    message.Decode(h.Get("Subject")),
		InReplyTo:  ids(h, "In-Reply-To"),
		References: ids(h, "References"),
	}
	for _, r := range env.Recipients {
		m.Recipients = append(m.Recipients, r.Path.String())
	}
	if author, n := message.From(h); n == 1 {
		m.Author = &resolver.Address{Name: author.Name, Address: author.Address}
	}
	if own := ids(h, "Message-ID"); len(own) > 0 {
		m.MessageID = own[0]
	}
	m.ContentHash = contentHash(h, s)
	if m.MessageID == "" {
		m.DerivedID = "derived." + m.ContentHash
		if s.size == int64(len(s.header)) { // without a body the whole header is what it says
			m.DerivedID = "derived." + s.digest()
		}
	}
	m.TooManyHops = len(h.Values("Received")) > maxHops
	switch {
	case s.tooLong || h.TooLarge():
		m.Unparsable = "its header is longer than 1 MiB or 10 000 fields"
	case h.Empty():
		m.Unparsable = "it has no header field"
	}
	return m, h
}

// clean is a header block with the line ends it is sent with: the rules must
// see the fields that the next hop will see. A block that has only CRLF, as
// all but listeners with bare_newline: normalize see to, stays as it is.
func clean(block []byte) []byte {
	crlf := bytes.Count(block, []byte("\r\n"))
	if crlf == bytes.Count(block, []byte("\n")) && crlf == bytes.Count(block, []byte("\r")) {
		return block
	}
	block, _ = io.ReadAll(message.Normalize(bytes.NewReader(block))) // neither can fail
	return block
}

func addresses(h message.Header, name string) []resolver.Address {
	var list []resolver.Address
	for _, b := range listed(h, name) {
		list = append(list, resolver.Address{Name: b.box.Name, Address: b.box.Address})
	}
	return list
}

func ids(h message.Header, name string) []string {
	var list []string
	for _, v := range h.Values(name) {
		list = append(list, message.MessageIDs(v)...)
	}
	return list
}

// contentHash covers what rule I1 compares: the body, the fields that a relay
// leaves alone, and what stands among them without being a field: the text of a
// mail whose header never ends.
func contentHash(h message.Header, s *spool) string {
	sum := sha256.New()
	sum.Write(s.content.Sum(nil))
	for _, name := range []string{"From", "To", "Cc", "Subject", "Date"} {
		for _, v := range h.Values(name) {
			io.WriteString(sum, name+":"+v+"\n")
		}
	}
	for _, junk := range h.Junk() {
		sum.Write(s.header[junk.Start:junk.End])
	}
	return hex.EncodeToString(sum.Sum(nil))
}
