package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/casegate/casegate/gateway/console"
	"github.com/casegate/casegate/store"
)

func (p *program) contactAdd() *cobra.Command {
	var o output
	var n console.NewContact
	c := &cobra.Command{
		Use: "add", Short: "Add a contact", Args: exactly(),
		Example: "  casegate contact add --name \"Ana Silva\" --email ana@example.org --kind registered",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := needFlags(c, "name", "email"); err != nil {
				return err
			}
			if err := oneOf(c, "kind", "registered", "guest"); err != nil {
				return err
			}
			return add(c.Context(), p, o, "/contacts", n, func(r store.Contact) string { return "contact " + r.ID.String() })
		},
	}
	c.Flags().StringVar(&n.Name, "name", "", "full `NAME`")
	c.Flags().StringArrayVar(&n.EmailAddresses, "email", nil, "e-mail `ADDRESS`; may be given several times")
	c.Flags().StringVar((*string)(&n.Kind), "kind", "registered", "`registered|guest`")
	c.Flags().StringVar(&n.Account, "account", "", "`ID` of the parent account")
	return o.flags(c, false)
}

func (p *program) accountAdd() *cobra.Command {
	var o output
	var n console.NewAccount
	c := &cobra.Command{
		Use: "add", Short: "Add an account", Args: exactly(),
		Example: "  casegate account add --name \"Harbour Café\" --email info@harbour.example --kind business",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := needFlags(c, "name", "email"); err != nil {
				return err
			}
			if err := oneOf(c, "kind", "business", "property"); err != nil {
				return err
			}
			return add(c.Context(), p, o, "/accounts", n, func(r store.Account) string { return "account " + r.ID.String() })
		},
	}
	c.Flags().StringVar(&n.Name, "name", "", "`NAME` of the account")
	c.Flags().StringArrayVar(&n.EmailAddresses, "email", nil, "e-mail `ADDRESS`; may be given several times")
	c.Flags().StringVar((*string)(&n.Kind), "kind", "business", "`business|property`")
	return o.flags(c, false)
}

func (p *program) userAdd() *cobra.Command {
	var o output
	var n console.NewAgent
	var password bool
	c := &cobra.Command{
		Use: "add", Short: "Add an agent of the desk", Args: exactly(),
		Example: "  casegate user add --name \"Kim Park\" --address kim@city.example --send-as 311@city.example",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := needFlags(c, "name", "address"); err != nil {
				return err
			}
			if password {
				line, err := bufio.NewReader(io.LimitReader(p.in, 4096)).ReadString('\n')
				if n.Password = strings.TrimRight(line, "\r\n"); n.Password == "" {
					return usage("write such as: casegate user add … --password-stdin <password.txt", "no password on standard input: %v", err)
				}
			}
			return add(c.Context(), p, o, "/agents", n, func(r store.Agent) string { return "user " + r.ID.String() })
		},
	}
	c.Flags().StringVar(&n.Name, "name", "", "full `NAME`")
	c.Flags().StringArrayVar(&n.EmailAddresses, "address", nil, "the agent's own e-mail `ADDRESS`; may be given several times")
	c.Flags().StringArrayVar(&n.SendAs, "send-as", nil, "`ADDRESS` allowed in From; may be given several times (default every mailbox)")
	c.Flags().BoolVar(&password, "password-stdin", false, "read a password of at least 12 characters, to sign in by SMTP AUTH, from standard input")
	return o.flags(c, false)
}

func (p *program) userRemove() *cobra.Command {
	var o output
	c := &cobra.Command{
		Use: "remove ID|ADDRESS", Short: "Remove an agent of the desk", Args: exactly("ID or ADDRESS"),
		Long: `Remove an agent of the desk: the addresses are nobody's from now on. The name
stays with the mail that the agent wrote.`,
		RunE: func(c *cobra.Command, args []string) error {
			return p.with(c.Context(), existingStore, func(api *client) error {
				text, err := whole(api.do(c.Context(), http.MethodDelete, "/agents/"+url.PathEscape(args[0]), nil, "", nil))
				if err != nil {
					return err
				}
				return printRecord(p, o, text, func(w io.Writer, r store.Agent) { fmt.Fprintln(w, "removed user "+r.ID.String()) })
			})
		},
	}
	return o.flags(c, false)
}

// add makes a record and prints one line about it, or all of it as JSON.
func add[T any](ctx context.Context, p *program, o output, path string, record any, line func(T) string) error {
	return p.with(ctx, anyStore, func(c *client) error {
		text, err := c.add(ctx, path, record)
		if err != nil {
			return err
		}
		return printRecord(p, o, text, func(w io.Writer, v T) { fmt.Fprintln(w, "added "+line(v)) })
	})
}

func (p *program) contactList() *cobra.Command {
	var o output
	var address string
	c := &cobra.Command{
		Use: "list", Short: "List contacts, oldest first", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			q := url.Values{}
			if address != "" {
				q.Set("address", address)
			}
			return printList(c.Context(), p, o, "/contacts", q, "no contacts",
				column[store.Contact]{"ID", func(r store.Contact) string { return r.ID.String() }},
				column[store.Contact]{"KIND", func(r store.Contact) string { return string(r.Kind) }},
				column[store.Contact]{"NAME", func(r store.Contact) string { return r.Name }},
				column[store.Contact]{"ADDRESSES", contactAddresses},
			)
		},
	}
	c.Flags().StringVar(&address, "address", "", "only contacts that have this `ADDRESS` now")
	return o.flags(c, true)
}

// contactAddresses lists the addresses a contact has now.
func contactAddresses(r store.Contact) string {
	var list []string
	for _, e := range r.EmailAddresses {
		if e.To.IsZero() {
			list = append(list, e.Address)
		}
	}
	return strings.Join(list, ", ")
}

func (p *program) accountList() *cobra.Command {
	var o output
	c := &cobra.Command{
		Use: "list", Short: "List accounts, oldest first", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return printList(c.Context(), p, o, "/accounts", url.Values{}, "no accounts",
				column[store.Account]{"ID", func(r store.Account) string { return r.ID.String() }},
				column[store.Account]{"KIND", func(r store.Account) string { return string(r.Kind) }},
				column[store.Account]{"NAME", func(r store.Account) string { return r.Name }},
				column[store.Account]{"ADDRESSES", func(r store.Account) string { return strings.Join(r.EmailAddresses, ", ") }},
			)
		},
	}
	return o.flags(c, true)
}

func (p *program) userList() *cobra.Command {
	var o output
	c := &cobra.Command{
		Use: "list", Short: "List the agents of the desk, oldest first", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return printList(c.Context(), p, o, "/agents", url.Values{}, "no users",
				column[store.Agent]{"ID", func(r store.Agent) string { return r.ID.String() }},
				column[store.Agent]{"NAME", func(r store.Agent) string { return r.Name }},
				column[store.Agent]{"ADDRESSES", func(r store.Agent) string { return strings.Join(r.EmailAddresses, ", ") }},
				column[store.Agent]{"SEND AS", sendAs},
			)
		},
	}
	return o.flags(c, true)
}

func sendAs(r store.Agent) string {
	if len(r.SendAs) == 0 {
		return "every mailbox"
	}
	return strings.Join(r.SendAs, ", ")
}
