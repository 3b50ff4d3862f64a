package gateway_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/store"
)

// O14: however many answers are handed in at a time, large ones and little ones,
// in parts and again after a lost 250, no more are sent than the bound says, and
// all are archived. A replay finds as many.
func TestAnswersAtATime(t *testing.T) {
	const mails, bound = 120, 10
	o, out, head := opened(t, func(o *gateway.Options) { o.Settings.AnswersHour = bound }, "ann@x.example")
	var all sync.WaitGroup
	for n := range mails {
		all.Go(func() {
			eml := fmt.Sprintf("%sTo: ann@x.example\r\nCc: ron@x.example\r\nMessage-ID: <%d@desk.example>\r\n\r\n%s\r\n", head, n, strings.Repeat("hello\r\n", n%2*20_000))
			for _, to := range []string{"ron@x.example", "ann@x.example", "ron@x.example"} {
				if _, err := hand(t, out, gateway.RoleOutbound, "311@city.example", eml, to); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	sent, held := map[store.ID]bool{}, map[store.ID]bool{}
	copies := 0
	look(t, o, func(rd store.Reader) error {
		list, _, err := rd.Deliveries(store.DeliveryFilter{}, store.Page{Limit: 1000})
		for _, d := range list {
			switch {
			case d.Role != string(gateway.RoleOutbound):
			case d.State == store.Held:
				held[d.Message] = true
			default:
				sent[d.Message] = true
				copies += len(d.Recipients)
			}
		}
		return err
	})
	if len(sent) != bound || len(held) != mails-bound || copies != 2*bound {
		t.Errorf("%d sent in %d copies, %d held", len(sent), copies, len(held))
	}
	if n := sound(t, o); n.Messages != mails+1 {
		t.Errorf("%+v", n)
	}
	book := gateway.Rulebook{Settings: o.Settings, Names: []string{"test"}, Submitters: map[string]gateway.Submitters{"test": {Setting: "send_as"}}}
	free := book
	free.Settings.AnswersHour = 0
	for _, c := range []struct {
		then gateway.Rulebook
		want int
	}{{book, 0}, {free, mails - bound}} {
		changed := 0
		err := gateway.Replay(context.Background(), o, book, c.then, time.Time{}, func() {}, func(gateway.Change) error {
			changed++
			return nil
		})
		if err != nil || changed != c.want {
			t.Errorf("a replay changes %d, want %d; %v", changed, c.want, err)
		}
	}
}

// With mode: observe everything goes on, and the record says what would have
// been held.
func TestAnswersObserved(t *testing.T) {
	o, _, head := opened(t, func(o *gateway.Options) { o.Settings.AnswersHour = 2 }, "ann@x.example")
	watch := gateway.NewOutbound(o, gateway.Submitters{Setting: "send_as", Observe: true})
	for n := range 4 {
		k := keptOf(t, o, submit(t, watch, fmt.Sprintf("%sTo: ann@x.example\r\nMessage-ID: <%d@desk.example>\r\n\r\nhello\r\n", head, n), "ann@x.example"))
		if k.deliveries[0].State != store.Queued || k.says("O14: ann@x.example was sent as many") != (n >= 2) {
			t.Errorf("%d: %s %s", n, k.deliveries[0].State, k.message.Decision.Reasons)
		}
	}
	var c store.Case
	look(t, o, func(rd store.Reader) (err error) { c, err = rd.Case(1); return err })
	if slices.Contains(c.Flags, "answers-held") {
		t.Errorf("the case knows of it: %q", c.Flags)
	}
}
