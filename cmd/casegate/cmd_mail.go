package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/casegate/casegate/gateway/console"
)

func (p *program) messageList() *cobra.Command {
	var o output
	var number uint64
	c := &cobra.Command{
		Use: "list", Short: "List messages, newest first; of one case oldest first", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			q := url.Values{}
			if number != 0 {
				q.Set("case", strconv.FormatUint(number, 10))
			}
			return printList(c.Context(), p, o, "/messages", q, "no messages", p.messageColumns("CASE", messageCase)...)
		},
	}
	c.Flags().Uint64Var(&number, "case", 0, "only messages of case `N`")
	return o.flags(c, true)
}

// messageColumns are those of every list of messages; one differs.
func (p *program) messageColumns(title string, cell func(console.MessageRow) string) []column[console.MessageRow] {
	return []column[console.MessageRow]{
		{"ID", func(r console.MessageRow) string { return r.ID.String() }},
		{"RECEIVED", func(r console.MessageRow) string { return p.at(r.ReceivedAt) }},
		{"DIRECTION", func(r console.MessageRow) string { return string(r.Direction) }},
		{title, cell},
		{"FROM", func(r console.MessageRow) string { return r.From }},
		{"SUBJECT", func(r console.MessageRow) string { return r.Subject }},
	}
}

func messageCase(r console.MessageRow) string {
	switch {
	case r.Case != nil:
		return strconv.FormatUint(*r.Case, 10)
	case r.Exception != nil:
		return "exception"
	}
	return "-"
}

func messageException(r console.MessageRow) string {
	if r.Exception == nil {
		return ""
	}
	return *r.Exception
}

func (p *program) messageShow() *cobra.Command {
	return p.showMessageCommand("Show a message: parties, decision, deliveries", "/messages/")
}

func (p *program) exceptionsList() *cobra.Command {
	var o output
	c := &cobra.Command{
		Use: "list", Short: "List the exceptions, newest first", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return printList(c.Context(), p, o, "/exceptions", url.Values{}, "no exceptions",
				p.messageColumns("REASON", messageException)...)
		},
	}
	return o.flags(c, true)
}

func (p *program) exceptionsShow() *cobra.Command {
	return p.showMessageCommand("Show a message of the exceptions list", "/exceptions/")
}

func (p *program) showMessageCommand(short, path string) *cobra.Command {
	var o output
	var bcc bool
	c := &cobra.Command{
		Use: "show ID", Short: short, Args: exactly("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			return show(c.Context(), p, o, path+url.PathEscape(args[0]), bccQuery(bcc), p.message)
		},
	}
	bccFlag(c, &bcc)
	return o.flags(c, false)
}

func bccFlag(c *cobra.Command, bcc *bool) { c.Flags().BoolVar(bcc, "bcc", false, "show Bcc too") }

func bccQuery(bcc bool) url.Values {
	if bcc {
		return url.Values{"bcc": {"true"}}
	}
	return url.Values{}
}

func (p *program) messageExport() *cobra.Command {
	var as string
	var bcc bool
	c := &cobra.Command{
		Use: "export ID", Short: "Write a message's EML to standard output, byte for byte", Args: exactly("ID"),
		Example: "  casegate message export 0192f3c1-… --as sent > sent.eml",
		RunE: func(c *cobra.Command, args []string) error {
			if err := oneOf(c, "as", "received", "sent"); err != nil {
				return err
			}
			q := bccQuery(bcc)
			q.Set("as", as)
			return p.with(c.Context(), existingStore, func(api *client) error {
				resp, err := api.do(c.Context(), http.MethodGet, "/messages/"+url.PathEscape(args[0])+"/eml", q, "", nil)
				if err != nil {
					return err
				}
				defer resp.Body.Close()
				if _, err := io.Copy(p.out, resp.Body); err != nil {
					return fmt.Errorf("the message broke off: %w", err)
				}
				return nil
			})
		},
	}
	c.Flags().StringVar(&as, "as", "received", "`received|sent`: as it came, or as it left")
	c.Flags().BoolVar(&bcc, "bcc", false, "put the Bcc field back where it stood")
	return c
}
