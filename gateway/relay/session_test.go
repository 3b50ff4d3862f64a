package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casegate/casegate/store"
)

func panics(io.Reader, []string) io.Reader { panic("boom") }

// each adds mails one after the other, a pause apart.
func each(m *memory, r *Relay, n int, pause time.Duration) (ids []store.ID) {
	for range n {
		ids = append(ids, m.add(eml, time.Now(), "ana@x.example"))
		r.Wake()
		time.Sleep(pause)
	}
	return ids
}

func delivered(t *testing.T, m *memory, ids []store.ID) {
	t.Helper()
	for _, id := range ids {
		if d := m.get(id); d.State != store.Delivered || len(d.Attempts) != 1 || d.Attempts[0].Ambiguous {
			t.Errorf("%+v", d)
		}
	}
}

// TestSessionsAreReused, but not for ever: idle ones go after 5 s, in good
// manners (a peer accepts QUIT at the end only), and any after so many mails.
func TestSessionsAreReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMemory(), newPeer(t, hello+eight+strings.Repeat(mail1+data, 3))
		r, stop := run(t, m, Options{Dial: p.Dial, PerConnection: 3})
		delivered(t, m, each(m, r, 7, time.Second))
		if dials, _ := p.seen(); dials != 3 {
			t.Errorf("%d connections for 7 mails", dials)
		}
		stop()
		m, p = newMemory(), newPeer(t, hello+eight+mail1+data)
		r, stop = run(t, m, Options{Dial: p.Dial})
		delivered(t, m, each(m, r, 3, 6*time.Second))
		if dials, _ := p.seen(); dials != 3 {
			t.Errorf("%d connections for 3 mails far apart", dials)
		}
		stop()
	})
}

// TestStaleSession: a session that was over before we used it again costs no
// attempt, however it ended.
func TestStaleSession(t *testing.T) {
	for name, end := range map[string]string{
		"hung up":         "H:",
		"hung up on MAIL": "C: MAIL*\nH:",
		"421 on MAIL":     "C: MAIL*\nS: 421 4.4.2 idle for too long\nH:",
		"421 while idle":  "W: 2s\nS: 421 4.4.2 idle for too long\nH:",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, p := newMemory(), newPeer(t, hello+eight+mail1+data+end, accept)
				r, stop := run(t, m, Options{Dial: p.Dial})
				ids := each(m, r, 2, 3*time.Second)
				stop()
				delivered(t, m, ids)
				if dials, mails := p.seen(); dials != 2 || len(mails) != 2 {
					t.Errorf("%d connections, %d mails", dials, len(mails))
				}
			})
		})
	}
}

// TestStaleOnce: what a fresh session does counts.
func TestStaleOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMemory(), newPeer(t, accept+"H:", hello+eight+"C: MAIL*\nH:", accept)
		r, stop := run(t, m, Options{Dial: p.Dial})
		ids := each(m, r, 2, time.Second)
		stop()
		delivered(t, m, ids[:1])
		if d := m.get(ids[1]); d.State != store.Queued || len(d.Attempts) != 1 {
			t.Errorf("%+v", d)
		}
	})
}

// TestUnaskedReply: a session whose replies are out of step is not used again: a
// refusal that comes late is not about the next mail.
func TestUnaskedReply(t *testing.T) {
	for name, rest := range map[string]string{
		"at once":           "S: 250 ok|250 and again",
		"taken, late":       "S: 250 ok\nW: 1ms\nS: 250 and again",
		"refused, late":     "S: 250 ok\nW: 1ms\nS: 550 5.1.1 no such user",
		"half a word, late": "S: 250 ok\nW: 1ms\nP: 5",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, p := newMemory(), newPeer(t, hello+eight+mail1+"C: DATA\nS: 354 go\nD:\n"+rest, accept)
				r, stop := run(t, m, Options{Dial: p.Dial})
				ids := each(m, r, 2, time.Second)
				stop()
				delivered(t, m, ids)
				if dials, _ := p.seen(); dials != 2 {
					t.Errorf("%d connections", dials)
				}
			})
		})
	}
}

// TestNoPipelining: a next hop that offers PIPELINING, and hears only the first
// of several commands, gets the mail at the second attempt.
func TestNoPipelining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMemory(), newPeer(t, hello+fast+"C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nW: 6m",
			hello+fast+"C: MAIL*\nS: 250 ok\nC: RCPT*\nS: 250 ok\n"+data)
		id := m.add(eml, time.Now(), "ana@x.example")
		var conns []*heard
		_, stop := run(t, m, Options{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := p.Dial(ctx, network, address)
			conns = append(conns, &heard{Conn: c})
			return conns[len(conns)-1], err
		}})
		time.Sleep(time.Hour)
		stop()
		if d := m.get(id); d.State != store.Delivered || len(d.Attempts) != 2 || !strings.HasPrefix(d.Attempts[0].Reply, "4.4.2 connection lost at RCPT: ") {
			t.Errorf("%+v", d)
		}
		if len(conns) != 2 || conns[0].atOnce != 1 || conns[1].atOnce != 0 {
			t.Errorf("%d connections", len(conns))
		}
		p.wg.Wait()
	})
}

// heard counts the writes of MAIL and more.
type heard struct {
	net.Conn
	atOnce int
}

func (h *heard) Write(p []byte) (int, error) {
	if bytes.HasPrefix(p, []byte("MAIL")) && bytes.Count(p, []byte("\r\n")) > 1 {
		h.atOnce++
	}
	return h.Conn.Write(p)
}

// TestStopDrains: what runs is finished and settled, what waits goes back
// untouched, nothing new is claimed.
func TestStopDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMemory(), newPeer(t, hello+eight+mail1+"C: DATA\nS: 354 go\nD:\nW: 20s\nS: 250 2.0.0 ok")
		var ids []store.ID
		for i := range 50 {
			ids = append(ids, m.add(eml, time.Now().Add(time.Duration(i)), "ana@x.example"))
		}
		time.Sleep(time.Second)
		_, stop := run(t, m, Options{Dial: p.Dial, PerHop: 1, Concurrency: 10})
		time.Sleep(time.Second)
		begin := time.Now()
		stop()
		if took := time.Since(begin); took < 18*time.Second || took > 25*time.Second {
			t.Errorf("stopping took %s", took)
		}
		done := 0
		for _, id := range ids {
			d := m.get(id)
			if d.State == store.Delivered {
				done++
			} else if d.State != store.Queued || len(d.Attempts) != 0 || d.Interrupted {
				t.Errorf("%+v", d)
			}
			if m.leased(id) {
				t.Error("a claim was left behind")
			}
		}
		if done != 1 {
			t.Errorf("%d were delivered", done)
		}
	})
}

// TestStopWaitsForNoGreeting: mail at a next hop that lets us wait goes back as it
// was, at once.
func TestStopWaitsForNoGreeting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMemory(), newPeer(t, "W: 4m\nH:")
		id := m.add(eml, time.Now(), "ana@x.example")
		was := m.get(id)
		_, stop := run(t, m, Options{Dial: p.Dial})
		time.Sleep(time.Minute)
		begin := time.Now()
		stop()
		d := m.get(id)
		if took := time.Since(begin); took != 0 || len(d.Attempts) != 0 || !d.Due.Equal(was.Due) || m.leased(id) {
			t.Errorf("after %s: %+v", took, d)
		}
		p.wg.Wait()
	})
}

// TestStopHasAnEnd: what takes longer than the grace is cut off, and recorded
// for what it is.
func TestStopHasAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMemory(), newPeer(t, hello+eight+mail1+"C: DATA\nS: 354 go\nD:\nW: 5m\nS: 250 2.0.0 ok")
		id := m.add(eml, time.Now(), "ana@x.example")
		var log bytes.Buffer
		_, stop := run(t, m, Options{Dial: p.Dial, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		time.Sleep(time.Second)
		begin := time.Now()
		stop()
		if !strings.Contains(log.String(), "are cut off: a stop waits no longer for them\" deliveries=1 waited=30s") {
			t.Errorf("the log does not say so:\n%s", &log)
		}
		if took := time.Since(begin); took != 30*time.Second {
			t.Errorf("stopping took %s", took)
		}
		d := m.get(id)
		if d.State != store.Queued || !d.Attempts[0].Ambiguous || !strings.HasSuffix(d.Attempts[0].Reply, "casegate is stopping") {
			t.Errorf("%+v", d)
		}
		p.wg.Wait()
	})
}

// TestLease: an attempt never outlives its claim, even at a next hop that
// takes a byte now and then.
func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMemory(), newPeer(t, hello+eight+mail1+"C: DATA\nS: 354 go\nT: 2m")
		id := m.put(mail{header: "A: b\r\n\r\n", body: strings.Repeat("line\r\n", 100000)}, time.Now(), "ana@x.example")
		_, stop := run(t, m, Options{Dial: p.Dial, Timeouts: Timeouts{Block: 24 * time.Hour}})
		time.Sleep(59 * time.Minute)
		d := m.get(id)
		if len(d.Attempts) != 1 || d.Attempts[0].Ambiguous || !strings.HasSuffix(d.Attempts[0].Reply, errLease.Error()) {
			t.Errorf("%+v", d)
		}
		p.set(errors.New("enough"))
		stop()
		p.wg.Wait()
	})
}

// TestSizeIsKnown: a delivery that bears its message's size leaves without a look
// at the message's record; what is archived must have that size.
func TestSizeIsKnown(t *testing.T) {
	for _, c := range []struct {
		said, recorded int64 // more than there is
		want           store.DeliveryState
	}{
		{0, 99, store.Delivered},
		{99, 0, store.Queued},
	} {
		synctest.Test(t, func(t *testing.T) {
			m, p := newMemory(), newPeer(t, accept)
			header, body, _ := strings.Cut(eml, "\r\n\r\n")
			l := mail{header: header + "\r\n\r\n", body: body}
			l.msg.Archived.SentSize = int64(len(eml)) + c.recorded
			id := m.put(l, time.Now(), "ana@x.example")
			m.change(id, func(d *store.Delivery) { d.Size = int64(len(eml)) + c.said })
			_, stop := run(t, m, Options{Dial: p.Dial})
			time.Sleep(time.Second)
			stop()
			if d := m.get(id); d.State != c.want {
				t.Errorf("said %d, recorded %d: %+v", c.said, c.recorded, d)
			}
		})
	}
}
