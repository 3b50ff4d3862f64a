package relay

import (
	"fmt"
	"testing"
	"testing/synctest"
)

// TestProbe: each next hop of a route has its own time to answer, wherever it
// falls silent.
func TestProbe(t *testing.T) {
	const mail = "C: MAIL FROM:<>\nS: 250 ok\nC: RCPT TO:<ana@x.example>\n"
	for name, c := range map[string]struct{ script, want string }{
		"says nothing":     {"W: 1m", `"connect" no answer within 30s`},
		"mute after EHLO":  {hello + "W: 1m", `"connect" no answer within 30s`},
		"mute after RCPT":  {hello + eight + mail + "W: 1m", `"rcpt" no answer within 30s`},
		"refuses at RCPT":  {hello + eight + mail + "S: 550 5.1.1 no", `"rcpt" the answer to RCPT is 550 5.1.1 no`},
		"takes it, slowly": {hello + eight + mail + "W: 29s\nS: 250 ok\nC: RSET\nS: 250 ok", `"" <nil>`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t, c.script, hello+eight+mail+"S: 250 ok\nC: RSET\nS: 250 ok")
				rt := Route{Role: "outbound", NextHop: "smtp://127.0.0.1:2526", Further: []string{"smtp://127.0.0.1:2527"}}
				r, err := New(newMemory(), Options{Hostname: "gw.city.example", Routes: []Route{rt}, Dial: p.Dial})
				if err != nil {
					t.Fatal(err)
				}
				list, err := r.Probe(t.Context(), rt, "", "ana@x.example")
				if err != nil || len(list) != 2 {
					t.Fatalf("%+v, %v", list, err)
				}
				if got := fmt.Sprintf("%q %v", list[0].Stage, list[0].Err); got != c.want {
					t.Errorf("the first: %s, want %s", got, c.want)
				}
				if list[1].Err != nil {
					t.Errorf("the second has no time: %v", list[1].Err)
				}
				p.wg.Wait()
			})
		})
	}
}
