package mailauth

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
)

// patience is how long one server has for an answer before another is asked, or
// the same one again: a packet may be lost.
const patience = 1500 * time.Millisecond

// NewResolver asks DNS servers (addresses, their port is 53 unless stated), or
// with none those of the system. Where one doesn't answer the next one is asked,
// and goes on to be the first. None is asked more than twice for one question.
func NewResolver(servers ...string) Resolver {
	if len(servers) == 0 {
		return systemResolver()
	}
	t := &inTurn{}
	for _, s := range servers {
		t.servers = append(t.servers, serverResolver(s))
	}
	return t
}

// systemResolver goes by resolv.conf, whose own patience is often longer than
// all the time that a message has.
func systemResolver() Resolver {
	return &net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, network, address)
		if udp, ok := c.(*net.UDPConn); ok {
			return hasty{udp}, err
		}
		return c, err
	}}
}

// hasty is a connection to a server that is waited for no longer than patience.
type hasty struct{ *net.UDPConn }

func (c hasty) SetDeadline(t time.Time) error {
	if soon := time.Now().Add(patience); soon.Before(t) {
		t = soon
	}
	return c.UDPConn.SetDeadline(t)
}

// serverResolver asks one server.
func serverResolver(server string) Resolver {
	if _, _, err := net.SplitHostPort(server); err != nil {
		server = net.JoinHostPort(strings.Trim(server, "[]"), "53")
	}
	return &net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, server)
	}}
}

// inTurn asks several servers, whoever answered last first.
type inTurn struct {
	servers []Resolver
	first   atomic.Int64
}

// askInTurn puts one question until somebody answers it, be it "no such name".
func askInTurn[T any](ctx context.Context, t *inTurn, ask func(context.Context, Resolver) (T, error)) (answer T, err error) {
	first, n := int(t.first.Load()), len(t.servers)
	for i := range 2 * n {
		at := (first + i) % n
		limited, cancel := context.WithTimeout(ctx, patience)
		answer, err = ask(limited, t.servers[at])
		cancel()
		switch {
		case err == nil || failure(err) != errTemporary:
			t.first.Store(int64(at))
			return answer, err
		case ctx.Err() != nil:
			return answer, err
		}
	}
	return answer, err
}

func (t *inTurn) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return askInTurn(ctx, t, func(ctx context.Context, r Resolver) ([]string, error) { return r.LookupTXT(ctx, name) })
}

func (t *inTurn) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	return askInTurn(ctx, t, func(ctx context.Context, r Resolver) ([]*net.MX, error) { return r.LookupMX(ctx, name) })
}

func (t *inTurn) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	return askInTurn(ctx, t, func(ctx context.Context, r Resolver) ([]netip.Addr, error) { return r.LookupNetIP(ctx, network, host) })
}

func (t *inTurn) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	return askInTurn(ctx, t, func(ctx context.Context, r Resolver) ([]string, error) { return r.LookupAddr(ctx, addr) })
}

// Answers reports whether the DNS answers a question about a name at all, be it
// "no such name".
func Answers(ctx context.Context, r Resolver, name string) bool {
	_, err := resolve(ctx, r, txt, strings.TrimSuffix(name, "."))
	return err != errTemporary
}
