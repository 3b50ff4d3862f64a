package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// tokens asks an OAuth server for access tokens, with our own credentials (RFC
// 6749 §4.4), and keeps the last one while it lasts.
type tokens struct {
	Auth
	http *http.Client

	mu    sync.Mutex
	token string
	until time.Time
}

func newTokens(a Auth) (*tokens, error) {
	u, err := url.Parse(a.TokenURL)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && !(u.Scheme == "http" && loopbackHost(u.Hostname())) {
		return nil, errors.New("the token URL must be https://host/path: our secret goes there")
	}
	if a.ClientID == "" || a.SecretFile == "" {
		return nil, errors.New("a token URL needs a client id and a secret file")
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // the secret goes nowhere else
	return &tokens{Auth: a, http: &http.Client{Timeout: 30 * time.Second, CheckRedirect: stay}}, nil
}

func loopbackHost(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// get returns a token other than the one that was refused.
func (t *tokens) get(ctx context.Context, refused string) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.token != "" && t.token != refused && time.Now().Before(t.until) {
		return t.token, nil
	}
	token, lasts, err := t.fetch(ctx)
	if err != nil {
		return "", fmt.Errorf("asking for a token: %w", err)
	}
	t.token, t.until = token, time.Now().Add(lasts)
	return token, nil
}

// fetch asks for a token. Nothing of the answer but an error's code is told on.
func (t *tokens) fetch(ctx context.Context) (token string, lasts time.Duration, err error) {
	secret, err := readSecret(t.SecretFile)
	if err != nil {
		return "", 0, err
	}
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {t.ClientID}, "client_secret": {secret}}
	if t.Scope != "" {
		form.Set("scope", t.Scope)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.TokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return "", 0, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	resp, err := t.http.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	var said struct {
		Token   string `json:"access_token"`
		Type    string `json:"token_type"`
		Expires int64  `json:"expires_in"`
		Error   string `json:"error"`
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&said)
	switch {
	case resp.StatusCode != http.StatusOK:
		return "", 0, fmt.Errorf("the answer is %d %s", resp.StatusCode, clean([]byte(said.Error[:min(len(said.Error), 80)])))
	case err != nil:
		return "", 0, errors.New("the answer cannot be read")
	case said.Token == "" || !printable(said.Token) || !strings.EqualFold(said.Type, "bearer"):
		return "", 0, errors.New("the answer has no bearer token")
	}
	return said.Token, t.lasts(said.Expires), nil
}

// lasts is for how long a token is used: a little less than it is good for.
func (t *tokens) lasts(seconds int64) time.Duration {
	d := time.Duration(min(max(seconds, 0), 24*3600)) * time.Second
	if d == 0 {
		d = 5 * time.Minute // it didn't say
	}
	return d - min(d/5, time.Minute)
}
