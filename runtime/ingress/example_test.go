package ingress_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress"
)

// greeter stands for a broker with one worker.
type greeter struct{ directory contract.Directory }

func (g *greeter) Call(_ context.Context, r contract.Call) (contract.Reply, error) {
	var in struct{ Name string }
	if err := json.Unmarshal(r.Body, &in); err != nil {
		return contract.Reply{}, err
	}
	return contract.Reply{Body: fmt.Appendf(nil, `{"text":"Hello, %s"}`, in.Name)}, nil
}

func (g *greeter) Publish(context.Context, contract.Event) error { return nil }

func (g *greeter) Tail(context.Context, string, func(contract.Event)) error { return nil }

func (g *greeter) Directory() *contract.Directory { return &g.directory }

func (g *greeter) Health() error { return nil }

func ExampleIngress() {
	broker := &greeter{}
	broker.directory.Update(contract.Announcement{Worker: "w1", Functions: []contract.Descriptor{{
		Name: "greet", Kind: contract.KindRequest, Keys: []string{"greet"},
		Route: &contract.Route{Method: "GET", Path: "/greetings/{name}", Status: 200},
		Input: json.RawMessage(`{"type":"object","properties":{"name":{"type":"string"}}}`),
	}}}, time.Now())

	w := httptest.NewRecorder()
	ingress.New(ingress.Config{Broker: broker}).ServeHTTP(w, httptest.NewRequest("GET", "/greetings/Ada", nil))
	fmt.Println(w.Code, w.Body)
	// Output: 200 {"text":"Hello, Ada"}
}
