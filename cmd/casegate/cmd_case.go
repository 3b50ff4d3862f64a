package main

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/casegate/casegate/gateway/console"
)

func (p *program) caseList() *cobra.Command {
	var o output
	var state, queue string
	c := &cobra.Command{
		Use: "list", Short: "List cases, newest first", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			q := url.Values{}
			if state != "" {
				if err := oneOf(c, "state", "Active", "Resolved", "Cancelled"); err != nil {
					return err
				}
				q.Set("state", state)
			}
			if queue != "" {
				q.Set("queue", queue)
			}
			return printList(c.Context(), p, o, "/cases", q, "no cases",
				column[console.Case]{"CASE", func(r console.Case) string { return strconv.FormatUint(r.Number, 10) }},
				column[console.Case]{"STATE", func(r console.Case) string { return string(r.State) }},
				column[console.Case]{"QUEUE", func(r console.Case) string { return r.Queue }},
				column[console.Case]{"CUSTOMER", func(r console.Case) string { return personName(r.Customer) }},
				column[console.Case]{"UPDATED", func(r console.Case) string { return p.at(r.UpdatedAt) }},
				column[console.Case]{"TITLE", func(r console.Case) string { return r.Title }},
			)
		},
	}
	c.Flags().StringVar(&state, "state", "", "only cases that are `Active|Resolved|Cancelled`")
	c.Flags().StringVar(&queue, "queue", "", "only cases in this `QUEUE`")
	return o.flags(c, true)
}

func (p *program) caseShow() *cobra.Command {
	var o output
	var bcc bool
	c := &cobra.Command{
		Use: "show NUMBER", Short: "Show a case: its timeline, who wrote to whom, and why", Args: exactly("NUMBER"),
		RunE: func(c *cobra.Command, args []string) error {
			number, err := strconv.ParseUint(strings.TrimPrefix(args[0], "#"), 10, 64)
			if err != nil {
				return usage("write a number such as 1042", "%q is not a case number", args[0])
			}
			return show(c.Context(), p, o, "/cases/"+strconv.FormatUint(number, 10), bccQuery(bcc), p.caseDetail)
		},
	}
	bccFlag(c, &bcc)
	return o.flags(c, false)
}
