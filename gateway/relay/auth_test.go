package relay

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/casegate/casegate/gateway/testbed"
	"github.com/casegate/casegate/store"
)

func secretFile(t *testing.T, text string) string {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// login is the server's side of LOGIN.
type login struct {
	n    int
	user string
	try  func(user, password string) error
}

func (l *login) Next(response []byte) ([]byte, bool, error) {
	l.n++
	switch l.n {
	case 1:
		return []byte("Username:"), false, nil
	case 2:
		l.user = string(response)
		return []byte("Password:"), false, nil
	}
	return nil, true, l.try(l.user, string(response))
}

// xoauth2 is the server's side of XOAUTH2.
type xoauth2 struct {
	n   int
	try func(user, token string) error
	err error
}

func (x *xoauth2) Next(response []byte) ([]byte, bool, error) {
	if x.n++; x.n == 1 && response == nil {
		return []byte{}, false, nil
	}
	if x.err != nil {
		return nil, true, x.err
	}
	var user, token string
	for part := range strings.SplitSeq(string(response), "\x01") {
		if u, ok := strings.CutPrefix(part, "user="); ok {
			user = u
		}
		if t, ok := strings.CutPrefix(part, "auth=Bearer "); ok {
			token = t
		}
	}
	if x.err = x.try(user, token); x.err != nil {
		return []byte(`{"status":"401"}`), false, nil
	}
	return nil, true, nil
}

// securedSink has TLS and wants a login.
func securedSink(t *testing.T, auth map[string]func() sasl.Server) (*sink, Route) {
	ca := testbed.NewAuthority(t)
	s := newSink(t, "smtp", func(srv *smtp.Server) { srv.TLSConfig = ca.Issue(nil).Server() })
	s.auth = auth
	return s, Route{NextHop: s.nextHop, TLS: TLSVerify, TLSCA: ca.File}
}

func TestSignInWithPassword(t *testing.T) {
	try := func(user, password string) error {
		if user != "kim@city.example" || password != "hunter2 " {
			return errors.New("no")
		}
		return nil
	}
	plain := func() sasl.Server {
		return sasl.NewPlainServer(func(_, user, password string) error { return try(user, password) })
	}
	log := func() sasl.Server { return &login{try: try} }
	for _, c := range []struct {
		name, password string
		auth           map[string]func() sasl.Server
		reply          string
	}{
		{"PLAIN", "hunter2 \nx", map[string]func() sasl.Server{"PLAIN": plain, "LOGIN": log}, "250 2.0.0 OK: queued"},
		{"LOGIN", "hunter2 \r\n", map[string]func() sasl.Server{"LOGIN": log}, "250 2.0.0 OK: queued"},
		{"wrong", "hunter3", map[string]func() sasl.Server{"PLAIN": plain}, "4.7.0 signing in with PLAIN: 454 4.7.0 no"},
		{"unknown mechanism", "hunter2 ", map[string]func() sasl.Server{"CRAM-MD5": plain}, "4.7.0 signing in: the next hop offers none of PLAIN, LOGIN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, rt := securedSink(t, c.auth)
			rt.Auth = &Auth{User: "kim@city.example", PasswordFile: secretFile(t, c.password)}
			d := tried(t, rt)
			if a := d.Attempts[0]; a.Reply != c.reply || (d.State == store.Delivered) != strings.HasPrefix(c.reply, "250") {
				t.Errorf("%+v, %v", d, s.from)
			}
		})
	}
}

// TestSignInWithToken: the token is asked for once, kept, and asked for anew
// when it is refused; once, not for ever.
func TestSignInWithToken(t *testing.T) {
	for _, mech := range []string{"XOAUTH2", "OAUTHBEARER"} {
		t.Run(mech, func(t *testing.T) {
			var asked, good atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.ParseForm()
				if r.Form.Get("grant_type") != "client_credentials" || r.Form.Get("client_id") != "app" || r.Form.Get("client_secret") != "s3cret" || r.Form.Get("scope") != "smtp" {
					http.Error(w, `{"error":"invalid_client"}`, http.StatusUnauthorized)
					return
				}
				fmt.Fprintf(w, `{"access_token":"token-%d","token_type":"Bearer","expires_in":3600}`, asked.Add(1))
			}))
			defer server.Close()
			good.Store(1)
			try := func(user, token string) error {
				if user != "kim@city.example" || token != fmt.Sprintf("token-%d", good.Load()) {
					return &smtp.SMTPError{Code: 535, EnhancedCode: smtp.EnhancedCode{5, 7, 8}, Message: "expired"}
				}
				return nil
			}
			_, rt := securedSink(t, map[string]func() sasl.Server{mech: func() sasl.Server {
				if mech == "XOAUTH2" {
					return &xoauth2{try: try}
				}
				return sasl.NewOAuthBearerServer(func(o sasl.OAuthBearerOptions) *sasl.OAuthBearerError {
					if try(o.Username, o.Token) != nil {
						return &sasl.OAuthBearerError{Status: "invalid_token"}
					}
					return nil
				})
			}})
			rt.Auth = &Auth{User: "kim@city.example", TokenURL: server.URL, ClientID: "app", SecretFile: secretFile(t, "s3cret\n"), Scope: "smtp"}
			rt.Role = "outbound"
			m := newMemory()
			r, stop := run(t, m, Options{Routes: []Route{rt}, PerConnection: 1})
			defer stop()
			send := func() store.Delivery {
				id := m.add(eml, time.Now(), "ana@x.example")
				r.Wake()
				testbed.Until(t, "it is tried", func() bool { return len(m.get(id).Attempts) > 0 })
				return m.get(id)
			}
			for range 3 {
				if d := send(); d.State != store.Delivered {
					t.Fatalf("%+v", d)
				}
			}
			if asked.Load() != 1 {
				t.Errorf("asked %d times", asked.Load())
			}
			good.Store(2) // the first was withdrawn
			if d := send(); d.State != store.Delivered || asked.Load() != 2 {
				t.Errorf("asked %d times: %+v", asked.Load(), d)
			}
			good.Store(99)
			d := send()
			if d.State != store.Queued || asked.Load() != 3 {
				t.Errorf("asked %d times: %+v", asked.Load(), d)
			}
			if strings.Contains(d.Attempts[0].Reply, "token-") || strings.Contains(d.Attempts[0].Reply, base64.StdEncoding.EncodeToString([]byte("s3cret"))) {
				t.Error("it tells a secret: " + d.Attempts[0].Reply)
			}
		})
	}
}

// TestNoCredentialsInTheClear: whatever the route says.
func TestNoCredentialsInTheClear(t *testing.T) {
	c := &conn{ext: extensions{auth: []string{"PLAIN"}}}
	if err := c.signIn(t.Context(), &credentials{Auth: Auth{User: "kim"}}); err == nil || err.Error() != "signing in: not without TLS" {
		t.Error(err)
	}
}
