package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casegate/casegate/store"
)

// Problem is an error as the API tells it (RFC 9457), and what to do about it.
type Problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail" doc:"what is wrong, naming the value"`
	Hint   string `json:"hint,omitempty" doc:"what to do about it"`
}

func (p *Problem) Error() string { return p.Detail }

// GetStatus and ContentType are how huma asks.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is the media type of RFC 9457.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

func problem(status int, hint, format string, args ...any) *Problem {
	return &Problem{Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...), Hint: hint}
}

// Invalid is the error for a request that cannot be meant as it is: 422.
func Invalid(hint, format string, args ...any) error {
	return problem(http.StatusUnprocessableEntity, hint, format, args...)
}

// problemOf is the one place where an error becomes a status code.
func problemOf(err error) *Problem {
	var p *Problem
	text := err.Error()
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, store.ErrNotFound):
		return problem(http.StatusNotFound, "", "%s", text)
	case errors.Is(err, store.ErrFull):
		return problem(http.StatusInsufficientStorage, "make room where data_dir is; nothing was changed", "%s", text)
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrInUse):
		return problem(http.StatusServiceUnavailable, "try again; see the daemon's log", "%s", text)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return problem(http.StatusServiceUnavailable, "try again", "given up: %s", text)
	}
	return problem(http.StatusInternalServerError, "see the daemon's log", "%s", text)
}

func writeProblem(w http.ResponseWriter, p *Problem) {
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}

// ownProblems turns the errors that huma finds by itself (a parameter that is
// no number, a body that is no JSON) into ours.
func ownProblems(_ huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	details := []string{m.Detail}
	for _, e := range m.Errors {
		if e != nil {
			details = append(details, strings.TrimSpace(e.Location+" "+e.Message))
		}
	}
	return problem(m.Status, "see /openapi.json", "%s", strings.Join(details, "; ")), nil
}
