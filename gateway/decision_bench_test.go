package gateway_test

import (
	"context"
	"fmt"
	"net/textproto"
	"os"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// BenchmarkDecision is the cost of one decision, its one read included, by the
// size of the store: contacts, and a tenth as many cases. A million contacts
// only with CASEGATE_BENCH_LARGE=1, since filling the store takes a while.
func BenchmarkDecision(b *testing.B) {
	sizes := []int{1_000, 100_000}
	if os.Getenv("CASEGATE_BENCH_LARGE") != "" {
		sizes = append(sizes, 1_000_000)
	}
	for _, size := range sizes {
		o := desk(b, func(o *gateway.Options) { o.Settings.FloodHour, o.Settings.FloodDay = 100, 500 })
		fill(b, o, size)
		var in store.Installation
		o.Store.View(context.Background(), func(r store.Reader) (err error) { in, err = r.Installation(); return err })
		for _, kind := range []string{"stranger", "known", "reply"} {
			b.Run(fmt.Sprintf("contacts=%d/%s", size, kind), func(b *testing.B) {
				for i := 0; b.Loop(); i++ {
					m := letterOf(kind, in, i%(size/10)+1)
					var d resolver.InboundDecision
					err := o.Store.View(context.Background(), func(r store.Reader) error {
						f, err := r.Facts(resolver.Ask(m, o.Settings))
						d = resolver.Inbound(m, f, o.Settings)
						return err
					})
					if err != nil || kind == "reply" && d.Row != "I16" || kind == "known" && d.Row != "I25" || kind == "stranger" && d.Row != "I26" {
						b.Fatal(err, d.Row, d.Reasons)
					}
				}
			})
		}
	}
}

func holderOf(n int) string { return fmt.Sprintf("person%d@example.org", n) }

func fill(b *testing.B, o gateway.Options, size int) {
	ctx, now := context.Background(), time.Now()
	for from := 0; from < size; from += 2000 {
		err := o.Store.Update(ctx, func(tx store.Tx) error {
			for n := from + 1; n <= min(from+2000, size); n++ {
				c := store.Contact{ID: store.NewID(), Kind: store.Registered, Name: "Person", EmailAddresses: []store.EmailAddress{{Address: holderOf(n)}}, CreatedAt: now}
				if err := tx.PutContact(c); err != nil {
					return err
				}
				if n > size/10 {
					continue
				}
				k := store.Case{ID: store.NewID(), Number: uint64(n), Title: "lamp", State: store.Active, Customer: c.ID, Mailbox: "311@city.example", Ordinal: 1, CreatedAt: now, UpdatedAt: now}
				if err := tx.PutCase(k); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// plainHeader is a header with a field once at most.
type plainHeader map[string]string

func (h plainHeader) Values(name string) []string {
	if v, ok := h[textproto.CanonicalMIMEHeaderKey(name)]; ok {
		return []string{v}
	}
	return nil
}

func letterOf(kind string, in store.Installation, n int) resolver.Mail {
	from := resolver.Address{Address: holderOf(n)}
	if kind == "stranger" {
		from.Address = fmt.Sprintf("stranger%d@example.net", n)
	}
	m := resolver.Mail{
		ID: store.ID{1}, NewCase: store.ID{2}, NewContact: store.ID{3}, Received: time.Now(),
		EnvelopeFrom: from.Address, Recipients: []string{"311@city.example"}, Header: plainHeader{},
		Author: &from, From: []resolver.Address{from}, To: []resolver.Address{{Address: "311@city.example"}},
		Subject: "lamp", MessageID: fmt.Sprintf("%d.%s@example.org", n, kind), ContentHash: "h",
	}
	if kind == "reply" {
		token, err := resolver.Sign(in, uint64(n), 1)
		if err != nil {
			panic(err)
		}
		m.References = []string{"a@example.org", "b@example.org", resolver.MessageID(token, "gw.city.example")}
	}
	return m
}
