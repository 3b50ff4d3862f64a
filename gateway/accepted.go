package gateway

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/casegate/casegate/store"
)

// Accepted is a message that is on stable storage.
type Accepted struct {
	Role    Role
	Message store.Message
	Repeats bool          // Message was there already: this is a copy of it
	Size    int64         // as it came
	Took    time.Duration // since its last byte
}

// handover is the moment at which a session has all of a message.
type handover struct {
	env   *Envelope
	at    time.Time
	signs bool // what follows from it may be signed
}

// announce tells Options.Accepted and the log. The relay's lines bear the same id.
// Nothing that a mail says is in the line, nor any address: not its subject,
// and not whom it is for.
func (p pipeline) announce(ctx context.Context, v handover, m store.Message, repeats bool) {
	took := time.Since(v.at)
	if p.Accepted != nil {
		p.Accepted(Accepted{Role: v.env.Role, Message: m, Repeats: repeats, Size: v.env.Body.Size, Took: took})
	}
	if p.Logger == nil || !p.Logger.Enabled(ctx, slog.LevelInfo) {
		return
	}
	var where slog.Attr // none: it is on no case
	switch {
	case m.Exception != "":
		where = slog.String("exception", m.Exception)
	case m.Case != 0:
		where = slog.Uint64("case", m.Case)
	}
	list := [...]slog.Attr{
		slog.String("message", m.ID.String()), where, slog.String("rules", strings.Join(m.Decision.Rules, " ")),
		slog.String("listener", v.env.Listener), slog.String("peer", v.env.PeerName), slog.Int64("size", v.env.Body.Size),
		slog.Float64("ms", float64(took.Microseconds())/1000), slog.Bool("repeats", repeats),
	}
	attrs := list[:]
	if !repeats {
		attrs = list[:len(list)-1]
	}
	p.Logger.LogAttrs(ctx, slog.LevelInfo, "accepted", attrs...)
}
