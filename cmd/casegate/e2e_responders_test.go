package main

import (
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/casegate/casegate/gateway/console"
	"github.com/casegate/casegate/store"
)

// Two responders that answer everything, each other too, against RFC 3834 §2:
// one at the customer's and one at the desk's.

// TestRespondersEnd: however the two of them answer, it ends, whether what the
// desk's sends is about a case, about none, or opens one; and no address was sent
// more than the bounds say.
func TestRespondersEnd(t *testing.T) {
	const answers, opened = 3, 2
	habits := everyHabit()
	for _, uncased := range []string{"pass", "create"} {
		t.Run(uncased, func(t *testing.T) {
			world, desk := startHop(t), startHop(t)
			r := newRig(t, rigOptions{inbound: desk.url, outbound: world.url,
				flood: fmt.Sprintf("{new_cases: %d/h, answers: %d/h}", opened, answers),
				more:  fmt.Sprintf("outbound: {uncased: %s}\n", uncased)})
			r.start()
			customers, agents := map[string]*habit{}, map[string]*habit{}
			for n := range habits {
				for _, turn := range []int{0, 5, 7, 10} { // each habit meets some
					who := customerOf(100*turn + n)
					customers[who], agents[who] = &habits[n], &habits[(n+turn)%len(habits)]
				}
			}
			away := respond(t, world, r, "inbound", func(m arrived) *habit { return customers[m.to[0]] })
			out := respond(t, desk, r, "smarthost", func(m arrived) *habit { return agents[bareAddress(m.get("From"))] })
			for who := range customers {
				if reply := r.hand(t, "inbound", who, rigMailbox, simpleMail("first of "+who, who, rigMailbox)); !strings.HasPrefix(reply, "250") {
					t.Fatal(reply)
				}
			}
			quiet(t, 2000, func() bool { return away.busy() || out.busy() }, r)
			same(t, "refused", append(away.refused, out.refused...), []string(nil))
			held := 0
			sent := map[string]int{}
			for _, d := range rows[store.Delivery](r, "/queue", url.Values{}) {
				if d.Role != "outbound" || d.Case == 0 {
					continue
				}
				if d.State == store.Held {
					held++
					continue
				}
				sent[fmt.Sprintf("case %d to %s", d.Case, d.Recipients[0].Address)]++
			}
			for what, n := range sent {
				if n > answers+1 { // and the one that opened it
					t.Errorf("%s: %d sent", what, n)
				}
			}
			flagged := 0
			for _, c := range rows[console.Case](r, "/cases", url.Values{}) {
				if slices.Contains(c.Flags, "answers-held") {
					flagged++
				}
			}
			t.Logf("%d answers of customers, %d of the desk, %d held on %d cases", total(away.answers), total(out.answers), held, flagged)
			if held == 0 || flagged == 0 {
				t.Error("nobody had to be stopped")
			}
			r.verify()
		})
	}
}

func total(n map[string]int) (sum int) {
	for _, k := range n {
		sum += k
	}
	return sum
}

// TestAfterResponders: with the bounds as they are unless set, two responders
// that say nothing of being machines, and two that do, are stopped by the
// thirty-first mail. Nothing is refused or lost; other mail goes on, what is held
// says why and is released by a person, and more may be allowed without a
// restart.
func TestAfterResponders(t *testing.T) {
	for _, automatic := range []bool{false, true} {
		t.Run(fmt.Sprintf("automatic=%v", automatic), func(t *testing.T) { afterResponders(t, habit{automatic: automatic, threads: true, to: "From"}) })
	}
}

func afterResponders(t *testing.T, how habit) {
	const ana, answers = "ana@example.net", 30
	world, desk := startHop(t), startHop(t)
	r := newRig(t, rigOptions{inbound: desk.url, outbound: world.url, flood: "{new_cases: 100/h}"})
	r.start()
	var first arrived // as the desk has it
	away := respond(t, world, r, "inbound", func(m arrived) *habit {
		if m.to[0] != ana {
			return nil
		}
		return &how
	})
	out := respond(t, desk, r, "smarthost", func(m arrived) *habit {
		if first.raw == nil {
			first = m
		}
		return &how
	})
	still := func() {
		t.Helper()
		quiet(t, 500, func() bool { return away.busy() || out.busy() }, r)
	}
	rest := func() []store.Delivery { return rows[store.Delivery](r, "/queue", url.Values{"state": {"held"}}) }
	r.hand(t, "inbound", ana, rigMailbox, simpleMail("hello", ana, rigMailbox))
	still()
	same(t, "answers of the customer's, of the desk's", []int{away.answers[ana], out.answers[rigMailbox]}, []int{answers, answers + 1})
	waits := rest()
	same(t, "held", len(waits), 1)
	const why = "4.7.0 held until somebody releases it: ana@example.net was sent as many mails of this case as flood.answers allows; perhaps two machines answer each other (rule O14)"
	same(t, "why", waits[0].Recipients[0].Reply, why)
	for _, c := range [][]string{
		{why[:50], "queue", "list", "--state", "held"}, {why, "queue", "show", waits[0].ID.String()}, {why, "case", "show", "1"},
		{"O14: ana@example.net was sent as many", "explain", waits[0].Message.String()},
	} {
		if text := r.cli(c[1:]...); !strings.Contains(text, c[0]) {
			t.Errorf("casegate %q does not say why:\n%s", c[1:], text)
		}
	}

	person := func(id, to string) {
		t.Helper()
		eml := fmt.Sprintf("From: %s\nTo: %s\nSubject: by hand\nMessage-ID: <%s@crm.example>\nIn-Reply-To: %s\nReferences: %[4]s\n\nA person writes %[3]s.\n", rigMailbox, to, id, first.get("Message-ID"))
		for range 2 { // the first 250 was lost
			if reply := r.hand(t, "smarthost", rigMailbox, to, letter(eml)); !strings.HasPrefix(reply, "250 ") || !strings.HasSuffix(reply, " case 1") {
				t.Errorf("a person's mail: %s", reply)
			}
		}
		still()
	}
	person("expert", "expert@example.org")
	same(t, "held, with a mail to another", len(rest()), 1)
	person("waits", ana)
	same(t, "held, with a person's", len(rest()), 2)

	r.cli("queue", "release", rest()[0].ID.String())
	still()
	same(t, "after a release the customer's has answered once more", away.answers[ana], answers+1)
	same(t, "held", len(rest()), 2) // the one that was not released, and the desk's answer to that

	r.allow("{new_cases: 100/h, answers: 32/h}")
	person("goes", ana)
	same(t, "answers of the customer's, two more allowed", away.answers[ana], answers+3)
	var c console.Case
	r.api("/cases/1", url.Values{}, &c)
	same(t, "flags", c.Flags, []string{"answers-held"})
	r.verify()
}

// allow has the daemon take other bounds.
func (r *rig) allow(flood string) {
	r.t.Helper()
	text, err := os.ReadFile(r.config)
	if err == nil {
		before, _, _ := strings.Cut(string(text), "flood: ")
		_, after, _ := strings.Cut(string(text), "\nretry")
		err = os.WriteFile(r.config, []byte(before+"flood: "+flood+"\nretry"+after), 0o600)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.reload()
}
