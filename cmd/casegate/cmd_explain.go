package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/casegate/casegate/gateway/console"
	"github.com/casegate/casegate/store"
)

func (p *program) explainCommand() *cobra.Command {
	var o output
	var from, role, listener string
	var rcpt []string
	var today, bcc bool
	c := &cobra.Command{
		Use: "explain FILE|ID", Short: "Say what is decided about a mail, and why; writes nothing",
		Long: `Say what is decided about a mail, and why. For a file (- is standard input) it
is what would be decided if it came now; for the ID of a stored message what was
decided, or with --today what would be decided now. Writes nothing.`,
		Args: exactly("FILE or ID"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := oneOf(c, "role", "inbound", "outbound"); err != nil {
				return err
			}
			if _, err := store.ParseID(args[0]); err == nil {
				return p.explainStored(c.Context(), o, args[0], today, bcc)
			}
			q := url.Values{"role": {role}, "listener": {listener}, "rcpt": rcpt}
			if from != "" {
				q.Set("from", from)
			}
			return p.explainFile(c.Context(), o, args[0], q)
		},
	}
	c.Flags().StringVar(&from, "from", "", "MAIL FROM `ADDRESS` of a file, <> for none (default as its header says)")
	c.Flags().StringArrayVar(&rcpt, "rcpt", nil, "RCPT TO `ADDRESS` of a file; may be given several times (default as its header says)")
	c.Flags().StringVar(&role, "role", "inbound", "`inbound|outbound`: the listener a file would come in by")
	c.Flags().StringVar(&listener, "listener", "", "`NAME` of the listener a file would come in by (default the first of the role)")
	c.Flags().BoolVar(&today, "today", false, "decide a stored message again")
	bccFlag(c, &bcc)
	return o.flags(c, false)
}

func (p *program) explainStored(ctx context.Context, o output, id string, today, bcc bool) error {
	q := bccQuery(bcc)
	if today {
		q.Set("today", "true")
	}
	return show(ctx, p, o, "/messages/"+id+"/explain", q, explanation)
}

func (p *program) explainFile(ctx context.Context, o output, name string, q url.Values) error {
	eml := io.NopCloser(p.in)
	if name != "-" {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			return usage("write the path of an EML file, or an ID that casegate message list shows", "%q is neither a file nor the id of a message", name)
		}
		if err != nil {
			return err
		}
		eml = f
	}
	defer eml.Close()
	return p.with(ctx, existingStore, func(c *client) error {
		text, err := whole(c.do(ctx, http.MethodPost, "/explain", q, "message/rfc822", eml))
		if err != nil {
			return err
		}
		return printRecord(p, o, text, explanation)
	})
}

// explanation tells a decision in words.
func explanation(w io.Writer, e console.Explanation) {
	when := "as it would be now"
	if e.Stored {
		when = "as decided then"
	}
	line := fmt.Sprintf("%s, %s: %s", e.Role, when, e.Outcome)
	if e.Case != 0 {
		line += ", case " + strconv.FormatUint(e.Case, 10)
	}
	if e.Exception != "" {
		line += ", " + e.Exception
	}
	fmt.Fprintln(w, clean(line))
	say(w, 1, "class", e.Class)
	say(w, 1, "sender", e.Identity)
	say(w, 1, "evidence", e.CorrelationMethod)
	decision(w, e.Decision)
	for _, party := range e.Parties {
		say(w, 1, roleWord(party.Role), partyLine(party))
	}
	say(w, 1, "envelope", strings.Join(e.Recipients, ", "))
}

func (p *program) verifyCommand() *cobra.Command {
	var o output
	c := &cobra.Command{
		Use: "verify", Short: "Read the whole store and prove that nothing in it is broken",
		Long: `Read the whole store and report each broken promise: a message without its
body, a digest that differs, an index row that leads nowhere. Exit code 1 if
there is any.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return p.with(c.Context(), existingStore, func(api *client) error {
				resp, err := api.do(c.Context(), http.MethodGet, "/verify", nil, "", nil)
				if err != nil {
					return err
				}
				defer resp.Body.Close()
				return p.verification(o, resp.Body)
			})
		},
	}
	return o.flags(c, false)
}

// verification prints what verify found; an error if it was anything.
func (p *program) verification(o output, body io.Reader) error {
	var v console.Verification
	text, err := io.ReadAll(body)
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	if err != nil {
		return fmt.Errorf("the answer broke off: %w", err)
	}
	if err := printRecord(p, o, text, verificationWords); err != nil {
		return err
	}
	switch {
	case v.Error != "":
		return fmt.Errorf("verify stopped: %s", v.Error)
	case len(v.Findings) > 0 && o.json:
		return errSaid
	case len(v.Findings) > 0:
		return hint("keep a copy of the store before you touch it", "%d broken", len(v.Findings))
	}
	return nil
}

func verificationWords(w io.Writer, v console.Verification) {
	for _, f := range v.Findings {
		fmt.Fprintln(w, clean(f.Record+": "+f.What))
	}
	n := v.Counts
	fmt.Fprintf(w, "cases %d, contacts %d, messages %d (%d exceptions), deliveries %d (%d queued), %d bytes of mail, %d findings\n",
		n.Cases, n.Contacts, n.Messages, n.Exceptions, n.Deliveries, n.Queued, n.Bytes, len(v.Findings))
}
