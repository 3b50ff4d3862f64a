package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// TestPanicsOverAMessage: a message that makes us panic, while it is read or
// decided on, is tried three times and then archived unread, on the exceptions
// list; its sender hears 250 and does not come again with it, and the next
// message finds nothing amiss (security 27).
func TestPanicsOverAMessage(t *testing.T) {
	const eml = "From: a@x.example\r\nTo: 311@city.example\r\nSubject: poison\r\nX-Case-Ref: forged\r\n\r\nbody\r\n"
	for _, stage := range []string{"reading", "deciding"} {
		for _, times := range []int{0, 1, 2, 3, 100} {
			left, tried := times, 0
			trap := func(at string) {
				if at == stage {
					if tried++; left > 0 {
						left--
						panic("a defect")
					}
				}
			}
			var log bytes.Buffer
			o := desk(t, func(o *gateway.Options) {
				o.Logger = slog.New(slog.NewTextHandler(&log, nil))
				o.Directory = func(context.Context, time.Time, []string) error { trap("reading"); return nil }
				o.Route = func(gateway.Role, string, string) bool { trap("deciding"); return true }
			})
			in := gateway.NewInbound(o, gateway.Intake{})
			r, err := hand(t, in, gateway.RoleInbound, "a@x.example", eml, "311@city.example")
			want := "case 1"
			if times >= 3 {
				want = "exception unparsable"
			}
			if err != nil || !strings.HasSuffix(r.Text, want) || tried != min(times+1, 3) {
				t.Errorf("%s, %d panics: %v, %v after %d tries", stage, times, r, err, tried)
				continue
			}
			id, _ := store.ParseID(r.ID)
			if got := export(t, o.Store, id, store.AsReceived); got != eml {
				t.Errorf("%s, %d panics: archived as %q", stage, times, got)
			}
			if n := strings.Count(log.String(), "panic over a message"); n != min(times, 3) || times > 0 && !strings.Contains(log.String(), "setaside_test.go") {
				t.Errorf("%s, %d panics: %d in the log: %s", stage, times, n, log.String())
			}
			left = 0
			if r, err = hand(t, in, gateway.RoleInbound, "b@x.example", strings.Replace(eml, "a@x", "b@x", 1), "311@city.example"); err != nil || !strings.Contains(r.Text, " case ") {
				t.Errorf("%s, %d panics: the next message: %v, %v", stage, times, r, err)
			}
			counts, err := o.Store.Verify(t.Context(), func(f store.Finding) { t.Error(f) })
			if err != nil || counts.Messages != 2 {
				t.Errorf("%+v %v", counts, err)
			}
		}
	}
}

// TestPanicsOverASubmission: one that makes us panic is tried three times and then
// refused: its client is told, nothing is sent, and the next finds nothing amiss.
func TestPanicsOverASubmission(t *testing.T) {
	const eml = "From: 311@city.example\r\nTo: %s\r\nSubject: poison\r\n\r\nbody\r\n"
	for _, times := range []int{0, 2, 3, 100} {
		left, tried := times, 0
		var log bytes.Buffer
		o := desk(t, func(o *gateway.Options) {
			o.Logger = slog.New(slog.NewTextHandler(&log, nil))
			o.Directory = func(context.Context, time.Time, []string) error {
				if tried++; left > 0 {
					left--
					panic("a defect")
				}
				return nil
			}
		})
		out := gateway.NewOutbound(o, gateway.Submitters{SendAs: []string{"311@city.example"}})
		_, err := hand(t, out, gateway.RoleOutbound, "311@city.example", fmt.Sprintf(eml, "ana@x.example"), "ana@x.example")
		var v gateway.Verdict
		refused := errors.As(err, &v) && v.Code == 554 && strings.Contains(v.Text, "has not sent it: reading it failed (id ")
		if refused != (times >= 3) || !refused && err != nil || tried != min(times+1, 3) || strings.Count(log.String(), "panic over a message") != min(times, 3) {
			t.Errorf("%d panics: %v after %d tries; the log:\n%s", times, err, tried, &log)
		}
		left = 0
		if _, err := hand(t, out, gateway.RoleOutbound, "311@city.example", fmt.Sprintf(eml, "bo@x.example"), "bo@x.example"); err != nil {
			t.Errorf("%d panics: the next submission: %v", times, err)
		}
		want := 2
		if refused {
			want = 1
		}
		if counts, err := o.Store.Verify(t.Context(), func(f store.Finding) { t.Error(f) }); err != nil || counts.Deliveries != want || counts.Messages != want {
			t.Errorf("%d panics: %+v %v", times, counts, err)
		}
	}
}

// TestSetAsideIsAssigned: a person can put such a message on a case, and its bytes
// go on below our stamps, whether or not it can be read by then.
func TestSetAsideIsAssigned(t *testing.T) {
	const eml = "From: a@x.example\r\nTo: 311@city.example\r\nSubject: poison\r\n\r\nbody\r\n"
	for _, mended := range []bool{false, true} {
		broken := true
		o := desk(t, func(o *gateway.Options) {
			o.Logger = slog.New(slog.DiscardHandler)
			o.Directory = func(context.Context, time.Time, []string) error {
				if broken {
					panic("a defect")
				}
				return nil
			}
		})
		if _, err := hand(t, gateway.NewInbound(withoutDirectory(o), gateway.Intake{}), gateway.RoleInbound, "b@x.example", "From: b@x.example\r\n\r\nhello\r\n", "311@city.example"); err != nil {
			t.Fatal(err)
		}
		r, err := hand(t, gateway.NewInbound(o, gateway.Intake{}), gateway.RoleInbound, "a@x.example", eml, "311@city.example")
		if err != nil {
			t.Fatal(err)
		}
		id, _ := store.ParseID(r.ID)
		broken = !mended
		book := gateway.Rulebook{Settings: o.Settings, Names: []string{"test"}, Intakes: map[string]gateway.Intake{"test": {}}}
		m, err := gateway.Assign(t.Context(), o, book, id, resolver.ByHand{By: "kim", Case: 1})
		if err != nil || m.Case != 1 {
			t.Errorf("mended %v: case %d, %v", mended, m.Case, err)
			continue
		}
		if sent := export(t, o.Store, id, store.AsSent); !strings.HasSuffix(sent, eml) || !strings.Contains(sent, "X-Case-Number: 1\r\n") {
			t.Errorf("mended %v: sent as %q", mended, sent)
		}
	}
}

func withoutDirectory(o gateway.Options) gateway.Options {
	o.Directory = nil
	return o
}
