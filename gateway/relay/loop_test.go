package relay_test

import (
	"context"
	"log/slog"
	"net/smtp"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/gateway/relay"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/bolt"
)

// gate is a whole gateway, without its console.
type gate struct {
	st      store.Store
	relay   *relay.Relay
	address string // of its listener
}

// newGate serves one listener of a role; route is set by the caller.
func newGate(t *testing.T, host string, role gateway.Role) *gate {
	quiet := slog.New(slog.DiscardHandler)
	st, err := bolt.Open(filepath.Join(t.TempDir(), "casegate.db"), bolt.Options{Transform: message.Apply, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{st: st}
	retry := []time.Duration{20 * time.Millisecond}
	if g.relay, err = relay.New(st, relay.Options{Hostname: host, Transform: message.Apply, Retry: retry, Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	o := gateway.Options{
		Store: st, Queued: g.relay.Wake, Now: time.Now, Logger: quiet,
		Route: func(gateway.Role, string, string) bool { return true },
		Settings: resolver.Settings{
			Hostname: host, Mailboxes: []resolver.Mailbox{{Address: "311@city.example", Queue: "general"}},
			DedupeWindow: time.Hour, SubmitWindow: time.Hour, ToPolicy: "cc", Unresolved: "text", Uncased: "pass",
		},
	}
	h := gateway.Handler(gateway.NewInbound(o, gateway.Intake{}))
	if role == gateway.RoleOutbound {
		h = gateway.NewOutbound(o, gateway.Submitters{SendAs: []string{"kim@city.example", "mailer-daemon@a.example", "mailer-daemon@b.example"}})
	}
	l, err := gateway.Listen(gateway.ListenerOptions{Name: "in", Role: role, Address: "127.0.0.1:0", Hostname: host, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	g.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { l.Serve(h); done <- struct{}{} }()
	go func() { g.relay.Run(ctx); done <- struct{}{} }()
	t.Cleanup(func() {
		l.Shutdown(context.Background())
		cancel()
		<-done
		<-done
		st.Close()
	})
	return g
}

func (g *gate) to(t *testing.T, role gateway.Role, other *gate) {
	t.Helper()
	if err := g.relay.SetRoutes([]relay.Route{{Role: string(role), NextHop: "smtp://" + other.address}}); err != nil {
		t.Fatal(err)
	}
}

// rows are the deliveries of a gateway, and whether any still waits.
func (g *gate) rows(t *testing.T) (n int, waits bool) {
	t.Helper()
	err := g.st.View(context.Background(), func(r store.Reader) error {
		for after := store.Cursor(""); ; {
			list, next, err := r.Deliveries(store.DeliveryFilter{}, store.Page{After: after})
			for _, d := range list {
				n++
				waits = waits || d.State == store.Queued
			}
			if after = next; err != nil || next == "" {
				return err
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return n, waits
}

// TestTwoGatewaysEnd (security, Wire 11): two gateways pointed at each other
// stop, and no report goes round in their stead.
func TestTwoGatewaysEnd(t *testing.T) {
	for _, role := range []gateway.Role{gateway.RoleInbound, gateway.RoleOutbound} {
		t.Run(string(role), func(t *testing.T) {
			a, b := newGate(t, "a.example", role), newGate(t, "b.example", role)
			a.to(t, role, b)
			b.to(t, role, a)
			eml := "From: kim@city.example\r\nTo: 311@city.example\r\nSubject: round\r\nMessage-ID: <1@x.example>\r\n\r\nand round\r\n"
			from, to := "ana@x.example", "311@city.example"
			if role == gateway.RoleInbound {
				eml = strings.Replace(eml, "kim@city.example", from, 1)
			} else {
				from, to = "kim@city.example", "ana@x.example"
				eml = strings.Replace(eml, "311@city.example", to, 1)
			}
			if err := smtp.SendMail(a.address, nil, from, []string{to}, []byte(eml)); err != nil {
				t.Fatal(err)
			}
			quiet := 0
			for end := time.Now().Add(20 * time.Second); quiet < 20; time.Sleep(10 * time.Millisecond) {
				_, one := a.rows(t)
				_, two := b.rows(t)
				if quiet++; one || two {
					quiet = 0
				}
				if time.Now().After(end) {
					t.Fatal("it does not end")
				}
			}
			one, _ := a.rows(t)
			two, _ := b.rows(t)
			t.Logf("%d and %d deliveries", one, two)
			if one+two > 250 {
				t.Errorf("%d and %d deliveries", one, two)
			}
		})
	}
}
