package mailauth

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"
)

// Budget bounds what one message may cost; what is zero has its default.
type Budget struct {
	Queries    int           // DNS queries, 60
	Time       time.Duration // for all of them together, 5 s
	Signatures int           // DKIM signatures looked at, those aligned with From first, 8
}

func (b Budget) orDefault() Budget {
	if b.Queries <= 0 {
		b.Queries = 60
	}
	if b.Time <= 0 {
		b.Time = 5 * time.Second
	}
	if b.Signatures <= 0 {
		b.Signatures = 8
	}
	return b
}

// How a look-up fails.
var (
	errVoid      = errors.New("no such record")
	errTemporary = errors.New("the DNS does not answer")
	errPermanent = errors.New("the DNS refuses to answer")
)

type recordType string

const (
	txt recordType = "TXT"
	mx  recordType = "MX"
	ip4 recordType = "A"
	ip6 recordType = "AAAA"
	ptr recordType = "PTR" // the name is an IP address
)

// lookups are the questions of one message.
type lookups struct {
	ctx        context.Context // ends with the budget's time
	resolver   Resolver
	now        func() time.Time
	shared     *dns
	left       int
	answered   int    // by the DNS, not by the cache
	unanswered string // the last name without an answer
	trouble    string // why a result is temperror, for people
	rests      func(until time.Time)
}

// ask returns the records of a name, at least one, or one of the three errors.
func (l *lookups) ask(kind recordType, name string) ([]string, error) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if kind != ptr && !isName(name) {
		return nil, errVoid
	}
	q := question{kind, name}
	l.shared.mu.Lock()
	records, known := l.shared.cache.get(q, l.now())
	l.shared.mu.Unlock()
	if known {
		if len(records) == 0 {
			return nil, errVoid
		}
		return records, nil
	}
	switch {
	case l.shared.paused(l.now()):
		return nil, l.give("look-ups rest after failures of the DNS")
	case l.left == 0:
		return nil, l.give("it takes too many look-ups")
	case l.outOfTime():
		return nil, l.give("the DNS did not answer in time")
	}
	l.left--
	records, err := resolve(l.ctx, l.resolver, kind, name)
	if err == errTemporary {
		if kind != ptr {
			l.unanswered = name
		}
		if l.outOfTime() {
			return nil, l.give("the DNS did not answer in time")
		}
		return nil, l.give("the DNS did not answer")
	}
	l.answered++
	if err != errPermanent {
		l.shared.mu.Lock()
		l.shared.cache.put(q, records, l.now())
		l.shared.mu.Unlock()
	}
	return records, err
}

// outOfTime: a socket notices its deadline a little before the context does.
func (l *lookups) outOfTime() bool {
	end, ok := l.ctx.Deadline()
	return l.ctx.Err() != nil || ok && !time.Now().Before(end)
}

func (l *lookups) give(trouble string) error {
	if l.trouble == "" {
		l.trouble = trouble
	}
	return errTemporary
}

// resolve asks one question. The dot at the end of a name keeps search lists
// away.
func resolve(ctx context.Context, r Resolver, kind recordType, name string) (records []string, err error) {
	switch kind {
	case txt:
		records, err = r.LookupTXT(ctx, name+".")
	case mx:
		var list []*net.MX
		list, err = r.LookupMX(ctx, name+".")
		for _, m := range list {
			records = append(records, m.Host)
		}
	case ip4, ip6:
		network := map[recordType]string{ip4: "ip4", ip6: "ip6"}[kind]
		addrs, failed := r.LookupNetIP(ctx, network, name+".")
		for _, a := range addrs {
			records = append(records, a.Unmap().String())
		}
		err = failed
	case ptr:
		records, err = r.LookupAddr(ctx, name)
	}
	if len(records) > 0 { // with an error: one of several records is broken
		return records, nil
	}
	return nil, failure(err)
}

// failure sorts the errors of a resolver (RFC 7208 §2.6.6, RFC 6376 §6.1.2).
func failure(err error) error {
	var e *net.DNSError
	switch {
	case err == nil, errors.As(err, &e) && e.IsNotFound:
		return errVoid
	case e != nil && !e.IsTimeout && !e.IsTemporary:
		return errPermanent
	}
	return errTemporary
}

// isName reports whether a name can be asked for (RFC 1035 §2.3.4).
func isName(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
	}
	return true
}
