package gateway

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/casegate/casegate/store"
)

// AuthMode says what becomes of AUTH on a listener. It is offered under TLS only,
// or as ListenerOptions.AuthWithoutTLS says.
type AuthMode string

const (
	AuthOffer   AuthMode = "offer"   // the zero mode is the same
	AuthRequire AuthMode = "require" // nobody sends mail without it
	AuthOff     AuthMode = "off"
)

// Authenticator says whose credentials they are. Sessions call it concurrently.
// Both methods return the address of the agent. A wrong login or password is a
// Verdict 535; what is a matter of time is a Verdict 454; any other error is a
// temporary failure.
type Authenticator interface {
	// Password checks what a client at an address says.
	Password(ctx context.Context, from netip.Addr, login, password string) (string, error)
	// Agent is who has a login that somebody else has checked: the authority
	// behind a client's certificate, or a proxy.
	Agent(ctx context.Context, login string) (string, error)
}

// Lookup finds an agent by login, which is one of his addresses: the address as
// it is recorded, and the hash of his password (HashPassword), if he has one.
// An empty address means that nobody has the login.
type Lookup func(ctx context.Context, login string) (address, hash string, err error)

// The refusals of Logins. Nothing in them tells an unknown login from a wrong
// password.
var (
	errCredentials  = Verdict{535, [3]int{5, 7, 8}, "Authentication credentials invalid"}
	errTooMany      = Verdict{454, [3]int{4, 7, 0}, "Too many failed logins, try again later"}
	errHashersBusy  = Verdict{454, [3]int{4, 7, 0}, "Too many logins at a time, try again later"}
	errAuthRequired = Verdict{530, [3]int{5, 7, 0}, "Authentication required"}
)

const (
	hashers    = 2                // passwords hashed at a time, of 9 MiB each
	hasherWait = 10 * time.Second // for one of them
	loginMax   = 320              // bytes that count
)

// Logins is the Authenticator over the agents' records. One may serve several
// listeners, which then share its memory of failures.
type Logins struct {
	lookup  Lookup
	now     func() time.Time
	hash    func(p argon, password string) []byte
	slots   chan struct{}
	peers   backoff
	logins  backoff
	nobodys argon // what an unknown login is checked against
}

// NewLogins returns the Authenticator of the agents that lookup finds.
func NewLogins(lookup Lookup) *Logins {
	return &Logins{
		lookup: lookup, now: time.Now, hash: argon.of,
		slots:   make(chan struct{}, hashers),
		peers:   backoff{free: 20, most: 15 * time.Minute},
		logins:  backoff{free: 5, most: time.Minute}, // short: a stranger must not lock out an agent
		nobodys: newArgon(),
	}
}

// Password hashes exactly once, whoever asks for whatever, unless the client or
// the login has failed too often just now.
func (l *Logins) Password(ctx context.Context, from netip.Addr, login, password string) (string, error) {
	keys := [2]string{network(from), store.Key(login[:min(len(login), loginMax)])}
	if l.blocked(keys) {
		return "", errTooMany
	}
	if err := l.take(ctx); err != nil {
		return "", err
	}
	defer func() { <-l.slots }()
	if l.blocked(keys) { // others may have failed while we waited
		return "", errTooMany
	}
	address, hash, err := l.lookup(ctx, login)
	if err != nil {
		return "", err
	}
	if !l.matches(hash, password) || address == "" {
		l.peers.fail(keys[0], l.now())
		l.logins.fail(keys[1], l.now())
		return "", errCredentials
	}
	l.logins.forget(keys[1])
	return address, nil
}

// matches hashes a password also where there is nothing to compare it with.
func (l *Logins) matches(hash, password string) bool {
	p, ok := parseArgon(hash)
	if !ok {
		l.hash(l.nobodys, password)
		return false
	}
	return p.equals(l.hash(p, password))
}

// Agent finds who has a login.
func (l *Logins) Agent(ctx context.Context, login string) (string, error) {
	address, _, err := l.lookup(ctx, login)
	if err == nil && address == "" {
		err = errCredentials
	}
	return address, err
}

func (l *Logins) blocked(keys [2]string) bool {
	return l.peers.blocked(keys[0], l.now()) || l.logins.blocked(keys[1], l.now())
}

// take waits for a place to hash in.
func (l *Logins) take(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, hasherWait)
	defer cancel()
	select {
	case l.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errHashersBusy
	}
}

// network is what failures of an address are counted by: itself, or the /64 that
// an IPv6 client has to itself.
func network(a netip.Addr) string {
	if a.Is6() {
		p, _ := a.Prefix(64)
		return p.String()
	}
	return a.String()
}

// backoff makes those who fail wait: after some free failures a second, then
// twice as long each time. What it remembers is bounded.
type backoff struct {
	free int
	most time.Duration

	mu     sync.Mutex
	failed map[string]failures
}

type failures struct {
	n    int
	last time.Time
}

const (
	backoffKeys   = 10_000
	backoffForget = 30 * time.Minute
)

func (b *backoff) blocked(key string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.failed[key]
	if f.n <= b.free {
		return false
	}
	wait := min(time.Second<<min(f.n-b.free-1, 20), b.most)
	return now.Before(f.last.Add(wait))
}

func (b *backoff) fail(key string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, known := b.failed[key]
	if now.After(f.last.Add(backoffForget)) {
		f.n = 0
	}
	if !known && len(b.failed) >= backoffKeys {
		b.shrink(now)
	}
	if b.failed == nil {
		b.failed = map[string]failures{}
	}
	b.failed[key] = failures{f.n + 1, now}
}

// shrink drops what is old, or else anything.
func (b *backoff) shrink(now time.Time) {
	for key, f := range b.failed {
		if now.After(f.last.Add(backoffForget)) {
			delete(b.failed, key)
		}
	}
	for key := range b.failed {
		if len(b.failed) < backoffKeys {
			return
		}
		delete(b.failed, key)
	}
}

func (b *backoff) forget(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.failed, key)
}
