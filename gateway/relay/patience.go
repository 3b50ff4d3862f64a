package relay

import (
	"fmt"
	"time"
)

// Patience is how long, and how often, deliveries are tried, and what their
// senders hear of it. The fields are those of Options.
type Patience struct {
	Retry       []time.Duration
	Expire      time.Duration
	DelayAfter  time.Duration
	MaxReturned int64
}

// Patience is that part of the options.
func (o Options) Patience() Patience {
	return Patience{o.Retry, o.Expire, o.DelayAfter, o.MaxReturned}
}

// SetPatience replaces it. What waits is due when it was; what is settled from
// now on goes by the new one. On error the old one stays.
func (r *Relay) SetPatience(p Patience) error {
	o := Options{Hostname: r.opts.Hostname, Retry: p.Retry, Expire: p.Expire, DelayAfter: p.DelayAfter, MaxReturned: p.MaxReturned}
	o.defaults()
	if err := o.check(); err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	p = o.Patience()
	r.patience.Store(&p)
	return nil
}
