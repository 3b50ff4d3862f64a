// Package console is the API (JSON, OpenAPI) and later the agents' pages.
//
// The command line, a running daemon's socket and the HTTP port all speak to
// the one handler that New returns. A handler decodes, calls the store, and
// encodes; problemOf is the one place where an error becomes a status code, and
// veil the one place that keeps Bcc from those without the right to see it.
package console

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/casegate/casegate/store"
)

// Service is what the API works on.
type Service struct {
	Store store.Store
	// Explain says what a mail would be decided to be, writing nothing; nil
	// answers 501.
	Explain func(context.Context, ExplainRequest) (Explanation, error)
	// Assign puts a message of the exceptions list on a case; nil answers 501.
	Assign func(context.Context, AssignRequest) (Assigned, error)
	// Replay says what another configuration would decide; nil answers 501.
	Replay func(ReplayRequest) (func(context.Context, func(ReplayLine) error) error, error)
	// HashPassword is how passwords are kept; nil answers 501.
	HashPassword func(string) (string, error)
	// Transform derives a sent body from an archived one by the transforms
	// noted with the message; nil answers 501 where it is needed.
	Transform func(body io.Reader, transforms []string) io.Reader
	// Ready says what keeps the daemon from taking mail; nil asks the store.
	Ready func(context.Context) error
}

// Access says who is on the other side of a transport.
type Access int

const (
	// Nobody sees the health pages and is answered 401 elsewhere.
	Nobody Access = iota
	// Reader may read all but Bcc, and change nothing.
	Reader
	// Operator may do everything: the UNIX socket of mode 0600, or the command
	// line with the store open.
	Operator
)

// Options of a handler; one service may have several, one for each transport.
type Options struct {
	Access Access
	// Hosts are the names under which the handler may be addressed, besides
	// loopback's, so that no page from elsewhere can pass for ours (DNS
	// rebinding). Not asked of an Operator.
	Hosts []string
	// By names who acts, for the audit row of a change. nil is who the caller
	// says he is, in the field UserHeader: whoever may use the socket, or has
	// the store open, could write any name into it by himself.
	By      func(*http.Request) string
	Metrics http.Handler // answers /metrics; nil: there is no such page
	Version string
	Now     func() time.Time // time.Now
	Logger  *slog.Logger     // discards
}

// api is what the handlers share.
type api struct {
	Service
	Options
}

// New returns the handler of /api/v1, /openapi.json, /metrics, /healthz and
// /readyz.
func New(svc Service, opts Options) http.Handler {
	a := &api{svc, opts}
	if a.Now == nil {
		a.Now = time.Now
	}
	if a.Logger == nil {
		a.Logger = slog.New(slog.DiscardHandler)
	}
	if a.By == nil {
		a.By = saidBy
	}
	mux := http.NewServeMux()
	a.register(mux)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", a.ready)
	if a.Metrics != nil {
		mux.Handle("GET /metrics", a.Metrics)
	}
	return a.guard(http.NewCrossOriginProtection().Handler(known(mux)))
}

// ready answers 200 when mail can be taken, else 503 and why.
func (a *api) ready(w http.ResponseWriter, r *http.Request) {
	ask := a.Ready
	if ask == nil {
		ask = func(ctx context.Context) error {
			return a.Store.View(ctx, func(rd store.Reader) error { _, err := rd.Installation(); return err })
		}
	}
	if err := ask(r.Context()); err != nil {
		a.Logger.Warn("not ready", "error", err)
		writeProblem(w, problem(http.StatusServiceUnavailable, "see the daemon's log", "not ready: %v", err))
		return
	}
	io.WriteString(w, "ready\n")
}

// guard asks for the right to be here before anything is looked up, so that a
// stranger learns nothing from a 404.
func (a *api) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		reads := r.Method == http.MethodGet || r.Method == http.MethodHead
		health := r.URL.Path == "/healthz" || r.URL.Path == "/readyz" || r.URL.Path == "/metrics" && fromHere(r)
		switch {
		case a.Access < Operator && !a.expects(r.Host):
			writeProblem(w, problem(http.StatusMisdirectedRequest, "use the address the console is configured with", "this is not %q", r.Host))
		case health || a.Access == Operator || a.Access == Reader && reads:
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), actor{}, a.By(r))))
		default:
			writeProblem(w, problem(http.StatusUnauthorized, "use the casegate command on the gateway itself", "signing in is not built yet"))
		}
	})
}

// fromHere reports whether a program on this machine asks by a loopback address;
// one that asks for somebody else, such as a proxy, gives another name.
func fromHere(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && peer.Addr().Unmap().IsLoopback() && isLoopback(r.Host)
}

// isLoopback reports whether a Host header names loopback.
func isLoopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && addr.Unmap().IsLoopback() || strings.EqualFold(host, "localhost")
}

// expects reports whether a Host header names us.
func (a *api) expects(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return isLoopback(host) || slices.ContainsFunc(a.Hosts, func(h string) bool { return strings.EqualFold(h, host) })
}

// known turns the mux's plain 404 and 405 into problems.
func known(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		probe := &statusOnly{header: http.Header{}}
		h.ServeHTTP(probe, r)
		if allow := probe.header.Get("Allow"); allow != "" {
			w.Header().Set("Allow", allow)
			writeProblem(w, problem(http.StatusMethodNotAllowed, "allowed: "+allow, "%s is not for %s", r.URL.Path, r.Method))
			return
		}
		writeProblem(w, problem(http.StatusNotFound, "see /openapi.json for what there is", "no page %s", r.URL.Path))
	})
}

// statusOnly swallows a body.
type statusOnly struct{ header http.Header }

func (s *statusOnly) Header() http.Header         { return s.header }
func (s *statusOnly) Write(p []byte) (int, error) { return len(p), nil }
func (s *statusOnly) WriteHeader(int)             {}
