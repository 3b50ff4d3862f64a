package console

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestMetricsPage: who asks from this machine, by an address of this machine,
// needs no sign-in; anyone else does.
func TestMetricsPage(t *testing.T) {
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "casegate_store_up 1\n") })
	for _, c := range []struct {
		access     Access
		peer, host string
		code       int
	}{
		{Nobody, "127.0.0.1:4000", "127.0.0.1:8025", 200},
		{Nobody, "[::1]:4000", "localhost:8025", 200},
		{Nobody, "[::ffff:127.0.0.1]:4000", "[::1]:8025", 200},
		{Nobody, "192.0.2.1:4000", "127.0.0.1:8025", 401},    // a forged Host
		{Nobody, "127.0.0.1:4000", "desk.city.example", 401}, // a proxy on this machine
		{Nobody, "127.0.0.1:4000", "other.example", 421},     // DNS rebinding
		{Nobody, "", "127.0.0.1:8025", 401},
		{Reader, "192.0.2.1:4000", "desk.city.example", 200},
		{Operator, "@", "casegate", 200},
	} {
		h := New(Service{}, Options{Access: c.access, Hosts: []string{"desk.city.example"}, Metrics: page})
		r := httptest.NewRequest("GET", "/metrics", nil)
		r.RemoteAddr, r.Host = c.peer, c.host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.code {
			t.Errorf("%v from %s to %s: %d, want %d", c.access, c.peer, c.host, w.Code, c.code)
		}
	}
	r := httptest.NewRequest("GET", "/metrics", nil)
	w := httptest.NewRecorder()
	New(Service{}, Options{Access: Operator}).ServeHTTP(w, r)
	if w.Code != 404 {
		t.Errorf("without metrics: %d", w.Code)
	}
}
