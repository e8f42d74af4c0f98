package ingress_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/ingress"
	"github.com/rabbet-fn/rabbet/runtime/memory"
)

// greeter is a broker with one function, which greets.
type greeter struct{ directory contract.Directory }

func newGreeter() *greeter {
	g := &greeter{}
	g.directory.Update(contract.Announcement{Worker: "w1", Functions: []contract.Descriptor{{
		Name: "greet", Kind: contract.KindRequest, Keys: []string{"greet"},
		Route: &contract.Route{Method: "GET", Path: "/greetings/{name}", Status: 200},
		Input: json.RawMessage(`{"type":"object","additionalProperties":false,"properties":{"name":{"type":"string"}}}`),
	}}}, time.Now())
	return g
}

func (g *greeter) Call(_ context.Context, r contract.Call) (faas.Reply, error) {
	var in struct{ Name string }
	if err := json.Unmarshal(r.Body, &in); err != nil {
		return faas.Reply{}, err
	}
	return faas.Reply{Body: fmt.Appendf(nil, `{"text":"Hello, %s"}`, in.Name)}, nil
}

func (g *greeter) Publish(_ context.Context, e faas.Event) error {
	fmt.Printf("published %s %s\n", e.Key, e.Body)
	return nil
}

func (g *greeter) Tail(context.Context, string, func(faas.Event)) error { return nil }

func (g *greeter) Directory() *contract.Directory { return &g.directory }

func (g *greeter) Health() error { return nil }

// serve prints the response of h to a request.
func serve(h http.Handler, r *http.Request) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Println(w.Code, strings.TrimSpace(w.Body.String()))
}

// A function is called through its own route or by its name.
func ExampleIngress() {
	front := ingress.New(ingress.Config{Broker: newGreeter()})
	serve(front, httptest.NewRequest("GET", "/greetings/Ada", nil))
	serve(front, httptest.NewRequest("POST", "/functions/greet", strings.NewReader(`{"name":"Grace"}`)))
	// Output:
	// 200 {"text":"Hello, Ada"}
	// 200 {"text":"Hello, Grace"}
}

// An event is answered with 202 once the broker has confirmed it.
func ExampleIngress_event() {
	front := ingress.New(ingress.Config{Broker: newGreeter()})
	r := httptest.NewRequest("POST", "/events/person.greeted", strings.NewReader(`{"name":"Ada"}`))
	r.Header.Set("X-Call-Id", "greeted-1")
	serve(front, r)
	// Output:
	// published person.greeted {"name":"Ada"}
	// 202 {"id":"greeted-1"}
}

// Every error is a problem document (RFC 9457).
func ExampleIngress_problem() {
	front := ingress.New(ingress.Config{Broker: newGreeter()})
	r := httptest.NewRequest("GET", "/greetings/Ada?loud=true", nil)
	r.Header.Set("X-Request-Id", "example-1")
	serve(front, r)
	// Output:
	// 422 {"type":"urn:rabbet:invalid","title":"Unprocessable Entity","status":422,"detail":"the input does not fit","instance":"/greetings/Ada","function":"greet","callId":"example-1","attempt":0,"executed":"no","retryable":false,"errors":[{"pointer":"/loud","detail":"there is no such field"}]}
}

type greet struct {
	Name string `json:"name"`
}

func (greet) RoutingKey() string { return "greet" }

// The memory broker runs functions in the same process.
func ExampleIngress_memory() {
	var set faas.Set[struct{}]
	faas.OnRequest(&set, "greet", func(_ context.Context, _ *struct{}, in greet) (string, error) {
		return "Hello, " + in.Name, nil
	}, faas.HTTP("GET /greetings/{name}"))
	functions, err := set.With(&struct{}{})
	if err != nil {
		panic(err)
	}
	broker := memory.New(memory.Config{})
	defer broker.Close()
	known := broker.Directory().Changed()
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- broker.Serve(ctx, functions) }() // ends with stop
	<-known

	server := httptest.NewServer(ingress.New(ingress.Config{Broker: broker}))
	defer server.Close()
	r, err := http.Get(server.URL + "/greetings/Ada")
	if err != nil {
		panic(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	fmt.Println(r.StatusCode, string(body), err)

	stop()
	fmt.Println(<-served)
	// Output:
	// 200 "Hello, Ada" <nil>
	// <nil>
}

// A middleware sees every request with its id, and may answer instead of the
// ingress.
func ExampleConfig_use() {
	closed := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Key") != "secret" {
				fmt.Println("refused", w.Header().Get("X-Request-Id"))
				http.Error(w, "no key", http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	front := ingress.New(ingress.Config{
		Broker: newGreeter(),
		Use:    []func(http.Handler) http.Handler{closed},
	})
	r := httptest.NewRequest("GET", "/greetings/Ada", nil)
	r.Header.Set("X-Request-Id", "example-1")
	serve(front, r)
	r.Header.Set("X-Key", "secret")
	serve(front, r)
	// Output:
	// refused example-1
	// 401 no key
	// 200 {"text":"Hello, Ada"}
}

// A process that stops announces it first, and shuts down when load balancers have
// noticed.
func ExampleServer() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	front := ingress.New(ingress.Config{Broker: newGreeter()})
	server := ingress.NewServer(front, nil)
	server.Patience = 5 * time.Second // longer than clients keep idle connections
	served := make(chan error)
	go func() { served <- server.Serve(l) }() // ends with Shutdown

	r, err := http.Get("http://" + l.Addr().String() + "/greetings/Ada")
	if err != nil {
		panic(err)
	}
	body, err := io.ReadAll(r.Body)
	r.Body.Close()
	fmt.Println(r.StatusCode, string(body), err)
	http.DefaultClient.CloseIdleConnections()

	front.Draining()
	fmt.Println(server.Shutdown(context.Background()))
	fmt.Println(errors.Is(<-served, http.ErrServerClosed))
	// Output:
	// 200 {"text":"Hello, Ada"} <nil>
	// <nil>
	// true
}

// The admin address says what is wrong; the public /readyz does not.
func ExampleIngress_Admin() {
	front := ingress.New(ingress.Config{Broker: newGreeter()})
	serve(front.Admin(), httptest.NewRequest("GET", "/readyz", nil))
	front.Draining()
	r := httptest.NewRequest("GET", "/readyz", nil)
	r.Header.Set("X-Request-Id", "example-1")
	serve(front.Admin(), r)
	// Output:
	// 200 {"status":"ok"}
	// 503 {"type":"urn:rabbet:unavailable","title":"Service Unavailable","status":503,"detail":"this process is stopping","instance":"/readyz","callId":"example-1","attempt":0,"executed":"no","retryable":true}
}
