package rabbit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

func TestPublishFailsWithItsReason(t *testing.T) {
	b := openBroker(t)
	for name, c := range map[string]struct {
		event contract.Event
		want  error
	}{
		"no queue":         {contract.Event{Key: "nobody.listens"}, contract.ErrUnroutable},
		"no exchange":      {contract.Event{Key: "a.b", Exchange: b.cfg.Namespace + ".none"}, contract.ErrUnroutable},
		"no key":           {contract.Event{}, contract.ErrInvalid},
		"long key":         {contract.Event{Key: strings.Repeat("k", 256)}, contract.ErrInvalid},
		"long id":          {contract.Event{Key: "a.b", ID: strings.Repeat("i", 256)}, contract.ErrInvalid},
		"long header name": {contract.Event{Key: "a.b", Headers: map[string]any{strings.Repeat("h", 256): 1}}, contract.ErrInvalid},
		"many headers":     {contract.Event{Key: "a.b", Headers: map[string]any{"h": strings.Repeat("h", 65<<10)}}, contract.ErrInvalid},
		"odd header":       {contract.Event{Key: "a.b", Headers: map[string]any{"h": make(chan int)}}, contract.ErrInvalid},
		"large body":       {contract.Event{Key: "a.b", Body: make([]byte, 17<<20)}, contract.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			if err := b.Publish(within(t, 10*time.Second), c.event); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("it took %v, want an answer at once", took)
			}
		})
	}
	if err := b.Health(); err != nil {
		t.Errorf("Health afterwards: got %v, want nil", err)
	}
}

// The broker says that a binding is there before it routes by it.
func TestPublishWaitsForALateRoute(t *testing.T) {
	cfg := requestConfig(t, false)
	removeAfter(t, cfg.Namespace)
	b := startCaller(t, cfg)
	_, _ = startWorker(t, cfg, []*Broker{b}, onEvent("late", "late.bound", func(context.Context, *contract.Event) error { return nil }))
	ch, queue := foreignChannel(t), b.names.EventQueue("late")
	unbind := func() {
		t.Helper()
		if err := ch.QueueUnbind(queue, "late.bound", b.names.Events(), nil); err != nil {
			t.Fatal(err)
		}
	}

	unbind()
	published := make(chan error, 1)
	go func() { published <- b.Publish(t.Context(), contract.Event{Key: "late.bound"}) }()
	time.Sleep(10 * time.Millisecond)
	if err := ch.QueueBind(queue, "late.bound", b.names.Events(), false, nil); err != nil {
		t.Fatal(err)
	}
	if err := <-published; err != nil {
		t.Errorf("the route came late: got %v, want nil", err)
	}

	unbind()
	if err := b.Publish(t.Context(), contract.Event{Key: "late.bound"}); !errors.Is(err, contract.ErrUnroutable) {
		t.Errorf("the route never comes: got %v, want %v", err, contract.ErrUnroutable)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := b.Publish(ctx, contract.Event{Key: "late.bound"}); !errors.Is(err, contract.ErrUnroutable) && !errors.Is(err, contract.ErrUnconfirmed) {
		t.Errorf("the publisher does not wait for as long: got %v, want %v", err, contract.ErrUnroutable)
	}
}

func TestFullQueueRefuses(t *testing.T) {
	b := openBroker(t)
	ch := foreignChannel(t)
	queue := b.cfg.Namespace + ".full"
	if _, err := ch.QueueDeclare(queue, true, false, false, false, amqp.Table{"x-queue-type": "classic", "x-max-length": 1, "x-overflow": "reject-publish"}); err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind(queue, "full.up", b.names.Events(), false, nil); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), contract.Event{Key: "full.up"}); err != nil {
		t.Fatal(err)
	}
	// The queue beside it takes the event: it is not to be said that nobody did.
	ran := make(chan string, 2)
	serve(t, b, onEvent("beside", "full.up", func(_ context.Context, e *contract.Event) error { ran <- e.ID; return nil }))
	err := b.Publish(t.Context(), contract.Event{Key: "full.up", ID: "half"})
	if !errors.Is(err, contract.ErrRefused) || executedOf(err) != contract.ExecutedUnknown {
		t.Errorf("got %v (executed %q), want refused, executed unknown", err, executedOf(err))
	}
	if id := receive(t, "the other queue's copy", ran); id != "half" {
		t.Errorf("got %q", id)
	}
}

func TestPublishWithoutBroker(t *testing.T) {
	b, err := Open(Config{URL: "amqp://guest:guest@127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	err = b.Publish(ctx, contract.Event{Key: "a.b"})
	if !errors.Is(err, contract.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want unavailable and the context's error", err)
	}
	if took := time.Since(began); took > 150*time.Millisecond {
		t.Errorf("it took %v, want the context's 50ms", took)
	}
}

// A return must reach the publish that it belongs to, whatever else is under way.
func TestReturnsFindTheirPublish(t *testing.T) {
	b := openBroker(t)
	serve(t, b, onEvent("even", "number.even", func(context.Context, *contract.Event) error { return nil }))
	var publishers sync.WaitGroup
	for i := range 50 {
		publishers.Go(func() {
			for n := range 20 {
				key, want := "number.even", error(nil)
				if (i+n)%2 == 1 {
					key, want = "number.odd", contract.ErrUnroutable
				}
				// The same id everywhere: the id is the user's, nothing hangs on it.
				if err := b.Publish(t.Context(), contract.Event{Key: key, ID: "same"}); !errors.Is(err, want) && !(err == nil && want == nil) {
					t.Errorf("publish to %s: got %v, want %v", key, err, want)
				}
			}
		})
	}
	publishers.Wait()
}

func TestHeadersTravel(t *testing.T) {
	got := make(chan contract.Event, 1)
	b := openBroker(t)
	serve(t, b, onEvent("look", "look.at", func(_ context.Context, e *contract.Event) error { got <- *e; return nil }))
	sent := contract.Event{
		Key: "look.at", ID: "id-1", ContentType: "text/plain", Type: "look", Body: []byte("hello"),
		Correlation: "chain", Causation: "cause", Trace: contract.Trace{Parent: "00-1-2-01", State: "a=b", Baggage: "c=d"},
		Headers: map[string]any{"tenant": "acme", "n": int64(7), "cloudEvents:source": "/shop", "CC": []any{"elsewhere"}, "rabbet-attempt": 9, "x-death": "me"},
	}
	if err := b.Publish(t.Context(), sent); err != nil {
		t.Fatal(err)
	}
	e := receive(t, "the event", got)
	if e.ID != sent.ID || e.ContentType != sent.ContentType || e.Type != sent.Type || string(e.Body) != "hello" ||
		e.Correlation != "chain" || e.Causation != "cause" || e.Trace != sent.Trace || e.Attempt != 1 || e.Exchange != b.names.Events() {
		t.Errorf("got %+v, want what was sent", e)
	}
	want := map[string]any{"tenant": "acme", "n": int64(7), "cloudEvents_source": "/shop"}
	if fmt.Sprint(e.Headers) != fmt.Sprint(want) {
		t.Errorf("headers: got %v, want %v", e.Headers, want)
	}
}

func TestPublishWhileBlocked(t *testing.T) {
	b := openBroker(t)
	serve(t, b, onEvent("any", "any.thing", func(context.Context, *contract.Event) error { return nil }))
	b.publish.SetBlocked(amqp.Blocking{Active: true, Reason: "low on memory"})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := b.Publish(ctx, contract.Event{Key: "any.thing"})
	if !errors.Is(err, contract.ErrBlocked) || !strings.Contains(err.Error(), "low on memory") {
		t.Errorf("got %v, want blocked and the broker's reason", err)
	}
	if took := time.Since(began); took > 150*time.Millisecond {
		t.Errorf("it took %v, want the context's 50ms", took)
	}
	if err := b.Health(); err == nil || !strings.Contains(err.Error(), "low on memory") {
		t.Errorf("Health: got %v, want the broker's reason", err)
	}
	waiting := make(chan error, 1)
	go func() { waiting <- b.Publish(within(t, 10*time.Second), contract.Event{Key: "any.thing"}) }()
	b.publish.SetBlocked(amqp.Blocking{})
	if err := receive(t, "a publish after the block", waiting); err != nil {
		t.Errorf("after the block: got %v, want nil", err)
	}
}

// A publish on a broker that is closed says so at once, whatever its ctx allows.
func TestPublishAfterClose(t *testing.T) {
	b := openBroker(t)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	published := make(chan error, 1)
	go func() { published <- b.Publish(within(t, time.Minute), contract.Event{Key: "too.late"}) }()
	if err := receive(t, "the end of the publish", published); !errors.Is(err, contract.ErrUnavailable) || executedOf(err) != contract.ExecutedNo {
		t.Errorf("got %v (executed %q), want unavailable, executed no", err, executedOf(err))
	}
}
