package resolver

import (
	"slices"
	"strings"

	"github.com/casegate/casegate/store"
)

// The rows about reports and opaque mail (I3, I5, I7): what came back joins the
// case and changes neither its state nor its people.

// linkOpaque: only the envelope can be read, and it names the case (I3).
func (in *inbound) linkOpaque() {
	in.linkOnly()
	in.d.Flags = append(in.d.Flags, "opaque")
	in.note("kept as it came: %s", in.mail.Unparsable)
}

func (in *inbound) linkReceipt() {
	in.linkOnly()
	in.d.Flags = append(in.d.Flags, "receipt")
}

// linkDeliveryReport: a delivery event. Only a signed token that names the very
// message reported on proves enough to change what is known of its delivery (I5).
func (in *inbound) linkDeliveryReport() {
	in.linkOnly()
	in.d.Flags = append(in.d.Flags, "delivery-report")
	original, ok := in.reportedOn()
	if !ok {
		in.note("no signed token names a message that was sent: nothing is changed by this report")
		return
	}
	in.d.Answered = original
	for _, r := range in.reported(original) {
		in.d.Events = append(in.d.Events, store.DeliveryEvent{
			At: in.mail.Received, Recipient: r.Address, Action: r.Action, Status: r.Status,
			Diagnostic: r.Diagnostic, Report: in.mail.ID,
		})
		in.note("message %s: %s %s", original.ID, toldOf(r.Address, original), r.Action)
		switch {
		case !r.Permanent():
		case in.d.Customer.HeldAt(store.Key(r.Address), in.mail.Received):
			in.flagCase("customer-bounced")
			in.note("case %d is flagged: the customer's address does not take mail", in.d.Case.Number)
		default:
			in.flagCase("recipient-bounced")
		}
	}
	if len(in.d.Events) > 0 {
		in.passOn(original)
	}
}

const maxDiagnostic = 200 // bytes of a report's words that are kept

// likelyAction is what a report in somebody's own words means: final, unless
// it says that it is a warning.
func (in *inbound) likelyAction() string {
	subject := strings.ToLower(in.mail.Subject)
	for _, word := range []string{"delay", "warning", "not yet", "still being", "will be retried"} {
		if strings.Contains(subject, word) {
			return "delayed"
		}
	}
	return "failed"
}

func (in *inbound) flagCase(flag string) {
	in.d.Case.Flags = appendNew(slices.Clone(in.d.Case.Flags), flag)
}

// reportedOn is the message that the signed token names.
func (in *inbound) reportedOn() (store.Message, bool) {
	named := in.tracking.named
	m, ok := in.facts.Answered[store.CaseOrdinal{Case: named.Case, Ordinal: named.Ordinal}]
	return m, ok && in.tracking.outcome == T1 && named.Ordinal > 0 && m.Direction == store.Outgoing
}

// reported lists what the report says of recipients that the message really
// had. A report that names none speaks of the only one, if there is only one.
func (in *inbound) reported(original store.Message) (list []ReportedRecipient) {
	had := map[string]bool{}
	for _, p := range original.Parties {
		switch p.Role {
		case store.RoleTo, store.RoleCC, store.RoleBCC:
			had[store.Key(p.AddressUsed)] = true
		}
	}
	n := in.mail.Notification
	if n == nil || len(n.Recipients) == 0 {
		r := ReportedRecipient{Action: in.likelyAction()}
		if len(had) == 1 {
			for r.Address = range had {
			}
		}
		return []ReportedRecipient{r}
	}
	for _, r := range n.Recipients {
		if original := store.Key(r.Original); had[original] {
			r.Address = r.Original
		}
		if r.Action == "" {
			r.Action = in.likelyAction()
		}
		if len(r.Diagnostic) > maxDiagnostic {
			r.Diagnostic = r.Diagnostic[:maxDiagnostic]
		}
		if key := store.Key(r.Address); had[key] {
			had[key] = false // told once is enough
			list = append(list, r)
		} else {
			in.note("%s was no recipient of message %s: not believed", r.Address, original.ID)
		}
	}
	return list
}

// passOn: who submitted the message asked for bounces too.
func (in *inbound) passOn(original store.Message) {
	to := original.Envelope.From
	if _, own := in.settings.Own(to); to == "" || own {
		return
	}
	in.d.PassTo = to
	in.note("passed on to %s, who submitted the message", to)
}

// toldOf names a recipient for a sentence that people read; of a blind one they
// learn nothing.
func toldOf(address string, original store.Message) string {
	if address == "" {
		return "a recipient"
	}
	for _, p := range original.Parties {
		if p.Role == store.RoleBCC && store.Key(p.AddressUsed) == store.Key(address) {
			return "a blind recipient's address"
		}
	}
	return address
}
