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

// leastTries is how often a delivery is tried before its age counts. By the
// default table they take 51 minutes: who was off with us has time to come back.
const leastTries = 5

// wait is that after so many tries.
func (p *Patience) wait(tries int) time.Duration {
	return p.Retry[min(max(tries, 1), len(p.Retry))-1]
}

// owed is for how much longer a delivery is tried whatever its age, after so many
// tries: until it had leastTries, or as many as Expire has time for.
func (p *Patience) owed(tries int) (owed time.Duration) {
	var all time.Duration
	for n := 1; n < leastTries; n++ {
		if all += p.wait(n); all > p.Expire {
			break
		}
		if n >= tries {
			owed += p.wait(n)
		}
	}
	return owed
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
