package relay

import (
	"fmt"
	"slices"
	"time"

	"github.com/casegate/casegate/store"
)

// table is the routes as they are now. It is replaced whole, so an attempt
// sees one state of it.
type table struct {
	routes []compiled
	hops   map[string]*hop // by what they are and how they are secured
}

// newTable compiles routes. Next hops that stay as they were keep their
// connections and their back-off.
func (r *Relay) newTable(routes []Route, old *table) (*table, error) {
	t := &table{hops: map[string]*hop{}}
	for i, rt := range routes {
		c, err := rt.compile()
		if err != nil {
			return nil, fmt.Errorf("route %d (%s): %w", i+1, rt.Role, err)
		}
		t.routes = append(t.routes, c)
	}
	for i := range t.routes {
		c := &t.routes[i]
		for _, e := range c.endpoints {
			h, err := t.hop(r, c, e, old)
			if err != nil {
				return nil, fmt.Errorf("route %d (%s): %w", i+1, c.Role, err)
			}
			c.hops = append(c.hops, h)
		}
	}
	t.chain()
	return t, nil
}

// chain tells each hop what is behind it. The hops may be those of the table
// before, so this comes when nothing can fail any more.
func (t *table) chain() {
	for _, h := range t.hops {
		var further [][]*hop
		for _, c := range t.routes {
			if len(c.hops) > 0 && c.hops[0] == h {
				further = append(further, c.hops[1:])
			}
		}
		h.lead(further)
	}
}

// hop returns the one hop of an endpoint, taken over from old if unchanged.
func (t *table) hop(r *Relay, c *compiled, e endpoint, old *table) (*hop, error) {
	s, err := c.settings(e)
	if err != nil {
		return nil, err
	}
	s.limit, s.rate = t.limits(e.name, r.opts.PerHop)
	key := s.key()
	if h, ok := t.hops[key]; ok {
		return h, nil
	}
	h := (*hop)(nil)
	if old != nil {
		h = old.hops[key]
	}
	if h == nil {
		h = newHop(r, s)
	}
	t.hops[key] = h
	return h, nil
}

// limits are what the routes allow to a next hop: connections at once, and
// messages a second (0: as many as there are). The first that says a number
// counts.
func (t *table) limits(nextHop string, limit int) (connections int, rate float64) {
	for _, c := range t.routes {
		if !slices.ContainsFunc(c.endpoints, func(e endpoint) bool { return e.name == nextHop }) {
			continue
		}
		if connections == 0 {
			connections = c.MaxConnections
		}
		if rate == 0 {
			rate = c.MaxPerSecond
		}
	}
	if connections == 0 {
		connections = limit
	}
	return connections, rate
}

// capacity is how many deliveries may be claimed at a time: some for each hop.
func (t *table) capacity(concurrency int) int { return max(concurrency, 2*len(t.hops)) }

// share is how many of them may be for one hop.
func (t *table) share(concurrency int) int {
	return max(1, t.capacity(concurrency)/max(1, len(t.hops)))
}

// room says which hops have how much room for more, as Store.Claim takes it.
// turn is when, for want of nothing but time, one has room again; negative if
// that is so for none.
func (t *table) room(share int) (room store.Room, turn time.Duration) {
	room, turn = make(store.Room, len(t.hops)), -1
	for _, h := range t.hops {
		n, wait := h.room(share)
		room[h.lane] = n
		if wait >= 0 && (turn < 0 || wait < turn) {
			turn = wait
		}
	}
	return room, turn
}

// find returns the first route that fits.
func (t *table) find(role, sender, recipient, mailbox string) (*compiled, bool) {
	for i := range t.routes {
		c := &t.routes[i]
		if c.Role == role && c.sent(sender) && c.recipient.fits(recipient) && c.concerns(recipient, mailbox) {
			return c, true
		}
	}
	return nil, false
}

// Route says by which route a message would go now. The mailbox of outbound mail
// is not known here.
func (r *Relay) Route(role, sender, recipient string) (Route, bool) {
	return r.RouteFor(role, sender, recipient, "")
}

// RouteFor says by which route a message of a mailbox of ours would go now. The
// mailbox of inbound mail is its recipient.
func (r *Relay) RouteFor(role, sender, recipient, mailbox string) (Route, bool) {
	c, ok := r.routes.Load().find(role, sender, recipient, mailbox)
	if !ok {
		return Route{}, false
	}
	return c.Route, true
}

// Lane says where a delivery waits (store.Delivery.Lane), by the routes as they
// are now: for the next hop of all its recipients that are to be served. With
// several, it waits for none of them.
func (r *Relay) Lane(d *store.Delivery) (lane string) {
	if d.Dropped != "" {
		return ""
	}
	t := r.routes.Load()
	for _, i := range open(d) {
		c, ok := t.find(d.Role, d.From, d.Recipients[i].Address, d.Mailbox)
		if !ok || len(c.hops) == 0 || lane != "" && lane != c.hops[0].lane {
			return ""
		}
		lane = c.hops[0].lane
	}
	return lane
}

// SetRoutes replaces the routes. Attempts under way end as they began; each
// later one goes by the new routes, and so does what waits for a session with a
// next hop that is not in them. On error the old ones stay.
func (r *Relay) SetRoutes(routes []Route) error {
	r.swap.Lock()
	defer r.swap.Unlock()
	old := r.routes.Load()
	t, err := r.newTable(routes, old)
	if err != nil {
		return err
	}
	r.routes.Store(t)
	for key, h := range old.hops {
		if t.hops[key] != h {
			h.close()
		}
	}
	r.Wake()
	return nil
}
