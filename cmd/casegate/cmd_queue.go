package main

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

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
			return show(c.Context(), p, o, "/queue/"+url.PathEscape(args[0]), bccQuery(bcc), p.delivery)
		},
	}
	bccFlag(c, &bcc)
	return o.flags(c, false)
}

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

func lastReply(r store.Delivery) string {
	if len(r.Attempts) == 0 {
		return ""
	}
	return r.Attempts[len(r.Attempts)-1].Reply
}
