package nginx

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/ingress"
	"github.com/rabbet-fn/rabbet/runtime/rabbit"
)

type note struct {
	Text string `json:"text"`
}

func (note) RoutingKey() string { return "note.take" }

// TestFront runs the real NGINX in front of two ingresses over RabbitMQ.
func TestFront(t *testing.T) {
	if testing.Short() {
		t.Skip("needs nginx and RabbitMQ")
	}
	s := startSystem(t)
	n := &front{t: t, base: startNginx(t, s.ingresses[0].addr, s.ingresses[1].addr)}
	lasting := t // longer than a subtest
	stop := s.startWorker(lasting)
	n.eventually("both ingresses know the function", func() bool {
		return s.ingresses[0].answers("/functions/take-note") && s.ingresses[1].answers("/functions/take-note")
	})

	t.Run("balances", func(t *testing.T) {
		n := n.in(t)
		by := map[string]int{}
		for range 20 {
			r := n.do("POST", "/notes", `{"text":"a"}`)
			if r.StatusCode != 200 || r.text != `"took a"` {
				t.Fatalf("got %d %s", r.StatusCode, r.text)
			}
			if v := r.Header["X-Content-Type-Options"]; len(v) != 1 || v[0] != "nosniff" {
				t.Errorf("X-Content-Type-Options: got %q, want nosniff", v)
			}
			by[r.Header.Get("X-Ingress")]++
		}
		if len(by) != 2 {
			t.Errorf("20 requests went to %v, want both ingresses", by)
		}
	})
	t.Run("notices a worker that goes and one that comes", func(t *testing.T) {
		n := n.in(t)
		stop()
		n.eventually("the worker is missed", func() bool { return n.do("POST", "/notes", `{"text":"a"}`).StatusCode == 503 })
		r := n.do("POST", "/notes", `{"text":"a"}`)
		wantProblem(t, r, 503, "no")
		if r.Header.Get("Retry-After") == "" {
			t.Errorf("got header fields %v, want Retry-After", r.Header)
		}
		if v := r.Header["X-Content-Type-Options"]; len(v) != 1 || v[0] != "nosniff" {
			t.Errorf("X-Content-Type-Options: got %q, want nosniff", v)
		}
		stop = s.startWorker(lasting)
		n.eventually("the new worker is known", func() bool {
			r1, r2 := n.do("POST", "/notes", `{"text":"a"}`), n.do("POST", "/notes", `{"text":"a"}`)
			return r1.StatusCode == 200 && r2.StatusCode == 200
		})
	})
	t.Run("passes CloudEvents on in every form", func(t *testing.T) {
		n := n.in(t)
		n.eventually("the worker listens to events, too", func() bool {
			return n.do("POST", "/events/note.taken", `{"text":"early"}`).StatusCode == 202
		})
		if text := <-s.taken; text != "early" {
			t.Fatalf("the function got %q, want the event that was taken", text)
		}
		const event = `{"specversion":"1.0","type":"note.taken","source":"/test","id":"%d","datacontenttype":"application/json","data":{"text":"%s"}}`
		for form, r := range map[string]*result{
			"binary": n.do("POST", "/events", `{"text":"binary"}`, "Content-Type: application/json",
				"ce-specversion: 1.0", "ce-type: note.taken", "ce-source: /test", "ce-id: 1"),
			"structured": n.do("POST", "/events", fmt.Sprintf(event, 2, "structured"), "Content-Type: application/cloudevents+json"),
			"batch": n.do("POST", "/events", "["+fmt.Sprintf(event, 3, "first")+","+fmt.Sprintf(event, 4, "second")+"]",
				"Content-Type: application/cloudevents-batch+json"),
		} {
			if r.StatusCode != 202 {
				t.Errorf("%s: got %d %s, want 202", form, r.StatusCode, r.text)
			}
		}
		want := map[string]bool{"binary": true, "structured": true, "first": true, "second": true}
		for len(want) > 0 {
			select {
			case text := <-s.taken:
				if !want[text] {
					t.Errorf("the function got %q once more, or never sent", text)
				}
				delete(want, text)
			case <-time.After(20 * time.Second):
				t.Fatalf("the function has not got %v", want)
			}
		}
	})
	t.Run("passes live events on at once", func(t *testing.T) {
		n := n.in(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, "GET", n.base+"/events?key=note.%23", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Accept", "text/event-stream")
		r, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		seen := make(chan string)
		go func() { // ends with the request
			defer close(seen)
			for lines := bufio.NewScanner(r.Body); lines.Scan(); {
				if strings.Contains(lines.Text(), "live") {
					seen <- lines.Text()
					return
				}
			}
		}()
		n.eventually("a live event comes while the stream is open", func() bool { // an event that is published before the stream has started does not appear
			if r := n.do("POST", "/events/note.taken", `{"text":"live"}`); r.StatusCode != 202 {
				t.Fatalf("publish: got %d %s", r.StatusCode, r.text)
			}
			select {
			case line := <-seen:
				return line != ""
			case <-time.After(200 * time.Millisecond):
				return false
			}
		})
	})
	t.Run("is believed about the client, and the client is not", func(t *testing.T) {
		n := n.in(t)
		s.logged.TakeAll()
		r := n.do("POST", "/functions/nothing", `{}`, "X-Forwarded-For: 203.0.113.9", "X-Real-IP: 203.0.113.9", "Forwarded: for=203.0.113.9")
		if r.StatusCode != 404 {
			t.Fatalf("got %d %s", r.StatusCode, r.text)
		}
		n.eventually("the request is logged", func() bool {
			return s.logged.FilterField(zap.String("client", "127.0.0.1")).Len() > 0
		})
		if lies := s.logged.FilterField(zap.String("client", "203.0.113.9")); lies.Len() > 0 {
			t.Errorf("the client was believed: %v", lies.All())
		}
	})
	t.Run("needs no Host of HTTP/1.0", func(t *testing.T) {
		r := n.in(t).raw("GET /livez HTTP/1.0\r\nX-Request-Id: mine\r\n\r\n")
		if r.StatusCode != 200 || r.Header.Get("X-Request-Id") != "mine" {
			t.Errorf("got %d %v, want a 200 of the request \"mine\"", r.StatusCode, r.Header)
		}
	})
	t.Run("says that it hangs up after a 412 of its own", func(t *testing.T) {
		r := n.in(t).do("GET", "/static/rabbet.css", "", `If-Match: "other"`)
		if wantProblem(t, r, 412, "no"); !r.Close {
			t.Errorf("got header fields %v, want Connection: close", r.Header)
		}
	})
	for head, want := range map[string]int{
		"POST /notes HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked": 501,
		"GET /notes HTTP/2.0\r\nHost: a":                                      505,
		"GET notes HTTP/1.1\r\nHost: a":                                       400,
	} {
		t.Run("explains: "+head, func(t *testing.T) { wantProblem(t, n.in(t).raw(head+"\r\n\r\n"), want, "no") })
	}
	t.Run("loses no request to an ingress that stops", func(t *testing.T) {
		n, over := n.in(t), make(chan struct{})
		var load sync.WaitGroup
		var sent atomic.Int64
		for range 16 {
			load.Go(func() {
				for {
					select {
					case <-over:
						return
					default:
					}
					r, err := http.Post(n.base+"/notes", "application/json", strings.NewReader(`{"text":"a"}`))
					if err != nil {
						t.Error(err)
						return
					}
					if r.StatusCode != 200 {
						t.Errorf("got %s from %q", r.Status, r.Header.Get("X-Ingress"))
					}
					_, _ = io.Copy(io.Discard, r.Body)
					r.Body.Close()
					sent.Add(1)
				}
			})
		}
		for i := range s.ingresses {
			one, name := &s.ingresses[i], fmt.Sprint(i+1)
			one.stop()
			*one = s.startIngress(lasting, name, one.addr, zap.NewNop())
			n.eventually("NGINX asks it again", func() bool {
				return n.do("POST", "/notes", `{"text":"a"}`).Header.Get("X-Ingress") == name
			})
		}
		close(over)
		load.Wait()
		t.Logf("each ingress was replaced: %d requests", sent.Load())
	})
	for name, c := range map[string]struct {
		method, path, body string
		field              string
		status             int
	}{
		"body too large":     {"POST", "/notes", strings.Repeat("a", 1<<20+1), "", 413},
		"URI too long":       {"GET", "/" + strings.Repeat("a", 9<<10), "", "", 414},
		"field too long":     {"GET", "/", "", "X-Long: " + strings.Repeat("a", 9<<10), 431},
		"NUL in the path":    {"GET", "/profiles/%00", "", "", 400},
		"nothing there":      {"GET", "/nothing", "", "", 404},
		"static file absent": {"GET", "/static/nothing", "", "", 404},
		"range of a file":    {"GET", "/static/rabbet.css", "", "Range: bytes=999999-", 416},
	} {
		t.Run("explains: "+name, func(t *testing.T) {
			var fields []string
			if c.field != "" {
				fields = []string{c.field}
			}
			wantProblem(t, n.in(t).do(c.method, c.path, c.body, fields...), c.status, "no")
		})
	}
}

// TestFrontOfFailingIngresses uses handlers that fail on demand instead of
// ingresses.
func TestFrontOfFailingIngresses(t *testing.T) {
	if testing.Short() {
		t.Skip("needs nginx")
	}
	var tries atomic.Int64
	hangUp := func(w http.ResponseWriter, r *http.Request) {
		tries.Add(1)
		_, _ = io.ReadAll(r.Body)
		panic(http.ErrAbortHandler)
	}
	answer := func(w http.ResponseWriter, r *http.Request) {
		tries.Add(1)
		fmt.Fprint(w, "answered")
	}
	wait := func(_ http.ResponseWriter, r *http.Request) {
		tries.Add(1)
		_, _ = io.ReadAll(r.Body) // until then the end of the connection does not end the request
		<-r.Context().Done()
	}
	start := func(handler http.HandlerFunc) string {
		server := httptest.NewServer(handler)
		t.Cleanup(server.Close)
		return server.Listener.Addr().String()
	}
	gone := freeAddr(t)

	t.Run("an ingress that cannot be reached loses no request", func(t *testing.T) {
		n := &front{t: t, base: startNginx(t, gone, start(answer))}
		for _, method := range []string{"GET", "POST", "POST", "PATCH"} {
			if r := n.do(method, "/any", "{}"); r.StatusCode != 200 {
				t.Errorf("%s: got %d %s", method, r.StatusCode, r.text)
			}
		}
	})
	t.Run("what may have run is not sent again", func(t *testing.T) {
		n := &front{t: t, base: startNginx(t, start(hangUp), start(hangUp))}
		for _, method := range []string{"POST", "PATCH"} {
			tries.Store(0)
			r := n.do(method, "/any", "{}")
			wantProblem(t, r, 502, "unknown")
			if tries.Load() != 1 {
				t.Errorf("%s reached %d ingresses, want one", method, tries.Load())
			}
		}
	})
	t.Run("what does no harm is", func(t *testing.T) {
		n := &front{t: t, base: startNginx(t, start(hangUp), start(answer))}
		for range 2 { // one of them begins at the ingress that hangs up
			if r := n.do("GET", "/any", ""); r.StatusCode != 200 {
				t.Errorf("got %d %s", r.StatusCode, r.text)
			}
		}
	})
	t.Run("no ingress at all", func(t *testing.T) {
		n := &front{t: t, base: startNginx(t, gone, gone)}
		r := n.do("POST", "/any", "{}")
		wantProblem(t, r, 503, "no")
		if r.Header.Get("Retry-After") == "" {
			t.Errorf("got header fields %v, want Retry-After", r.Header)
		}
	})
	t.Run("an ingress that never answers", func(t *testing.T) {
		n := &front{t: t, base: startNginx(t, start(wait), start(wait), "proxy_read_timeout    920s", "proxy_read_timeout 1s")}
		tries.Store(0)
		wantProblem(t, n.do("POST", "/any", "{}"), 504, "unknown")
		if tries.Load() != 1 {
			t.Errorf("it reached %d ingresses, want one", tries.Load())
		}
	})
}

// wantProblem fails unless r is a problem document that says so.
func wantProblem(t *testing.T, r *result, status int, executed string) {
	t.Helper()
	var problem struct {
		Title, Detail, Executed, CallID string
		Status                          int
	}
	if err := json.Unmarshal([]byte(r.text), &problem); err != nil {
		t.Fatalf("got %d %s, want a problem document: %v", r.StatusCode, r.text, err)
	}
	if r.StatusCode != status || problem.Status != status || problem.Executed != executed || problem.Title == "" || problem.Detail == "" ||
		problem.CallID == "" || problem.CallID != r.Header.Get("X-Request-Id") ||
		r.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("got %d %s %s, want %d, executed %q", r.StatusCode, r.Header.Get("Content-Type"), r.text, status, executed)
	}
}

type result struct {
	*http.Response
	text string
}

// raw makes a request that net/http would not.
func (n *front) raw(request string) *result {
	n.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(n.base, "http://"))
	if err != nil {
		n.t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		n.t.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		n.t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return &result{r, string(body)}
}

// do makes a request.
func (n *front) do(method, path, body string, fields ...string) *result {
	n.t.Helper()
	request, err := http.NewRequestWithContext(n.t.Context(), method, n.base+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for _, field := range fields {
		name, value, _ := strings.Cut(field, ": ")
		request.Header.Set(name, value)
	}
	r, err := http.DefaultClient.Do(request)
	if err != nil {
		n.t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return &result{r, string(text)}
}

// system is what runs behind NGINX: two ingresses, and workers once they are started.
type system struct {
	url, namespace string
	ingresses      [2]oneIngress
	logged         *observer.ObservedLogs // what the ingresses log
	taken          chan string            // what the event function received
}

type oneIngress struct {
	addr string
	stop func() // loses no request; also at the end of the test
}

func startSystem(t *testing.T) *system {
	t.Helper()
	s := &system{url: os.Getenv("RABBET_TEST_AMQP_URL"), namespace: "test-" + contract.NewID(), taken: make(chan string, 100)}
	if s.url == "" {
		t.Fatal("set RABBET_TEST_AMQP_URL, or run scripts/test, which starts RabbitMQ")
	}
	t.Cleanup(func() { s.remove(t) })
	core, logged := observer.New(zapcore.DebugLevel)
	s.logged = logged
	for i := range s.ingresses {
		s.ingresses[i] = s.startIngress(t, fmt.Sprint(i+1), "127.0.0.1:0", zap.New(core))
	}
	return s
}

// remove removes the queues and exchanges, which outlive the processes.
func (s *system) remove(t *testing.T) {
	conn, err := amqp.Dial(s.url)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Error(err)
		return
	}
	for _, queue := range []string{".event.file-note", ".dead.file-note", ".request.take-note", ".expired"} {
		_, err = ch.QueueDelete(s.namespace+queue, false, false, false)
		if err != nil {
			t.Error(err)
		}
	}
	for _, exchange := range []string{".events", ".requests", ".dead", ".system", ".expired"} {
		if err := ch.ExchangeDelete(s.namespace+exchange, false, false); err != nil {
			t.Error(err)
		}
	}
}

func (s *system) open(t *testing.T) *rabbit.Broker {
	t.Helper()
	b, err := rabbit.Open(rabbit.Config{URL: s.url, Namespace: s.namespace})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := b.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return b
}

// startIngress starts an ingress at addr that names itself in X-Ingress.
func (s *system) startIngress(t *testing.T, name, addr string, log *zap.Logger) oneIngress {
	t.Helper()
	broker := s.open(t)
	front := ingress.New(ingress.Config{Broker: broker, Log: log, TrustProxy: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}})
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	server := ingress.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Ingress", name)
		front.ServeHTTP(w, r)
	}), nil)
	server.Patience = 5 * time.Second // as the command has it
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { front.Run(ctx) })
	running.Go(func() { _ = server.Serve(l) })
	stop := sync.OnceFunc(func() {
		front.Draining()
		waited, done := context.WithTimeout(context.Background(), 20*time.Second)
		defer done()
		if err := server.Shutdown(waited); err != nil {
			t.Errorf("stop ingress %s: %v", name, err)
			server.Close()
		}
		cancel()
		running.Wait()
		broker.Close()
	})
	t.Cleanup(stop)
	return oneIngress{l.Addr().String(), stop}
}

func (i oneIngress) answers(path string) bool {
	r, err := http.Post("http://"+i.addr+path, "application/json", strings.NewReader(`{"text":"ready"}`))
	if err != nil {
		return false
	}
	r.Body.Close()
	return r.StatusCode == 200
}

// startWorker runs the functions until stop is called or the test ends.
func (s *system) startWorker(t *testing.T) (stop func()) {
	t.Helper()
	var set faas.Set[struct{}]
	faas.OnRequest(&set, "take-note", func(_ context.Context, _ *struct{}, in note) (string, error) {
		return "took " + in.Text, nil
	}, faas.HTTP("POST /notes"))
	faas.OnEvent(&set, "file-note", func(_ context.Context, _ *struct{}, in note) error {
		s.taken <- in.Text
		return nil
	}, faas.Keys("note.taken"))
	fns, err := set.With(&struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	broker := s.open(t)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- broker.Serve(ctx, fns) }() // ends with stop
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		broker.Close()
	})
	t.Cleanup(stop)
	return stop
}
