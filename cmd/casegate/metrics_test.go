package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/gateway/testbed"
	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/bolt"
)

// page reads a page of the console's address, as a scraper does.
func (g *gate) page(path string) (text string, code int) {
	g.t.Helper()
	res, err := http.Get("http://" + g.consoleAt() + path)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return string(b), res.StatusCode
}

// consoleAt is the console's address, by the daemon's log.
func (g *gate) consoleAt() string {
	g.t.Helper()
	found := regexp.MustCompile(`"msg":"ready".*"console":"([^"]+)"`).FindAllStringSubmatch(g.log.String(), -1)
	if len(found) == 0 {
		g.t.Fatal("no console in the log")
	}
	return found[len(found)-1][1]
}

// lines are those of the daemon's log with a message.
func (g *gate) lines(msg string) (list []map[string]any) {
	sc := bufio.NewScanner(strings.NewReader(g.log.String()))
	for sc.Scan() {
		line := map[string]any{}
		if json.Unmarshal(sc.Bytes(), &line) == nil && line["msg"] == msg {
			list = append(list, line)
		}
	}
	return list
}

// await waits until the log has n lines with a message, and returns the last.
func (g *gate) await(msg string, n int) map[string]any {
	g.t.Helper()
	var list []map[string]any
	testbed.Until(g.t, fmt.Sprintf("the log has %d lines %q", n, msg), func() bool {
		list = g.lines(msg)
		return len(list) >= n
	})
	return list[n-1]
}

// sample is the value of one series; -1: there is none.
func sample(text, series string) float64 {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			v, _ := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			return v
		}
	}
	return -1
}

// TestSendersAreCounted: each message that was checked once, by what was found.
func TestSendersAreCounted(t *testing.T) {
	m := newMetrics()
	for _, a := range []*store.Authentication{
		nil, {DMARC: "pass", AlignedPass: true}, {DMARC: "none", SPF: "pass", AlignedPass: true, DKIM: "temperror"}, {DMARC: "fail", Forged: true},
		{DMARC: "temperror"}, {DMARC: "none", SPF: "temperror"}, {DMARC: "fail", Policy: "none"}, {DMARC: "none", SPF: "softfail"}, {},
	} {
		m.onAccepted(gateway.Accepted{Role: gateway.RoleInbound, Message: store.Message{Authentication: a}})
		m.onAccepted(gateway.Accepted{Role: gateway.RoleInbound, Message: store.Message{Authentication: a}, Repeats: true})
	}
	w := httptest.NewRecorder()
	m.handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for verdict, want := range map[string]float64{"pass": 2, "forged": 1, "temperror": 2, "unverified": 3} {
		same(t, verdict, sample(w.Body.String(), fmt.Sprintf(`casegate_senders_checked_total{verdict=%q}`, verdict)), want)
	}
}

// TestCommitsAreCounted: how long each took and how many updates were in it, in
// the right bucket, and those that failed.
func TestCommitsAreCounted(t *testing.T) {
	m := newMetrics()
	for _, c := range []bolt.Commit{
		{Took: 400 * time.Microsecond, Updates: 1}, {Took: time.Millisecond, Updates: 2}, {Took: 1500 * time.Microsecond, Updates: 3},
		{Took: time.Second, Updates: 512}, {Took: 20 * time.Second, Updates: 600, Err: store.ErrUnavailable},
	} {
		m.onCommit(c)
	}
	w := httptest.NewRecorder()
	m.handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for series, want := range map[string]float64{
		`casegate_commit_seconds_count`:               5,
		`casegate_commit_seconds_sum`:                 21.0029,
		`casegate_commit_seconds_bucket{le="0.0005"}`: 1,
		`casegate_commit_seconds_bucket{le="0.001"}`:  2,
		`casegate_commit_seconds_bucket{le="0.002"}`:  3,
		`casegate_commit_seconds_bucket{le="0.512"}`:  3,
		`casegate_commit_seconds_bucket{le="1.024"}`:  4,
		`casegate_commit_seconds_bucket{le="16.384"}`: 4,
		`casegate_commit_seconds_bucket{le="+Inf"}`:   5,
		`casegate_commit_updates_count`:               5,
		`casegate_commit_updates_sum`:                 1118,
		`casegate_commit_updates_bucket{le="1"}`:      1,
		`casegate_commit_updates_bucket{le="2"}`:      2,
		`casegate_commit_updates_bucket{le="4"}`:      3,
		`casegate_commit_updates_bucket{le="256"}`:    3,
		`casegate_commit_updates_bucket{le="512"}`:    4,
		`casegate_commit_updates_bucket{le="+Inf"}`:   5,
		`casegate_commit_failures_total`:              1,
	} {
		same(t, series, sample(w.Body.String(), series), want)
	}
}

// TestMetrics: what happens shows at /metrics, and nothing that a mail says or
// whom it is about, there or in the log; one id leads through the log.
func TestMetrics(t *testing.T) {
	crm, world := startHop(t), startHop(t)
	g := newGate(t, crm.url, world.url)
	chatty := strings.NewReplacer("{format: json}", "{format: json, level: debug}", "send_as: [kim@city.example]", "auth_without_tls: true")
	g.write("casegate.yaml", []byte(chatty.Replace(fmt.Sprintf(gateConfig, g.dir, crm.url, world.url))))
	g.start()
	const dana, blind = "canarysender@example.net", "canaryblind@hidden.example"
	mail := letter("From: Canaryname <" + dana + ">\nTo: 311@city.example\nSubject: canarysubject\nMessage-ID: <light-1@example.net>\n\nCanarybody\n")
	id, number := swaksTaken(t, g.at["inbound"], dana, "311@city.example", mail)
	swaksTaken(t, g.at["inbound"], dana, "311@city.example", mail) // again
	swaks(t, g.at["inbound"], dana, "canarystranger@city.example", mail)
	answer := letter("From: 311@city.example\nTo: " + dana + "\nBcc: " + blind + "\nIn-Reply-To: <light-1@example.net>\nSubject: Re: canarysubject\nMessage-ID: <a-1@crm.city.example>\n\nCanaryanswer\n")
	swaksTaken(t, g.at["smarthost"], "311@city.example", dana+","+blind, answer)
	auto := letter("From: robot@example.net\nTo: 311@city.example\nAuto-Submitted: auto-replied\nSubject: canarysubject\nMessage-ID: <auto@example.net>\n\nAway\n")
	swaks(t, g.at["inbound"], "", "311@city.example", auto)
	secret := base64.StdEncoding.EncodeToString([]byte("\x00canarylogin@city.example\x00canarypassword"))
	if c, err := dialWire(g.at["desk"], false); err != nil {
		t.Error(err)
	} else if reply, err := c.say("AUTH PLAIN " + secret); err != nil || !strings.HasPrefix(reply, "535") {
		t.Errorf("AUTH: %s %v", reply, err)
	}
	g.settle()
	time.Sleep(outboxLook + 100*time.Millisecond) // a look holds for that long
	text, code := g.page("/metrics")
	same(t, "code", code, 200)
	for series, want := range map[string]float64{
		`casegate_accepted_total{role="inbound"}`:                               2,
		`casegate_accepted_total{role="outbound"}`:                              1,
		`casegate_repeated_total{role="inbound"}`:                               1,
		`casegate_decisions_total{role="inbound",rule="I26"}`:                   1,
		`casegate_decisions_total{role="inbound",rule="I15"}`:                   1,
		`casegate_exceptions_total{reason="orphan-auto-reply"}`:                 1,
		`casegate_refusals_total{code="550",listener="inbound",reason="rule"}`:  1,
		`casegate_refusals_total{code="535",listener="desk",reason="auth"}`:     1,
		`casegate_delivery_attempts_total{outcome="delivered",role="inbound"}`:  1,
		`casegate_delivery_attempts_total{outcome="delivered",role="outbound"}`: 1,
		`casegate_outbox{state="queued"}`:                                       0,
		`casegate_outbox{state="held"}`:                                         0,
		`casegate_outbox_oldest_seconds`:                                        0,
		`casegate_store_up`:                                                     1,
		`casegate_connections_total{listener="inbound"}`:                        4,
		`casegate_sessions_total{listener="inbound"}`:                           4,
		`casegate_connections_open{listener="inbound"}`:                         0,
		`casegate_transactions_total{listener="inbound"}`:                       4,
		`casegate_accept_seconds_count{role="inbound"}`:                         3,
		`casegate_reloads_total{outcome="done"}`:                                -1,
		fmt.Sprintf(`casegate_build_info{version=%q}`, "devel"):                 1,
	} {
		same(t, series, sample(text, series), want)
	}
	for _, series := range []string{`casegate_commit_seconds_count`, `casegate_commit_updates_sum`, `go_goroutines`, `process_open_fds`,
		`casegate_received_bytes_total{listener="inbound"}`} {
		if sample(text, series) <= 0 {
			t.Errorf("%s is %g", series, sample(text, series))
		}
	}
	if since := sample(text, fmt.Sprintf(`casegate_route_since_success_seconds{next_hop=%q,role="outbound"}`, world.url)); since < 0 || since > 30 {
		t.Errorf("time since the last success is %g s:\n%s", since, text)
	}
	if strings.Contains(text, "@") || regexp.MustCompile(`casegate_[^\n]*[{,](?:[a-km-z]\w*)="`+number+`"`).MatchString(text) {
		t.Errorf("an address or a case number is in the metrics:\n%s", text)
	}

	line := g.await("accepted", 1)
	delete(line, "time")
	if ms, ok := line["ms"].(float64); !ok || ms <= 0 || ms > 60_000 {
		t.Errorf("ms: %v", line["ms"])
	}
	peer, _ := line["peer"].(string)
	if !strings.HasPrefix(peer, "127.0.0.1:") {
		t.Errorf("peer: %q", peer)
	}
	n, _ := strconv.ParseFloat(number, 64)
	same(t, "the line of a message", line, map[string]any{"level": "INFO", "msg": "accepted", "message": id, "case": n, "rules": line["rules"],
		"listener": "inbound", "peer": peer, "size": float64(len(mail)), "ms": line["ms"]})
	same(t, "rules", strings.Contains(line["rules"].(string), "I26"), true)
	same(t, "a copy", g.await("accepted", 2)["repeats"], any(true))
	attempt := g.await("delivery attempt", 1)
	same(t, "its delivery", attempt["message"], any(id))
	same(t, "the case of its delivery", attempt["case"], any(n))
	if ms, ok := attempt["ms"].(float64); !ok || ms <= 0 || ms > 60_000 {
		t.Errorf("ms of an attempt: %v", attempt["ms"])
	}
	exception := g.await("accepted", 4)
	same(t, "an exception", exception["exception"], any("orphan-auto-reply"))
	same(t, "the case of an exception", exception["case"], nil)
	for _, where := range []string{text, g.log.String()} {
		if i := strings.Index(strings.ToLower(where), "canary"); i >= 0 {
			t.Errorf("a canary sings: %.200s", where[max(0, i-100):])
		}
		if strings.Contains(where, secret) {
			t.Error("a password is in the log")
		}
	}
}

// TestMetricsOfRoutes: a delivery that fails, what waits, and for how long.
func TestMetricsOfRoutes(t *testing.T) {
	g := startGate(t, "none", "smtp://127.0.0.1:9")
	swaksTaken(t, g.at["inbound"], "dana@example.net", "311@city.example", simpleMail("light", "dana@example.net", "311@city.example"))
	swaksTaken(t, g.at["smarthost"], "311@city.example", "dana@example.net", simpleMail("answer", "311@city.example", "dana@example.net", "In-Reply-To: <light@mail.example>"))
	g.await("delivery attempt", 1)
	time.Sleep(outboxLook + 100*time.Millisecond)
	text, _ := g.page("/metrics")
	same(t, "deferred", sample(text, `casegate_delivery_attempts_total{outcome="deferred",role="outbound"}`), 1.0)
	same(t, "queued", sample(text, `casegate_outbox{state="queued"}`), 1.0)
	if age := sample(text, `casegate_outbox_oldest_seconds`); age < 2 || age > 60 {
		t.Errorf("the oldest is %g s old", age)
	}
}

// TestHealth: alive while it drains, and ready no more.
func TestHealth(t *testing.T) {
	g := startGate(t, "none", "smtp://127.0.0.1:9")
	for _, path := range []string{"/healthz", "/readyz"} {
		if text, code := g.page(path); code != 200 {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
	c, err := dialWire(g.at["inbound"], false)
	if err != nil {
		t.Fatal(err)
	}
	defer c.conn.Close()
	for _, line := range []string{"MAIL FROM:<a@example.net>", "RCPT TO:<311@city.example>", "DATA"} {
		c.w.WriteString(line + "\r\n")
		c.w.Flush()
		if reply, err := c.reply(); err != nil || reply[0] > '3' {
			t.Fatal(line, reply, err)
		}
	}
	g.cmd.Process.Signal(syscall.SIGTERM)
	g.await("stopping", 1)
	if text, code := g.page("/readyz"); code != 503 || !strings.Contains(text, "stopping") {
		t.Errorf("/readyz while it drains: %d %s", code, text)
	}
	if _, code := g.page("/healthz"); code != 200 {
		t.Errorf("/healthz while it drains: %d", code)
	}
	c.w.WriteString("Subject: x\r\n\r\nx\r\n.\r\n")
	c.w.Flush()
	if reply, err := c.reply(); err != nil || !strings.HasPrefix(reply, "250 ") {
		t.Errorf("a message under way is answered %q, %v", reply, err)
	}
	if err := <-g.exited; err != nil {
		t.Errorf("serve ended with %v", err)
	}
	g.await("stopped: the store is closed", 1)
	g.cmd = nil // a second signal would end it at once
}

// troubled is a store that fails.
type troubled struct {
	store.Store
	err error
}

func (s troubled) Update(context.Context, func(store.Tx) error) error { return s.err }

func TestReady(t *testing.T) {
	d := &daemon{store: troubled{}}
	ctx := context.Background()
	for want, change := range map[string]func(){
		"starting": func() { d.phase.Store(int32(starting)) },
		"stopping": func() { d.phase.Store(int32(stopping)) },
		"":         func() { d.phase.Store(int32(serving)) },
	} {
		change()
		if got := fmt.Sprint(cmpErr(d.ready(ctx))); got != want {
			t.Errorf("ready: %q, want %q", got, want)
		}
	}
	d.phase.Store(int32(serving))
	d.noteRoom(fmt.Errorf("x: %w", store.ErrFull))
	if err := d.ready(ctx); !errors.Is(err, store.ErrFull) {
		t.Errorf("full: %v", err)
	}
	d.noteRoom(nil)
	if err := d.ready(ctx); err != nil {
		t.Errorf("room again: %v", err)
	}
	d.store = troubled{err: store.ErrUnavailable}
	if err := d.ready(ctx); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("unavailable: %v", err)
	}
}

func cmpErr(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestMetricsStayFew: whatever labels should come, there is an end to them.
func TestMetricsStayFew(t *testing.T) {
	m := newMetrics()
	for n := range 10 * maxCounters {
		m.decisions.With(fmt.Sprint("I", n), "inbound").Inc()
	}
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "casegate_decisions_total" && len(f.GetMetric()) > maxCounters+1 {
			t.Errorf("%d series", len(f.GetMetric()))
		}
	}
	if got := m.decisions.With("I5", "inbound"); got != m.decisions.With("I5", "inbound") {
		t.Error("a counter is made twice")
	}
}

// BenchmarkAcceptedMetrics is what one accepted message costs the metrics.
func BenchmarkAcceptedMetrics(b *testing.B) {
	m := newMetrics()
	a := gateway.Accepted{Role: gateway.RoleInbound, Took: time.Millisecond, Message: store.Message{Decision: store.Decision{Rules: []string{"T0", "I26"}}}}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.onAccepted(a)
		}
	})
}
