package gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/bolt"
)

// desk is a store in a temporary folder with both pipelines on it.
func desk(tb testing.TB, change func(*gateway.Options)) gateway.Options {
	tb.Helper()
	st, err := bolt.Open(filepath.Join(tb.TempDir(), "casegate.db"), bolt.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { st.Close() })
	o := gateway.Options{
		Store: st, Queued: func() {}, Now: time.Now,
		Route: func(gateway.Role, string, string) bool { return true },
		Settings: resolver.Settings{
			Hostname: "gw.city.example", Mailboxes: []resolver.Mailbox{{Address: "311@city.example", Queue: "general"}},
			DedupeWindow: 5 * 24 * time.Hour, SubmitWindow: 24 * time.Hour, ReopenWindow: 30 * 24 * time.Hour, ReopenPerDay: 3,
			ToPolicy: "cc", Unresolved: "text", Uncased: "pass",
		},
	}
	if change != nil {
		change(&o)
	}
	return o
}

// hand gives a message to a pipeline as a session would.
func hand(tb testing.TB, h gateway.Handler, role gateway.Role, from, eml string, to ...string) (gateway.Receipt, error) {
	tb.Helper()
	return handBytes(tb, h, role, from, [][]byte{[]byte(eml)}, to...)
}

// handBytes is hand of a message in pieces.
func handBytes(tb testing.TB, h gateway.Handler, role gateway.Role, from string, eml [][]byte, to ...string) (gateway.Receipt, error) {
	tb.Helper()
	ctx := context.Background()
	env := &gateway.Envelope{Listener: "test", Role: role, Protocol: "ESMTP", Helo: "client.example"}
	if from != "" {
		env.From = path(tb, from)
	}
	for _, r := range to {
		env.Recipients = append(env.Recipients, gateway.Recipient{Path: path(tb, r)})
	}
	sink, err := h.Spool(ctx, env)
	if err != nil {
		return gateway.Receipt{}, err
	}
	defer sink.Discard()
	for _, piece := range eml {
		for block := range slices.Chunk(piece, 64<<10) { // as a session does
			if _, err := sink.Write(block); err != nil {
				return gateway.Receipt{}, err
			}
		}
	}
	return h.Accept(ctx, env, sink)
}

func path(tb testing.TB, s string) gateway.Path {
	tb.Helper()
	p, err := gateway.ParsePath(s)
	if err != nil {
		tb.Fatalf("%q: %v", s, err)
	}
	return p
}

// A message is decided, recorded, archived and queued before Accept returns:
// the cost of all of it, group commit included.
func BenchmarkAccept(b *testing.B) {
	body := strings.Repeat("the case street light request please account water bill city\r\n", 32)
	for _, sessions := range []int{10, 50} {
		b.Run(fmt.Sprintf("sessions=%d", sessions), func(b *testing.B) {
			h := gateway.NewInbound(desk(b, nil), gateway.Intake{})
			var n atomic.Int64
			b.SetParallelism((sessions + 1) / 2)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					i := n.Add(1)
					from := fmt.Sprintf("sender%d@example.test", i%10000)
					eml := fmt.Sprintf("From: Sender <%s>\r\nTo: <311@city.example>\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\nSubject: streetlight request %d\r\nMessage-ID: <%d@load.example.test>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n%s", from, i, i, body)
					if _, err := hand(b, h, gateway.RoleInbound, from, eml, "311@city.example"); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
		})
	}
}

// What is archived is what came, and what is sent differs by the stamps alone.
func TestAcceptKeepsEveryByte(t *testing.T) {
	o := desk(t, nil)
	h := gateway.NewInbound(o, gateway.Intake{})
	eml := "Received: from a by b; x\r\nX-Case-Ref: forged\r\nauthentication-results: GW.city.example (x); dmarc=pass\r\nFROM: =?utf-8?q?J=C3=B6?= <jo@x.example>\r\nTo: 311@city.example\r\nSubject : odd\r\n\tfolded\r\nno colon here\r\n\r\nbody\x00 \xff\r\n.\r\n"
	r, err := hand(t, h, gateway.RoleInbound, "jo@x.example", eml, "311@city.example")
	if err != nil {
		t.Fatal(err)
	}
	id, _ := store.ParseID(r.ID)
	if got := export(t, o.Store, id, store.AsReceived); got != eml {
		t.Errorf("as received: %q", got)
	}
	sent := export(t, o.Store, id, store.AsSent)
	kept := "Received: from a by b; x\r\nFROM: =?utf-8?q?J=C3=B6?= <jo@x.example>\r\nTo: 311@city.example\r\nSubject : odd\r\n\tfolded\r\nno colon here\r\n\r\nbody\x00 \xff\r\n.\r\n"
	stamps, ok := strings.CutSuffix(sent, kept)
	if !ok {
		t.Fatalf("as sent does not end with what came, less the forged fields: %q", sent)
	}
	for _, name := range []string{"Received: ", "Authentication-Results: gw.city.example; none", "X-Case-Ref: ", "X-Case-Number: 1\r\n", "X-Case-Customer: ", "X-Case-Contacts: ", "X-Case-Decision: T0 I26\r\n"} {
		if !strings.Contains(stamps, name) {
			t.Errorf("no stamp %q in %q", name, stamps)
		}
	}
}

func export(t *testing.T, st store.Store, id store.ID, as store.As) string {
	t.Helper()
	r, err := st.Open(context.Background(), id, as)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Large bodies are bounded by the disk: the same by bytes.
func BenchmarkAcceptLarge(b *testing.B) {
	line := "the case street light request please account water bill city of to and\r\n"
	body := strings.Repeat(line, 1<<20/len(line))
	h := gateway.NewInbound(desk(b, nil), gateway.Intake{})
	var n atomic.Int64
	b.SetBytes(int64(len(body)))
	b.SetParallelism(5)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := n.Add(1)
			eml := fmt.Sprintf("From: <s%d@example.test>\r\nMessage-ID: <%d@load.example.test>\r\n\r\n%s", i, i, body)
			if _, err := hand(b, h, gateway.RoleInbound, "s@example.test", eml, "311@city.example"); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// TestDeliveriesBearTheirSize: what is queued bears the size of what is sent.
func TestDeliveriesBearTheirSize(t *testing.T) {
	o := desk(t, nil)
	in := gateway.NewInbound(o, gateway.Intake{})
	out := gateway.NewOutbound(o, gateway.Submitters{SendAs: []string{"311@city.example"}})
	const from, to = "From: %s\r\nTo: %s\r\nSubject: x\r\n\r\nbody\r\n", "311@city.example"
	for _, err := range []error{
		second(hand(t, in, gateway.RoleInbound, "a@x.example", fmt.Sprintf(from, "a@x.example", to), to)),
		second(hand(t, out, gateway.RoleOutbound, to, fmt.Sprintf(from, to, "b@x.example"), "b@x.example")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var list []store.Delivery
	err := o.Store.View(t.Context(), func(r store.Reader) (err error) {
		list, _, err = r.Deliveries(store.DeliveryFilter{}, store.Page{})
		return err
	})
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	for _, d := range list {
		if sent := export(t, o.Store, d.Message, store.AsSent); d.Size != int64(len(sent)) {
			t.Errorf("%s: size %d of %d octets", d.Role, d.Size, len(sent))
		}
	}
}

func second[T any](_ T, err error) error { return err }
