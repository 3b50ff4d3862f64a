package main

import (
	"encoding/json"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/casegate/casegate/gateway/console"
)

func (p *program) keyRotate() *cobra.Command {
	var o output
	c := &cobra.Command{
		Use: "rotate", Short: "Sign tracking tokens with a new key", Args: exactly(),
		Long: `Sign tracking tokens with a new key. The old keys go on verifying, so that
replies to old mail still find their case. Secrets are never printed; they are
in the store and in its backups.`,
		RunE: func(c *cobra.Command, _ []string) error {
			return order(c.Context(), p, o, "/keys", nil, p.keys)
		},
	}
	return o.flags(c, false)
}

func (p *program) keyList() *cobra.Command {
	var o output
	c := &cobra.Command{
		Use: "list", Short: "List the keys of the tracking tokens, oldest first; never their secrets", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return show(c.Context(), p, o, "/keys", nil, p.keys)
		},
	}
	return o.flags(c, false)
}

func (p *program) keys(w io.Writer, rows []json.RawMessage) {
	printTable(w, rows, []column[console.Key]{
		{"KEY", func(k console.Key) string { return strconv.Itoa(k.ID) }},
		{"MADE", func(k console.Key) string { return p.at(k.CreatedAt) }},
		{"USE", func(k console.Key) string {
			if k.Signs {
				return "signs and verifies"
			}
			return "verifies"
		}},
	})
}
