package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/gateway/console"
)

func (p *program) replayCommand() *cobra.Command {
	var o output
	var file, since string
	c := &cobra.Command{
		Use: "replay --config NEW.yaml", Short: "Say what another configuration would change; writes nothing",
		Long: `Decide on every archived message once more, under the configuration in force
and under another one, on what was known when the message came, and print where
the two differ. Writes nothing. The one in force is the running daemon's, else
casegate.yaml of the working directory, else the built-in one. To say it outright:
casegate replay --config CURRENT.yaml --with NEW.yaml.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			q := url.Values{}
			if since != "" {
				at, err := sinceWhen(since, time.Now())
				if err != nil {
					return err
				}
				q.Set("since", at.Format(time.RFC3339))
			}
			if file == "" {
				file, p.configFile = p.configFile, ""
			}
			if file == "" {
				return usage("write casegate replay --config NEW.yaml", "replay needs the configuration to compare with")
			}
			return p.replay(c.Context(), o, file, q)
		},
	}
	c.Flags().StringVar(&file, "with", "", "`FILE` of the configuration to compare with")
	c.Flags().StringVar(&since, "since", "", "leave out what is older: a `DATE` such as 2026-01-31, or a span such as 30d")
	return o.flags(c, false)
}

// sinceWhen reads a date or a span back from now.
func sinceWhen(s string, now time.Time) (time.Time, error) {
	if at, err := time.ParseInLocation(time.DateOnly, s, time.Local); err == nil {
		return at, nil
	}
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		return at, nil
	}
	var d Duration
	if err := d.UnmarshalText([]byte(s)); err != nil {
		return time.Time{}, usage("write such as --since 2026-01-31 or --since 30d", "--since %q is neither a date nor a span", s)
	}
	return now.Add(-time.Duration(d)), nil
}

func (p *program) replay(ctx context.Context, o output, file string, q url.Values) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return hint("write --config FILE with the path of the new configuration", "%s: %s", file, reason(err))
	}
	other, err := parseConfig(file, text, nil)
	if err != nil {
		return err
	}
	if _, err := os.Stat(defaultFile); p.configFile == "" && err != nil {
		p.environ = append(slices.Clone(p.environ), "CASEGATE_DATA_DIR="+other.DataDir) // a store is found by the file that is there
	}
	text = append(text, '\n') // an empty file is the defaults, and an empty body no request
	return p.with(ctx, existingStore, func(c *client) error {
		resp, err := c.do(ctx, http.MethodPost, "/replay", q, "application/yaml", bytes.NewReader(text))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		return p.replayed(o, resp.Body)
	})
}

// replayed prints the changes as they come, with a bar on a terminal.
func (p *program) replayed(o output, body io.Reader) error {
	bar := newProgress(p.err, 0)
	defer bar.end()
	scan := bufio.NewScanner(body)
	scan.Buffer(nil, 4<<20)
	var last console.ReplayLine
	changes := 0
	for scan.Scan() {
		var l console.ReplayLine
		if err := json.Unmarshal(scan.Bytes(), &l); err != nil {
			return fmt.Errorf("the answer broke off: %w", err)
		}
		switch {
		case l.Error != "":
			bar.end()
			return fmt.Errorf("replay stopped: %s", l.Error)
		case l.Change != nil:
			changes++
			bar.end()
			p.change(o, *l.Change)
		}
		last = l
		bar.size, bar.read = int64(max(last.Total, 1)), int64(last.Done)
		bar.show(last.Done)
	}
	bar.end()
	if err := scan.Err(); err != nil {
		return fmt.Errorf("the answer broke off: %w", err)
	}
	if !o.json {
		fmt.Fprintf(p.out, "%d messages decided again, %d would be treated otherwise\n", last.Done, changes)
	}
	return nil
}

func (p *program) change(o output, c console.ReplayChange) {
	if o.json {
		json.NewEncoder(p.out).Encode(c)
		return
	}
	fmt.Fprintf(p.out, "%s  %s  %s\n", c.ID, c.ReceivedAt.Local().Format(time.DateTime), clean(c.Subject))
	say(p.out, 1, "was", c.Before)
	say(p.out, 1, "would be", c.After)
	for _, r := range c.Would.Reasons {
		say(p.out, 1, "because", r)
	}
}

// replayer decides on the archive under the configuration in force and another.
func replayer(o gateway.Options, now gateway.Rulebook) func(console.ReplayRequest) (func(context.Context, func(console.ReplayLine) error) error, error) {
	return func(r console.ReplayRequest) (func(context.Context, func(console.ReplayLine) error) error, error) {
		cfg, err := parseConfig("replay", r.Config, nil)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context, tell func(console.ReplayLine) error) error {
			return replay(ctx, o, now, rulebook(cfg), r.Since, tell)
		}, nil
	}
}

func replay(ctx context.Context, o gateway.Options, now, then gateway.Rulebook, since time.Time, tell func(console.ReplayLine) error) error {
	total, err := gateway.CountMessages(ctx, o.Store, since)
	if err != nil {
		return err
	}
	done := 0
	err = gateway.Replay(ctx, o, now, then, since, func() {
		if done++; done%100 == 0 {
			tell(console.ReplayLine{Done: done, Total: total})
		}
	}, func(c gateway.Change) error {
		m := c.Message
		return tell(console.ReplayLine{Done: done, Total: total, Change: &console.ReplayChange{
			ID: m.ID, ReceivedAt: m.ReceivedAt, Subject: m.Subject, From: m.From,
			Before: c.Before, After: c.After, Was: c.Was, Would: c.Would,
		}})
	})
	if err != nil {
		return err
	}
	return tell(console.ReplayLine{Done: done, Total: total})
}
