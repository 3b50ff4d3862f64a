package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/casegate/casegate/gateway/console"
)

func (p *program) unresolvedList() *cobra.Command {
	var o output
	var number string
	var bcc bool
	c := &cobra.Command{
		Use: "list", Short: "List the addresses on cases that nobody is known by, newest message first", Args: exactly(),
		Long: `List the addresses on cases that nobody is known by, with the contacts who share
them. casegate case link says who one is.`,
		RunE: func(c *cobra.Command, _ []string) error {
			q := bccQuery(bcc)
			if number != "" {
				n, err := caseNumber(number)
				if err != nil {
					return err
				}
				q.Set("case", strconv.FormatUint(n, 10))
			}
			return p.unresolved(c, o, q)
		},
	}
	c.Flags().StringVar(&number, "case", "", "only those of the case with this `NUMBER`, oldest first")
	bccFlag(c, &bcc)
	return o.flags(c, true)
}

// unresolved prints a paragraph for each address: the ids in it are what case
// link wants to know.
func (p *program) unresolved(c *cobra.Command, o output, q url.Values) error {
	if o.limit < 0 {
		return usage("write a number such as 20", "--limit %d is less than none", o.limit)
	}
	return p.with(c.Context(), existingStore, func(api *client) error {
		if o.json {
			return jsonList(c.Context(), p.out, api, "/unresolved", q, o.limit)
		}
		none := true
		err := api.list(c.Context(), "/unresolved", q, o.limit, func(rows []json.RawMessage) error {
			for _, row := range rows {
				var u console.UnresolvedParty
				if err := json.Unmarshal(row, &u); err != nil {
					return err
				}
				if !none {
					fmt.Fprintln(p.out)
				}
				none = false
				p.unresolvedParty(u)
			}
			return nil
		})
		if err == nil && none {
			fmt.Fprintln(p.err, "nobody is unresolved")
		}
		return err
	})
}

func (p *program) unresolvedParty(u console.UnresolvedParty) {
	line := u.AddressUsed
	if u.Name != "" {
		line += " " + strconv.Quote(u.Name)
	}
	fmt.Fprintln(p.out, clean(line))
	say(p.out, 1, "case", strconv.FormatUint(u.Case, 10))
	say(p.out, 1, "message", fmt.Sprintf("%s, %s, %s", u.Message, p.at(u.ReceivedAt), cmp.Or(u.Subject, "(no subject)")))
	say(p.out, 1, "role", strings.ToLower(string(u.Role)))
	say(p.out, 1, "because", u.Why)
	for _, who := range u.Candidates {
		say(p.out, 1, "candidate", who.ID.String()+" "+personName(who))
	}
}
