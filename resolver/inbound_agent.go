package resolver

import (
	"slices"

	"github.com/casegate/casegate/store"
)

// The rows about agents who write to a mailbox of ours (I9-I13).

// linkInternal: an agent's out-of-office concerns nobody outside (I9).
func (in *inbound) linkInternal() {
	in.linkOnly()
	in.d.Internal = true
	in.note("internal: an agent's automatic reply")
}

// linkOutgoing: an agent's own mail on a case counts as sent by the desk (I10).
func (in *inbound) linkOutgoing() {
	in.linkOnly()
	in.d.Direction = store.Outgoing
	in.note("outgoing: an agent wrote it")
}

// embedded: the agent hands in what somebody wrote to him. The table is run on
// that message; the agent's word stands for its authenticity (I11).
func (in *inbound) embedded() {
	m := *in.mail.Embedded
	agent := in.sender.address.Address
	m.ID, m.NewCase, m.NewContact, m.Received = in.mail.ID, in.mail.NewCase, in.mail.NewContact, in.mail.Received
	m.Recipients, m.Embedded, m.Notification, m.TrustedForm = in.mail.Recipients, nil, nil, false
	m.Verdict = Verdict{AlignedPass: true, Words: "agent-asserted: " + agent + " forwarded it"}
	m.DirectoryOut = in.mail.DirectoryOut
	if sender, ok := m.Sender(); ok && len(in.facts.Holders[sender.Key()].Agents) > 0 {
		in.d.Action, in.d.Exception = Except, "agent-no-case"
		in.note("what %s forwards is an agent's own mail", agent)
		return
	}
	d := Inbound(m, in.facts, in.settings)
	if d.Action == Duplicate {
		in.forwardsKnown(d.Original)
		return
	}
	in.note("decided on the message that %s forwards:", agent)
	d.Rules = append(slices.Clone(in.Rules), d.Rules...)
	d.Reasons = append(slices.Clone(in.Reasons), d.Reasons...)
	d.Flags = append(d.Flags, "agent-asserted")
	d.Ack, d.Embedded = "", true
	in.passed = &d
}

// forwardsKnown: what the agent forwards is here already. His own mail isn't: it
// joins the same case.
func (in *inbound) forwardsKnown(original store.MessageRef) {
	found, ok := followMerges(in.facts, original.Case)
	if !ok {
		in.d.Action, in.d.Exception = Except, "agent-no-case"
		in.note("what is forwarded is here already, as message %s, on no case", original.ID)
		return
	}
	in.tracking.found = found
	in.note("what is forwarded is here already, as message %s", original.ID)
	in.linkInternal()
}

// openOutgoing: an agent begins a case by writing to one outsider, with a
// mailbox of ours in copy; the outsider is the customer (I12).
func (in *inbound) openOutgoing() {
	to := in.external()[0]
	holders := in.facts.Holders[to.Key()]
	registered := ofKind(holders.Contacts, store.Registered)
	in.d.Direction = store.Outgoing
	if len(registered) == 1 {
		in.open(registered[0])
		in.note("new case for contact %s, to whom the agent writes", registered[0].ID)
	} else {
		in.mintFor(to, false)
		in.open(*in.d.Guest)
		in.note("new case for a new guest, %s, to whom the agent writes", to.Address)
	}
	in.d.Case.Opener, in.d.Opened = to.Address, ""
}

// external lists the addresses in To and Cc that are neither ours nor an
// agent's, each once.
func (in *inbound) external() (list []Address) {
	seen := map[string]bool{}
	for _, a := range slices.Concat(in.mail.To, in.mail.CC) {
		key := a.Key()
		_, own := in.settings.Own(a.Address)
		if seen[key] || own || len(in.facts.Holders[key].Agents) > 0 {
			continue
		}
		seen[key] = true
		list = append(list, a)
	}
	return list
}
