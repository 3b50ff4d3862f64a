package console

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casegate/casegate/store"
)

// Verification is what verify answers, streamed: each finding as it is made,
// the counts at the end. Error says why it stopped before its end.
type Verification struct {
	Findings []store.Finding `json:"findings"`
	Counts   store.Counts    `json:"counts"`
	Error    string          `json:"error,omitempty"`
}

func (a *api) verifyRoute(h huma.API) {
	op := get("verify", "/verify", "Read everything and report each broken promise", 403)
	registry := h.OpenAPI().Components.Schemas
	op.Responses = map[string]*huma.Response{"200": {
		Description: "OK", Content: map[string]*huma.MediaType{"application/json": {Schema: registry.Schema(reflect.TypeFor[Verification](), true, "")}},
	}}
	handle(h, op, func(ctx context.Context, _ *struct{}) (*huma.StreamResponse, error) {
		if a.Access < Operator { // it reads the whole store
			return nil, problem(http.StatusForbidden, "ask on the gateway itself, with the casegate command", "verify may be run over the local socket only")
		}
		return &huma.StreamResponse{Body: func(hctx huma.Context) {
			hctx.SetHeader("Content-Type", "application/json")
			a.verify(hctx.Context(), hctx.BodyWriter())
		}}, nil
	})
}

// verify runs the store's own check and writes a Verification as it goes. The
// check never waits for the reader: it may hold a snapshot open.
func (a *api) verify(ctx context.Context, w io.Writer) {
	found := newPile[store.Finding]()
	var counts store.Counts
	var err error
	go func() {
		defer found.end()
		counts, err = a.Store.Verify(ctx, found.add)
	}()
	out := json.NewEncoder(w)
	io.WriteString(w, `{"findings":[`)
	flush(w)
	for i := 0; ; i++ {
		f, ok := found.take()
		if !ok {
			break
		}
		if i > 0 {
			io.WriteString(w, ",")
		}
		out.Encode(f)
		flush(w)
	}
	io.WriteString(w, `],"counts":`)
	out.Encode(counts)
	if err != nil {
		io.WriteString(w, `,"error":`)
		out.Encode(err.Error())
	}
	io.WriteString(w, "}\n")
}

func flush(w io.Writer) {
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
}

// pile hands values from one goroutine to another without ever making the
// first one wait.
type pile[T any] struct {
	mu    sync.Mutex
	more  sync.Cond
	list  []T
	ended bool
}

func newPile[T any]() *pile[T] {
	p := &pile[T]{}
	p.more.L = &p.mu
	return p
}

func (p *pile[T]) add(v T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = append(p.list, v)
	p.more.Signal()
}

func (p *pile[T]) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.more.Signal()
}

// take waits for the next value; false is the end.
func (p *pile[T]) take() (v T, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.list) == 0 && !p.ended {
		p.more.Wait()
	}
	if len(p.list) == 0 {
		return v, false
	}
	v, p.list = p.list[0], p.list[1:]
	return v, true
}
