package main

import (
	"cmp"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/casegate/casegate/gateway/console"
	"github.com/casegate/casegate/store"
)

func (p *program) queueList() *cobra.Command {
	var o output
	var number uint64
	var state, address string
	var bcc bool
	c := &cobra.Command{
		Use: "list", Short: "List the outbox", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			q := bccQuery(bcc)
			if state != "" {
				if err := oneOf(c, "state", "queued", "held", "delivered", "failed"); err != nil {
					return err
				}
				q.Set("state", state)
			}
			if number != 0 {
				q.Set("case", strconv.FormatUint(number, 10))
			}
			if address != "" {
				q.Set("address", address)
			}
			return printList(c.Context(), p, o, "/queue", q, "no deliveries",
				column[store.Delivery]{"ID", func(r store.Delivery) string { return r.ID.String() }},
				column[store.Delivery]{"STATE", func(r store.Delivery) string { return string(r.State) }},
				column[store.Delivery]{"CASE", deliveryCase},
				column[store.Delivery]{"DUE", p.deliveryDue},
				column[store.Delivery]{"TRIES", func(r store.Delivery) string { return strconv.Itoa(len(r.Attempts)) }},
				column[store.Delivery]{"TO", deliveryTo},
				column[store.Delivery]{"LAST REPLY", lastReply},
			)
		},
	}
	c.Flags().Uint64Var(&number, "case", 0, "only deliveries of case `N`")
	c.Flags().StringVar(&state, "state", "", "only deliveries that are `queued|held|delivered|failed`")
	c.Flags().StringVar(&address, "address", "", "only deliveries to this `ADDRESS`")
	bccFlag(c, &bcc)
	return o.flags(c, true)
}

func (p *program) queueShow() *cobra.Command {
	var o output
	var bcc bool
	c := &cobra.Command{
		Use: "show ID", Short: "Show a delivery and every attempt at it", Args: exactly("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			return show(c.Context(), p, o, "/queue/"+url.PathEscape(args[0]), bccQuery(bcc), p.deliveryShown)
		},
	}
	bccFlag(c, &bcc)
	return o.flags(c, false)
}

// deliveryShown tells a row of the outbox, and how each attempt was secured.
func (p *program) deliveryShown(w io.Writer, d store.Delivery) {
	p.delivery(w, d)
	say(w, 1, "reason", d.Reason)
	for _, a := range d.Attempts {
		if a.TLS != nil {
			say(w, 1, "tls", fmt.Sprintf("%s %s %s, %s, key %s of %s", p.moment(a.At), a.TLS.Version, a.TLS.Cipher, a.TLS.Trust, a.TLS.Pin, a.TLS.Peer))
		}
	}
	for _, to := range d.Recipients {
		if to.Delayed {
			say(w, 1, "delay", "told for "+to.Address)
		}
	}
}

func (p *program) queueHold() *cobra.Command {
	return p.queueAct("hold", "Keep mail back until somebody releases it", `Keep mail back until somebody releases it. An attempt under way comes to its
end; what it leaves undone is held.`)
}

func (p *program) queueRelease() *cobra.Command {
	return p.queueAct("release", "Let go of mail that is held", `Let go of mail that is held. It is tried at once, and its age counts anew.`)
}

func (p *program) queueRetry() *cobra.Command {
	return p.queueAct("retry", "Try mail at once, also what failed", `Try mail at once. What failed is tried again for those whom it did not reach;
its age counts anew. --case and --address alone mean what waits: what failed is
chosen by its ID or with --state failed.`)
}

func (p *program) queueDrop() *cobra.Command {
	var bounce bool
	c := p.queueAct("drop", "Give mail up", `Give mail up. It stays in the archive, and the row stays in state failed. Nobody
is told, unless --bounce sends a delivery report to who submitted it.`)
	c.Flags().BoolVar(&bounce, "bounce", false, "tell who submitted it")
	c.Example = "  casegate queue drop 0192f3c1-… --reason \"wrong address\"\n  casegate queue drop --case 1042 --reason \"sent by mistake\" --bounce"
	return c
}

// queueAct is an act on the deliveries named, or on all that are selected.
func (p *program) queueAct(name, short, long string) *cobra.Command {
	var o output
	var s console.QueueSelection
	var state string
	c := &cobra.Command{
		Use: name + " ID... | --case N | --state S | --address A", Short: short, Long: long,
		Example: "  casegate queue " + name + " 0192f3c1-…\n  casegate queue " + name + " --case 1042",
		RunE: func(c *cobra.Command, args []string) error {
			if f := c.Flags().Lookup("bounce"); f != nil {
				s.Bounce = f.Value.String() == "true"
				if err := needFlags(c, "reason"); err != nil {
					return err
				}
			}
			selected := s.Case != 0 || s.Address != "" || state != ""
			if selected && len(args) > 0 {
				return usage("write either the ids or what selects them", "%s has ids and a selection", c.CommandPath())
			}
			if !selected && len(args) == 0 {
				return usage("write "+c.CommandPath()+" ID, or --case, --state or --address", "%s needs the ids of deliveries, or what selects them", c.CommandPath())
			}
			if state != "" {
				if err := oneOf(c, "state", "queued", "held", "failed"); err != nil {
					return err
				}
			}
			s.State = store.DeliveryState(state)
			if selected {
				return order(c.Context(), p, o, "/queue/"+name, s, queueDone)
			}
			for _, id := range args {
				if err := order(c.Context(), p, o, "/queue/"+url.PathEscape(id)+"/"+name, s.QueueOrder, queueDone); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().Uint64Var(&s.Case, "case", 0, "deliveries of case `N`")
	c.Flags().StringVar(&state, "state", "", "deliveries that are `queued|held|failed`")
	c.Flags().StringVar(&s.Address, "address", "", "deliveries to this `ADDRESS`")
	c.Flags().StringVar(&s.Reason, "reason", "", "why, in a `TEXT` for the log")
	return o.flags(c, false)
}

func (p *program) queueFlush() *cobra.Command {
	var o output
	var s console.QueueSelection
	c := &cobra.Command{
		Use: "flush", Short: "Try at once all mail that waits", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return order(c.Context(), p, o, "/queue/flush", s, queueDone)
		},
	}
	c.Flags().Uint64Var(&s.Case, "case", 0, "only deliveries of case `N`")
	c.Flags().StringVar(&s.Address, "address", "", "only deliveries to this `ADDRESS`")
	return o.flags(c, false)
}

func queueDone(w io.Writer, done console.QueueDone) { fmt.Fprintln(w, clean(done.Said)) }

func deliveryCase(r store.Delivery) string {
	if r.Case == 0 {
		return "-"
	}
	return strconv.FormatUint(r.Case, 10)
}

func (p *program) deliveryDue(r store.Delivery) string {
	if r.State != store.Queued {
		return "-"
	}
	return p.at(r.Due)
}

func deliveryTo(r store.Delivery) string {
	var list []string
	for _, to := range r.Recipients {
		list = append(list, to.Address)
	}
	return strings.Join(list, ", ")
}

// lastReply is what the next hop said last, or why nobody asked it yet.
func lastReply(r store.Delivery) string {
	switch {
	case len(r.Attempts) > 0:
	case r.State == store.Held && len(r.Recipients) > 0:
		return cmp.Or(r.Reason, r.Recipients[0].Reply)
	default:
		return ""
	}
	return r.Attempts[len(r.Attempts)-1].Reply
}
