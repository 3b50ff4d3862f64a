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
	if len(described.Paths) < 12 {
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
