package bolt

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/storetest"
)

// backlogSize is how many deliveries wait in the tests of a long outbox: 3 000,
// or as many as CASEGATE_BACKLOG says (make backlog).
func backlogSize(t *testing.T) int {
	t.Helper()
	text := os.Getenv("CASEGATE_BACKLOG")
	if text == "" {
		return 3000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1000 {
		t.Fatalf("CASEGATE_BACKLOG=%s: write a number of at least 1000", text)
	}
	return n
}

// longOutbox is a store where n deliveries of ten lanes are due, twenty on each
// case; the address of the last is its own.
func longOutbox(t *testing.T, n int) *Store {
	t.Helper()
	st := open(t, filepath.Join(t.TempDir(), "casegate.db"), Options{})
	began := time.Now()
	for i := 0; i < n; i += 1000 {
		err := st.Update(context.Background(), func(tx store.Tx) error {
			for k := i; k < min(i+1000, n); k++ {
				d := store.Delivery{
					ID: store.NewID(), Message: store.NewID(), Case: uint64(k/20 + 1), Role: "outbound", From: "311@city.example",
					State: store.Queued, Due: began.Add(time.Duration(k) * time.Microsecond), CreatedAt: began, Lane: fmt.Sprint("lane", k%10),
					Recipients: []store.Recipient{{Address: fmt.Sprintf("ana%d@x.example", k%(n-1)), State: store.Queued}},
				}
				if k%5 == 0 {
					d.State = store.Held
				}
				if err := tx.Enqueue(d); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return st
}

// TestLongOutbox: the work of looking at the outbox, counted in allocations,
// does not grow with it. An address is sought in so many rows a page.
func TestLongOutbox(t *testing.T) {
	ctx, later := context.Background(), time.Now().Add(time.Hour)
	page := func(f store.DeliveryFilter) func(*Store) error {
		return func(st *Store) error {
			return st.View(ctx, func(r store.Reader) error {
				_, _, err := r.Deliveries(f, store.Page{})
				return err
			})
		}
	}
	looks := []struct {
		name string
		do   func(*Store) error
	}{
		{"when something is due", func(st *Store) error {
			_, _, err := st.NextDue(ctx, nil)
			return err
		}},
		{"when something is due elsewhere", func(st *Store) error {
			_, _, err := st.NextDue(ctx, store.Room{"lane0": 0, "lane1": 0, "lane2": 0})
			return err
		}},
		{"20 claimed and settled", func(st *Store) error {
			list, err := st.Claim(ctx, later, time.Hour, 20, store.Room{"lane0": 0, "lane1": 0})
			if err != nil || len(list) != 20 {
				return fmt.Errorf("%d claimed, %v", len(list), err)
			}
			return storetest.Settle(ctx, st, list...)
		}},
		{"a page", page(store.DeliveryFilter{})},
		{"a page of a state", page(store.DeliveryFilter{State: store.Held})},
		{"a case", page(store.DeliveryFilter{Case: 7})},
		{"a page of an address", page(store.DeliveryFilter{Address: "ana1@x.example"})},
		{"a page of an address, queued", page(store.DeliveryFilter{Address: "ana1@x.example", State: store.Queued})},
	}
	n := backlogSize(t)
	few, many := longOutbox(t, n/10), longOutbox(t, n)
	for _, l := range looks {
		work := func(st *Store) (allocs float64, took time.Duration) {
			began := time.Now()
			allocs = testing.AllocsPerRun(5, func() {
				if err := l.do(st); err != nil {
					t.Fatal(l.name, err)
				}
			})
			return allocs, time.Since(began) / 6
		}
		little, inFew := work(few)
		much, inMany := work(many)
		t.Logf("%-32s %6.0f allocations in %10v of %d, %6.0f in %10v of %d", l.name, little, inFew, n/10, much, inMany, n)
		most := little*1.2 + 50
		if strings.Contains(l.name, "address") {
			most = 15 * maxScan
		}
		if much > most && !raceEnabled {
			t.Errorf("%s: %.0f allocations where %d wait, %.0f where %d do", l.name, little, n/10, much, n)
		}
	}
}
