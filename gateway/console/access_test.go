package console

import (
	"net/http/httptest"
	"strings"
	"testing"
)

// operations lists method and path of everything the description names, and
// one path that is not there.
func operations(t *testing.T, d *desk) map[string]string {
	t.Helper()
	described := read[struct {
		Paths map[string]map[string]any `json:"paths"`
	}](t, d.handler(Operator), "GET", "/openapi.json", "", 200)
	if len(described.Paths) < 25 {
		t.Fatalf("%d paths", len(described.Paths))
	}
	list := map[string]string{"GET /nothing": "GET", "POST /api/v1/cases/x": "POST"}
	for path, methods := range described.Paths {
		for method := range methods {
			list[strings.ToUpper(method)+" "+path] = strings.ToUpper(method)
		}
	}
	return list
}

// TestAccess: nobody learns anything, a reader changes nothing; and both are
// told so before a route is looked up or an argument checked.
func TestAccess(t *testing.T) {
	d := newDesk(t)
	nobody, reader := d.handler(Nobody), d.handler(Reader)
	for op, method := range operations(t, d) {
		path := strings.TrimPrefix(op, method+" ")
		if w := ask(nobody, method, path, "?"); w.Code != 401 {
			t.Errorf("nobody, %s: %d", op, w.Code)
		}
		if w := ask(reader, method, path, "?"); method != "GET" && w.Code != 401 || method == "GET" && w.Code == 401 {
			t.Errorf("reader, %s: %d", op, w.Code)
		}
	}
	if w := ask(reader, "GET", "/api/v1/verify", ""); w.Code != 403 {
		t.Errorf("verify: %d", w.Code)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if w := ask(nobody, "GET", path, ""); w.Code != 200 {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// routes are all there are, and the least access that each asks for.
var routes = map[string]Access{
	"GET /api/v1/access":                       Reader,
	"GET /api/v1/accounts":                     Reader,
	"POST /api/v1/accounts":                    Operator,
	"GET /api/v1/agents":                       Reader,
	"POST /api/v1/agents":                      Operator,
	"DELETE /api/v1/agents/{id}":               Operator,
	"GET /api/v1/cases":                        Reader,
	"GET /api/v1/cases/{number}":               Reader,
	"POST /api/v1/cases/{number}/cancel":       Operator,
	"POST /api/v1/cases/{number}/link":         Operator,
	"POST /api/v1/cases/{number}/merge":        Operator,
	"POST /api/v1/cases/{number}/reopen":       Operator,
	"POST /api/v1/cases/{number}/resolve":      Operator,
	"POST /api/v1/cases/{number}/set-customer": Operator,
	"POST /api/v1/cases/{number}/unflag":       Operator,
	"POST /api/v1/cases/{number}/unlink":       Operator,
	"GET /api/v1/contacts":                     Reader,
	"POST /api/v1/contacts":                    Operator,
	"POST /api/v1/contacts/import":             Operator,
	"GET /api/v1/contacts/{id}/cases":          Reader,
	"GET /api/v1/exceptions":                   Reader,
	"GET /api/v1/exceptions/{id}":              Reader,
	"POST /api/v1/exceptions/{id}/assign":      Operator,
	"POST /api/v1/explain":                     Operator,
	"GET /api/v1/keys":                         Reader,
	"POST /api/v1/keys":                        Operator,
	"POST /api/v1/replay":                      Operator,
	"GET /api/v1/messages":                     Reader,
	"GET /api/v1/messages/{id}":                Reader,
	"GET /api/v1/messages/{id}/eml":            Reader,
	"GET /api/v1/messages/{id}/explain":        Reader,
	"GET /api/v1/queue":                        Reader,
	"GET /api/v1/queue/{id}":                   Reader,
	"GET /api/v1/unresolved":                   Reader,
	"GET /api/v1/verify":                       Operator,
	"GET /nothing":                             Reader,
	"POST /api/v1/cases/x":                     Operator,
}

// TestRoutes: every route that is described stands in the table above and asks
// for that access: less is refused, and with it nobody is sent away.
func TestRoutes(t *testing.T) {
	d := newDesk(t)
	described := operations(t, d)
	for op := range routes {
		if _, ok := described[op]; !ok {
			t.Errorf("%s is not described", op)
		}
	}
	for op, method := range described {
		least, ok := routes[op]
		if !ok {
			t.Errorf("%s: which access does it ask for?", op)
		}
		path := strings.NewReplacer("{number}", "9", "{id}", id(77).String()).Replace(strings.TrimPrefix(op, method+" "))
		for _, access := range []Access{Nobody, Reader, Operator} {
			w := ask(d.handler(access), method, path, "")
			if refused := w.Code == 401 || w.Code == 403; refused != (access < least) {
				t.Errorf("%s with access %d: %d", op, access, w.Code)
			}
		}
	}
}

// TestForeignPages: a page from elsewhere can neither read (by a name of its
// own that leads here) nor write (by a form).
func TestForeignPages(t *testing.T) {
	d := newDesk(t)
	for host, status := range map[string]int{"localhost:8025": 200, "127.0.0.1": 200, "[::1]:8025": 200, "gw.city.example:8025": 200, "evil.example": 421, "": 421} {
		r := httptest.NewRequest("GET", "/api/v1/cases", nil)
		r.Host = host
		w := httptest.NewRecorder()
		New(d.service(), Options{Access: Reader, Hosts: []string{"gw.city.example"}}).ServeHTTP(w, r)
		if w.Code != status {
			t.Errorf("%q: %d", host, w.Code)
		}
	}
	r := httptest.NewRequest("POST", "http://localhost/api/v1/accounts", strings.NewReader(`{"name":"A","email_addresses":["a@x.example"]}`))
	r.Header.Set("Origin", "https://evil.example")
	w := httptest.NewRecorder()
	d.handler(Operator).ServeHTTP(w, r)
	if w.Code != 403 {
		t.Errorf("a form from elsewhere: %d", w.Code)
	}
}
