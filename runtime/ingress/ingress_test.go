package ingress

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeBroker answers calls and takes events as its functions say.
type fakeBroker struct {
	directory contract.Directory
	call      func(context.Context, contract.Call) (contract.Reply, error)
	publish   func(context.Context, contract.Event) error
	tail      func(ctx context.Context, pattern string, fn func(contract.Event)) error
	health    error

	mu     sync.Mutex
	calls  []contract.Call
	events []contract.Event
}

func (b *fakeBroker) Call(ctx context.Context, r contract.Call) (contract.Reply, error) {
	b.mu.Lock()
	b.calls = append(b.calls, r)
	b.mu.Unlock()
	if b.call == nil {
		return contract.Reply{Body: r.Body, Run: 1500 * time.Microsecond}, nil
	}
	return b.call(ctx, r)
}

func (b *fakeBroker) Publish(ctx context.Context, e contract.Event) error {
	b.mu.Lock()
	b.events = append(b.events, e)
	b.mu.Unlock()
	if b.publish == nil {
		return nil
	}
	return b.publish(ctx, e)
}

func (b *fakeBroker) Tail(ctx context.Context, pattern string, fn func(contract.Event)) error {
	return b.tail(ctx, pattern, fn)
}

func (b *fakeBroker) Directory() *contract.Directory { return &b.directory }

func (b *fakeBroker) Health() error { return b.health }

// announce lets a worker host functions; without any it leaves.
func (b *fakeBroker) announce(worker string, functions ...contract.Descriptor) {
	b.directory.Update(contract.Announcement{
		Worker: worker, Started: time.Now(), Functions: functions, Leaving: len(functions) == 0,
	}, time.Now())
}

func (b *fakeBroker) lastCall(t *testing.T) contract.Call {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.calls) == 0 {
		t.Fatal("nothing was called")
	}
	return b.calls[len(b.calls)-1]
}

func (b *fakeBroker) published() []contract.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.events
}

func (b *fakeBroker) called() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.calls)
}

const inputSchema = `{"type":"object","additionalProperties":false,"required":["id"],"properties":{
	"id":{"type":"string","description":"the profile's id"},"name":{"type":"string"},"count":{"type":"integer"},
	"ratio":{"type":["number","null"]},"deep":{"type":"boolean"},"tags":{"type":"array","items":{"type":"string"}},
	"sizes":{"type":"array","items":{"type":"integer"}},"where":{"type":"object"}}}`

func request(name, route string) contract.Descriptor {
	d := contract.Descriptor{
		Name: name, Kind: contract.KindRequest, Keys: []string{strings.ReplaceAll(name, "-", ".")},
		Input: json.RawMessage(inputSchema), Timeout: 5 * time.Second, Version: "1",
	}
	if method, path, ok := strings.Cut(route, " "); ok {
		d.Route = &contract.Route{Method: method, Path: path, Status: http.StatusOK}
		d.Idempotent = method != http.MethodPost && method != http.MethodPatch
	}
	return d
}

// newBroker has a few functions, all live but for "orphan".
func newBroker() *fakeBroker {
	b := &fakeBroker{}
	b.announce("gone", request("orphan", "GET /orphans/{id}"))
	b.announce("gone")
	remove := request("remove", "DELETE /profiles/{id}")
	remove.Route.Status = http.StatusNoContent
	create := request("create", "POST /profiles")
	create.Route.Status = http.StatusCreated
	event := contract.Descriptor{Name: "on-update", Kind: contract.KindEvent, Keys: []string{"profile.updated"}, Timeout: time.Second}
	b.announce("w1", request("get", "GET /profiles/{id}"), request("update", "PUT /profiles/{id}"),
		remove, create, request("plain", ""), event)
	return b
}

// do serves one request made of method, target, body and "Name: value" fields.
func do(h http.Handler, method, target, body string, fields ...string) *http.Response {
	r := httptest.NewRequest(method, target, nil)
	if body != "" {
		r = httptest.NewRequest(method, target, strings.NewReader(body))
	}
	for _, field := range fields {
		name, value, _ := strings.Cut(field, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func text(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// readProblem checks that r is a problem document and returns it.
func readProblem(t *testing.T, r *http.Response) problem.Problem {
	t.Helper()
	if got := r.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("Content-Type %q of a %d, want application/problem+json", got, r.StatusCode)
	}
	var p problem.Problem
	if err := json.Unmarshal([]byte(text(t, r)), &p); err != nil {
		t.Fatal(err)
	}
	if p.Status != r.StatusCode || p.Type == "" || p.Title == "" || p.CallID == "" || p.CallID != r.Header.Get("X-Request-Id") || p.Instance == "" {
		t.Errorf("problem %+v of a %d with id %q: members are missing or wrong", p, r.StatusCode, r.Header.Get("X-Request-Id"))
	}
	return p
}
