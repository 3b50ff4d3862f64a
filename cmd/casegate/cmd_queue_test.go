package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

// TestQueueActs: on a store that no daemon has open.
func TestQueueActs(t *testing.T) {
	p, out, stderr := testProgram(t)
	if err := seed("data"); err != nil {
		t.Fatal(err)
	}
	id := seedID(21).String()
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"hold " + id + " --reason moving", 0, "delivery " + id + ": held: moving"},
		{"hold " + id, 0, "delivery " + id + " is held already: nothing is changed"},
		{"show " + id, 0, "reason     held by "},
		{"retry " + id, 1, "is held"},
		{"release --case 1", 0, "release: 1 delivery"},
		{"release", 2, "needs the ids of deliveries, or what selects them"},
		{"release " + id + " --case 1", 2, "has ids and a selection"},
		{"hold --state waiting", 2, `"waiting" is not a value for --state`},
		{"flush", 0, "flush: 1 delivery"},
		{"drop " + id, 2, "needs --reason"},
		{"drop " + id + " --reason=x --bounce", 1, "there is nobody to tell"},
		{"drop --address ana@x.example --reason wrong", 0, "drop: 1 delivery"},
		{"retry --state failed --json", 0, `"changed": 1`},
	} {
		out.Reset()
		stderr.Reset()
		root := group("casegate", "", group("queue", "", p.queueShow(), p.queueHold(), p.queueRelease(), p.queueRetry(), p.queueDrop(), p.queueFlush()))
		root.SilenceErrors, root.SilenceUsage = true, true
		root.SetArgs(append([]string{"queue"}, strings.Fields(c.args)...))
		code := p.fail(root.ExecuteContext(context.Background()))
		if said := out.String() + stderr.String(); code != c.code || !strings.Contains(said, c.want) {
			t.Errorf("%s: %d, want %d and %q:\n%s", c.args, code, c.code, c.want, said)
		}
		if bytes.Contains(out.Bytes(), []byte("boss@city.example")) {
			t.Errorf("%s names a blind recipient", c.args)
		}
	}
}
