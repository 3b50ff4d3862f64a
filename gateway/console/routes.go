package console

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/casegate/casegate/store"
)

// prefix of every path of this version of the API.
const prefix = "/api/v1"

// maxPage is the most rows a list returns at once.
const maxPage = 500

// register mounts the API and its description.
func (a *api) register(mux *http.ServeMux) {
	h := humago.New(mux, huma.Config{
		OpenAPI: &huma.OpenAPI{Info: &huma.Info{
			Title: "casegate", Version: a.version(),
			Description: "Cases, people, mail and the outbox of one gateway. Lists page by the Link header.",
		}},
		Formats:                      huma.DefaultFormats,
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{ownProblems},
	})
	a.caseRoutes(h)
	a.actRoutes(h)
	a.peopleRoutes(h)
	a.importRoute(h)
	a.accessRoutes(h)
	a.messageRoutes(h)
	a.unresolvedRoute(h)
	a.assignRoute(h)
	a.queueRoutes(h)
	a.keyRoutes(h)
	a.explainRoutes(h)
	a.replayRoute(h)
	a.verifyRoute(h)
	describe := sync.OnceValues(func() ([]byte, error) { return description(h.OpenAPI()) })
	mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		text, err := describe()
		if err != nil {
			writeProblem(w, problemOf(err))
			return
		}
		w.Header().Set("Content-Type", "application/openapi+json")
		w.Write(text)
	})
}

func (a *api) version() string {
	if a.Version == "" {
		return "devel"
	}
	return a.Version
}

// description is openapi.json: huma's, with the hint of our problems in it.
func description(o *huma.OpenAPI) ([]byte, error) {
	if model, ok := o.Components.Schemas.Map()["ErrorModel"]; ok {
		model.Properties["hint"] = &huma.Schema{Type: huma.TypeString, Description: "what to do about it"}
		delete(model.Properties, "errors")
	}
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = json.Indent(&out, text, "", "  ")
	return out.Bytes(), err
}

// handle mounts one operation; its errors become problems.
func handle[I, O any](h huma.API, op huma.Operation, fn func(context.Context, *I) (*O, error)) {
	op.Path = prefix + op.Path
	huma.Register(h, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := fn(ctx, in)
		if err != nil {
			return nil, problemOf(err)
		}
		return out, nil
	})
}

// get describes a reading operation.
func get(id, path, summary string, failures ...int) huma.Operation {
	return huma.Operation{OperationID: id, Method: http.MethodGet, Path: path, Summary: summary, Errors: failures}
}

// post describes an operation that makes a record.
func post(id, path, summary string, failures ...int) huma.Operation {
	return huma.Operation{OperationID: id, Method: http.MethodPost, Path: path, Summary: summary, Errors: failures, DefaultStatus: http.StatusCreated}
}

// act describes an operation that changes what is there.
func act(id, path, summary string, failures ...int) huma.Operation {
	return huma.Operation{OperationID: id, Method: http.MethodPost, Path: path, Summary: summary, Errors: failures}
}

// Paging is how every list is asked for its next rows.
type Paging struct {
	After string `query:"after" doc:"where to go on: the cursor of the Link header"`
	Limit int    `query:"limit" minimum:"1" maximum:"500" default:"50" doc:"rows at most"`
	at    url.URL
}

// Resolve remembers the address asked, for the Link header.
func (p *Paging) Resolve(ctx huma.Context) []error {
	p.at = ctx.URL()
	return nil
}

func (p *Paging) page() store.Page { return store.Page{After: store.Cursor(p.After), Limit: p.Limit} }

// list is the answer to a list: an array, and a Link to the next page.
type list[T any] struct {
	Link string `header:"Link" doc:"the next page, rel=next; none at the end"`
	Body []T
}

// listed answers with rows and the way to those behind next.
func listed[T any](p *Paging, rows []T, next store.Cursor) *list[T] {
	if rows == nil {
		rows = []T{}
	}
	out := &list[T]{Body: rows}
	if next != "" {
		q := p.at.Query()
		q.Set("after", string(next))
		q.Set("limit", strconv.Itoa(p.Limit))
		out.Link = "<" + p.at.Path + "?" + q.Encode() + `>; rel="next"`
	}
	return out
}

// one is the answer with a single record.
type one[T any] struct{ Body T }

// now is the time of a change, to the second, so that a mail of the same
// second finds what was there before it.
func (a *api) now() time.Time { return a.Now().UTC().Truncate(time.Second) }
