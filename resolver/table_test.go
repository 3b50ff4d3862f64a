package resolver

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/casegate/casegate/store"
)

// Invariant 9: rules §5 stand twice, in inboundTable and, for people to read, in
// testdata/rules/inbound.txt. Every mail that can be is decided as the file says:
// one row fires, the right one, and never I27.
func TestInboundTable(t *testing.T) {
	rows, err := readRules(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	var all tableCount
	check := func(sender, form string) {
		t.Run(strings.TrimSpace(sender+" "+form), func(t *testing.T) {
			t.Parallel()
			c := &tableCheck{t: t, rows: rows, reached: map[string]int{}}
			squares(sender, form, c.square)
			all.add(c)
		})
	}
	for _, sender := range senders.list {
		if sender != "agent" {
			check(sender, "")
		}
	}
	for _, form := range agentForms {
		check("agent", form)
	}
	t.Cleanup(func() {
		t.Logf("%d cells; by row: %v", all.cells, all.reached)
		for _, r := range rows {
			if n := all.reached[r.number]; (n == 0) != (r.number == "I27") {
				t.Errorf("row %s: %d cells", r.number, n)
			}
		}
	})
}

type tableCount struct {
	sync.Mutex
	cells   int
	reached map[string]int
}

func (a *tableCount) add(c *tableCheck) {
	a.Lock()
	defer a.Unlock()
	if a.reached == nil {
		a.reached = map[string]int{}
	}
	a.cells += c.cells
	for row, n := range c.reached {
		a.reached[row] += n
	}
}

var (
	boardStates  = []string{"none", "Active", "Resolved in time", "Resolved too late", "Resolved too often", "Cancelled", "merged", "merged in a circle"}
	boardClasses = []string{"loop", "dsn", "report", "auto-reply", "list", "auto-generated", "human"}
)

// squares calls f with every cell of a sender, of an agent's mail in one form.
// The settings take turns where the message is a duplicate or unparsable.
func squares(sender, form string, f func(square)) {
	n, turn := uint32(0), 0
	next := func(q square) {
		n++
		q.n = n * 2654435761 >> 2 // the ways to build a cell are spread over the cells
		f(q)
	}
	for _, tracking := range trackings.list {
		for _, state := range boardStates {
			q := square{sender: sender, form: form, tracking: tracking, state: state}
			if state == "none" && tracking != "T0" && tracking != "T4" {
				continue // evidence that leads nowhere is T4
			}
			repeats := []string{"", "same"}
			if q.onCase() {
				repeats = append(repeats, "another")
			}
			for _, q.class = range boardClasses {
				for _, q.repeats = range repeats {
					turn++
					for bits := range 1 << 5 {
						q.unparsable, q.out, q.flood = bits&1 > 0, bits&2 > 0, bits&4 > 0
						q.strict, q.orphans = bits&8 > 0, bits&16 > 0
						if settled := q.unparsable || q.repeats == "same"; !settled || bits>>3 == turn%4 {
							next(q)
						}
					}
				}
			}
		}
	}
}

// tableCheck runs squares against the rows of the file.
type tableCheck struct {
	t       *testing.T
	rows    []fileRow
	cells   int
	bad     int
	reached map[string]int
}

func (c *tableCheck) square(q square) {
	m := q.mail()
	w, s := q.board(m)
	f := w.facts(Ask(m, s))
	d := Inbound(m, f, s)
	c.cells++
	row := c.row(q)
	c.reached[row.number]++
	wrong := c.wrong(q, row, d, w)
	if again := Inbound(m, f, s); !reflect.DeepEqual(d, again) {
		wrong = append(wrong, fmt.Sprintf("decided again it differs: %+v", again))
	}
	if len(wrong) == 0 {
		return
	}
	if c.bad++; c.bad > 5 {
		c.t.Fatal("and more")
	}
	c.t.Errorf("%+v\nby the file row %s; decided %v\n- %s\n  %s", q, row.number, d.Rules,
		strings.Join(wrong, "\n- "), strings.Join(d.Reasons, "\n  "))
}

// row is the first of the file that fits.
func (c *tableCheck) row(q square) fileRow {
	state := strings.Replace(q.state, "merged in a circle", "Cancelled", 1)
	state = strings.Replace(state, "merged", "Active", 1)
	tracking := q.tracking
	if q.outcome() != tracking[:2] {
		tracking = q.outcome()
	}
	for _, r := range c.rows {
		fits := trackings.has(r.tracking, tracking) || r.same && q.repeats == "same"
		if fits && caseStates.has(r.state, state) && senders.has(r.sender, q.sender) && mailClasses.has(r.class, q.kind()) && q.meets(r.condition) {
			return r
		}
	}
	panic("the last row fits everything")
}

func (q square) meets(condition string) bool {
	switch condition {
	case "duplicate":
		return q.repeats != ""
	case "forwards one message":
		return q.form == "forwards"
	case "one outsider, known":
		return q.form == "one outsider" && !q.out
	case "unless I12 waits":
		return q.form != "one outsider" || q.kind() != "human" || !q.out
	case "orphan_auto off":
		return !q.orphans
	case "directory unknown":
		return q.out
	case "flood":
		return q.flood
	}
	return condition == ""
}

// wrong says what of a decision is not as the row has it.
func (c *tableCheck) wrong(q square, r fileRow, d InboundDecision, w world) (wrong []string) {
	must := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	var fired []string
	for _, rule := range d.Rules {
		if rule[0] == 'I' {
			fired = append(fired, rule)
		}
	}
	must(len(d.Reasons) > 0 && len(d.Rules) > 0 && d.Rules[0] == q.outcome(), "the first rule is not %s", q.outcome())
	if r.action == "as the embedded message" && d.Embedded {
		must(slices.Contains(d.Flags, r.flag) && d.Ack == "", "flags %q, ack %q", d.Flags, d.Ack)
		must(len(fired) == 2 && fired[0] == r.number, "rows %v fired", fired)
		inner := q.inner()
		r = c.row(inner)
		r.reply, q = "-", inner
		fired = fired[1:]
		d.Flags = slices.DeleteFunc(slices.Clone(d.Flags), func(f string) bool { return f == "agent-asserted" })
	}
	must(d.Row == r.number && slices.Equal(fired, []string{r.number}), "row %s, not %s alone", d.Row, r.number)
	must(string(d.Class) == q.kind(), "class %s", d.Class)
	action, exception := actionOf(d), d.Exception
	must(action == r.action && exception == r.exception, "action %s %s, not %s %s", action, exception, r.action, r.exception)
	must(customerFits(q, r, d, w), "customer %+v guest %+v, not %s", d.Customer, d.Guest, r.customer)
	if d.Action == Link || d.Action == Reopen || d.Action == Open {
		want := q.flags(r)
		must(slices.Equal(want, d.Flags), "flags %q, not %q", d.Flags, want)
	}
	must((d.Ack != "") == (r.reply == "ack" && q.class == "human"), "acknowledged to %q", d.Ack)
	must((len(d.Events) > 0) == (r.number == "I5" && q.outcome() == "T1" && q.entry() == boardNow && !q.enclosed), "delivery events %v", d.Events)
	return wrong
}

// actionOf is the decision's action in the words of the file.
func actionOf(d InboundDecision) string {
	switch {
	case d.Action == Link && d.Internal:
		return "link internal"
	case d.Direction == store.Outgoing:
		return string(d.Action) + " outgoing"
	case d.Action == Open && d.Case.Queue == "unverified":
		return "open unverified"
	}
	return string(d.Action)
}

// customerFits: the case's customer and the contact minted are as the row says,
// and nobody ever changes the customer of a case that was there.
func customerFits(q square, r fileRow, d InboundDecision, w world) bool {
	minted := func(unverified bool) bool {
		return d.Guest != nil && d.Guest.ID == id(102) && d.Guest.Unverified == unverified && reflect.DeepEqual(d.Customer, *d.Guest)
	}
	contact := func(c store.Contact) bool { return d.Guest == nil && d.Customer.ID == c.ID }
	was := w.cases[d.Case.Number]
	switch {
	case d.Action == Except || d.Action == Duplicate:
		return r.customer == "-" && d.Guest == nil && d.Case.Number == 0 && d.Case.ID == store.ID{} && d.Customer.ID == store.ID{}
	case d.Action == Open:
		if d.Case.Number != 0 || d.Case.ID != id(101) || d.Case.Customer != d.Customer.ID || d.Case.State != store.Active {
			return false
		}
	case !reflect.DeepEqual(d.Customer, was.Customer) || d.Case.Customer != was.Case.Customer || d.Case.ID != was.Case.ID:
		return false
	case d.Case.State != was.Case.State && d.Action != Reopen || d.Action == Reopen && d.Case.State != store.Active:
		return false
	}
	switch r.customer {
	case "unchanged":
		return d.Guest == nil
	case "unchanged, newcomer":
		return (d.Guest != nil) == q.newcomer() && (d.Guest == nil || d.Guest.ID == id(102) && !d.Guest.Unverified)
	case "the outsider":
		if q.outsider() == "cleo@x.example" {
			return contact(boardCleo)
		}
		return minted(false) && d.Guest.EmailAddresses[0].Address == q.outsider()
	case "new guest":
		return minted(false)
	case "new unverified guest":
		return minted(true)
	case "the contact":
		return contact(boardCleo)
	case "the contact, new guest if strict":
		return q.strict && minted(false) || !q.strict && contact(boardCleo)
	case "asserted contact or new guest":
		return q.sender == "asserted guest" && minted(false) || q.sender == "asserted contact" && contact(boardCleo)
	}
	return false
}

// newcomer: a person nobody knows writes on a case (S1 "replies from guests").
func (q square) newcomer() bool {
	nobody := q.sender == "unknown" || q.sender == "asserted guest" && q.mail().Author.Address == "form@x.example"
	return q.class == "human" && nobody && !q.out
}

// flags are those of the row and of the evidence.
func (q square) flags(r fileRow) (list []string) {
	tookPart := q.takesPart() && q.sender != "forged domain" && q.sender != "forged agent" && q.sender != "several From"
	if q.outcome() == "T1" && !tookPart && q.kind() != "dsn" && q.kind() != "report" {
		list = append(list, "third-party")
	}
	if r.customer == "unchanged, newcomer" && q.out {
		list = append(list, "pending-directory")
	}
	if r.flag != "" {
		list = append(list, r.flag)
	}
	return list
}
