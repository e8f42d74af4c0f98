package rabbit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// pika starts testdata/foreign.py, a client of Debian's python3-pika.
func pika(t *testing.T, cfg Config, verb string) (lines *bufio.Scanner, stop func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "testdata/foreign.py", cfg.URL, cfg.Namespace, verb)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: install it with scripts/stack need python3-pika=python3", err)
	}
	stop = sync.OnceFunc(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("foreign.py %s: %v\n%s", verb, err, &complaints)
		}
	})
	t.Cleanup(stop)
	return bufio.NewScanner(out), stop
}

// next reads one line into v.
func next(t *testing.T, lines *bufio.Scanner, v any) {
	t.Helper()
	if !lines.Scan() {
		t.Fatal("foreign.py has said too little")
	}
	if err := json.Unmarshal(lines.Bytes(), v); err != nil {
		t.Fatalf("%s: %v", lines.Bytes(), err)
	}
}

// order is what foreign.py publishes.
type order struct {
	ID string `json:"id"`
}

func (order) RoutingKey() string { return "order.made" }

// typed makes functions that decode their input.
func typed(t *testing.T, add func(*faas.Set[struct{}])) []contract.Function {
	t.Helper()
	var set faas.Set[struct{}]
	add(&set)
	fns, err := set.With(&struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	return fns
}

func TestPikaCallsAndServes(t *testing.T) {
	withAndWithoutBatches(t, func(t *testing.T, cfg Config) {
		caller := startCaller(t, cfg)
		startWorker(t, cfg, []*Broker{caller}, function("echo", func(_ context.Context, e *contract.Event) ([]byte, error) {
			if string(e.Body) == `"fail"` {
				return nil, faas.NotFound("no such thing")
			}
			return e.Body, nil
		}))
		serving, stopServing := pika(t, cfg, "serve")
		var ready string
		next(t, serving, &ready)

		// While a foreign caller and a foreign worker are at work, ours call both
		// kinds of function, together where they wait together.
		var ours sync.WaitGroup
		for i := range 50 {
			ours.Go(func() {
				body := fmt.Sprintf(`{"n":%d}`, i)
				if reply, err := caller.Call(t.Context(), contract.Call{Key: "echo", Body: []byte(body)}); err != nil || string(reply.Body) != body {
					t.Errorf("echo: got %s, %v; want %s", reply.Body, err, body)
				}
				want := fmt.Sprintf(`{"got": {"n": %d}, "type": "application/json"}`, i)
				if reply, err := caller.Call(t.Context(), contract.Call{Key: "theirs", Body: []byte(body)}); err != nil || string(reply.Body) != want {
					t.Errorf("theirs: got %s, %v; want %s", reply.Body, err, want)
				}
			})
		}
		calling, stopCalling := pika(t, cfg, "call")
		answered := map[string]bool{}
		for range 51 {
			var reply struct{ ID, Type, Body, Error string }
			next(t, calling, &reply)
			answered[reply.ID] = true
			want := fmt.Sprintf(`{"n":%s}`, reply.ID)
			switch {
			case reply.Type != wire.ContentTypeJSON:
				t.Errorf("reply %s is %q, want %q", reply.ID, reply.Type, wire.ContentTypeJSON)
			case reply.ID == "fail":
				if reply.Error != "not-found" || !strings.Contains(reply.Body, "no such thing") {
					t.Errorf("got error %q, body %s; want the function's", reply.Error, reply.Body)
				}
			case reply.Error != "" || reply.Body != want:
				t.Errorf("reply %s: got error %q, body %s; want %s", reply.ID, reply.Error, reply.Body, want)
			}
		}
		if len(answered) != 51 {
			t.Errorf("%d calls were answered, want 51", len(answered))
		}
		stopCalling()
		ours.Wait()
		stopServing()
	})
}

func TestAmqpToolsPublish(t *testing.T) {
	cfg := requestConfig(t, false)
	removeAfter(t, cfg.Namespace)
	got := make(chan *contract.Event, 10)
	handle := func(_ context.Context, e *contract.Event) error { got <- e; return nil }
	b := startCaller(t, cfg)
	fns := []contract.Function{onEvent("bill", "order.made", handle), onEvent("pack", "order.#", handle)}
	for range 2 { // workers
		startWorker(t, cfg, []*Broker{b}, fns...)
	}
	url := strings.TrimSuffix(cfg.URL, "/") + "/%2f" // rabbitmq-c takes a bare slash for a virtual host without a name
	out, err := exec.CommandContext(t.Context(), "amqp-publish", "--url="+url, "--exchange="+cfg.Namespace+".events",
		"--routing-key=order.made", `--body={"id":"42"}`).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s: install it with scripts/stack need amqp-tools=amqp-publish", err, out)
	}
	for range fns {
		e := receive(t, "the event", got)
		if e.Key != "order.made" || string(e.Body) != `{"id":"42"}` || e.ContentType != "application/json" || e.ID == "" || e.Attempt != 1 {
			t.Errorf("got %+v, want the plain event with the rest filled in", e)
		}
	}
	// What follows comes after anything that came twice.
	if err := b.Publish(t.Context(), contract.Event{Key: "order.made", Body: []byte("last")}); err != nil {
		t.Fatal(err)
	}
	for range fns {
		if e := receive(t, "the last event", got); string(e.Body) != "last" {
			t.Errorf("got %s once more", e.Body)
		}
	}
}

func TestOddMessagesHurtNobody(t *testing.T) {
	cfg := requestConfig(t, false)
	removeAfter(t, cfg.Namespace)
	b := startCaller(t, cfg)
	decoded := make(chan order, 10)
	raw := make(chan *contract.Event, 10)
	fns := append(typed(t, func(set *faas.Set[struct{}]) {
		faas.OnEvent(set, "bill", func(_ context.Context, _ *struct{}, in order) error { decoded <- in; return nil })
	}), onEvent("audit", "order.#", func(_ context.Context, e *contract.Event) error { raw <- e; return nil }), function("echo", echo))
	startWorker(t, cfg, []*Broker{b}, fns...)

	lines, stop := pika(t, cfg, "odd")
	var done string
	next(t, lines, &done)
	stop()

	ids := map[string]bool{}
	for range 2 {
		ids[receive(t, "the events that can be decoded", decoded).ID] = true
	}
	if !ids["headers"] || !ids[""] {
		t.Errorf("got ids %v, want the one with headers and, from no body at all, an empty one", ids)
	}
	for range 3 {
		e := receive(t, "each event as it is", raw)
		if e.Attempt != 1 {
			t.Errorf("got attempt %d of %s, want 1", e.Attempt, e.Body)
		}
		if !strings.Contains(string(e.Body), "headers") {
			continue
		}
		if got := fmt.Sprint(e.Headers["number"], e.Headers["yes"], e.Headers["list"], e.Headers["table"]); got != "7 true [1 two [3 map[four:4]]] map[a:map[b:map[c:[<nil> -1]]]]" {
			t.Errorf("got headers %s", got)
		}
		if _, kept := e.Headers["x-death"]; kept || e.Trace.Parent != "" || e.ID == "" {
			t.Errorf("got %+v, want nothing made up, and an id", e)
		}
	}
	if dead := deadLetter(t, b, "bill"); string(dead.Body) != "{\"id\":\xff\xfe" || dead.MessageId != "undecodable" {
		t.Errorf("got dead letter %q %q, want what cannot be decoded, as it came", dead.MessageId, dead.Body)
	}
	if reply, err := b.Call(t.Context(), contract.Call{Key: "echo", Body: []byte(`"still here"`)}); err != nil || string(reply.Body) != `"still here"` {
		t.Errorf("got %s, %v after calls whose replies reach nobody", reply.Body, err)
	}
}
