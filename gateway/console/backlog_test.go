package console

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/bolt"
)

// TestBacklog: a long outbox (3 000, or as many as CASEGATE_BACKLOG says: make
// backlog) is listed page by page, and flushed with some hundred to a commit.
func TestBacklog(t *testing.T) {
	n := 3000
	if text := os.Getenv("CASEGATE_BACKLOG"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1000 {
			t.Fatalf("CASEGATE_BACKLOG=%s: write a number of at least 1000", text)
		}
	}
	d := newDesk(t)
	for i := 0; i < n; i += 1000 {
		d.update(t, func(tx store.Tx) error {
			for k := i; k < min(i+1000, n); k++ {
				row := store.Delivery{ID: store.NewID(), Message: d.first, Case: uint64(k/20 + 10), Role: "inbound", From: "x@y.example", State: store.Queued, Due: later.AddDate(0, 0, 9), CreatedAt: monday,
					Lane: fmt.Sprint("lane", k%3), Recipients: []store.Recipient{{Address: fmt.Sprintf("r%d@z.example", k), State: store.Queued}}}
				if err := tx.Enqueue(row); err != nil {
					return err
				}
			}
			return nil
		})
	}
	h := d.handler(Reader)
	for _, c := range []struct {
		query string
		rows  int
	}{
		{"limit=50", 50},
		{"case=12", 20},
		{"state=held", 0},
		{fmt.Sprintf("address=R%d@z.example", n-1), 1},
		{fmt.Sprintf("state=queued&address=r%d@z.example", n/2), 1},
	} {
		began, pages, rows := time.Now(), 0, 0
		for path := "/api/v1/queue?" + c.query; path != "" && rows < 50; pages++ {
			w := ask(h, "GET", path, "")
			var list []store.Delivery
			if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil {
				t.Fatal(err, w.Body)
			}
			rows += len(list)
			path, _, _ = strings.Cut(strings.TrimPrefix(w.Header().Get("Link"), "<"), ">")
		}
		t.Logf("%-40s %3d rows, %3d pages in %v", c.query, rows, pages, time.Since(began))
		if most := 2 + n/5000; rows != c.rows || pages > most {
			t.Errorf("%s: %d rows in %d pages", c.query, rows, pages)
		}
	}
	var commits atomic.Int64
	d.st.(*bolt.Store).OnCommit(func(bolt.Commit) { commits.Add(1) })
	began := time.Now()
	d.play(t, step{"/queue/flush", "{}", fmt.Sprintf("flush: %d deliveries", n+1)}) // and the fixture's
	t.Logf("flushed in %v, %d commits", time.Since(began), commits.Load())
	if commits.Load() > int64(n/200+2) {
		t.Errorf("%d commits", commits.Load())
	}
	due, _, err := d.st.NextDue(t.Context(), nil)
	if err != nil || !due.Equal(later) {
		t.Errorf("due at %v, %v", due, err)
	}
}
