package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/casegate/casegate/gateway/console"
	"github.com/casegate/casegate/store"
)

// client speaks the API: to a running daemon over its socket, or else to the
// same handler in this process, on a store it opened itself.
type client struct {
	http  *http.Client
	user  string // who types, for the audit row of what he changes
	close func() error
}

// needs says what a command asks of a store that no daemon has open.
type needs bool

const (
	anyStore      needs = false // makes one if there is none
	existingStore needs = true  // would only find an empty one
)

// with runs fn with a client.
func (p *program) with(ctx context.Context, n needs, fn func(*client) error) error {
	cfg, err := p.config()
	if err != nil {
		return err
	}
	c, err := p.connect(ctx, cfg, n)
	if err != nil {
		return err
	}
	c.user = osUser()
	return errors.Join(fn(c), c.close())
}

func (p *program) connect(ctx context.Context, cfg *Config, n needs) (*client, error) {
	c := socketClient(cfg.socket())
	err := c.alive(ctx, cfg.socket(), p.patience)
	if err == nil || !errors.Is(err, errNoDaemon) {
		return c, err
	}
	if _, err := os.Stat(cfg.store()); n == existingStore && errors.Is(err, fs.ErrNotExist) {
		return nil, hint("start casegate serve (or demo) to make one, or set data_dir to where yours is", "there is no store in %s", cfg.DataDir)
	}
	st, err := p.openStore(cfg, p.logger(cfg))
	switch {
	case errors.Is(err, store.ErrInUse):
		return nil, hint("another casegate has it open and does not answer on "+cfg.socket()+"; stop it, or wait until it has", "opening %s: %w", cfg.store(), err)
	case err != nil:
		return nil, fmt.Errorf("opening %s: %w", cfg.store(), err)
	}
	handler := console.New(p.service(cfg, st), console.Options{Access: console.Operator, Version: version})
	return &client{http: &http.Client{Transport: inProcess{handler}}, close: st.Close}, nil
}

// osUser is the name that the system has for who runs us, if it has one.
func osUser() string {
	u, err := user.Current()
	if err != nil {
		return ""
	}
	return u.Username
}

// socketClient reaches a daemon by its socket.
func socketClient(path string) *client {
	transport := &http.Transport{
		DialContext:           func(context.Context, string, string) (net.Conn, error) { return dialSocket(path) },
		ResponseHeaderTimeout: time.Minute,
	}
	return &client{
		http:  &http.Client{Transport: transport},
		close: func() error { transport.CloseIdleConnections(); return nil },
	}
}

// alive asks whether a daemon answers; errNoDaemon if nobody listens.
func (c *client) alive(ctx context.Context, path string, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://casegate/healthz", nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(r)
	var told hinted
	switch {
	case errors.Is(err, errNoDaemon):
		return errNoDaemon
	case errors.As(err, &told):
		return told
	case err != nil:
		return hint("see its log; if it hangs, stop it", "the daemon on %s does not answer", path)
	}
	resp.Body.Close()
	return nil
}

// do sends one request; an answer that is no success becomes an error.
func (c *client) do(ctx context.Context, method, path string, q url.Values, mediaType string, body io.Reader) (*http.Response, error) {
	target := url.URL{Scheme: "http", Host: "casegate", Path: "/api/v1" + path, RawQuery: q.Encode()}
	r, err := http.NewRequestWithContext(ctx, method, target.String(), body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		r.Header.Set("Content-Type", mediaType)
	}
	r.Header.Set(console.UserHeader, c.user)
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, hint("the daemon may be stopping; try again", "asking the daemon: %w", errors.Unwrap(err))
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, refusal(resp)
}

// refusal reads the problem that an answer tells.
func refusal(resp *http.Response) error {
	var p console.Problem
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err := json.Unmarshal(text, &p); err != nil || p.Detail == "" {
		return fmt.Errorf("the daemon answered %s", resp.Status)
	}
	return hinted{errors.New(p.Detail), p.Hint}
}

// get reads one record as the API tells it.
func (c *client) get(ctx context.Context, path string, q url.Values) (json.RawMessage, error) {
	return whole(c.do(ctx, http.MethodGet, path, q, "", nil))
}

// add makes one record, or does one act; nil needs no words.
func (c *client) add(ctx context.Context, path string, record any) (json.RawMessage, error) {
	if record == nil {
		return whole(c.do(ctx, http.MethodPost, path, nil, "", nil))
	}
	text, err := json.Marshal(record)
	if err != nil {
		return nil, err
	}
	return whole(c.do(ctx, http.MethodPost, path, nil, "application/json", bytes.NewReader(text)))
}

func whole(resp *http.Response, err error) (json.RawMessage, error) {
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// list reads a list page by page, up to limit rows; 0 is all of them.
func (c *client) list(ctx context.Context, path string, q url.Values, limit int, each func([]json.RawMessage) error) error {
	for left := limit; ; {
		page := 500
		if limit > 0 {
			page = min(page, left)
		}
		q.Set("limit", fmt.Sprint(page))
		resp, err := c.do(ctx, http.MethodGet, path, q, "", nil)
		if err != nil {
			return err
		}
		next := nextPage(resp.Header.Get("Link"))
		text, err := whole(resp, nil)
		var rows []json.RawMessage
		if err == nil {
			err = json.Unmarshal(text, &rows)
		}
		if limit > 0 && len(rows) > left { // a page of messages may have more rows
			rows = rows[:left]
		}
		if err == nil {
			err = each(rows)
		}
		left -= len(rows)
		if err != nil || next == "" || limit > 0 && left <= 0 {
			return err
		}
		q.Set("after", next)
	}
}

// nextPage takes the cursor out of a Link header.
func nextPage(link string) string {
	target, _, ok := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	if !ok {
		return ""
	}
	u, err := url.Parse(target)
	if err != nil {
		return ""
	}
	return u.Query().Get("after")
}
