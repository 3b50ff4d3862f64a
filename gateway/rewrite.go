package gateway

import (
	"bytes"
	"cmp"
	"fmt"
	"net/mail"
	"slices"
	"strings"

	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// rewrite returns the header block of a submission as it is sent: party lists
// by the decision, the token in its carriers, no Bcc, no signature that this
// breaks, all else as it came (rules O1-O13); and the signatures that it takes
// out. The MAIL FROM carrier is the caller's.
func rewrite(h message.Header, d resolver.OutboundDecision, received string, s resolver.Settings, threadIndex string) ([]byte, []brokenSignature) {
	e := message.NewEditor(h)
	e.Prepend("Received", received)
	for _, f := range h.Fields() {
		if hidden(f) || d.Token != "" && unsent(f) {
			e.Remove(f)
		}
	}
	if d.Token != "" {
		stampOutbound(e, h, d, s, threadIndex)
	}
	broken := brokenSignatures(h, e.Bytes())
	for _, b := range broken {
		e.Remove(b.field)
	}
	return e.Bytes(), broken
}

func stampOutbound(e *message.Editor, h message.Header, d resolver.OutboundDecision, s resolver.Settings, threadIndex string) {
	rewriteList(e, h, "To", store.RoleTo, d.Entries)
	rewriteList(e, h, "Cc", store.RoleCC, d.Entries)
	if d.From != "" {
		replaceFrom(e, h, d.From, d.FromName)
	}
	if d.SubjectTag != "" {
		tagSubject(e, h, d.SubjectTag)
	}
	set(e, h, "Reply-To", resolver.PlusAddress(d.Mailbox, d.Token))
	set(e, h, "References", "<"+strings.Join(d.References, "> <")+">")
	if len(ids(h, "Message-ID")) == 0 {
		set(e, h, "Message-ID", "<"+resolver.MessageID(d.Token, s.Hostname)+">")
	}
	if threadIndex != "" {
		e.Append("Thread-Index", threadIndex)
	}
	e.Append("X-Case-Ref", d.Token)
}

// unsent reports whether a field is none of the recipients' business: what
// steers us, and lists of people that no rule has looked at.
func unsent(f message.Field) bool {
	switch name := strings.ToLower(f.Name); name {
	case "resent-to", "resent-cc", "mail-followup-to", "mail-reply-to":
		return true
	default:
		return strings.HasPrefix(name, "x-case-")
	}
}

func hidden(f message.Field) bool {
	return strings.EqualFold(f.Name, "Bcc") || strings.EqualFold(f.Name, "Resent-Bcc")
}

// cutBcc returns a header block without its Bcc fields, and those with their
// places: they are archived apart (rule O10).
func cutBcc(block []byte) (rest []byte, apart []store.Apart) {
	from := 0
	for _, f := range message.Parse(lineFeeds(block)).Fields() {
		if hidden(f) {
			span := f.Span()
			rest = append(rest, block[from:span.Start]...)
			apart = append(apart, store.Apart{Offset: span.Start, Bytes: bytes.Clone(block[span.Start:span.End])})
			from = span.End
		}
	}
	if apart == nil {
		return block, nil
	}
	return append(rest, block[from:]...), apart
}

// lineFeeds makes every CR without LF the line end it will be sent as; no byte
// moves.
func lineFeeds(block []byte) []byte {
	block = bytes.Clone(block)
	for i, c := range block {
		if c == '\r' && (i+1 == len(block) || block[i+1] != '\n') {
			block[i] = '\n'
		}
	}
	return block
}

// set gives a field one value, where it stands or at the end.
func set(e *message.Editor, h message.Header, name, value string) {
	done := false
	for _, f := range h.Fields() {
		switch {
		case !strings.EqualFold(f.Name, name):
		case done:
			e.Remove(f)
		default:
			e.Replace(f, value)
			done = true
		}
	}
	if !done {
		e.Append(name, value)
	}
}

// replaceFrom shows an address in From, under its own name or that which stood
// there.
func replaceFrom(e *message.Editor, h message.Header, address, name string) {
	for _, l := range listed(h, "From") {
		e.Splice(l.field, l.box.Start, l.box.End, shown(cmp.Or(name, l.box.Name), address))
	}
}

// tagSubject adds the case's tag behind what the subject says, unless it stands
// there already. Encoded words stay as they are.
func tagSubject(e *message.Editor, h message.Header, tag string) {
	subjects := h.Named("Subject")
	if len(subjects) == 0 {
		e.Append("Subject", tag)
		return
	}
	value := subjects[0].Value()
	if strings.Contains(strings.ToLower(message.Decode(value)), strings.ToLower(tag)) {
		return
	}
	end := len(strings.TrimRight(value, " \t\r\n"))
	e.Splice(subjects[0], end, end, " "+tag)
}

// place is one mailbox of a header with the field it stands in.
type place struct {
	field message.Field
	box   message.Mailbox
}

// listed returns the mailboxes of all fields with a name, in order.
func listed(h message.Header, name string) []place {
	var list []place
	for _, f := range h.Fields() {
		if strings.EqualFold(f.Name, name) {
			for _, box := range message.ParseList(f.Value()) {
				list = append(list, place{f, box})
			}
		}
	}
	return list
}

// rewriteList applies the decision to the fields of one name: entries that stay
// as they are keep their bytes and the folds around them; what comes in from
// elsewhere stands behind the last of the first field that stays.
func rewriteList(e *message.Editor, h message.Header, name string, role store.Role, entries []resolver.Entry) {
	kept, added := sortEntries(role, entries)
	for _, f := range h.Named(name) {
		boxes, unread := message.ParseListAll(f.Value())
		l := list{field: f, boxes: boxes, entries: kept[:len(boxes)]}
		kept = kept[len(boxes):]
		switch {
		case len(boxes) == 0 && len(unread) == 0 && len(added) == 0: // undisclosed-recipients:;
		case len(unread) > 0 || l.stays() == 0 || len(added) > 0 && l.grouped():
			l.rebuild(e, added)
		default:
			l.splice(e, added)
		}
		added = nil
	}
	if len(added) > 0 {
		e.Append(name, strings.Join(added, ", "))
	}
}

// sortEntries splits the decision for one field into what becomes of each
// given entry and what comes in from elsewhere.
func sortEntries(role store.Role, entries []resolver.Entry) (kept []resolver.Entry, added []string) {
	for _, en := range entries {
		switch {
		case en.Given == role:
			kept = append(kept, en)
		case en.Field == role:
			added = append(added, display(en))
		}
	}
	return kept, added
}

// list is one address field and what was decided for each of its entries.
type list struct {
	field   message.Field
	boxes   []message.Mailbox
	entries []resolver.Entry
}

func (l list) stay(i int) bool { return l.entries[i].Field == l.entries[i].Given }

func (l list) stays() (n int) {
	for i := range l.entries {
		if l.stay(i) {
			n++
		}
	}
	return n
}

// grouped: what is added behind the entries would become part of a group.
func (l list) grouped() bool {
	return slices.ContainsFunc(l.boxes, func(b message.Mailbox) bool { return b.Group != "" })
}

// splice changes the bytes of the entries that change, and no others.
func (l list) splice(e *message.Editor, added []string) {
	i, last := -1, 0
	cuts, _ := message.Cuts(l.field.Value(), func(message.Mailbox) bool { i++; return !l.stay(i) })
	for _, c := range cuts {
		e.Splice(l.field, c.Start, c.End, "")
	}
	for i, box := range l.boxes {
		if l.stay(i) {
			last = i
			if l.entries[i].Changed() {
				e.Splice(l.field, box.Start, box.End, display(l.entries[i]))
			}
		}
	}
	if end := l.boxes[last].End; len(added) > 0 {
		e.Splice(l.field, end, end, ", "+strings.Join(added, ", "))
	}
}

// rebuild writes a field anew, from the bytes of the entries that stay: where
// none does, or where parts of it cannot be read and might name anyone.
func (l list) rebuild(e *message.Editor, added []string) {
	var stay []string
	for i, box := range l.boxes {
		switch {
		case !l.stay(i):
		case l.entries[i].Changed():
			stay = append(stay, display(l.entries[i]))
		default:
			stay = append(stay, l.field.Value()[box.Start:box.End])
		}
	}
	if stay = append(stay, added...); len(stay) == 0 {
		e.Remove(l.field)
		return
	}
	e.Replace(l.field, strings.Join(stay, ", "))
}

func display(en resolver.Entry) string {
	switch {
	case en.Bare:
		return en.Address.Address
	case en.Name != "":
		return shown(en.Name, en.Address.Address)
	}
	return shown(en.Address.Name, en.Address.Address)
}

// shown writes a mailbox with a display name, encoded where it must be
// (RFC 5322 §3.4, RFC 2047).
func shown(name, address string) string {
	if name == "" {
		return address
	}
	phrase := strings.TrimSuffix((&mail.Address{Name: name, Address: "x@x"}).String(), " <x@x>")
	return fmt.Sprintf("%s <%s>", phrase, address)
}
