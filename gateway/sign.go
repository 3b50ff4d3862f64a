package gateway

import (
	"fmt"
	"strings"

	"github.com/casegate/casegate/gateway/mailauth"
	"github.com/casegate/casegate/gateway/message"
)

// brokenSignature is a DKIM signature of an application that covers a field
// which is rewritten: no signature is better than a wrong one (rules §6,
// on_signed). What signs or encrypts a body end to end is not touched: its
// bytes are all below the header.
type brokenSignature struct {
	field  message.Field
	domain string
	covers string // the first field covered that changes
}

func (b brokenSignature) String() string {
	return fmt.Sprintf("O13: the DKIM-Signature of %s covers %s, which is rewritten: removed", b.domain, b.covers)
}

// brokenSignatures lists the signatures of a header block that another block,
// made of it, breaks.
func brokenSignatures(h message.Header, sent []byte) (list []brokenSignature) {
	signatures := h.Named("DKIM-Signature")
	if len(signatures) == 0 {
		return nil
	}
	before, after := valuesByName(h), valuesByName(message.Parse(sent))
	for _, f := range signatures {
		times := map[string]int{}
		for _, name := range mailauth.SignedFields(f.Text()) {
			times[name]++
			if nth(before[name], times[name]) != nth(after[name], times[name]) {
				list = append(list, brokenSignature{f, signingDomain(f.Text()), plainName(name)})
				break
			}
		}
	}
	return list
}

// nth is the value that a signature means when it names a field for the n-th
// time: counted from the bottom, and with what is not there signed as well (RFC
// 6376 §5.4.2).
func nth(values []string, n int) string {
	if n > len(values) {
		return "none"
	}
	return "=" + values[len(values)-n]
}

// signingDomain is the tag d of a signature (RFC 6376 §3.5).
func signingDomain(value string) string {
	for tag := range strings.SplitSeq(value, ";") {
		if name, domain, ok := strings.Cut(tag, "="); ok && strings.TrimSpace(name) == "d" {
			return plainName(strings.TrimSpace(domain))
		}
	}
	return "nobody"
}

func valuesByName(h message.Header) map[string][]string {
	values := map[string][]string{}
	for _, f := range h.Fields() {
		name := strings.ToLower(f.Name)
		values[name] = append(values[name], f.Text())
	}
	return values
}
