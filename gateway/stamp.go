package gateway

import (
	"fmt"
	"strings"
	"time"

	"github.com/casegate/casegate/gateway/mailauth"
	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/resolver"
)

// maxStamped is how many ids or addresses a stamp lists before it only counts.
const maxStamped = 20

// stampInbound returns the header block that is handed on: the result of the
// decision on top, control headers of others removed, all else as it came
// (rules §5 "Stamped on inbound"). A report that also goes to who submitted the
// mail it is about, who may be anybody, says no more than that mail itself did.
func stampInbound(a arrival, d resolver.InboundDecision, token string, s resolver.Settings, outside bool) []byte {
	e := message.NewEditor(a.header)
	for _, f := range a.header.Fields() {
		if stamped(f.Name) || !a.mail.ControlHeaders && control(f.Name) || claimsOurVerdict(f, s.Hostname) {
			e.Remove(f)
		}
	}
	e.Prepend("Received", trace(a.env, resolver.ReceivedMark, a.mail, s.Hostname))
	e.Prepend("Authentication-Results", mailauth.Results(s.Hostname, a.verdict))
	e.Prepend("X-Case-Ref", token)
	e.Prepend("X-Case-Number", fmt.Sprint(d.Case.Number))
	if !outside {
		stampPeople(e, d)
	}
	return e.Bytes()
}

// stampPeople tells whose mail it is, and by which rules.
func stampPeople(e *message.Editor, d resolver.InboundDecision) {
	e.Prepend("X-Case-Customer", d.Customer.ID.String()+" "+string(d.Customer.Kind))
	if len(d.Linked) > 0 {
		var ids []string
		for _, c := range d.Linked {
			ids = append(ids, c.ID.String())
		}
		e.Prepend("X-Case-Contacts", counted(ids))
	}
	if len(d.Unresolved) > 0 {
		var list []string
		for _, address := range d.Unresolved {
			list = append(list, encoded(address))
		}
		e.Prepend("X-Case-Unresolved", counted(list))
	}
	e.Prepend("X-Case-Decision", strings.Join(d.Rules, " "))
}

// counted lists the first few and how many there are.
func counted(list []string) string {
	return fmt.Sprintf("%s; count=%d", strings.Join(list[:min(len(list), maxStamped)], ", "), len(list))
}

// stamped reports whether a field is one that we stamp: where peers are
// believed in control headers too, ours is the only one.
func stamped(name string) bool {
	switch strings.ToLower(name) {
	case "x-case-ref", "x-case-number", "x-case-customer", "x-case-contacts", "x-case-unresolved", "x-case-decision":
		return true
	}
	return false
}

// control reports whether a field is a control header, of ours or of a peer
// system, that nobody outside may set (rules §2).
func control(name string) bool {
	name = strings.ToLower(name)
	for _, prefix := range []string{"x-case-", "x-zammad-", "x-otrs-", "x-rt-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// claimsOurVerdict: a reader might take the field for ours.
func claimsOurVerdict(f message.Field, hostname string) bool {
	switch strings.ToLower(f.Name) {
	case "authentication-results", "arc-authentication-results":
		return mailauth.Claims(f.Value(), hostname)
	}
	return false
}

// trace is the value of our Received field (RFC 5321 §4.4).
func trace(env *Envelope, mark string, m resolver.Mail, hostname string) string {
	from := "from " + plainName(env.Helo)
	if env.Peer.IsValid() {
		from += " ([" + env.Peer.String() + "])"
	}
	v := fmt.Sprintf("%s by %s %s with %s id %s", from, hostname, mark, env.Protocol, m.ID)
	return v + "; " + m.Received.Format(time.RFC1123Z)
}

// plainName keeps a HELO name only if it is made of what names are made of: a
// stranger's words must not read like ours.
func plainName(helo string) string {
	odd := func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]", r)
	}
	if helo == "" || len(helo) > 255 || strings.ContainsFunc(helo, odd) {
		return "unknown"
	}
	return helo
}

// encoded writes an address so that no byte of it can end or add a field:
// everything unusual is percent-encoded.
func encoded(address string) string {
	var b strings.Builder
	for i := range len(address) {
		c := address[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("@.+-_=", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
