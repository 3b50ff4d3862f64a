package relay

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casegate/casegate/store"
)

// Up to the final dot of a mail to three, of whom all are taken, or all but ben.
const (
	lmtpHello = "S: 220 mx.example ready\nC: LHLO gw.city.example\n" + fast
	lmtpThree = lmtpHello + three + "S: 250 ok|250 ok|250 ok|250 ok|354 go\nD:\n"
	lmtpTwo   = lmtpHello + three + "S: 250 ok|250 ok|550 5.1.1 no|250 ok|354 go\nD:\n"
)

const (
	hungUp  = "4.4.2 no reply to the final dot, it may have been taken: the next hop hung up"
	silent  = "4.4.2 no reply to the final dot, it may have been taken: read pipe: i/o timeout"
	surplus = "4.5.0 more replies to the final dot than there should be, it may have been taken"
)

// lmtpDialogues: RFC 2033 §4.2 has a reply to the final dot for each recipient
// that was taken, in their order. Who has none may have got the mail.
var lmtpDialogues = []dialogue{
	{name: "one of each, in one packet", script: lmtpThree + "S: 250 2.0.0 ok|452 4.2.2 full|550 5.7.1 no",
		want: outcome{store.Queued, []string{"delivered 250 2.0.0 ok", "queued 452 4.2.2 full", "failed 550 5.7.1 no"},
			[]string{"deferred 452 4.2.2 (1 of 3 recipients)"}, 1}},
	{name: "one of each, in pieces", script: lmtpThree + "P: 250 2.0.0 o\nW: 5s\nP: k|45\nW: 9m\nS: 2 4.2.2 full\nW: 9m\nP: 550-5.7.1 n|\nS: 550 5.7.1 o",
		want: outcome{store.Queued, []string{"delivered 250 2.0.0 ok", "queued 452 4.2.2 full", "failed 550 5.7.1 n 5.7.1 o"},
			[]string{"deferred 452 4.2.2 (1 of 3 recipients)"}, 1}},
	{name: "none for who was refused before", script: lmtpTwo + "S: 452 4.2.2 full|250 2.0.0 ok",
		want: outcome{store.Queued, []string{"queued 452 4.2.2 full", "failed 550 5.1.1 no", "delivered 250 2.0.0 ok"},
			[]string{"deferred 452 4.2.2 (1 of 3 recipients)"}, 1}},
	{name: "hangs up before the first", script: lmtpThree + "H:",
		want: outcome{store.Queued, []string{"queued " + hungUp, "queued " + hungUp, "queued " + hungUp}, []string{"ambiguous deferred " + hungUp}, 1}},
	{name: "hangs up between two", script: lmtpThree + "S: 250 2.0.0 ok\nH:",
		want: outcome{store.Queued, []string{"delivered 250 2.0.0 ok", "queued " + hungUp, "queued " + hungUp}, []string{"ambiguous deferred " + hungUp}, 1}},
	{name: "hangs up within one", script: lmtpThree + "S: 550 5.7.1 no\nP: 250 2.0\nH:",
		want: outcome{store.Queued, []string{"failed 550 5.7.1 no", "queued " + hungUp, "queued " + hungUp}, []string{"ambiguous deferred " + hungUp}, 1}},
	{name: "one for all, as with SMTP", script: lmtpThree + "S: 250 2.0.0 ok\nW: 11m",
		want: outcome{store.Queued, []string{"delivered 250 2.0.0 ok", "queued " + silent, "queued " + silent}, []string{"ambiguous deferred " + silent}, 1}},
	{name: "one too few: the last is in doubt", script: lmtpThree + "S: 250 2.0.0 ok|250 2.0.0 ok\nW: 11m",
		want: outcome{store.Queued, []string{"delivered 250 2.0.0 ok", "delivered 250 2.0.0 ok", "queued " + silent}, []string{"ambiguous deferred " + silent}, 1}},
	{name: "421 in the middle", script: lmtpThree + "S: 250 2.0.0 ok|421 4.3.2 going down\nH:",
		want: outcome{store.Queued, []string{"delivered 250 2.0.0 ok", "queued 421 4.3.2 going down", "queued " + hungUp},
			[]string{"ambiguous deferred 421 4.3.2 (2 of 3 recipients)"}, 1}},
	{name: "nonsense in the middle", script: lmtpThree + "S: 250 2.0.0 ok|what?|250 2.0.0 ok",
		want: outcome{store.Queued, []string{"delivered 250 2.0.0 ok",
			"queued 4.4.2 no reply to the final dot, it may have been taken: the next hop's reply makes no sense: \"what?\"",
			"queued 4.4.2 no reply to the final dot, it may have been taken: the next hop's reply makes no sense: \"what?\""},
			[]string{"ambiguous deferred 4.4.2 no reply to the final dot, it may have been taken: the next hop's reply makes no sense: \"what?\""}, 1}},
	{name: "one too many, all alike", script: lmtpTwo + "S: 250 2.0.0 ok|250 2.0.0 ok|250 2.0.0 ok",
		want: outcome{store.Failed, []string{"delivered 250 2.0.0 ok", "failed 550 5.1.1 no", "delivered 250 2.0.0 ok"},
			[]string{"failed 550 5.1.1 (1 of 3 recipients)"}, 1}},
	{name: "goodbye behind them", script: lmtpTwo + "S: 250 2.0.0 ok|452 4.2.2 full|421 4.3.2 going down\nH:",
		want: outcome{store.Queued, []string{"delivered 250 2.0.0 ok", "failed 550 5.1.1 no", "queued 452 4.2.2 full"},
			[]string{"deferred 452 4.2.2 (1 of 3 recipients)"}, 1}},
	{name: "one too many, for who was refused before", script: lmtpTwo + "S: 250 2.0.0 ok|550 5.1.1 no|250 2.0.0 ok",
		want: outcome{store.Queued, []string{"queued " + surplus, "failed 550 5.1.1 no", "queued " + surplus}, []string{"ambiguous deferred " + surplus}, 1}},
	{name: "one too many, for all of them first", script: lmtpThree + "S: 250 2.0.0 ok|250 2.0.0 ok|250 2.0.0 ok|452 4.2.2 full",
		want: outcome{store.Queued, []string{"queued " + surplus, "queued " + surplus, "queued " + surplus}, []string{"ambiguous deferred " + surplus}, 1}},
	{name: "no end of them", script: lmtpThree + "S: " + strings.Repeat("250 ok|", 400) + "250 ok",
		want: outcome{store.Queued, []string{"queued " + surplus, "queued " + surplus, "queued " + surplus}, []string{"ambiguous deferred " + surplus}, 1}},
}

func TestLMTPDialogues(t *testing.T) {
	for _, c := range lmtpDialogues {
		c.hop, c.to = "lmtp:///run/lmtp", []string{"ana@x.example", "ben@x.example", "eva@x.example"}
		t.Run(c.name, func(t *testing.T) { synctest.Test(t, c.play) })
	}
}

// TestLMTPTriedAgain: who had a reply is not asked for again.
func TestLMTPTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		p := newPeer(t, lmtpThree+"S: 250 2.0.0 ok|550 5.7.1 no\nH:",
			lmtpHello+"C: MAIL*\nC: RCPT TO:<eva@x.example>\nC: DATA\nS: 250 ok|250 ok|354 go\nD:\nS: 250 2.0.0 ok")
		id := m.add(eml, time.Now(), "ana@x.example", "ben@x.example", "eva@x.example")
		_, stop := run(t, m, Options{Dial: p.Dial, Routes: []Route{{Role: "outbound", NextHop: "lmtp:///run/lmtp"}}})
		time.Sleep(time.Hour)
		synctest.Wait()
		stop()
		got := outcomeOf(m.get(id), p)
		if !slices.Equal(got.Recipients, []string{"delivered 250 2.0.0 ok", "failed 550 5.7.1 no", "delivered 250 2.0.0 ok"}) || got.Mails != 2 {
			t.Errorf("%+v", got)
		}
	})
}

// TestLMTPSurplus: a session with a reply too many is not used again, whether it
// comes at once or with the next mail, and no reply counts for another mail.
func TestLMTPSurplus(t *testing.T) {
	const first = lmtpHello + "C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok|250 ok|354 go\nD:\n"
	for name, script := range map[string]string{
		"at once":            first + "S: 250 2.0.0 ok|250 2.0.0 ok",
		"with the next mail": first + "S: 250 2.0.0 ok\nC: MAIL*\nC: RCPT*\nC: DATA\nS: 250 2.0.0 ok|250 ok|250 ok|354 go\nA:",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, p := newMemory(), newPeer(t, script, first+"S: 250 2.0.0 ok")
				r, stop := run(t, m, Options{Dial: p.Dial, Routes: []Route{{Role: "outbound", NextHop: "lmtp:///run/lmtp"}}})
				ids := each(m, r, 2, time.Hour)
				stop()
				delivered(t, m, ids)
				if dials, mails := p.seen(); dials != 2 || len(mails) != 2 {
					t.Errorf("%d connections, %d mails", dials, len(mails))
				}
			})
		})
	}
}
