package bolt

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/storetest"
)

// TestOutcomesRide: what came of deliveries is in the commit of the next update,
// and, when none comes, in one for all of them.
func TestOutcomesRide(t *testing.T) {
	ctx := context.Background()
	st := open(t, filepath.Join(t.TempDir(), "casegate.db"), Options{})
	var list []store.Delivery
	for range 6 {
		d := store.Delivery{ID: store.NewID(), Message: store.NewID(), State: store.Queued, Due: time.Now()}
		if err := st.Update(ctx, func(tx store.Tx) error { return tx.Enqueue(d) }); err != nil {
			t.Fatal(err)
		}
		d.State = store.Delivered
		list = append(list, d)
	}
	commits := make(chan int, 10)
	st.OnCommit(func(c Commit) { commits <- c.Updates })
	settle := func(list []store.Delivery) (done chan error) {
		st.patient.mu.Lock()
		st.patient.timer = time.AfterFunc(time.Hour, st.depart) // updates come all the time
		st.patient.mu.Unlock()
		done = make(chan error, len(list))
		for _, d := range list {
			go func() { done <- storetest.Settle(ctx, st, d) }()
		}
		for waiting := 0; waiting < len(list); time.Sleep(time.Millisecond) {
			st.patient.mu.Lock()
			waiting = len(st.patient.calls)
			st.patient.mu.Unlock()
		}
		return done
	}
	done := settle(list[:3])
	if err := put(st, contact("ana")); err != nil {
		t.Fatal(err)
	}
	if n := <-commits; n != 4 {
		t.Errorf("%d in the update's commit", n)
	}
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	done = settle(list[3:])
	st.depart()
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	for n := 0; n < 3; n += <-commits {
	}
	// A context that ends takes back what nobody has begun.
	ctx, cancel := context.WithCancel(ctx)
	settle(nil)
	time.AfterFunc(time.Millisecond, cancel)
	if err := storetest.Settle(ctx, st, list[0]); err != context.Canceled {
		t.Error(err)
	}
	st.depart()
	verifyEmptyOutbox(t, st)
}

func verifyEmptyOutbox(t *testing.T, st *Store) {
	t.Helper()
	o, err := st.Outbox(context.Background())
	if err != nil || len(o.Counts) != 0 {
		t.Errorf("%v, %v", o, err)
	}
}

// TestCloseAfterSomebodyGaveUp: a call that waits for a ride and whose caller gave
// up is in nobody's way when the store closes.
func TestCloseAfterSomebodyGaveUp(t *testing.T) {
	st := open(t, filepath.Join(t.TempDir(), "casegate.db"), Options{})
	st.patient.mu.Lock()
	st.patient.timer = time.AfterFunc(time.Hour, st.depart) // updates come all the time
	st.patient.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := storetest.Settle(ctx, st); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	closed := make(chan error)
	go func() { closed <- st.Close() }()
	for over := false; !over; time.Sleep(time.Millisecond) {
		st.mu.RLock()
		over = st.closed
		st.mu.RUnlock()
	}
	st.depart() // what the timer does
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
}
