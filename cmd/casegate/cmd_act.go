package main

import (
	"context"
	"fmt"
	"io"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/casegate/casegate/gateway/console"
)

func (p *program) caseResolve() *cobra.Command {
	return p.stateCommand("resolve", "Resolve an active case", `Resolve an active case. Mail on it reopens it within the time that reopen.window
gives.`)
}

func (p *program) caseReopen() *cobra.Command {
	return p.stateCommand("reopen", "Make a resolved or cancelled case active again", "")
}

func (p *program) caseCancel() *cobra.Command {
	return p.stateCommand("cancel", "Cancel an active case", "Cancel an active case. Mail on it is kept there and does not reopen it.")
}

// stateCommand is an act that needs no more than the case.
func (p *program) stateCommand(name, short, long string) *cobra.Command {
	var o output
	c := &cobra.Command{
		Use: name + " NUMBER", Short: short, Long: long, Args: exactly("NUMBER"),
		RunE: func(c *cobra.Command, args []string) error { return p.act(c.Context(), o, args[0], name, nil) },
	}
	return o.flags(c, false)
}

func (p *program) caseMerge() *cobra.Command {
	var o output
	var into string
	c := &cobra.Command{
		Use: "merge NUMBER --into NUMBER", Short: "Merge a case into another", Args: exactly("NUMBER"),
		Long: `Merge a case into another: it is cancelled, and its mail goes on in the other,
whose customer stays. If that one was merged itself, the case where its merges
end is meant.`,
		Example: "  casegate case merge 1043 --into 1042",
		RunE: func(c *cobra.Command, args []string) error {
			if err := needFlags(c, "into"); err != nil {
				return err
			}
			number, err := caseNumber(into)
			if err != nil {
				return err
			}
			return p.act(c.Context(), o, args[0], "merge", console.MergeOrder{Into: number})
		},
	}
	c.Flags().StringVar(&into, "into", "", "the case `NUMBER` that it goes on in")
	return o.flags(c, false)
}

func (p *program) caseSetCustomer() *cobra.Command {
	var o output
	var what console.CustomerOrder
	c := &cobra.Command{
		Use: "set-customer NUMBER --contact ID", Short: "Change who a case is about", Args: exactly("NUMBER"),
		Long: `Change who a case is about. Mail never does, and only the customer may see the
case in a portal: so the log keeps who it was before, and why.`,
		Example: `  casegate case set-customer 1042 --contact 0192f3c1-… --reason "she called"`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := needFlags(c, "contact"); err != nil {
				return err
			}
			return p.act(c.Context(), o, args[0], "set-customer", what)
		},
	}
	c.Flags().StringVar(&what.Contact, "contact", "", "`ID` of the contact")
	c.Flags().StringVar(&what.Reason, "reason", "", "`TEXT` for the case's log")
	return o.flags(c, false)
}

func (p *program) caseUnflag() *cobra.Command {
	var o output
	var what console.UnflagOrder
	c := &cobra.Command{
		Use: "unflag NUMBER --flag FLAG", Short: "Take a flag off a case", Args: exactly("NUMBER"),
		Long: `Take a flag off a case: somebody has seen to what it stands for. It comes back
when that happens again. Without customer-bounced and recipient-bounced, rule O11
no longer holds answers to an address for what came back before.`,
		Example: `  casegate case unflag 1042 --flag customer-bounced --reason "her mailbox is empty again"`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := needFlags(c, "flag"); err != nil {
				return err
			}
			return p.act(c.Context(), o, args[0], "unflag", what)
		},
	}
	c.Flags().StringVar(&what.Flag, "flag", "", "the `FLAG`, as case show prints it")
	c.Flags().StringVar(&what.Reason, "reason", "", "`TEXT` for the case's log")
	return o.flags(c, false)
}

func (p *program) caseLink() *cobra.Command {
	var o output
	var what console.LinkOrder
	c := &cobra.Command{
		Use: "link NUMBER --address A --contact ID", Short: "Say who an unresolved address is", Args: exactly("NUMBER"),
		Long: `Say who an unresolved address is: in all messages of the case, also later ones,
or with --message in that one only. It never counts in another case, because an
address may be shared.

The contact should have the address. If you know that it is theirs all the same
(a colleague answered, a new private address), add --force; the contact's own
addresses stay as they are.`,
		Example: `  casegate unresolved list
  casegate case link 1042 --address family@example.org --contact 0192f3c1-…`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := needFlags(c, "address", "contact"); err != nil {
				return err
			}
			return p.act(c.Context(), o, args[0], "link", what)
		},
	}
	c.Flags().StringVar(&what.Address, "address", "", "the unresolved `ADDRESS`")
	c.Flags().StringVar(&what.Contact, "contact", "", "`ID` of the contact who it is")
	c.Flags().StringVar(&what.Message, "message", "", "only in the message with this `ID`")
	c.Flags().BoolVar(&what.Force, "force", false, "also if the contact never had the address")
	return o.flags(c, false)
}

func (p *program) caseUnlink() *cobra.Command {
	var o output
	var what console.UnlinkOrder
	c := &cobra.Command{
		Use: "unlink NUMBER --address A", Short: "Take back who an address was said to be", Args: exactly("NUMBER"),
		Long: `Take back who an address was said to be, in the whole case or with --message in
that one only. It is unresolved again.`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := needFlags(c, "address"); err != nil {
				return err
			}
			return p.act(c.Context(), o, args[0], "unlink", what)
		},
	}
	c.Flags().StringVar(&what.Address, "address", "", "the `ADDRESS` that was linked by hand")
	c.Flags().StringVar(&what.Message, "message", "", "only in the message with this `ID`")
	return o.flags(c, false)
}

// act does one thing to a case and prints what was done.
func (p *program) act(ctx context.Context, o output, number, act string, what any) error {
	path, err := casePath(number)
	if err != nil {
		return err
	}
	return order(ctx, p, o, path+"/"+act, what, func(w io.Writer, done console.CaseAct) { fmt.Fprintln(w, clean(done.Said)) })
}

func (p *program) exceptionsAssign() *cobra.Command {
	var o output
	var what console.AssignOrder
	var number string
	c := &cobra.Command{
		Use: "assign ID --case NUMBER | --new", Short: "Put a message of the exceptions list on a case", Args: exactly("ID"),
		Example: `  casegate exceptions assign 0192f3c1-… --case 1042
  casegate exceptions assign 0192f3c1-… --new --contact 0192f0aa-…`,
		RunE: func(c *cobra.Command, args []string) error {
			if what.New == (number != "") {
				return usage("write --case NUMBER or --new", "a message goes to one case, or to a new one")
			}
			if number != "" {
				var err error
				if what.Case, err = caseNumber(number); err != nil {
					return err
				}
			}
			return order(c.Context(), p, o, "/exceptions/"+url.PathEscape(args[0])+"/assign", what,
				func(w io.Writer, done console.Assigned) { fmt.Fprintln(w, clean(done.Said)) })
		},
	}
	c.Flags().StringVar(&number, "case", "", "to the case with this `NUMBER`")
	c.Flags().BoolVar(&what.New, "new", false, "to a new case")
	c.Flags().StringVar(&what.Contact, "contact", "", "`ID` of the new case's customer (default a new guest)")
	return o.flags(c, false)
}
