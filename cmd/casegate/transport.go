package main

import (
	"errors"
	"io"
	"net/http"
)

// inProcess is an http.RoundTripper that asks a handler in this process: the
// command line speaks the API with no daemon running as it does with one.
type inProcess struct{ handler http.Handler }

// RoundTrip runs the handler and returns as soon as the header is written; the
// body streams.
func (t inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	body, w := io.Pipe()
	answer := &answer{header: http.Header{}, body: w, begun: make(chan struct{})}
	in := r.Clone(r.Context())
	in.RequestURI, in.Host = r.URL.RequestURI(), r.URL.Host
	if in.Body == nil {
		in.Body = http.NoBody
	}
	go func() {
		defer func() {
			err := io.EOF
			if recovered := recover(); recovered != nil {
				if recovered != http.ErrAbortHandler {
					panic(recovered)
				}
				err = io.ErrUnexpectedEOF
			}
			answer.WriteHeader(http.StatusOK)
			w.CloseWithError(err)
			in.Body.Close()
		}()
		t.handler.ServeHTTP(answer, in)
	}()
	select {
	case <-answer.begun:
		return answer.response(r, body), nil
	case <-r.Context().Done():
		body.CloseWithError(r.Context().Err())
		return nil, errors.Join(r.Context().Err(), errors.New("given up"))
	}
}

// answer is the http.ResponseWriter of one call. Only the handler's goroutine
// writes it; begun hands status and header over.
type answer struct {
	header http.Header
	status int
	begun  chan struct{}
	body   *io.PipeWriter
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status != 0 {
		return
	}
	a.status = status
	close(a.begun)
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

// Flush has nothing to do: the pipe holds nothing back.
func (a *answer) Flush() {}

func (a *answer) response(r *http.Request, body io.ReadCloser) *http.Response {
	return &http.Response{
		Status: http.StatusText(a.status), StatusCode: a.status, Header: a.header.Clone(), Body: body,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: -1, Request: r,
	}
}
