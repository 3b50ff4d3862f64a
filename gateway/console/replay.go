package console

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casegate/casegate/store"
)

// ReplayRequest asks what another configuration would have decided.
type ReplayRequest struct {
	Config []byte    // YAML
	Since  time.Time // of the oldest message; zero: all
}

// ReplayLine is one line of the answer, JSON of its own: what is done so far,
// a message that would be treated otherwise, or why it stopped.
type ReplayLine struct {
	Done   int           `json:"done" doc:"messages looked at so far"`
	Total  int           `json:"total" doc:"messages of the archive"`
	Change *ReplayChange `json:"change,omitempty"`
	Error  string        `json:"error,omitempty"`
}

// ReplayChange is a message that the other configuration treats otherwise.
type ReplayChange struct {
	ID         store.ID       `json:"id"`
	ReceivedAt time.Time      `json:"received_at"`
	Subject    string         `json:"subject"`
	From       string         `json:"from"`
	Before     string         `json:"before" doc:"the outcome by the configuration in force"`
	After      string         `json:"after" doc:"the outcome by the other one"`
	Was        store.Decision `json:"was"`
	Would      store.Decision `json:"would"`
}

func (a *api) replayRoute(h huma.API) {
	op := post("replay", "/replay", "What another configuration would decide about the archive; writes nothing", 403, 422, 501)
	op.DefaultStatus = http.StatusOK
	op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"application/yaml": {Schema: &huma.Schema{Type: huma.TypeString}},
	}}
	registry := h.OpenAPI().Components.Schemas
	op.Responses = map[string]*huma.Response{"200": {
		Description: "OK", Content: map[string]*huma.MediaType{"application/x-ndjson": {Schema: registry.Schema(reflect.TypeFor[ReplayLine](), true, "")}},
	}}
	handle(h, op, a.replay)
}

type replayQuery struct {
	Since   time.Time `query:"since" doc:"leaves out what was received before"`
	RawBody []byte    `contentType:"application/yaml"`
}

func (a *api) replay(ctx context.Context, in *replayQuery) (*huma.StreamResponse, error) {
	if a.Access < Operator { // it reads the whole archive, Bcc decisions included
		return nil, problem(http.StatusForbidden, "ask on the gateway itself, with the casegate command", "replay may be run over the local socket only")
	}
	if a.Replay == nil {
		return nil, problem(501, "", "this program cannot replay the archive")
	}
	run, err := a.Replay(ReplayRequest{Config: in.RawBody, Since: in.Since})
	if err != nil {
		return nil, Invalid("mend the file given with --config", "%s", err)
	}
	return &huma.StreamResponse{Body: func(hctx huma.Context) {
		hctx.SetHeader("Content-Type", "application/x-ndjson")
		w := hctx.BodyWriter()
		if err := run(hctx.Context(), lines(w)); err != nil {
			lines(w)(ReplayLine{Error: err.Error()})
		}
	}}, nil
}

// lines writes each value as one line, at once.
func lines(w io.Writer) func(ReplayLine) error {
	return func(l ReplayLine) error {
		err := json.NewEncoder(w).Encode(l)
		flush(w)
		return err
	}
}
