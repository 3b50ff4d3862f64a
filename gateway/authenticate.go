package gateway

import (
	"cmp"
	"context"
	"io"
	"net/netip"

	"github.com/casegate/casegate/gateway/mailauth"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// authenticate adds what is known of the sender's authenticity (rules §4): what
// a trusted peer says, or what we find out.
func (p *inbound) authenticate(ctx context.Context, a *arrival) {
	a.verdict = mailauth.Off()
	from, single := a.mail.Sender()
	switch {
	case p.TrustedForm:
		return
	case p.Check && a.stored != nil:
		a.verdict = recalled(a.stored.Authentication)
	case p.Check:
		a.verdict = p.check(ctx, a, from.Domain())
	case p.AuthServID != "" && single:
		a.verdict = mailauth.Upstream(a.header, p.AuthServID, from.Domain())
	default:
		return
	}
	a.mail.Verdict = resolver.Verdict{AlignedPass: a.verdict.AlignedPass, Forged: a.verdict.Forged, Words: a.verdict.Words}
}

// check asks the DNS about a message, within the checker's budget.
func (p *inbound) check(ctx context.Context, a *arrival, fromDomain string) mailauth.Verdict {
	body := &lateReader{spool: a.spool}
	defer body.close()
	client, helo := p.client(a.env)
	return p.Checker.Check(ctx, mailauth.CheckRequest{
		ClientIP: client, Helo: helo, MailFrom: a.env.From.String(), FromDomain: fromDomain,
		Header: a.header, Body: body, Chain: true,
	})
}

// client is the sender's own server, as far as it is known: SPF asks about that
// one, never about a relay on our side. It is whom a trusted peer names, or the
// peer itself at the border. An address that no server on the Internet has says
// that there is something between that does not tell.
func (p *inbound) client(env *Envelope) (addr netip.Addr, helo string) {
	switch {
	case env.Client.Addr.IsValid():
		addr, helo = env.Client.Addr, env.Client.Helo
	case env.Client == (Client{}) && (env.PeerNamed || p.Border):
		addr, helo = env.Peer, env.Helo
	}
	if addr = addr.Unmap(); !addr.IsGlobalUnicast() || addr.IsPrivate() {
		return netip.Addr{}, cmp.Or(helo, env.Helo)
	}
	return addr, helo
}

// lateReader reads a body again, from when it is first asked to: between the
// look-ups and the body no snapshot of the store is held.
type lateReader struct {
	spool *spool
	r     io.Reader
	done  func()
}

func (l *lateReader) Read(b []byte) (int, error) {
	if l.r == nil {
		l.r, l.done = l.spool.reader()
	}
	return l.r.Read(b)
}

func (l *lateReader) close() {
	if l.done != nil {
		l.done()
	}
}

// authentication is the record of what a check found; nil: there was none. Old
// mail is never asked about again, since keys and policies change.
func authentication(v mailauth.Verdict) *store.Authentication {
	if v.Source != mailauth.Checked {
		return nil
	}
	return &store.Authentication{
		SPF: string(v.SPF), DKIM: string(v.DKIM), DMARC: string(v.DMARC), ARC: string(v.ARC),
		From: v.From, SPFDomain: v.SPFDomain, DKIMDomain: v.DKIMDomain, ARCDomain: v.ARCDomain,
		AlignedPass: v.AlignedPass, Forged: v.Forged, Policy: v.Policy, Words: v.Words,
	}
}

// recalled is the verdict of a message that came before.
func recalled(r *store.Authentication) mailauth.Verdict {
	if r == nil {
		return mailauth.Verdict{Source: mailauth.Checked, Words: "nothing was checked when this came, and nobody is asked afterwards"}
	}
	return mailauth.Verdict{
		SPF: mailauth.Result(r.SPF), DKIM: mailauth.Result(r.DKIM), DMARC: mailauth.Result(r.DMARC), ARC: mailauth.Result(r.ARC),
		From: r.From, SPFDomain: r.SPFDomain, DKIMDomain: r.DKIMDomain, ARCDomain: r.ARCDomain,
		AlignedPass: r.AlignedPass, Forged: r.Forged, Policy: r.Policy, Words: r.Words, Source: mailauth.Checked,
	}
}
