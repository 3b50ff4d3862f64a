package gateway_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/store"
)

// TestFlood: of ten thousand mails from one sender, many at a time, all are
// archived, and no more cases are opened than flood.new_cases says (security 11,
// rule I21).
func TestFlood(t *testing.T) {
	const mails, perHour = 10_000, 100
	o := desk(t, func(o *gateway.Options) { o.Settings.FloodHour, o.Settings.FloodDay = perHour, 5*perHour })
	in := gateway.NewInbound(o, gateway.Intake{})
	var all sync.WaitGroup
	var next atomic.Int64
	for range 64 {
		all.Go(func() {
			for n := next.Add(1); n <= mails; n = next.Add(1) {
				eml := fmt.Sprintf("From: a@x.example\r\nTo: 311@city.example\r\nSubject: %d\r\nMessage-ID: <%[1]d@x.example>\r\n\r\nno. %[1]d\r\n", n)
				if _, err := hand(t, in, gateway.RoleInbound, "a@x.example", eml, "311@city.example"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	counts, err := o.Store.Verify(t.Context(), func(f store.Finding) { t.Error(f) })
	if err != nil || counts.Messages != mails || counts.Cases != perHour {
		t.Errorf("%d messages, %d cases, %v", counts.Messages, counts.Cases, err)
	}
}
