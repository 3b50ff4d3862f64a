package message

import "strings"

// Mailbox is one readable entry of an address list, with where it stands in
// the raw value.
type Mailbox struct {
	Name    string // display name, decoded; proves nothing
	Address string // addr-spec as written: quotes kept, folds and brackets gone
	Group   string // name of the group it stands in (RFC 5322 §3.4), or ""

	Start, End         int // the whole entry, without separator and white space around
	AddrStart, AddrEnd int // the addr-spec

	// Loose marks an entry that can be read, but not by the grammar of today:
	// white space inside the address, a bracket or quote that is never closed.
	Loose bool
}

// Clean reports that the mailbox may serve as an identity: it stands alone, by
// the grammar, and every mail system reads the same address in it.
func (m Mailbox) Clean() bool {
	return !m.Loose && m.Group == "" && ValidAddress(m.Address)
}

// maxEntries bounds what one value may cost; what follows is one unread span.
const maxEntries = 10_000

// ParseList returns the mailboxes of a raw (still folded) address list. It
// reads what real mail holds beyond RFC 5322 §3.4: semicolons for commas,
// `Doe, John <a@b.c>`, dots anywhere in a local part, empty entries, groups
// that are never closed, unknown charsets. An entry that can't be read is
// passed over and costs no other; no address is ever made from a name.
func ParseList(value string) []Mailbox {
	list, _ := ParseListAll(value)
	return list
}

// ParseListAll is ParseList that also returns where the entries stand that
// can't be read.
func ParseListAll(value string) (list []Mailbox, unread []Span) {
	n := min(strings.Count(value, ",")+strings.Count(value, ";")+1, strings.Count(value, "@"), maxEntries)
	s := listScanner{lexer: lexer{v: value}, list: make([]Mailbox, 0, n)}
	s.scan()
	return s.list, s.unread
}

// From returns the identity that a header gives its author: the mailbox of the
// only From field, if it is the only entry there and Clean. Then n is 1. Else
// there is no identity, and n, never 1, is the number of entries that lay claim
// to it, or 0 if there is but one and it can't be trusted.
func From(h Header) (m Mailbox, n int) {
	fields := h.Named("From")
	nul := false // where others may stop reading
	for _, f := range fields {
		list, unread := ParseListAll(f.Value())
		n += len(list) + len(unread)
		if len(list) > 0 {
			m = list[0]
		}
		nul = nul || strings.IndexByte(f.Value(), 0) >= 0
	}
	switch {
	case n != 1:
		return Mailbox{}, n
	case len(fields) != 1 || h.TooLarge() || nul || !m.Clean():
		return Mailbox{}, 0
	}
	return m, 1
}

// SplitAddress splits an address at its last unquoted @. The local part keeps
// its quotes. Both parts have something in them if ok.
func SplitAddress(addr string) (local, domain string, ok bool) {
	at, quoted := -1, false
	for i := 0; i < len(addr); i++ {
		switch c := addr[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case c == '@' && !quoted:
			at = i
		}
	}
	if quoted || at <= 0 || at == len(addr)-1 {
		return "", "", false
	}
	return addr[:at], addr[at+1:], true
}

// Cuts returns the spans to splice out of a raw address list, so that the
// mailboxes that drop picks are gone, each with one separator and the white
// space at it, and the rest is a list still. drop is asked once for each, in
// order. empty reports that no entry is left, readable or not; the field had
// better go.
func Cuts(value string, drop func(Mailbox) bool) (cuts []Span, empty bool) {
	entries := listEntries(value, drop)
	kept, joined := -1, false // the last entry that stays; no group between it and here
	for i, e := range entries {
		joined = joined && adjoin(value, entries[i-1], e)
		switch {
		case !e.drop:
			kept, joined = i, true
		case i+1 < len(entries) && adjoin(value, e, entries[i+1]):
			cuts = append(cuts, Span{e.Start, entries[i+1].Start})
		case joined:
			cuts = append(cutBefore(cuts, entries[kept].End), Span{entries[kept].End, e.End})
		default:
			cuts = append(cuts, e.Span)
		}
	}
	return cuts, kept < 0
}

// listEntry is an entry of a list, readable or not.
type listEntry struct {
	Span
	drop    bool
	grouped bool // or perhaps: nothing is known of an unread one
}

// listEntries joins the readable and the unread entries in their order.
func listEntries(value string, drop func(Mailbox) bool) []listEntry {
	list, unread := ParseListAll(value)
	entries := make([]listEntry, 0, len(list)+len(unread))
	for _, m := range list {
		for len(unread) > 0 && unread[0].Start < m.Start {
			entries = append(entries, listEntry{Span: unread[0], grouped: true})
			unread = unread[1:]
		}
		entries = append(entries, listEntry{Span{m.Start, m.End}, drop(m), m.Group != ""})
	}
	for _, u := range unread {
		entries = append(entries, listEntry{Span: u, grouped: true})
	}
	return entries
}

// adjoin reports that only separators stand between two entries: no group
// begins or ends there.
func adjoin(value string, a, b listEntry) bool {
	separators := ", \t\r\n"
	if !a.grouped && !b.grouped {
		separators += ";"
	}
	return strings.Trim(value[a.End:b.Start], separators) == ""
}

// cutBefore drops the cuts that a new one from start on takes in.
func cutBefore(cuts []Span, start int) []Span {
	for len(cuts) > 0 && cuts[len(cuts)-1].Start >= start {
		cuts = cuts[:len(cuts)-1]
	}
	return cuts
}
