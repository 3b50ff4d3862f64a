package mailauth

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Resolver is what is asked of the DNS; a *net.Resolver is one. A call must end
// with its context.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
	LookupMX(ctx context.Context, name string) ([]*net.MX, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupAddr(ctx context.Context, addr string) ([]string, error)
}

const (
	pauseAfter = 3                // messages in a row without one answer
	pauseTime  = 30 * time.Second // rules §4
	probeTime  = time.Second      // to tell a DNS that is out from domains that are
)

// dns is the DNS as all messages share it: what it answered lately, and
// whether it is worth asking.
type dns struct {
	mu     sync.Mutex
	cache  answers
	failed int       // messages in a row without one answer
	until  time.Time // no questions before
}

// paused reports that look-ups rest.
func (d *dns) paused(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return now.Before(d.until)
}

// settle learns from one message's look-ups. Where all of the last messages
// went without an answer, their senders' domains may be to blame: they are a
// stranger's choice. So a question about the top-level domain decides, which
// is nobody's who sends mail.
func (d *dns) settle(l *lookups) {
	if l.answered == 0 && l.unanswered == "" {
		return
	}
	d.mu.Lock()
	if l.answered > 0 {
		d.failed = 0
	} else {
		d.failed++
	}
	suspect := d.failed >= pauseAfter
	d.mu.Unlock()
	if !suspect {
		return
	}
	alive := d.probe(l)
	d.mu.Lock()
	defer d.mu.Unlock()
	if alive {
		d.failed = 0
		return
	}
	rested := l.now().Before(d.until)
	d.until = l.now().Add(pauseTime)
	if !rested && l.rests != nil {
		l.rests(d.until)
	}
}

// probe reports whether the DNS answers at all, be it "no such name".
func (d *dns) probe(l *lookups) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), probeTime)
	defer cancel()
	top := l.unanswered[strings.LastIndexByte(l.unanswered, '.')+1:]
	return Answers(ctx, l.resolver, top)
}
