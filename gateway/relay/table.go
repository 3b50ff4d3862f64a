package relay

import "fmt"

// table is the routes as they are now. It is replaced whole, so an attempt
// sees one state of it.
type table struct {
	routes []compiled
	hops   map[string]*hop // by NextHop
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
		if c := &t.routes[i]; c.NextHop != None {
			c.hop = t.hop(r, c, old)
		}
	}
	return t, nil
}

// hop returns the one hop of a NextHop, taken over from old if unchanged.
func (t *table) hop(r *Relay, c *compiled, old *table) *hop {
	if h, ok := t.hops[c.NextHop]; ok {
		return h
	}
	limit := t.limit(c.NextHop, r.opts.PerHop)
	h := (*hop)(nil)
	if old != nil {
		h = old.hops[c.NextHop]
	}
	if h == nil || h.limit != limit {
		h = newHop(r, c.NextHop, c.endpoint, limit)
	}
	t.hops[c.NextHop] = h
	return h
}

// limit is how many connections the routes allow to a next hop.
func (t *table) limit(nextHop string, limit int) int {
	for _, c := range t.routes {
		if c.NextHop == nextHop && c.MaxConnections > 0 {
			return c.MaxConnections
		}
	}
	return limit
}

// find returns the first route that fits.
func (t *table) find(role, sender, recipient string) (*compiled, bool) {
	for i := range t.routes {
		c := &t.routes[i]
		if c.Role == role && c.sender.fits(sender) && c.recipient.fits(recipient) {
			return c, true
		}
	}
	return nil, false
}

// Route says by which route a message would go now.
func (r *Relay) Route(role, sender, recipient string) (Route, bool) {
	c, ok := r.routes.Load().find(role, sender, recipient)
	if !ok {
		return Route{}, false
	}
	return c.Route, true
}

// SetRoutes replaces the routes. Attempts under way end as they began; each
// later one goes by the new routes. On error the old ones stay.
func (r *Relay) SetRoutes(routes []Route) error {
	r.swap.Lock()
	defer r.swap.Unlock()
	old := r.routes.Load()
	t, err := r.newTable(routes, old)
	if err != nil {
		return err
	}
	r.routes.Store(t)
	for name, h := range old.hops {
		if t.hops[name] != h {
			h.close()
		}
	}
	r.Wake()
	return nil
}
