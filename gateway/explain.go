package gateway

import (
	"context"
	"io"
	"os"
	"slices"

	"github.com/casegate/casegate/gateway/mailauth"
	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// Explained is a decision that was made and thrown away: one of the two.
type Explained struct {
	Inbound  *resolver.InboundDecision
	Outbound *resolver.OutboundDecision
}

// Explain decides on a message as if it came now by the listener that env
// names, the way the pipelines do, and writes nothing. Without recipients those
// of the header are taken. except names a stored message that must not count as
// an earlier copy of this one.
func Explain(ctx context.Context, o Options, book Rulebook, env *Envelope, eml io.Reader, except store.ID) (Explained, error) {
	o.Directory = nil // asking it may write
	var err error
	if o.ContentKey, err = ReadContentKey(ctx, o.Store); err != nil {
		return Explained{}, err
	}
	body, err := newTempBody()
	if err != nil {
		return Explained{}, err
	}
	defer body.Discard()
	s, err := newSpool(body, o.ContentKey)
	if err != nil {
		return Explained{}, err
	}
	if _, err := io.Copy(s, eml); err != nil {
		return Explained{}, err
	}
	if len(env.Recipients) == 0 {
		env.Recipients = headerRecipients(message.Parse(s.header))
	}
	if env.Role == RoleOutbound {
		return explainOutbound(ctx, o, book, env, s, except)
	}
	p, a := &inbound{pipeline{o}, book.Intakes[env.Listener]}, arrival{env: env, spool: s}
	if a.stored, err = recordOf(ctx, o.Store, except); err != nil {
		return Explained{}, err
	}
	p.read(ctx, &a)
	var e Explained
	err = o.Store.View(ctx, func(r store.Reader) error {
		facts, err := leftOut{r, except}.Facts(resolver.Ask(a.mail, o.Settings))
		if err != nil {
			return err
		}
		d := resolver.Inbound(a.mail, facts, o.Settings)
		e.Inbound = &d
		return nil
	})
	return e, err
}

// recordOf is that of a stored message; nil for no message.
func recordOf(ctx context.Context, st store.Store, id store.ID) (*store.Message, error) {
	if id == (store.ID{}) {
		return nil, nil
	}
	var m store.Message
	err := st.View(ctx, func(r store.Reader) (err error) { m, err = r.Message(id); return err })
	return &m, err
}

func explainOutbound(ctx context.Context, o Options, book Rulebook, env *Envelope, s *spool, except store.ID) (e Explained, err error) {
	p, a := &outbound{pipeline{o}, book.Submitters[env.Listener]}, submission{env: env, spool: s}
	p.read(ctx, &a)
	sub := a.sub
	err = o.Store.View(ctx, func(r store.Reader) error {
		facts, err := askOutbound(leftOut{r, except}, sub, o.Settings)
		if err != nil {
			return err
		}
		d := resolver.Outbound(sub, facts, o.Settings)
		e.Outbound = &d
		return nil
	})
	if err != nil {
		return e, err
	}
	return e, p.explainSent(a, e.Outbound)
}

// explainSent adds what is said only of what is sent.
func (p *outbound) explainSent(a submission, d *resolver.OutboundDecision) error {
	if d.Refusal != nil || d.Duplicate != nil || d.Part != nil || p.Observe {
		return nil
	}
	n := plan{message: store.Message{Decision: d.Decision}}
	a.hash = func() (mailauth.BodyHash, error) { return "", nil } // nobody gets that signature
	err := p.compose(&n, a, d)
	d.Decision = n.message.Decision
	return err
}

// leftOut is a Reader whose facts leave out a message.
type leftOut struct {
	store.Reader
	id store.ID
}

func (l leftOut) Facts(q store.Query) (store.Facts, error) {
	f, err := l.Reader.Facts(q)
	for k, refs := range f.MessageIDs {
		f.MessageIDs[k] = slices.DeleteFunc(slices.Clone(refs), func(r store.MessageRef) bool { return r.ID == l.id })
	}
	return f, err
}

func headerRecipients(h message.Header) []Recipient {
	var list []Recipient
	for _, name := range []string{"To", "Cc", "Bcc"} {
		for _, l := range listed(h, name) {
			if p, err := ParsePath(l.box.Address); err == nil {
				list = append(list, Recipient{Path: p})
			}
		}
	}
	return list
}

// tempBody keeps a body in a file that has no name, for as long as a decision
// on it takes.
type tempBody struct {
	unkept
	file *os.File
}

func newTempBody() (*tempBody, error) {
	f, err := os.CreateTemp("", "casegate-explain-*")
	if err != nil {
		return nil, err
	}
	return &tempBody{file: f}, os.Remove(f.Name())
}

func (t *tempBody) Write(p []byte) (int, error) {
	n, err := t.file.Write(p)
	t.size += int64(n)
	return n, err
}

func (t *tempBody) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, io.NewSectionReader(t.file, 0, t.size))
}

func (t *tempBody) Discard() { t.file.Close() }

// unkept is a body that is counted and forgotten.
type unkept struct{ size int64 }

func (u *unkept) Write(p []byte) (int, error) {
	u.size += int64(len(p))
	return len(p), nil
}
func (u *unkept) WriteTo(io.Writer) (int64, error) { return 0, nil }
func (u *unkept) Size() int64                      { return u.size }
func (u *unkept) Seal(context.Context) error       { return nil }
func (u *unkept) Discard()                         {}
