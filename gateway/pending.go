package gateway

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// PendingDirectory is the reason on the exceptions list, and the flag on a
// case, of mail that came while the directory could not be asked (rule I20).
const PendingDirectory = "pending-directory"

// ResolvePending decides again, every now and then until ctx ends, on the mail
// that waits for the directory. intake says how a listener's mail is read.
func ResolvePending(ctx context.Context, o Options, intake func(listener string) Intake, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := resolvePending(ctx, o, intake); err != nil && ctx.Err() == nil {
			o.Logger.Warn("mail that waits for the directory", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func resolvePending(ctx context.Context, o Options, intake func(string) Intake) error {
	err := eachMessage(ctx, o.Store, store.MessageFilter{Exception: PendingDirectory}, func(m store.Message) error {
		done, err := Retry(ctx, o, intake(m.Envelope.Listener), m.ID)
		switch {
		case errors.Is(err, ErrSettled):
			return nil
		case err != nil:
			o.Logger.Warn("a message that waits for the directory", "message", m.ID, "error", err)
			return ctx.Err()
		case done.Exception == PendingDirectory:
			return errStillOut
		}
		return nil
	})
	if err != nil {
		if errors.Is(err, errStillOut) {
			return nil
		}
		return err
	}
	return eachMessage(ctx, o.Store, store.MessageFilter{Unresolved: true}, func(m store.Message) error {
		byHand := func(p store.Party) bool { return p.ByHand }
		if !slices.Contains(m.Flags, PendingDirectory) || slices.ContainsFunc(m.Parties, byHand) {
			return nil
		}
		if err := resolveOnCase(ctx, o, intake(m.Envelope.Listener), m); err != nil {
			o.Logger.Warn("a message that waits for the directory", "message", m.ID, "error", err)
		}
		return ctx.Err()
	})
}

var errStillOut = errors.New("the directory still does not answer")

// eachMessage runs f on all messages of a list; no snapshot is held meanwhile.
func eachMessage(ctx context.Context, st store.Store, filter store.MessageFilter, f func(store.Message) error) error {
	var at store.Cursor
	for {
		var page []store.Message
		err := st.View(ctx, func(r store.Reader) (err error) {
			page, at, err = r.Messages(filter, store.Page{After: at})
			return err
		})
		if err != nil {
			return err
		}
		for _, m := range page {
			if err := f(m); err != nil {
				return err
			}
		}
		if at == "" {
			return nil
		}
	}
}

// resolveOnCase finds the people of a message that is on its case already.
func resolveOnCase(ctx context.Context, o Options, l Intake, m store.Message) error {
	p := &inbound{pipeline{o}, l}
	a, err := p.again(ctx, m.ID)
	if err != nil {
		return err
	}
	defer a.spool.Discard()
	if a.mail.DirectoryOut != "" {
		return nil
	}
	query := resolver.AskByHand(a.mail, o.Settings, resolver.ByHand{Case: m.Case})
	return o.Store.Update(ctx, func(tx store.Tx) error {
		now, err := tx.Message(m.ID)
		if err != nil {
			return err
		}
		f, err := leftOut{tx, m.ID}.Facts(query)
		if err != nil {
			return err
		}
		d := resolver.ResolvedLater(a.mail, f, o.Settings, now.Case)
		if d.Guest != nil {
			if err := tx.PutContact(*d.Guest); err != nil {
				return err
			}
		}
		now.Parties, now.Links = d.Parties, d.Links
		now.Flags = slices.DeleteFunc(slices.Clone(now.Flags), func(f string) bool { return f == PendingDirectory })
		now.Decision.Reasons = append(slices.Clone(now.Decision.Reasons), d.Reasons...)
		return tx.PutMessage(now)
	})
}
