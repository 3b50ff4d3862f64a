package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/casegate/casegate/store"
)

// Options of a Relay. Zero fields have the default named with them.
type Options struct {
	Hostname string // said in EHLO and LHLO; required
	Routes   []Route

	Retry  []time.Duration // wait after the first, second, … attempt; the last repeats. DefaultRetry
	Expire time.Duration   // age at which a delivery that still fails is given up, tried a few times at least; 5 days
	Jitter float64         // share by which waits vary up and down; 0.1, negative for none

	// DelayAfter is the age at which the sender hears, once, that a delivery
	// takes long; 4 h, negative for never.
	DelayAfter time.Duration
	// MaxReturned is the size up to which a report returns the whole message, if
	// that was asked for (RET=FULL, RFC 3461 §4.3); 256 KiB, negative for never.
	MaxReturned int64
	// Own reports whether an address is one of our mailboxes: they get no report
	// on mail of a case, which shows what happened.
	Own func(address string) bool

	Concurrency    int           // deliveries claimed at a time, working or waiting for their next hop; 100
	PerHop         int           // connections to one next hop; 10
	PerConnection  int           // messages over one connection; 100
	PerTransaction int           // recipients in one transaction; 100 (RFC 5321 §4.5.3.1.8)
	Idle           time.Duration // how long an unused connection is kept; 5 s

	Lease    time.Duration // how long a claim lasts; an attempt ends before. 1 h
	Grace    time.Duration // for running deliveries when stopping; 30 s
	Timeouts Timeouts

	// Transform derives the sent body from the archived one by the transforms
	// noted with the message (store.Archived). Needed if any message has them.
	Transform func(body io.Reader, transforms []string) io.Reader
	// Sign signs a report of ours: it returns the fields to put on top of the
	// header, and in words who signed or why nobody did. Nil: nobody signs.
	Sign func(header []byte, body io.WriterTo) (fields []byte, why string, err error)
	// Events is told of every settled attempt, from many goroutines.
	Events func(Event)
	// Dial connects to a next hop; network is tcp or unix. net.Dialer
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
	Logger *slog.Logger     // discards
	Now    func() time.Time // time.Now
}

// Event is what came of one attempt at a delivery, told after it was stored.
type Event struct {
	Delivery store.Delivery
	// Attempts made this time: one for each next hop.
	Attempts []store.Attempt
	// Bounce names the recipients that failed for good this time, where there is
	// a sender who did not ask for silence about it.
	Bounce []store.Recipient
	// Report is the message that tells the sender, if there is one.
	Report store.ID
}

// Timeouts of a session (RFC 5321 §4.5.3.2); each zero field is as there.
type Timeouts struct {
	Connect  time.Duration // 30 s
	Greeting time.Duration // and EHLO; 5 min
	Mail     time.Duration // and RSET; 5 min
	Rcpt     time.Duration // 5 min
	Data     time.Duration // 2 min
	Block    time.Duration // 3 min
	Dot      time.Duration // 10 min; less makes peers deliver twice
}

// DefaultRetry is the retry table: the wait after each attempt that failed for
// the time being. The last row repeats until Options.Expire.
func DefaultRetry() []time.Duration {
	const m, h = time.Minute, time.Hour
	return []time.Duration{
		1 * m, 5 * m, 15 * m, 30 * m,
		1 * h, 2 * h, 4 * h,
	}
}

func (o *Options) defaults() {
	if len(o.Retry) == 0 {
		o.Retry = DefaultRetry()
	}
	o.Expire = cmp.Or(o.Expire, 5*24*time.Hour)
	o.DelayAfter = cmp.Or(o.DelayAfter, 4*time.Hour)
	o.MaxReturned = cmp.Or(o.MaxReturned, 256<<10)
	o.Jitter = max(0, cmp.Or(o.Jitter, 0.1))
	o.Concurrency = cmp.Or(o.Concurrency, 100)
	o.PerHop = cmp.Or(o.PerHop, 10)
	o.PerConnection = cmp.Or(o.PerConnection, 100)
	o.PerTransaction = cmp.Or(o.PerTransaction, 100)
	o.Idle = cmp.Or(o.Idle, 5*time.Second)
	o.Lease = cmp.Or(o.Lease, time.Hour)
	o.Grace = cmp.Or(o.Grace, 30*time.Second)
	o.Timeouts.defaults()
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

func (t *Timeouts) defaults() {
	t.Connect = cmp.Or(t.Connect, 30*time.Second)
	t.Greeting = cmp.Or(t.Greeting, 5*time.Minute)
	t.Mail = cmp.Or(t.Mail, 5*time.Minute)
	t.Rcpt = cmp.Or(t.Rcpt, 5*time.Minute)
	t.Data = cmp.Or(t.Data, 2*time.Minute)
	t.Block = cmp.Or(t.Block, 3*time.Minute)
	t.Dot = cmp.Or(t.Dot, 10*time.Minute)
}

// check says what is wrong with options that have their defaults.
func (o *Options) check() error {
	if o.Hostname == "" {
		return errors.New("hostname is empty")
	}
	if !printable(o.Hostname) {
		return fmt.Errorf("hostname %q has characters that EHLO cannot carry", o.Hostname)
	}
	for name, n := range map[string]int{
		"concurrency": o.Concurrency, "per hop": o.PerHop,
		"per connection": o.PerConnection, "per transaction": o.PerTransaction,
	} {
		if n < 0 {
			return fmt.Errorf("%s %d is negative", name, n)
		}
	}
	for i, wait := range o.Retry {
		if wait <= 0 {
			return fmt.Errorf("retry: wait %d is %s; it must be longer than nothing", i+1, wait)
		}
	}
	if least := 2 * o.Timeouts.Dot; o.Lease < least {
		return fmt.Errorf("lease %s is shorter than %s, twice the wait for the final reply", o.Lease, least)
	}
	if o.Jitter > 1 {
		return fmt.Errorf("jitter %g is more than 1", o.Jitter)
	}
	return nil
}

// printable reports whether s is ASCII without blanks and controls.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
