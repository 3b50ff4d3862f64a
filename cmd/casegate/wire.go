package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/gateway/console"
	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/bolt"
)

// openStore opens the embedded store, making it and its folder if there is
// none.
func openStore(cfg *Config, log *slog.Logger) (store.Store, error) {
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, hint("make data_dir a folder that this user may write to", "data_dir: %w", err)
	}
	return bolt.Open(cfg.store(), bolt.Options{Transform: message.Apply, Logger: log})
}

// newService is what the API works on when no daemon runs.
func newService(cfg *Config, st store.Store) console.Service {
	quiet := slog.New(slog.DiscardHandler)
	o := gateway.Options{
		Store: st, Settings: settings(cfg), Now: time.Now, Logger: quiet, Checker: senderChecker(cfg.DNS, quiet),
		Route: func(gateway.Role, string, string) bool { return false },
	}
	r, err := newRelay(cfg, st, quiet)
	if err == nil {
		o = pipelineOptions(cfg, st, r, quiet)
		o.Signers, err = cfg.signers()
	}
	o.Queued = func() {}
	s := service(cfg, o)
	if err != nil { // mail would go nowhere, or without its signature
		s.Assign = func(context.Context, console.AssignRequest) (console.Assigned, error) {
			return console.Assigned{}, console.Invalid("run casegate check", "%s", err)
		}
	}
	return s
}

func service(cfg *Config, o gateway.Options) console.Service {
	return console.Service{Store: o.Store, Transform: message.Apply, Explain: explainer(o, rulebook(cfg)), Assign: assigner(o, rulebook(cfg)), Replay: replayer(o, rulebook(cfg)),
		HashPassword: gateway.HashPassword,
	}
}

// assigner puts exceptions where a person says.
func assigner(o gateway.Options, book gateway.Rulebook) func(context.Context, console.AssignRequest) (console.Assigned, error) {
	return func(ctx context.Context, r console.AssignRequest) (console.Assigned, error) {
		m, err := gateway.Assign(ctx, o, book, r.Message, resolver.ByHand{By: r.By, Case: r.Case, Contact: r.Contact})
		if errors.Is(err, gateway.ErrSettled) {
			return console.Assigned{}, console.Invalid("look at it with casegate message show "+r.Message.String(), "%s", err)
		}
		if err != nil {
			return console.Assigned{}, err
		}
		return console.Assigned{Message: m.ID, Case: m.Case, Said: m.Decision.Reasons[len(m.Decision.Reasons)-1]}, nil
	}
}

// rulebook is what a configuration says about decisions.
func rulebook(cfg *Config) gateway.Rulebook {
	b := gateway.Rulebook{Settings: settings(cfg), Intakes: map[string]gateway.Intake{}, Submitters: map[string]gateway.Submitters{}}
	for i, l := range cfg.Listeners {
		b.Names = append(b.Names, l.Name)
		if l.Role == string(gateway.RoleOutbound) {
			b.Submitters[l.Name] = submitters(l, sendAsOf(i))
		} else {
			b.Intakes[l.Name] = intake(l)
		}
	}
	return b
}

// settings are the rules' choices.
func settings(cfg *Config) resolver.Settings {
	s := resolver.Settings{
		Hostname: cfg.Hostname, DedupeWindow: time.Duration(cfg.DedupeWindow), SubmitWindow: 24 * time.Hour,
		ReopenWindow: time.Duration(cfg.Reopen.Window), ReopenPerDay: cfg.Reopen.PerDay,
		Strict: cfg.Identity.OnUnverified == "guest",
		Sender: cfg.Outbound.Sender, ToPolicy: cfg.Outbound.ToPolicy, Unresolved: cfg.Outbound.Unresolved,
		UnresolvedOriginals: cfg.Outbound.UnresolvedOriginals, BccCurrentUser: cfg.Outbound.BCCCurrentUser,
		Uncased: cfg.Outbound.Uncased, LogDocumentType: cfg.CaseLog.DocumentType,
	}
	s.NewRecipients, s.OnUnknown, s.OnSigned = cfg.Outbound.NewRecipients, cfg.Outbound.OnUnknown, cfg.Outbound.OnSigned
	s.Ack, s.AckPerHour, s.AckPerDay = cfg.Ack == "on", 5, 20
	s.OrphanCase, s.SubjectTag = cfg.OrphanAuto == "case", cfg.SubjectTag == "on"
	s.FloodHour, s.FloodDay = cfg.Flood.NewCases.per(time.Hour), cfg.Flood.NewCases.per(24*time.Hour)
	s.AnswersHour, s.AnswersDay = cfg.Flood.Answers.per(time.Hour), cfg.Flood.Answers.per(24*time.Hour)
	for _, m := range cfg.Mailboxes {
		s.Mailboxes = append(s.Mailboxes, resolver.Mailbox{Address: m.Address, Queue: m.Queue})
	}
	return s
}

// explainer answers what would be decided about a mail, by the pipelines' own
// way, in the API's words.
func explainer(o gateway.Options, book gateway.Rulebook) func(context.Context, console.ExplainRequest) (console.Explanation, error) {
	return func(ctx context.Context, r console.ExplainRequest) (console.Explanation, error) {
		if _, in := book.Intakes[r.Listener]; in {
			r.Role = string(gateway.RoleInbound) // an agent's mail to a mailbox is outgoing, and came in all the same
		}
		env := &gateway.Envelope{Listener: book.Listener(gateway.Role(r.Role), r.Listener), Role: gateway.Role(r.Role)}
		var err error
		if env.From, err = gateway.ParsePath(r.From); err != nil {
			return console.Explanation{}, fmt.Errorf("--from %q: %w", r.From, err)
		}
		for _, to := range r.Recipients {
			p, err := gateway.ParsePath(to)
			if err != nil {
				return console.Explanation{}, fmt.Errorf("--rcpt %q: %w", to, err)
			}
			env.Recipients = append(env.Recipients, gateway.Recipient{Path: p})
		}
		e, err := gateway.Explain(ctx, o, book, env, r.EML, r.Stored)
		switch {
		case err != nil:
			return console.Explanation{}, err
		case e.Inbound != nil:
			return explainInbound(*e.Inbound), nil
		case e.Outbound != nil:
			return explainOutbound(*e.Outbound), nil
		}
		return console.Explanation{}, errors.New("nothing was decided")
	}
}

func explainInbound(d resolver.InboundDecision) console.Explanation {
	return console.Explanation{
		Role: "inbound", Outcome: string(d.Action), Case: d.Case.Number, Exception: d.Exception,
		Class: string(d.Class), Identity: string(d.Identity), CorrelationMethod: d.Method,
		Decision: d.Decision, Parties: explainParties(d.Parties), Recipients: d.Mailboxes,
	}
}

func explainOutbound(d resolver.OutboundDecision) console.Explanation {
	e := console.Explanation{
		Role: "outbound", Outcome: "send", Case: d.Case.Number, Class: string(d.Class), CorrelationMethod: d.Method,
		Decision: d.Decision, Parties: explainParties(d.Parties), Recipients: d.Recipients(),
	}
	switch {
	case d.Refusal != nil:
		e.Outcome = "refuse: " + d.Refusal.Text
	case d.Duplicate != nil:
		e.Outcome = "duplicate of " + d.Duplicate.ID.String()
	case d.Part != nil:
		e.Outcome = "send, as a further part of " + d.Part.ID.String()
	case d.Hold != "":
		e.Outcome = "hold: " + d.Hold
	case d.Opens:
		e.Outcome = "send, and open a case"
	}
	return e
}

func explainParties(rows []store.Party) []console.ActivityParty {
	list := []console.ActivityParty{}
	for _, r := range rows {
		p := console.ActivityParty{Role: r.Role, AddressUsed: r.AddressUsed, Name: r.Name, Why: r.Why}
		if r.Party.Kind != store.Unresolved {
			p.Party = &console.PartyRef{Kind: r.Party.Kind, ID: r.Party.ID, Address: r.Party.Address}
		}
		list = append(list, p)
	}
	return list
}
