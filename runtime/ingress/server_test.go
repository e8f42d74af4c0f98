package ingress

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// start serves the ingress as a process does.
func start(t *testing.T, h http.Handler) *httptest.Server {
	server := httptest.NewUnstartedServer(h)
	server.Config = &NewServer(h, nil).Server
	server.Start()
	t.Cleanup(server.Close)
	return server
}

// raw sends bytes and returns the response to them.
func raw(t *testing.T, server *httptest.Server, sent string) *http.Response {
	t.Helper()
	c, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go fmt.Fprint(c, sent) // ends when the server closes the connection
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Body.Close() })
	return r
}

func TestBadInputOverTheWire(t *testing.T) {
	server := start(t, New(Config{Broker: newBroker()}))
	large := strings.Repeat("x", 20<<20)
	for name, c := range map[string]struct {
		sent   string
		status int
	}{
		"20 MB":          {fmt.Sprintf("POST /functions/plain HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(large), large), 413},
		"20 MB, chunked": {fmt.Sprintf("POST /functions/plain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(large), large), 413},
		"10,000 headers": {"GET /profiles/1 HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-Y: z\r\n", 10_000) + "\r\n", 431},
		"1,000 headers":  {"GET /profiles/1 HTTP/1.1\r\nHost: x\r\n" + numbered(1000) + "\r\n", 431},
		"NUL":            {"GET /profiles/%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"asterisk":       {"GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"CONNECT":        {"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"rubbish":        {"\x16\x03\x01\r\n\r\n", 400},
	} {
		if r := raw(t, server, c.sent); r.StatusCode != c.status {
			t.Errorf("%s: %d, want %d", name, r.StatusCode, c.status)
		}
	}
	r, err := server.Client().Get(server.URL + "/profiles/42")
	if err != nil || r.StatusCode != 200 {
		t.Errorf("afterwards: %v, %v; want a 200", r, err)
	}
	r.Body.Close()
}

func numbered(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "X-%d: z\r\n", i)
	}
	return b.String()
}

// As long as an ingress knows no function, it cannot know which ones do not exist.
func TestNothingKnownYet(t *testing.T) {
	b := &fakeBroker{health: errors.New("cannot reach RabbitMQ at 10.1.2.3")}
	h := New(Config{Broker: b})
	missing := [][2]string{{"GET", "/profiles/42"}, {"POST", "/functions/get"}}
	for _, request := range missing {
		r := do(h, request[0], request[1], "")
		if p := readProblem(t, r); p.Status != 503 || p.Executed != contract.ExecutedNo || !p.Retryable || r.Header.Get("Retry-After") == "" || strings.Contains(p.Detail, "10.1.2.3") {
			t.Errorf("%v without a broker: got %+v, want a 503 to come back after", request, p)
		}
	}
	b.health = nil
	for _, request := range missing {
		if r := do(h, request[0], request[1], ""); r.StatusCode != 404 {
			t.Errorf("%v of no function: got %d, want 404", request, r.StatusCode)
		}
	}
	b.announce("w1", request("other", ""))
	b.health = errors.New("down")
	for _, request := range missing {
		if r := do(h, request[0], request[1], ""); r.StatusCode != 404 {
			t.Errorf("%v beside a known function: got %d, want 404", request, r.StatusCode)
		}
	}
}

func TestHealth(t *testing.T) {
	b := newBroker()
	h := New(Config{Broker: b})
	get := func(h http.Handler, path string) (int, string) {
		r := do(h, "GET", path, "")
		return r.StatusCode, text(t, r)
	}
	for _, handler := range []http.Handler{h, h.Admin()} {
		for _, path := range []string{"/livez", "/readyz"} {
			if status, body := get(handler, path); status != 200 {
				t.Errorf("%s: %d %s", path, status, body)
			}
		}
	}
	b.health = errors.New("cannot reach RabbitMQ at 10.1.2.3")
	if status, body := get(h, "/readyz"); status != 503 || strings.Contains(body, "10.1.2.3") {
		t.Errorf("public /readyz with a broken broker: %d %s, want a 503 that keeps addresses", status, body)
	}
	if status, body := get(h.Admin(), "/readyz"); status != 503 || !strings.Contains(body, "10.1.2.3") {
		t.Errorf("admin /readyz with a broken broker: %d %s, want a 503 that says why", status, body)
	}
	if status, _ := get(h, "/livez"); status != 200 {
		t.Errorf("/livez with a broken broker: %d, want 200", status)
	}
	if status, _ := get(h.Admin(), "/metrics"); status != 404 {
		t.Errorf("admin /metrics: %d, want 404", status)
	}
	b.health = nil
	h.Draining()
	h.Draining()
	if status, _ := get(h, "/readyz"); status != 503 {
		t.Errorf("/readyz while draining: %d, want 503", status)
	}
	if r := do(h, "GET", "/profiles/42", ""); r.StatusCode != 200 || r.Header.Get("Connection") != "close" {
		t.Errorf("a call while draining: %d, Connection: %s; want 200 and close", r.StatusCode, r.Header.Get("Connection"))
	}
}
