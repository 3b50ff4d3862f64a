package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/casegate/casegate/gateway/mailauth"
	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/gateway/testbed"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/bolt"
)

// stage is where one scene is played.
type stage struct {
	t        *testing.T
	dir      string
	cfg      *Config
	settings resolver.Settings
	daemon   *daemon
	api      *client
	clock    *sceneClock
	log      testbed.Buffer
	people   *outsideDirectory
	dns      *dnsServer
	asked    int // questions of the DNS when a scene last looked
	signers  map[string]*mailauth.Signer

	desk, world     *nextHop  // where the inbound and the outbound routes lead
	atDesk, inWorld []arrived // came since the last When, and not told yet
	mails           []*sentMail
	mailed          []arrived // all that ever left
	told            error     // what a person was told who tried something
}

// sentMail is a mail that somebody handed to the gateway.
type sentMail struct {
	listener string
	through  string // the client that XFORWARD names; empty: none is sent
	from     string
	to       []string
	eml      []byte
	answers  []string // to each command that could be refused, and to the mail
	id       string   // that the gateway gave it; empty: refused
	repeats  bool     // the id is that of an earlier mail
	copies   []arrived
}

func (m *sentMail) answer() string { return m.answers[len(m.answers)-1] }

// sceneConfig is what a scene's own Config is laid over. The words in capitals
// stand for addresses.
const sceneConfig = `
hostname: gw.city.example
data_dir: DIR/data
listeners:
  - {name: inbound,   role: inbound,  protocol: smtp, address: 127.0.0.1:0, peers: [127.0.0.0/8]}
  - {name: lmtp,      role: inbound,  protocol: lmtp, address: 127.0.0.1:0, peers: [127.0.0.0/8]}
  - {name: border,    role: inbound,  protocol: smtp, address: 127.0.0.1:0, peers: [127.0.0.0/8], trust: [authres], authentication: upstream, authserv_id: mx.city.example}
  - {name: form,      role: inbound,  protocol: smtp, address: 127.0.0.1:0, peers: [127.0.0.0/8], trusted_form: true}
  - {name: smarthost, role: outbound, protocol: smtp, address: 127.0.0.1:0, peers: [127.0.0.0/8]}
  - {name: check,     role: inbound,  protocol: smtp, address: 127.0.0.1:0, peers: [127.0.0.0/8], trust: [xforward], authentication: check}
mailboxes:
  - {address: 311@city.example, queue: general}
  - {address: parks@city.example, queue: parks}
routes:
  - {role: inbound,  next_hop: DESK}
  - {role: outbound, next_hop: WORLD}
console: {address: 127.0.0.1:0}
dns: {servers: [NAMESERVER], timeout: 300ms}
log: {level: warn}
`

// opening is held while a stage opens: making the socket sets the process's
// umask for a moment, and no folder may be made then.
var opening sync.Mutex

func newStage(t *testing.T, config string) *stage {
	t.Helper()
	s := &stage{t: t, clock: &sceneClock{}, people: &outsideDirectory{}, dns: startDNS(t), signers: map[string]*mailauth.Signer{}}
	s.desk, s.world = startHop(t), startHop(t)
	outside := httptest.NewServer(s.people)
	t.Cleanup(outside.Close)
	opening.Lock()
	defer opening.Unlock()
	s.dir = t.TempDir()
	if strings.Contains(config, "DKIMKEY") {
		s.makeKey()
	}
	places := strings.NewReplacer("DIRECTORY", outside.URL+"/people?email={address}", "DIR", s.dir, "NAMESERVER", s.dns.address, "DESK", s.desk.url, "WORLD", s.world.url,
		"DKIMKEY", s.keyFile())
	text, err := mergeYAML(places.Replace(sceneConfig), places.Replace(config))
	if err == nil {
		err = os.WriteFile(s.configFile(), text, 0o600)
	}
	if err == nil {
		s.cfg, err = loadConfig(s.configFile(), nil)
	}
	if err != nil {
		t.Fatal("the configuration: ", strings.ReplaceAll(err.Error(), s.dir+"/", ""))
	}
	s.settings = settings(s.cfg)
	s.open()
	return s
}

func (s *stage) configFile() string { return filepath.Join(s.dir, "casegate.yaml") }

// open runs the daemon, as serve does but for the clock.
func (s *stage) open() {
	s.t.Helper()
	log := slog.New(slog.NewTextHandler(&s.log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if err := os.Mkdir(s.cfg.DataDir, 0o700); err != nil {
		s.t.Fatal(err)
	}
	st, err := bolt.Open(s.cfg.store(), bolt.Options{Transform: message.Apply, Logger: log, Now: s.clock.now})
	if err != nil {
		s.t.Fatal(err)
	}
	s.daemon = &daemon{cfg: s.cfg, store: st, now: s.clock.now, log: log}
	if err := s.daemon.build(); err != nil {
		s.daemon.release()
		s.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	up, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- s.daemon.run(ctx, func() { close(up) }) }()
	select {
	case <-up:
	case err := <-done:
		s.t.Fatal(err)
	}
	s.api = socketClient(s.cfg.socket())
	s.t.Cleanup(func() {
		s.api.close()
		stop()
		if err := <-done; err != nil {
			s.t.Error("the daemon stopped with", err)
		}
		if s.t.Failed() && s.log.String() != "" {
			s.t.Logf("the daemon's log:\n%s", s.log.String())
		}
	})
}

// mergeYAML lays one mapping over another. Listeners and mailboxes are matched
// by name and address; any other list is replaced.
func mergeYAML(base, over string) ([]byte, error) {
	var a, b map[string]any
	if err := yaml.Unmarshal([]byte(base), &a); err != nil {
		return nil, err
	}
	if err := yaml.Unmarshal([]byte(over), &b); err != nil {
		return nil, err
	}
	return yaml.Marshal(overlay(a, b))
}

func overlay(a, b any) any {
	if under, ok := a.(map[string]any); ok {
		over, ok := b.(map[string]any)
		if !ok {
			return b
		}
		out := maps.Clone(under)
		for key, value := range over {
			out[key] = overlay(under[key], value)
		}
		return out
	}
	under, isList := a.([]any)
	over, isToo := b.([]any)
	if !isList || !isToo {
		return b
	}
	out := slices.Clone(under)
	for _, item := range over {
		i := slices.IndexFunc(under, func(u any) bool { return sameItem(u, item) })
		if i < 0 {
			out = append(out, item)
			continue
		}
		out[i] = overlay(out[i], item)
	}
	if len(over) > 0 && itemKey(over[0]) == nil {
		return b
	}
	return out
}

func sameItem(a, b any) bool { return itemKey(a) != nil && reflect.DeepEqual(itemKey(a), itemKey(b)) }

func itemKey(item any) any {
	m, _ := item.(map[string]any)
	if name, ok := m["name"]; ok {
		return name
	}
	return m["address"]
}

// sceneClock goes on with the real time, and as far ahead as the scene says.
type sceneClock struct{ ahead atomic.Int64 }

func (c *sceneClock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// outsideDirectory is the CRM's directory of contacts, as directory.url asks it.
type outsideDirectory struct {
	mu    sync.Mutex
	out   bool
	known []map[string]any
}

func (o *outsideDirectory) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.out {
		http.Error(w, "out of order", http.StatusServiceUnavailable)
		return
	}
	found := []map[string]any{}
	for _, who := range o.known {
		if slices.ContainsFunc(who["email_addresses"].([]string), func(a string) bool { return store.Key(a) == store.Key(r.FormValue("email")) }) {
			found = append(found, who)
		}
	}
	if len(found) == 0 {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"contacts": found})
}

// get reads a record by the API.
func (s *stage) get(into any, path string, q url.Values) error {
	text, err := s.api.get(context.Background(), path, q)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// casegate runs a command of the program in this process.
func (s *stage) casegate(args ...string) error {
	var said bytes.Buffer
	p := newProgram()
	p.in, p.out, p.err, p.environ, p.zone = strings.NewReader(""), &said, &said, nil, time.UTC
	if code := p.run(context.Background(), append(args, "--config", s.configFile())); code != exitOK {
		return fmt.Errorf("casegate %s: exit code %d: %s", strings.Join(args, " "), code, strings.TrimSpace(said.String()))
	}
	return nil
}

// view reads the store beside the API, for what the API doesn't tell.
func (s *stage) view(fn func(store.Reader) error) error {
	return s.daemon.store.View(context.Background(), fn)
}

// settle waits until the outbox has nothing left that is due, and gathers what
// the next hops got.
func (s *stage) settle() error {
	late := time.Now().Add(10 * time.Second)
	for {
		var open []store.Delivery
		err := s.view(func(r store.Reader) error {
			rows, _, err := r.Deliveries(store.DeliveryFilter{State: store.Queued}, store.Page{Limit: 500})
			open = nil
			for _, d := range rows {
				if len(d.Attempts) == 0 || !d.Due.After(s.clock.now()) {
					open = append(open, d)
				}
			}
			return err
		})
		if err != nil {
			return err
		}
		if len(open) == 0 {
			break
		}
		if time.Now().After(late) {
			return fmt.Errorf("the outbox does not empty: %+v", open)
		}
		time.Sleep(time.Millisecond)
	}
	s.atDesk, s.inWorld = append(s.atDesk, s.gather(s.desk)...), append(s.inWorld, s.gather(s.world)...)
	return nil
}

// gather takes what came at a next hop.
func (s *stage) gather(h *nextHop) []arrived {
	h.mu.Lock()
	got := h.got
	h.got = nil
	h.mu.Unlock()
	s.mailed = append(s.mailed, got...)
	if n := len(s.mails); n > 0 {
		s.mails[n-1].copies = append(s.mails[n-1].copies, got...)
	}
	return got
}

// turn ends what was told of the last When. What the world got must have been
// told; what the desk got may be passed over.
func (s *stage) turn() error {
	defer func() { s.atDesk, s.inWorld = nil, nil }()
	if err := s.settle(); err != nil {
		return err
	}
	for _, m := range s.inWorld {
		return wrongf("the world got a mail that the scene does not tell of, for %s:\n%s", strings.Join(m.to, ", "), m.raw)
	}
	return nil
}

// end looks at what is true after every scene: nothing left that nobody told
// of, every mail is archived byte for byte, and the store proves itself.
func (s *stage) end() error {
	if err := s.turn(); err != nil {
		return err
	}
	for i, m := range s.mails {
		if m.id == "" || m.repeats {
			continue
		}
		got, err := s.export(m.id, url.Values{"as": {"received"}, "bcc": {"true"}})
		if err != nil {
			return err
		}
		if !bytes.Equal(got, m.eml) {
			return fmt.Errorf("mail %d as received is not what was sent:\n%s\nsent:\n%s", i+1, got, m.eml)
		}
		if len(m.copies) > 0 && bytes.Contains(m.copies[0].raw, []byte(m.id)) {
			if got, err = s.export(m.id, url.Values{"as": {"sent"}}); err != nil || !bytes.Equal(got, m.copies[0].raw) {
				return fmt.Errorf("mail %d as sent is not what the next hop got (%v):\n%s\nwire:\n%s", i+1, err, got, m.copies[0].raw)
			}
		}
	}
	var v struct {
		Findings []any
		Error    string
	}
	if err := s.get(&v, "/verify", nil); err != nil || len(v.Findings) > 0 || v.Error != "" {
		return fmt.Errorf("verify: %v %s %v", v.Findings, v.Error, err)
	}
	return nil
}

func (s *stage) export(id string, q url.Values) ([]byte, error) {
	resp, err := s.api.do(context.Background(), http.MethodGet, "/messages/"+id+"/eml", q, "", nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}
