package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/casegate/casegate/store"
)

// dialers are next hops by their addresses.
func dialers(by map[string]*peer) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		return by[address].Dial(ctx, network, address)
	}
}

func attempts(d store.Delivery) (list []string) {
	for _, a := range d.Attempts {
		list = append(list, a.NextHop[strings.LastIndexByte(a.NextHop, ':')+1:]+" "+a.Result)
	}
	return list
}

// TestFailOver: the second next hop takes the mail when the first is gone, in
// the same attempt; and the first is asked again once it is back.
func TestFailOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, one, two := newMemory(), newPeer(t, hello+eight+strings.Repeat(mail1+data, 9)), newPeer(t, hello+eight+strings.Repeat(mail1+data, 9))
		one.set(errors.New("connection refused"))
		r, stop := run(t, m, Options{
			Dial:   dialers(map[string]*peer{"127.0.0.1:1": one, "127.0.0.1:2": two}),
			Routes: []Route{{Role: "outbound", NextHop: "smtp://127.0.0.1:1", Further: []string{"smtp://127.0.0.1:2"}}},
		})
		defer stop()
		send := func() []string {
			id := m.add(eml, time.Now(), "ana@x.example")
			r.Wake()
			time.Sleep(time.Second)
			d := m.get(id)
			if d.State != store.Delivered {
				t.Errorf("%+v", d)
			}
			return attempts(d)
		}
		want := []string{"1 deferred", "2 delivered"}
		if diff := cmp.Diff(want, send()); diff != "" {
			t.Errorf("gone: want - got +\n%s", diff)
		}
		one.set(nil)
		if diff := cmp.Diff(want, send()); diff != "" { // not hammered
			t.Errorf("a moment later: want - got +\n%s", diff)
		}
		if dials, _ := one.seen(); dials != 1 {
			t.Errorf("%d connections to one that is down", dials)
		}
		time.Sleep(time.Minute)
		if diff := cmp.Diff([]string{"1 delivered"}, send()); diff != "" {
			t.Errorf("back: want - got +\n%s", diff)
		}
	})
}

// TestFailOverAtFullPace: while the first next hop is down the second gets as much
// at a time as if it were the first; little where mail is only put off, for one
// of the routes at least, and no more than its rate lets go.
func TestFailOverAtFullPace(t *testing.T) {
	one, two := "smtp://127.0.0.1:1", "smtp://127.0.0.1:2"
	for _, c := range []struct {
		name   string
		routes []Route
		gone   bool // the second too
		room   int  // of a share of 80 places
		at     int  // mails at the second at a time, of a hundred that wait
	}{
		{"the second is up", []Route{{NextHop: one, Further: []string{two}}}, false, 70, 30},
		{"the second is down", []Route{{NextHop: one, Further: []string{two}}}, true, 10, 0},
		{"some have no second", []Route{{NextHop: one, Further: []string{two}}, {NextHop: one}}, false, 10, 6},
		{"each is behind the other", []Route{{NextHop: one, Further: []string{two}}, {NextHop: two, Further: []string{one}}}, false, 70, 30},
		{"the second is slow", []Route{{NextHop: one, Further: []string{two}}, {Sender: "x@y.example", NextHop: two, MaxPerSecond: 0.5}}, false, 5, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, first, second := newMemory(), newPeer(t), newPeer(t, hello+eight+strings.Repeat(mail1+"C: DATA\nS: 354 go\nD:\nW: 4s\nS: 250 2.0.0 ok\n", 40))
				first.set(errors.New("connection refused"))
				if c.gone {
					second.set(errors.New("connection refused"))
				}
				for i := range c.routes {
					c.routes[i].Role, c.routes[i].MaxConnections = "outbound", 30
				}
				r, stop := run(t, m, Options{Dial: dialers(map[string]*peer{"127.0.0.1:1": first, "127.0.0.1:2": second}), Routes: c.routes})
				defer stop()
				m.add(eml, time.Now(), "ana@x.example")
				r.Wake()
				time.Sleep(5 * time.Second) // it has left, and the first is known to be down
				if room, _ := r.routes.Load().routes[0].hops[0].room(80); room != c.room {
					t.Errorf("room for %d of 80, want %d", room, c.room)
				}
				if c.at == 0 {
					return
				}
				for range 100 {
					id := m.add(eml, time.Now(), "ana@x.example")
					m.change(id, func(d *store.Delivery) { d.Lane = r.Lane(d) })
				}
				r.Wake()
				time.Sleep(time.Second)
				if dials, _ := second.seen(); dials != c.at {
					t.Errorf("%d sessions with the second, want %d", dials, c.at)
				}
			})
		})
	}
}

// TestFailOverIsNotForVerdicts: what a next hop says of the mail is its word.
func TestFailOverIsNotForVerdicts(t *testing.T) {
	for _, reply := range []string{"450 4.2.1 later", "550 5.1.1 no"} {
		synctest.Test(t, func(t *testing.T) {
			m, two := newMemory(), newPeer(t)
			one := newPeer(t, hello+eight+"C: MAIL*\nS: 250 ok\nC: RCPT*\nS: "+reply+"\nC: RSET\nS: 250 ok")
			id := m.add(eml, time.Now(), "ana@x.example")
			_, stop := run(t, m, Options{
				Dial:   dialers(map[string]*peer{"127.0.0.1:1": one, "127.0.0.1:2": two}),
				Routes: []Route{{Role: "outbound", NextHop: "smtp://127.0.0.1:1", Further: []string{"smtp://127.0.0.1:2"}}},
			})
			time.Sleep(time.Second)
			stop()
			if dials, _ := two.seen(); dials != 0 || len(m.get(id).Attempts) != 1 {
				t.Errorf("%s: %d connections to the second: %+v", reply, dials, m.get(id))
			}
		})
	}
}

// TestAllNextHopsGone: one attempt as far as the retry table goes; and when one
// returns, the mail goes.
func TestAllNextHopsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, one, two := newMemory(), newPeer(t), newPeer(t, accept)
		one.set(errors.New("connection refused"))
		two.set(errors.New("connection refused"))
		begin := time.Now()
		id := m.add(eml, begin, "ana@x.example")
		_, stop := run(t, m, Options{
			Dial:   dialers(map[string]*peer{"127.0.0.1:1": one, "127.0.0.1:2": two}),
			Routes: []Route{{Role: "outbound", NextHop: "smtp://127.0.0.1:1", Further: []string{"smtp://127.0.0.1:2"}}},
		})
		time.Sleep(5 * time.Minute)
		two.set(nil)
		time.Sleep(5 * time.Minute)
		stop()
		d := m.get(id)
		want := []string{"1 deferred", "2 deferred", "1 deferred", "2 deferred", "1 deferred", "2 delivered"}
		if diff := cmp.Diff(want, attempts(d)); diff != "" || d.Attempts[5].At.Sub(begin) != 6*time.Minute {
			t.Errorf("want - got +\n%s%+v", diff, d.Attempts)
		}
	})
}

// TestRate: so many a second and no more; mail for others isn't kept back.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, slowly, quick := newMemory(), newPeer(t, hello+eight+strings.Repeat(mail1+data, 300)), newPeer(t, hello+eight+strings.Repeat(mail1+data, 300))
		var ids []store.ID
		for range 100 {
			id := m.add(eml, time.Now(), "ana@x.example")
			m.change(id, func(d *store.Delivery) { d.Role = "inbound" })
			ids = append(ids, id)
		}
		r, stop := run(t, m, Options{
			Dial: dialers(map[string]*peer{"127.0.0.1:1": slowly, "127.0.0.1:2": quick}),
			Routes: []Route{
				{Role: "inbound", NextHop: "smtp://127.0.0.1:1", MaxPerSecond: 2},
				{Role: "outbound", NextHop: "smtp://127.0.0.1:2"},
			},
		})
		done := func() (n int) {
			for _, id := range ids {
				if m.get(id).State == store.Delivered {
					n++
				}
			}
			return n
		}
		for range 20 {
			id := m.add(eml, time.Now(), "ana@x.example")
			r.Wake()
			time.Sleep(time.Second)
			if d := m.get(id); d.State != store.Delivered {
				t.Fatalf("kept back: %+v", d)
			}
		}
		if n := done(); n < 30 || n > 41 {
			t.Errorf("%d in 20 s", n)
		}
		time.Sleep(3 * time.Minute)
		stop()
		if n := done(); n != len(ids) {
			t.Errorf("%d in the end", n)
		}
		for _, id := range ids {
			if d := m.get(id); len(d.Attempts) != 1 {
				t.Fatalf("%+v", d)
			}
		}
	})
}

// TestRouteByMailbox: the mail of one mailbox goes its own way.
func TestRouteByMailbox(t *testing.T) {
	r, err := New(newMemory(), Options{Hostname: "gw.city.example", Routes: []Route{
		{Role: "outbound", Mailbox: "Tips@city.example", NextHop: "smtp://127.0.0.1:1"},
		{Role: "outbound", NextHop: "smtp://127.0.0.1:2"},
		{Role: "inbound", Mailbox: "tips@city.example", NextHop: "smtp://127.0.0.1:3"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ role, to, mailbox, want string }{
		{"outbound", "x@y.example", "tips@city.example", "1"}, {"outbound", "x@y.example", "311@city.example", "2"}, {"outbound", "x@y.example", "", "2"},
		{"inbound", "TIPS@city.example", "tips@city.example", "3"}, {"inbound", "311@city.example", "311@city.example", ""},
		{"inbound", "tips+lamp@city.example", "", "3"},
		{"inbound", "tips@city.example", "311@city.example", "3"}, // it is for both
		{"inbound", "311@city.example", "tips@city.example", ""},
	} {
		rt, ok := r.RouteFor(c.role, "", c.to, c.mailbox)
		if got := rt.NextHop[strings.LastIndexByte(rt.NextHop, ':')+1:]; got != c.want || ok != (c.want != "") {
			t.Errorf("%+v: %q %v", c, got, ok)
		}
	}
}

// TestXForward: told where the route says so, the next hop takes it, and there
// is somebody to name.
func TestXForward(t *testing.T) {
	offers := "S: 250-mx\nS: 250-XFORWARD NAME ADDR PROTO HELO SOURCE\nS: 250 8BITMIME\n"
	for _, c := range []struct {
		name   string
		env    store.Envelope
		on     bool
		script string
	}{
		{"told", store.Envelope{Peer: "192.0.2.7", Helo: "mail.x.example [evil]"}, true, offers + "C: XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.7 HELO=mail.x.example+20[evil] SOURCE=REMOTE\nS: 250 ok\n"},
		{"told of another", store.Envelope{Peer: "127.0.0.1", Helo: "mx", Client: &store.Client{Name: "mail.x.example", Address: "192.0.2.7", Helo: "x"}}, true, offers + "C: XFORWARD NAME=mail.x.example ADDR=192.0.2.7 HELO=x SOURCE=REMOTE\nS: 250 ok\n"},
		{"another, of whom little is known", store.Envelope{Peer: "127.0.0.1", Client: &store.Client{Helo: "x"}}, true, offers},
		{"IPv6", store.Envelope{Peer: "2001:db8::7"}, true, offers + "C: XFORWARD NAME=[UNAVAILABLE] ADDR=IPV6:2001:db8::7 SOURCE=REMOTE\nS: 501 what?\n"},
		{"not wanted", store.Envelope{Peer: "192.0.2.7"}, false, offers},
		{"not offered", store.Envelope{Peer: "192.0.2.7"}, true, eight},
		{"nobody to name", store.Envelope{}, true, offers},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, p := newMemory(), newPeer(t, hello+c.script+mail1+data)
				header, body, _ := strings.Cut(eml, "\r\n\r\n")
				id := m.put(mail{header: header + "\r\n\r\n", body: body, msg: store.Message{Envelope: c.env}}, time.Now(), "ana@x.example")
				_, stop := run(t, m, Options{Dial: p.Dial, Routes: []Route{{Role: "outbound", NextHop: "smtp://127.0.0.1:1", XForward: c.on}}})
				time.Sleep(time.Second)
				stop()
				if d := m.get(id); d.State != store.Delivered {
					t.Errorf("%+v", d)
				}
			})
		})
	}
}

// TestUnreadableIsSetAside: mail that the archive does not give up is held
// after three tries, and says why; released, it has three more.
func TestUnreadableIsSetAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMemory(), newPeer(t, hello+eight)
		id := m.put(mail{header: "A: b\r\n\r\n", torn: fmt.Errorf("disk on fire")}, time.Now(), "ana@x.example")
		_, stop := run(t, m, Options{Dial: p.Dial})
		time.Sleep(24 * time.Hour)
		d := m.get(id)
		if d.State != store.Held || len(d.Attempts) != 3 || !strings.HasPrefix(d.Reason, "4.3.0 not sent: reading message ") || d.Recipients[0].State != store.Queued {
			t.Errorf("%+v", d)
		}
		stop()
		m.change(id, func(d *store.Delivery) { d.State, d.Since, d.Due = store.Queued, time.Now(), time.Now() })
		_, stop = run(t, m, Options{Dial: p.Dial})
		time.Sleep(24 * time.Hour)
		stop()
		if d := m.get(id); d.State != store.Held || len(d.Attempts) != 6 {
			t.Errorf("%+v", d)
		}
	})
}

// TestPassingTroubleIsWaitedOut: a store that is not to be reached is no fault
// of the message.
func TestPassingTroubleIsWaitedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMemory(), newPeer(t, hello+eight)
		id := m.put(mail{header: "A: b\r\n\r\n", torn: store.ErrUnavailable}, time.Now(), "ana@x.example")
		_, stop := run(t, m, Options{Dial: p.Dial})
		time.Sleep(24 * time.Hour)
		stop()
		if d := m.get(id); d.State != store.Queued || len(d.Attempts) < 5 {
			t.Errorf("%+v", d)
		}
	})
}

// TestFailOverToOneThatOffersMore: a next hop that lacks what the message needs
// is not asked; the other one is. Where none has it, the last one's want counts.
func TestFailOverToOneThatOffersMore(t *testing.T) {
	umlaut := strings.Replace(eml, "\r\n\r\n", "\r\n\r\n\u00fcber ", 1)
	for name, c := range map[string]struct {
		two   string
		state store.DeliveryState
		want  []string
	}{
		"the second has it": {hello + eight + "C: MAIL*\nS: 250 ok\nC: RCPT*\nS: 250 ok\n" + data, store.Delivered, []string{"1 failed", "2 delivered"}},
		"none has it":       {hello + "S: 250 gw", store.Failed, []string{"1 failed", "2 failed"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, one, two := newMemory(), newPeer(t, hello+"S: 250 gw"), newPeer(t, c.two)
				id := m.add(umlaut, time.Now(), "ana@x.example")
				_, stop := run(t, m, Options{
					Dial:   dialers(map[string]*peer{"127.0.0.1:1": one, "127.0.0.1:2": two}),
					Routes: []Route{{Role: "outbound", NextHop: "smtp://127.0.0.1:1", Further: []string{"smtp://127.0.0.1:2"}}},
				})
				time.Sleep(time.Second)
				stop()
				d := m.get(id)
				if diff := cmp.Diff(c.want, attempts(d)); diff != "" || d.State != c.state {
					t.Errorf("%s: want - got +\n%s\n%+v", d.State, diff, d)
				}
			})
		})
	}
}
