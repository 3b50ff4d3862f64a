package relay

import (
	"slices"
	"strings"
	"time"

	"github.com/casegate/casegate/store"
)

// wants reports whether the sender asked to hear of this about a recipient
// (RFC 3461 §4.1). Who asked for nothing hears of failure and delay.
func wants(to *store.Recipient, what string) bool {
	if len(to.Notify) == 0 {
		return what != "SUCCESS"
	}
	return slices.ContainsFunc(to.Notify, func(n string) bool { return strings.EqualFold(n, what) })
}

// bounce reports whether the sender is owed a bounce about a recipient: he
// failed, wanted no silence about it, and there is a sender. A null
// reverse-path never gets one (RFC 5321 §4.5.5, §6.1): mail with it is a bounce
// itself, or an automatic answer.
func bounce(d *store.Delivery, to *store.Recipient) bool {
	return to.State == store.Failed && d.From != "" && wants(to, "FAILURE")
}

// answerable reports whether there is somebody of ours to report to. What came
// in from outside is never reported on: a forged sender would get it (security,
// Wire 12).
func answerable(d *store.Delivery) bool {
	return d.Role == "outbound" && d.From != "" && d.Submitter != "" && sendable(d.Submitter)
}

// reportable reports whether a message may be reported on to who submitted it:
// not what is a report itself, nor automatic mail of ours. A mailbox of ours has
// no need of it where a case shows what happened.
func (r *Relay) reportable(d *store.Delivery, m *store.Message) bool {
	if !answerable(d) || m.Direction == store.Incoming || m.Case != 0 && r.opts.Own != nil && r.opts.Own(d.Submitter) {
		return false
	}
	switch m.Class {
	case "dsn", "report", "loop":
		return false
	}
	return m.Envelope.Listener != bounceListener && !slices.Contains(m.Flags, "acknowledgement")
}

// tellsDelay is when the sender is to hear that a delivery takes long; zero if
// he has, or nobody wants to. Told once for each recipient, and not of what a
// next hop hands on to (RFC 3461 §5.2.4).
func (r *Relay) tellsDelay(d *store.Delivery) time.Time {
	if r.patience.Load().DelayAfter <= 0 || !answerable(d) {
		return time.Time{}
	}
	for _, i := range open(d) {
		if to := &d.Recipients[i]; !to.Delayed && wants(to, "DELAY") {
			return born(d).Add(r.patience.Load().DelayAfter)
		}
	}
	return time.Time{}
}

// markDelayed notes whose delay is to be told now.
func (r *Relay) markDelayed(n *news) {
	d, now := &n.now, r.now()
	if d.State != store.Queued || d.Role != "outbound" || r.patience.Load().DelayAfter <= 0 || now.Before(born(d).Add(r.patience.Load().DelayAfter)) {
		return
	}
	for _, i := range open(d) {
		if to := &d.Recipients[i]; !to.Delayed {
			to.Delayed = true
			n.delayed = append(n.delayed, i)
		}
	}
}

// blind reports whether a recipient stands in no field that all can see (rule
// O10): then no report names him.
func blind(m *store.Message, address string) bool {
	key := store.Key(address)
	return !slices.ContainsFunc(m.Parties, func(p store.Party) bool {
		return p.Role != store.RoleBCC && store.Key(p.AddressUsed) == key
	})
}

// isEnhanced reports whether a word is class.subject.detail (RFC 3463 §2).
func isEnhanced(word string) bool {
	parts := strings.Split(word, ".")
	return len(parts) == 3 && len(parts[0]) == 1 && !slices.ContainsFunc(parts, func(part string) bool {
		return part == "" || len(part) > 3 || strings.Trim(part, "0123456789") != ""
	})
}

// statusOf is the status of a recipient (RFC 3463) by the last words about him;
// class is what it must begin with.
func statusOf(reply string, class byte) string {
	for word := range strings.FieldsSeq(reply) {
		if isEnhanced(word) && word[0] == class {
			return word
		}
		if !isStatus(word) {
			break
		}
	}
	return string(class) + ".0.0"
}
