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
	var state, queue, customer string
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
			if customer != "" {
				q.Set("customer", customer)
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
	c.Flags().StringVar(&customer, "customer", "", "only cases of this contact: its `ID`")
	return o.flags(c, true)
}

func (p *program) caseShow() *cobra.Command {
	var o output
	var bcc bool
	c := &cobra.Command{
		Use: "show NUMBER", Short: "Show a case: its timeline, who wrote to whom, and why", Args: exactly("NUMBER"),
		RunE: func(c *cobra.Command, args []string) error {
			path, err := casePath(args[0])
			if err != nil {
				return err
			}
			return show(c.Context(), p, o, path, bccQuery(bcc), p.caseDetail)
		},
	}
	bccFlag(c, &bcc)
	return o.flags(c, false)
}

// caseNumber reads a case number as it was typed: 1042 or #1042.
func caseNumber(typed string) (uint64, error) {
	number, err := strconv.ParseUint(strings.TrimPrefix(typed, "#"), 10, 64)
	if err != nil || number == 0 {
		return 0, usage("write a number such as 1042", "%q is not a case number", typed)
	}
	return number, nil
}

// casePath is where the API has the case that was typed.
func casePath(typed string) (string, error) {
	number, err := caseNumber(typed)
	return "/cases/" + strconv.FormatUint(number, 10), err
}
