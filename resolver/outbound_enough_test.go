package resolver

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casegate/casegate/store"
	"pgregory.net/rapid"
)

type events map[store.TallyKey][]time.Time

// counted is a desk that bounds what a case sends, and what went out before.
func counted(sent events, to ...string) *desk {
	d := newDesk(to...)
	d.settings.AnswersHour, d.settings.AnswersDay = 3, 5
	d.settings.FloodHour, d.settings.FloodDay = 2, 0
	d.facts.Tallies = sent
	return d
}

// O14: a case sends one address so much and no more; the rest is held.
func TestEnough(t *testing.T) {
	ago := func(minutes ...int) (times []time.Time) {
		for _, m := range minutes {
			times = append(times, noon.Add(-time.Duration(m)*time.Minute))
		}
		return times
	}
	key := func(n uint64, address string) store.TallyKey {
		return store.TallyKey{Kind: store.TallySent, Case: n, Address: address}
	}
	fam := key(1042, "fam@x.example")
	for _, c := range []struct {
		name   string
		to     []string
		sent   events
		change func(*desk)
		key    store.TallyKey // by which it is counted; zero: not at all
		held   string
	}{
		{"the first", []string{"To fam@x.example"}, nil, nil, fam, ""},
		{"the last of an hour", []string{"To fam@x.example"}, events{fam: ago(1, 59)}, nil, fam, ""},
		{"more in an hour", []string{"To fam@x.example"}, events{fam: ago(1, 2, 59)}, nil, fam,
			"fam@x.example was sent as many mails of this case as flood.answers allows; perhaps two machines answer each other (rule O14)"},
		{"an hour later", []string{"To fam@x.example"}, events{fam: ago(1, 2, 60, 61)}, nil, fam, ""},
		{"more in a day", []string{"To fam@x.example"}, events{fam: ago(61, 62, 63, 64, 1439)}, nil, fam, "fam@x.example was sent as many"},
		{"a day later", []string{"To fam@x.example"}, events{fam: ago(61, 62, 63, 64, 1440)}, nil, fam, ""},
		{"off", []string{"To fam@x.example"}, events{fam: ago(1, 2, 3, 4, 5)}, func(d *desk) { d.settings.AnswersHour, d.settings.AnswersDay = 0, 0 }, store.TallyKey{}, ""},
		{"by the hour alone", []string{"To fam@x.example"}, events{fam: ago(61, 62, 63, 64, 65)}, func(d *desk) { d.settings.AnswersDay = 0 }, fam, ""},
		{"by the day alone", []string{"To fam@x.example"}, events{fam: ago(1, 2, 3, 4)}, func(d *desk) { d.settings.AnswersHour = 0 }, fam, ""},
		{"another case's, another's", []string{"To fam@x.example"}, events{key(7, "fam@x.example"): ago(1, 2, 3), key(1042, "ron@x.example"): ago(1, 2, 3)}, nil, fam, ""},
		{"the customer, whom O4 adds", []string{"Cc cleo@x.example", "To 311@city.example"}, events{fam: ago(1, 2, 3)},
			func(d *desk) { d.sub.ControlHeaders, d.sub.Header = true, fields{"X-Case-Mode": "reply"} }, fam, "fam@x.example was"},
		{"the customer behind others", []string{"To new@x.example", "Cc FAM@x.example"}, nil, nil, fam, ""},
		{"an expert", []string{"To kim@city.example", "Cc cleo@x.example"}, events{key(1042, "kim@city.example"): ago(1, 2, 3)}, nil, key(1042, "kim@city.example"), "kim@city.example was"},
		{"who is shown and gets no copy", []string{"To kim@city.example", "Cc cleo@x.example"}, nil, func(d *desk) { d.sub.Recipients = d.sub.Recipients[1:] }, key(1042, "cleo@x.example"), ""},
		{"a blind copy", []string{"Bcc kim@city.example"}, events{key(1042, "kim@city.example"): ago(1, 2, 3)}, nil, key(1042, "kim@city.example"), "a blind recipient's address was"},
		{"a merged case", []string{"To ron@x.example"}, events{key(7, "ron@x.example"): ago(1, 2, 3)}, func(d *desk) {
			d.editCase(func(k *store.Case) { k.State, k.MergedInto = store.Cancelled, 7 })
			ron := contact(8, store.Guest, "Ron", "ron@x.example")
			d.facts.Cases[7] = store.CaseFacts{Case: store.Case{Number: 7, Customer: ron.ID, Mailbox: "311@city.example"}, Customer: ron}
		}, key(7, "ron@x.example"), "ron@x.example was"},
		{"no case", []string{"To cleo@x.example"}, nil, func(d *desk) { d.sub.InReplyTo = nil }, store.TallyKey{}, ""},
		{"a new case", []string{"To cleo@x.example"}, events{key(0, "cleo@x.example"): ago(1)},
			func(d *desk) { d.sub.InReplyTo, d.settings.Uncased = nil, "create" }, key(0, "cleo@x.example"), ""},
		{"new cases, one too many", []string{"To cleo@x.example"}, events{key(0, "cleo@x.example"): ago(1, 2)},
			func(d *desk) { d.sub.InReplyTo, d.settings.Uncased, d.sub.NewNumber = nil, "create", 2000 }, key(0, "cleo@x.example"), "cleo@x.example was sent as many mails that open a case as flood.new_cases allows"},
		{"held by another rule", []string{"To fam@x.example", "Cc new@x.example"}, events{fam: ago(1)}, func(d *desk) { d.settings.NewRecipients = "hold" }, store.TallyKey{}, "new@x.example is on the case for the first time"},
		{"refused", []string{"To fam@x.example"}, nil, func(d *desk) { d.sub.Author.Address = "mayor@city.example" }, store.TallyKey{}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := counted(c.sent, c.to...)
			if c.change != nil {
				c.change(d)
			}
			var key []store.TallyKey
			if c.key != (store.TallyKey{}) {
				key = append(key, c.key)
			}
			asked := d.facts
			asked.Tallies = nil
			if q := AskSent(d.sub, asked, d.settings); !slices.Equal(q.Tallies, key) || q.At != noon {
				t.Errorf("asks for %+v", q)
			}
			was := slices.Clone(d.facts.Cases[1042].Case.Flags)
			got := d.decide()
			if (c.held == "") != (got.Hold == "") || !strings.HasPrefix(got.Hold, c.held) {
				t.Errorf("held %q, want %q\n%s", got.Hold, c.held, strings.Join(got.Reasons, "\n"))
			}
			if c.held != "" {
				key = nil
			}
			if !slices.Equal(got.Sent, key) {
				t.Errorf("counts %+v, want %+v", got.Sent, key)
			}
			enough := strings.Contains(got.Hold, "O14")
			if slices.Contains(got.Rules, "O14") != enough || slices.Contains(got.Case.Flags, "answers-held") != enough || slices.Contains(got.Flags, "held") != (c.held != "") {
				t.Errorf("rules %v, flags %q, of the case %q", got.Rules, got.Flags, got.Case.Flags)
			}
			if now := d.facts.Cases[1042].Case.Flags; !slices.Equal(now, was) {
				t.Errorf("the facts were changed: %q", now)
			}
			if enough && len(got.Recipients()) == 0 {
				t.Error("nobody is left to release it for")
			}
		})
	}
}

// A split submission counts once, and all its parts go or wait together.
func TestEnoughOfASplitSubmission(t *testing.T) {
	b := &outbox{desk: counted(events{}, "To fam@x.example", "Cc cleo@x.example")}
	var sent []store.TallyKey
	submit := func(to string) OutboundDecision {
		d := b.submit(to)
		sent = append(sent, d.Sent...)
		for _, k := range d.Sent {
			b.facts.Tallies[k] = append(b.facts.Tallies[k], noon)
		}
		return d
	}
	for _, id := range []string{"one@x.example", "two@x.example", "three@x.example", "four@x.example"} {
		b.sub.MessageID = id
		first, again, second := submit("cleo@x.example"), submit("cleo@x.example"), submit("fam@x.example")
		held := id == "four@x.example"
		if again.Duplicate == nil || second.Part == nil || (first.Hold != "") != held || (second.Hold != "") != held {
			t.Errorf("%s: held %q and %q", id, first.Hold, second.Hold)
		}
	}
	if len(sent) != 3 {
		t.Errorf("counts %+v", sent)
	}
}

// Whenever the desk sends and to whom, no address is sent more of one case than
// the bounds say, and who was sent less than that is never kept waiting.
func TestEnoughIsEnough(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := counted(events{})
		d.settings.AnswersHour = rapid.IntRange(0, 4).Draw(rt, "an hour")
		d.settings.AnswersDay = rapid.IntRange(0, 6).Draw(rt, "a day")
		left := map[string][]time.Time{}
		since := func(to string, span time.Duration) (n int) {
			for _, at := range left[to] {
				if d.sub.Received.Sub(at) < span {
					n++
				}
			}
			return n
		}
		for range rapid.IntRange(1, 60).Draw(rt, "mails") {
			to := rapid.SampledFrom([]string{"fam@x.example", "cleo@x.example", "kim@city.example"}).Draw(rt, "to")
			d.sub.To, d.sub.Recipients = []Address{{Address: to}}, []string{to}
			d.sub.Received = d.sub.Received.Add(time.Duration(rapid.IntRange(0, 200).Draw(rt, "minutes")) * time.Minute)
			full := func(n, most int) bool { return most > 0 && n >= most }
			want := full(since(to, time.Hour), d.settings.AnswersHour) || full(since(to, 24*time.Hour), d.settings.AnswersDay)
			got := d.decide()
			if (got.Hold != "") != want {
				rt.Fatalf("held %q, want %v: %v", got.Hold, want, left[to])
			}
			for _, k := range got.Sent {
				d.facts.Tallies[k] = append(d.facts.Tallies[k], d.sub.Received)
			}
			if got.Hold == "" {
				left[to] = append(left[to], d.sub.Received)
			}
		}
	})
}
