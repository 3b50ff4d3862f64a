package resolver

import (
	"fmt"
	"slices"
	"strings"

	"github.com/casegate/casegate/store"
)

// submitter is who hands a message in, and what he may put in From.
type submitter struct {
	login   string   // address of the agent who signed in; empty: an allow-listed peer
	name    string   // of that agent
	own     []string // his own addresses
	sendAs  []string // empty: every mailbox, and his own
	setting string   // where sendAs is set
}

// maySend: From must be within what the submitter may use (rules §6).
func (o *outbound) maySend() *Refusal {
	from, ok := o.sub.Sender()
	if !ok {
		o.note("refused: From is not one plain address (%d can be read)", len(o.sub.From))
		return &Refusal{550, [3]int{5, 7, 1}, fmt.Sprintf("From is not one plain address (%d can be read): send exactly one", len(o.sub.From))}
	}
	if o.submitter, ok = o.submitting(); !ok {
		o.note("refused: no agent has the login %s", o.sub.Login)
		return &Refusal{550, [3]int{5, 7, 1}, fmt.Sprintf("unable to send as %s: no agent has the address %s (casegate user add --address %[2]s)", from.Address, o.sub.Login)}
	}
	if o.allowed(from) {
		return nil
	}
	who := "unable to send as " + from.Address
	if o.submitter.login != "" {
		who = o.submitter.login + " is " + who
	}
	o.note("refused: %s is outside send_as", from.Address)
	return &Refusal{550, [3]int{5, 7, 1}, fmt.Sprintf("%s: %s allows %s", who, o.submitter.setting, o.allowedWords())}
}

// submitting is the agent who signed in, else the listener's peer.
func (o *outbound) submitting() (submitter, bool) {
	if o.sub.Login == "" {
		return submitter{sendAs: o.sub.SendAs, setting: o.sub.Setting}, true
	}
	agents := o.facts.Holders[store.Key(o.sub.Login)].Agents
	if len(agents) != 1 {
		return submitter{}, false
	}
	a := agents[0]
	return submitter{o.sub.Login, a.Name, a.EmailAddresses, a.SendAs, "send_as of user " + o.sub.Login}, true
}

func (o *outbound) allowed(from Address) bool {
	if len(o.submitter.sendAs) > 0 {
		return hasKey(o.submitter.sendAs, from.Key())
	}
	if _, own := o.settings.Own(from.Address); own {
		return true
	}
	if o.submitter.login != "" {
		return hasKey(o.submitter.own, from.Key())
	}
	return len(o.facts.Holders[from.Key()].Agents) == 1
}

func hasKey(addresses []string, key string) bool {
	return slices.ContainsFunc(addresses, func(a string) bool { return store.Key(a) == key })
}

func (o *outbound) allowedWords() string {
	names := o.submitter.sendAs
	if len(names) == 0 {
		names = slices.Clone(o.submitter.own)
		for _, m := range o.settings.Mailboxes {
			names = append(names, m.Address)
		}
	}
	const most = 3
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

// sender says whom customers see in From: user, the agent's own address, and
// what a peer submitted; template, what was submitted; mailbox, the case's.
func (o *outbound) sender() *Refusal {
	if !o.cased {
		return nil
	}
	if o.d.Mailbox = o.caseMailbox(); o.d.Mailbox == "" {
		return errNoMailbox()
	}
	from, _ := o.sub.Sender()
	switch o.settings.Sender {
	case "template":
		return nil
	case "mailbox":
		o.d.From = o.d.Mailbox
	default:
		if o.submitter.login == "" || hasKey(o.submitter.own, from.Key()) {
			return nil
		}
		o.d.From, o.d.FromName = o.submitter.login, o.submitter.name
	}
	if o.d.From != from.Address {
		o.note("sender: %s shows %s in From", o.senderSetting(), o.d.From)
	}
	return nil
}

func errNoMailbox() *Refusal {
	return &Refusal{550, [3]int{5, 3, 5}, "no mailbox is configured that answers could come back to (mailboxes)"}
}

func (o *outbound) senderSetting() string {
	if o.settings.Sender == "" {
		return "user"
	}
	return o.settings.Sender
}

// caseMailbox is the mailbox that answers come back to: that of From, else
// that of the case, else the first.
func (o *outbound) caseMailbox() string {
	if from, ok := o.sub.Sender(); ok {
		if m, own := o.settings.Own(from.Address); own && o.settings.Sender != "mailbox" {
			return m.Address
		}
	}
	if m, own := o.settings.Own(o.d.Case.Mailbox); own {
		return m.Address
	}
	if len(o.settings.Mailboxes) > 0 {
		return o.settings.Mailboxes[0].Address
	}
	return ""
}
