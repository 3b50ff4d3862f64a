package gateway_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/store"
)

// mode: observe sends on what came, below one Received field, and no case knows
// of it; the record says what would have been done.
func TestObserveOutbound(t *testing.T) {
	o, _, head := opened(t, func(o *gateway.Options) { o.Settings.SubjectTag = true }, "Ann <ann@x.example>")
	watch := gateway.NewOutbound(o, gateway.Submitters{Setting: "send_as", Observe: true})
	for _, c := range []struct {
		name, eml string
		to        []string
		says      string
	}{
		{"a reply", head + "X-Case-Number: 9\r\nDKIM-Signature: v=1; d=x; h=to; b=y\r\nTo: 311@city.example,\r\n\tAnn <ann@x.example>\r\nCc: ron@x.example\r\nMessage-ID: <o1@x>\r\n\r\nhello\r\n",
			[]string{"ann@x.example", "311@city.example"}, "O1: 311@city.example is our own mailbox"},
		{"O4 would add the customer", head + "To: 311@city.example\r\nMessage-ID: <o2@x>\r\n\r\nhello\r\n", []string{"311@city.example"}, "O4: Case.Customer was not addressed"},
		{"it would be refused", "From: mayor@city.example\r\nTo: ann@x.example\r\n\r\nhello\r\n", []string{"ann@x.example"}, "it would have been refused with 550: unable to send as mayor@city.example"},
		{"no header", "\r\nhello\r\n", []string{"ann@x.example"}, "refused with 554"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := submit(t, watch, c.eml, c.to...)
			k := keptOf(t, o, r)
			trace, ok := strings.CutSuffix(k.sent, c.eml)
			if !ok || !strings.HasPrefix(trace, "Received: ") || strings.Contains(strings.ReplaceAll(strings.TrimSuffix(trace, "\r\n"), "\r\n ", " "), "\r\n") {
				t.Errorf("sent %q", k.sent)
			}
			d := k.deliveries[0]
			if len(k.deliveries) != 1 || !slices.Equal(rcpts(d), c.to) || d.From != "311@city.example" || d.Case != 0 || d.State != store.Queued {
				t.Errorf("%+v", d)
			}
			if m := k.message; !m.Observed || m.Case != 0 || m.Ordinal != 0 || !k.says(c.says) || !strings.HasSuffix(r.Text, "uncased") {
				t.Errorf("%+v", m)
			}
			if again := submit(t, watch, c.eml, c.to...); again != r {
				t.Errorf("%+v, again %+v", r, again)
			}
		})
	}
	var kase store.Case
	var timeline []store.Message
	o.Store.View(context.Background(), func(rd store.Reader) (err error) {
		kase, _ = rd.Case(1)
		timeline, _, err = rd.Messages(store.MessageFilter{Case: 1}, store.Page{})
		return err
	})
	if kase.Ordinal != 1 || len(timeline) != 1 {
		t.Errorf("the case: %d activities, ordinal %d", len(timeline), kase.Ordinal)
	}
	if n := sound(t, o); n.Contacts != 1 || n.Cases != 1 {
		t.Errorf("%+v", n)
	}
}

// What must never show goes even then: Bcc is on no wire and in no EML.
func TestObserveHidesBcc(t *testing.T) {
	o, _, head := opened(t, nil, "ann@x.example")
	watch := gateway.NewOutbound(o, gateway.Submitters{Observe: true})
	k := keptOf(t, o, submit(t, watch, head+"To: ann@x.example\r\nBcc: secret@x.example\r\n\r\nhello\r\n", "ann@x.example", "secret@x.example"))
	if strings.Contains(k.sent+k.received, "secret") || !slices.Contains(k.mailed(), "secret@x.example") {
		t.Errorf("%s %s %q", k.received, k.sent, k.mailed())
	}
	sound(t, o)
}

// A header that isn't read whole may hide a Bcc, so it is refused even where
// nothing else is.
func TestObserveRefusesWhatMayHideBcc(t *testing.T) {
	o := desk(t, nil)
	out := gateway.NewOutbound(o, gateway.Submitters{Setting: "send_as", Observe: true})
	for _, padding := range []string{strings.Repeat("a: b\r\n", 10_000), strings.Repeat("a: "+strings.Repeat("b", 900)+"\r\n", 1200)} {
		eml := "From: 311@city.example\r\n" + padding + "Bcc: secret@x.example\r\n\r\nhello\r\n"
		_, err := hand(t, out, gateway.RoleOutbound, "311@city.example", eml, "a@x.example", "secret@x.example")
		var v gateway.Verdict
		if !errors.As(err, &v) || v.Code != 554 {
			t.Errorf("%d octets: %v", len(eml), err)
		}
	}
}
