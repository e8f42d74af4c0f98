package ingress

import (
	"net/http"
	"strings"
	"testing"
)

// Middlewares run in order, around every request, and the log has what they do.
func TestMiddlewares(t *testing.T) {
	log, lines := observed()
	var trace []string
	mark := func(name string) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				trace = append(trace, name+" "+r.URL.Path)
				switch r.URL.Path {
				case "/" + name:
					w.WriteHeader(http.StatusTeapot)
				case "/panic":
					panic(name)
				default:
					next.ServeHTTP(w, r)
				}
			})
		}
	}
	h := New(Config{Broker: newBroker(), Log: log, Use: []func(http.Handler) http.Handler{mark("outer"), mark("inner")}})
	for target, status := range map[string]int{"/profiles/42": 200, "/nothing": 404, "/a%00": 400, "/livez": 200} {
		trace = nil
		r := do(h, "GET", target, "")
		if path := strings.ReplaceAll(target, "%00", "\x00"); r.StatusCode != status || len(trace) != 2 || trace[0] != "outer "+path || trace[1] != "inner "+path {
			t.Errorf("%s: got %d after %q, want %d after both", target, r.StatusCode, trace, status)
		}
	}
	lines.TakeAll()
	if r := do(h, "GET", "/inner", ""); r.StatusCode != http.StatusTeapot || r.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("a middleware that answers: got %d, %v", r.StatusCode, r.Header)
	}
	if p := readProblem(t, do(h, "GET", "/panic", "")); p.Status != 500 {
		t.Errorf("a middleware that panics: got %+v, want a 500", p)
	}
	logged := lines.FilterMessage("request").All()
	if len(logged) != 2 || logged[0].ContextMap()["status"] != int64(http.StatusTeapot) || logged[1].ContextMap()["status"] != int64(500) {
		t.Errorf("logged: %v; want both", logged)
	}
	if r := do(h.Admin(), "GET", "/inner", ""); r.StatusCode != 404 {
		t.Errorf("the admin address: got %d, want 404 without middlewares", r.StatusCode)
	}
}
