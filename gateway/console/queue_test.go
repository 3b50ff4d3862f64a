package console

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/casegate/casegate/store"
)

// The acts are for who may do everything.
func init() {
	for _, c := range chores() {
		routes["POST /api/v1/queue/"+c.name] = Operator
		if c.one {
			routes["POST /api/v1/queue/{id}/"+c.name] = Operator
		}
	}
}

func (d *desk) delivered(t *testing.T, id store.ID) (row store.Delivery) {
	t.Helper()
	d.view(t, func(rd store.Reader) (err error) { row, err = rd.Delivery(id); return err })
	return row
}

func TestQueueActs(t *testing.T) {
	d := newDesk(t)
	one := "/queue/" + d.firstOut.String()
	d.play(t,
		step{one + "/release", "{}", "already: delivery " + d.firstOut.String() + " is queued already: nothing is changed"},
		step{one + "/hold", `{"reason":"the desk moves"}`, "delivery " + d.firstOut.String() + ": held: the desk moves"},
		step{one + "/hold", "{}", "already: delivery " + d.firstOut.String() + " is held already: nothing is changed"},
		step{one + "/retry", "{}", "409 delivery " + d.firstOut.String() + " is held | casegate queue release " + d.firstOut.String()},
	)
	if row := d.delivered(t, d.firstOut); row.State != store.Held || row.Reason != "held by kim: the desk moves" {
		t.Errorf("%+v", row)
	}
	d.play(t, step{one + "/release", "{}", "delivery " + d.firstOut.String() + ": released"})
	if row := d.delivered(t, d.firstOut); row.State != store.Queued || !row.Due.Equal(later) || !row.Since.Equal(later) || row.Reason != "" {
		t.Errorf("%+v", row)
	}
	d.play(t,
		step{one + "/drop", "{}", "422 to drop mail needs a reason | say why, in reason"},
		step{one + "/drop", `{"reason":"spam","bounce":true}`, "409 there is nobody to tell about delivery " + d.firstOut.String() + ": it came from outside, or is a report itself | leave bounce out"},
		step{one + "/hold", `{"bounce":true}`, "422 bounce is for drop only | casegate queue drop has it"},
		step{one + "/drop", `{"reason":"spam"}`, "delivery " + d.firstOut.String() + ": dropped, and nobody is told: spam"},
		step{one + "/hold", "{}", "409 delivery " + d.firstOut.String() + " is failed: it cannot be held | casegate queue show " + d.firstOut.String()},
		step{"/queue/" + id(77).String() + "/hold", "{}", "404 no delivery " + id(77).String() + " | casegate queue list shows what there is"},
	)
	if row := d.delivered(t, d.firstOut); row.State != store.Failed || row.Recipients[0].Reply != "5.0.0 dropped by kim: spam" || row.Dropped != "" {
		t.Errorf("%+v", row)
	}
	d.play(t, step{one + "/retry", "{}", "delivery " + d.firstOut.String() + ": tried again, was failed"})
	if row := d.delivered(t, d.firstOut); row.State != store.Queued || row.Recipients[0].State != store.Queued || !row.Since.Equal(later) {
		t.Errorf("%+v", row)
	}
	var want []string
	for _, text := range []string{"held: the desk moves", "released", "dropped, and nobody is told: spam", "tried again, was failed"} {
		want = append(want, fmt.Sprintf("Case changed, kim: delivery %s: %s", d.firstOut, text))
	}
	if diff := cmp.Diff(want, d.logged(t, 1)); diff != "" {
		t.Errorf("log: want - got +\n%s", diff)
	}
}

// A sender is told by the relay, which finds the row: it may be at work on it.
func TestQueueDropWithBounce(t *testing.T) {
	d := newDesk(t)
	d.update(t, func(tx store.Tx) error {
		row, err := tx.Delivery(d.answerOut)
		if err != nil {
			return err
		}
		row.State, row.Submitter, row.Recipients[1].State = store.Held, "kim@city.example", store.Queued
		return tx.Enqueue(row)
	})
	d.play(t, step{"/queue/" + d.answerOut.String() + "/drop", `{"reason":"wrong file","bounce":true}`,
		"delivery " + d.answerOut.String() + ": dropped, and its sender is told: wrong file"})
	d.play(t, step{"/queue/" + d.answerOut.String() + "/drop", `{"reason":"again"}`,
		"already: delivery " + d.answerOut.String() + " is dropped already: nothing is changed"})
	d.play(t, step{"/queue/" + d.firstOut.String() + "/drop", `{"reason":"spam"}`, "delivery " + d.firstOut.String() + ": dropped, and nobody is told: spam"})
	d.play(t, step{"/queue/" + d.firstOut.String() + "/drop", `{"reason":"spam","bounce":true}`,
		"409 delivery " + d.firstOut.String() + " has failed already: its sender is told nothing more | casegate queue show " + d.firstOut.String()})
	if row := d.delivered(t, d.answerOut); row.State != store.Queued || row.Dropped != "wrong file" || row.Recipients[1].State != store.Queued {
		t.Errorf("%+v", row)
	}
}

func TestQueueSelections(t *testing.T) {
	d := newDesk(t)
	d.update(t, func(tx store.Tx) error {
		for n := byte(0); n < 250; n++ {
			row := store.Delivery{ID: store.NewID(), Message: d.first, Role: "inbound", From: "x@y.example", State: store.Queued, Due: monday.AddDate(0, 0, 9), CreatedAt: monday,
				Recipients: []store.Recipient{{Address: fmt.Sprintf("r%d@z.example", n%2), State: store.Queued}}}
			if err := tx.Enqueue(row); err != nil {
				return err
			}
		}
		return nil
	})
	d.play(t,
		step{"/queue/hold", "{}", "422 which deliveries are meant is not said | say case, address or state"},
		step{"/queue/drop", `{"address":"R1@z.example"}`, "422 to drop mail needs a reason | say why, in reason"},
		step{"/queue/hold", `{"address":"R1@z.example"}`, "hold: 125 deliveries"},
		step{"/queue/hold", `{"address":"r1@z.example"}`, "already: hold: 0 deliveries"},
		step{"/queue/flush", "{}", "flush: 126 deliveries"},
		step{"/queue/retry", `{"state":"failed"}`, "retry: 1 delivery"},
		step{"/queue/release", `{"state":"held"}`, "release: 125 deliveries"},
		step{"/queue/drop", `{"case":1,"reason":"over"}`, "drop: 2 deliveries"},
	)
	flushed := 0
	d.view(t, func(rd store.Reader) error {
		rows, _, err := rd.Log(0, store.Page{Limit: 1000})
		for _, row := range rows {
			if strings.HasPrefix(row.Text, "flush: ") {
				flushed++
			}
		}
		return err
	})
	if flushed != 1 {
		t.Errorf("%d audit rows of one flush", flushed)
	}
}

// The reason may name whom only Bcc names.
func TestQueueReasonIsVeiled(t *testing.T) {
	d := newDesk(t)
	d.update(t, func(tx store.Tx) error {
		row, err := tx.Delivery(d.answerOut)
		if err != nil {
			return err
		}
		row.State, row.Reason = store.Held, "550 <"+canary+"> unknown"
		return tx.Enqueue(row)
	})
	for _, path := range []string{"/queue", "/queue/" + d.answerOut.String()} {
		if body := ask(d.handler(Operator), "GET", prefix+path, "").Body.String(); strings.Contains(body, canary) {
			t.Error(body)
		}
	}
}
