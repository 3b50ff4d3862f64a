package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/smtp"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/bolt"
)

// TestAgentSignsIn: the agents of the store sign in at a listener of the daemon,
// by any address of theirs; their hashes stay in the store.
func TestAgentSignsIn(t *testing.T) {
	dir := t.TempDir()
	quiet := slog.New(slog.DiscardHandler)
	st, err := bolt.Open(filepath.Join(dir, "casegate.db"), bolt.Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	hash, err := gateway.HashPassword("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	kim := store.Agent{ID: store.NewID(), Name: "Kim Park", EmailAddresses: []string{"kim@city.example", "K.Park@city.example"}, CreatedAt: time.Now(), PasswordHash: hash}
	ann := store.Agent{ID: store.NewID(), Name: "Ann", EmailAddresses: []string{"ann@city.example"}, CreatedAt: time.Now()}
	err = st.Update(context.Background(), func(tx store.Tx) error {
		if err := tx.PutAgent(kim); err != nil {
			return err
		}
		return tx.PutAgent(ann)
	})
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := json.Marshal(kim); strings.Contains(string(text), "argon2") {
		t.Errorf("the hash leaves: %s", text)
	}
	lookup := agentLogins(st)
	for login, want := range map[string]string{"KIM@city.example": "kim@city.example", "k.park@city.example": "K.Park@city.example", "nobody@city.example": "", "": ""} {
		if address, _, err := lookup(context.Background(), login); address != want || err != nil {
			t.Errorf("%q is %q, %v", login, address, err)
		}
	}
	cfg, err := parseConfig("c.yaml", fmt.Appendf(nil, `data_dir: %s
listeners:
  - {name: desk, role: outbound, protocol: smtp, address: 127.0.0.1:0, auth: require, auth_without_tls: true}
console: {address: 127.0.0.1:0}
`, dir), nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDaemon(cfg, st, quiet)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.run(ctx, func() {}) }()
	defer func() { stop(); <-done }()

	at := d.listeners[0].Addr().String()
	host, _, _ := net.SplitHostPort(at)
	for _, x := range []struct {
		login, password string
		ok              bool
	}{{"k.park@city.example", "correct horse", true}, {"kim@city.example", "wrong horse", false}, {"ann@city.example", "", false}} {
		c, err := smtp.Dial(at)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Mail("kim@city.example"); err == nil || !strings.HasPrefix(err.Error(), "530") {
			t.Errorf("without signing in: %v", err)
		}
		if err := c.Auth(smtp.PlainAuth("", x.login, x.password, host)); (err == nil) != x.ok {
			t.Errorf("%s: %v", x.login, err)
		}
		if err := c.Mail("kim@city.example"); (err == nil) != x.ok {
			t.Errorf("%s: MAIL: %v", x.login, err)
		}
		c.Close()
	}
}
