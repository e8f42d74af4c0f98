package memory

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/memorytest"
)

func open(t *testing.T, cfg Config) *Broker {
	t.Helper()
	b := New(cfg)
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func TestFullQueueRefuses(t *testing.T) {
	b := open(t, Config{QueueLimit: 2})
	started, release := make(chan contract.Event, 10), make(chan struct{})
	memorytest.Serve(t, b, 1, memorytest.Event(t, func(_ context.Context, e contract.Event) error {
		started <- e
		<-release
		return nil
	}, faas.Concurrency(1)))
	publish := func() error { return b.Publish(t.Context(), contract.Event{Key: "x"}) }
	if err := publish(); err != nil {
		t.Fatal(err)
	}
	memorytest.Receive(t, started) // it runs, and no longer waits
	if err := errors.Join(publish(), publish()); err != nil {
		t.Fatalf("two that may wait: %v", err)
	}
	if err := publish(); !errors.Is(err, contract.ErrRefused) {
		t.Errorf("one more: got %v, want contract.ErrRefused", err)
	}
	close(release)
	memorytest.Receive(t, started)
	memorytest.Receive(t, started)
	if err := publish(); err != nil {
		t.Errorf("once there is room: %v", err)
	}
}

func TestDeadLettersAreBounded(t *testing.T) {
	outcomes := make(chan contract.Invocation, 2*maxDeadLetters)
	b := open(t, Config{Observe: func(i contract.Invocation) { outcomes <- i }})
	memorytest.Serve(t, b, 1, memorytest.Event(t, func(context.Context, contract.Event) error { return faas.Permanent("bad") }, faas.Ordered()))
	for i := range maxDeadLetters + 1 {
		if err := b.Publish(t.Context(), contract.Event{Key: "x", ID: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	for range maxDeadLetters + 1 {
		memorytest.Receive(t, outcomes)
	}
	var ids []string
	if err := b.VisitDeadLetters(t.Context(), "react", func(l *contract.DeadLetter) (contract.DeadLetterAction, error) {
		ids = append(ids, l.Event.ID)
		return contract.ActionKeep, nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(ids) != maxDeadLetters || ids[0] != "1" {
		t.Errorf("got %d letters from %s on, want %d from 1 on", len(ids), ids[0], maxDeadLetters)
	}
}

func TestGraceEnds(t *testing.T) {
	b := open(t, Config{Grace: 50 * time.Millisecond})
	started := make(chan contract.Event, 1)
	stop := memorytest.Serve(t, b, 1, memorytest.Event(t, func(ctx context.Context, e contract.Event) error {
		started <- e
		<-ctx.Done()
		return ctx.Err()
	}))
	if err := b.Publish(t.Context(), contract.Event{Key: "x", ID: "1"}); err != nil {
		t.Fatal(err)
	}
	memorytest.Receive(t, started)
	if err := stop(); err == nil {
		t.Error("Serve: got nil, want an error that says what was cut short")
	}
	again := make(chan contract.Event, 1)
	memorytest.Serve(t, b, 1, memorytest.Event(t, func(_ context.Context, e contract.Event) error {
		again <- e
		return nil
	}))
	if e := memorytest.Receive(t, again); e.ID != "1" || e.Attempt != 1 || !e.Redelivered {
		t.Errorf("got %s on attempt %d, redelivered %v; want 1 on attempt 1, redelivered", e.ID, e.Attempt, e.Redelivered)
	}
}

func TestDrainEndsWithoutFunctionThatIgnoresItsContext(t *testing.T) {
	b := open(t, Config{Grace: time.Millisecond})
	started, release := make(chan struct{}), make(chan struct{})
	stop := memorytest.Serve(t, b, 1, memorytest.Request(t, func(context.Context) error {
		close(started)
		<-release
		return nil
	}))
	failed := make(chan error, 1)
	go func() {
		_, err := b.Call(t.Context(), contract.Call{Key: "ask"})
		failed <- err
	}()
	memorytest.Receive(t, started)
	if err := stop(); err == nil {
		t.Error("Serve: got nil, want an error that says what was cut short")
	}
	memorytest.WantLost(t, memorytest.Receive(t, failed))
	close(release)
}

// Calls that wait when the only worker stops its deliveries fail at once, and so do
// later calls.
func TestLastWorkerStops(t *testing.T) {
	b := open(t, Config{})
	started, release := make(chan struct{}, 1), make(chan struct{})
	stop := memorytest.Serve(t, b, 1, memorytest.Request(t, func(context.Context) error {
		started <- struct{}{}
		<-release
		return nil
	}, faas.Concurrency(1)))
	call := func() <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := b.Call(t.Context(), contract.Call{Key: "ask"})
			done <- err
		}()
		return done
	}
	running := call()
	memorytest.Receive(t, started)
	waiting := call()
	for n := 0; n == 0; runtime.Gosched() { // until the second call is queued
		b.mu.Lock()
		n = b.requests["answer"].ready
		b.mu.Unlock()
	}
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	unroutable := func(what string, err error) {
		t.Helper()
		if e := contract.AsError(err); e == nil || e.Code != contract.CodeUnroutable || e.Executed != contract.ExecutedNo {
			t.Errorf("%s: got %v, want unroutable with executed no", what, err)
		}
	}
	unroutable("the call that waited", memorytest.Receive(t, waiting))
	unroutable("a call while the worker drains", memorytest.Receive(t, call()))
	close(release)
	if err := memorytest.Receive(t, running); err != nil {
		t.Errorf("the call that ran: %v", err)
	}
	if err := memorytest.Receive(t, stopped); err != nil {
		t.Errorf("Serve: %v", err)
	}
	unroutable("a call after the last worker", memorytest.Receive(t, call()))
}

func TestForget(t *testing.T) {
	started := make(chan string, 10)
	react := memorytest.Event(t, func(_ context.Context, e contract.Event) error {
		started <- e.ID
		return faas.Permanent("bad")
	}, faas.Concurrency(1))
	answer := memorytest.Request(t, func(context.Context) error { return nil })
	b := open(t, Config{})
	stop := memorytest.Serve(t, b, 1, slices.Concat(answer, react))
	b.Forget("answer", "react")
	if _, err := b.Call(t.Context(), contract.Call{Key: "ask"}); err != nil {
		t.Errorf("a call of a hosted function: %v", err)
	}
	publish := func(id string) error { return b.Publish(t.Context(), contract.Event{Key: "x", ID: id}) }
	if err := publish("dead"); err != nil {
		t.Errorf("an event for a hosted function: %v", err)
	}
	memorytest.Receive(t, started)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := publish("waits"); err != nil {
		t.Errorf("an event for a function that may be hosted again: %v", err)
	}

	b.Forget("answer", "react")
	if list := b.Directory().Functions(); len(list) > 0 {
		t.Errorf("got %v, want none", list)
	}
	if err := publish("late"); !errors.Is(err, contract.ErrUnroutable) {
		t.Errorf("an event for a forgotten function: got %v, want contract.ErrUnroutable", err)
	}
	replay := func() error {
		return b.VisitDeadLetters(t.Context(), "react", func(*contract.DeadLetter) (contract.DeadLetterAction, error) { return contract.ActionReplay, nil })
	}
	if err := replay(); !errors.Is(err, contract.ErrUnroutable) {
		t.Errorf("replay for a forgotten function: got %v, want contract.ErrUnroutable", err)
	}
	memorytest.Serve(t, b, 1, react)
	if err := replay(); err != nil {
		t.Errorf("replay for a function that is hosted again: %v", err)
	}
	if id := memorytest.Receive(t, started); id != "dead" {
		t.Errorf("got the event %q, want the one that was replayed", id)
	}
}

// While two versions of a function overlap, neither gets an event that only
// the other reacts to.
func TestVersionsWithDifferentKeys(t *testing.T) {
	b := open(t, Config{})
	got := make(chan string, 100)
	version := func(name string, keys ...string) []contract.Function {
		var set faas.Set[memorytest.None]
		faas.OnEvent(&set, "react", func(_ context.Context, _ *memorytest.None, e contract.Event) error {
			got <- name + " " + e.Key
			return nil
		}, faas.Keys(keys...))
		return memorytest.Functions(t, &set)
	}
	memorytest.Serve(t, b, 1, version("old", "a"))
	memorytest.Serve(t, b, 2, version("new", "b"))
	for range 10 {
		if err := b.Publish(t.Context(), contract.Event{Key: "b"}); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		if g := memorytest.Receive(t, got); g != "new b" {
			t.Errorf("got %q, want \"new b\"", g)
		}
	}
}

// A function that a test has written may call t.FailNow, which is a Goexit.
func TestGoexit(t *testing.T) {
	b := open(t, Config{})
	fns := memorytest.Request(t, nil)
	fns[0].Handle = func(context.Context, *contract.Event) ([]byte, error) {
		runtime.Goexit()
		return nil, nil
	}
	stop := memorytest.Serve(t, b, 1, fns)
	_, err := b.Call(t.Context(), contract.Call{Key: "ask"})
	if e := contract.AsError(err); e == nil || e.Code != contract.CodePanic {
		t.Errorf("got %v, want panic", err)
	}
	if err := stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestServeRefusesDuplicateName(t *testing.T) {
	f := memorytest.Request(t, nil)[0]
	if err := open(t, Config{}).Serve(t.Context(), []contract.Function{f, f}); err == nil {
		t.Error("two functions with one name: got nil")
	}
}

func BenchmarkCall(b *testing.B) {
	broker := New(Config{})
	defer func() { _ = broker.Close() }()
	var set faas.Set[memorytest.None]
	faas.OnRequest(&set, "answer", func(context.Context, *memorytest.None, memorytest.Ask) (memorytest.None, error) {
		return memorytest.None{}, nil
	})
	fns, err := set.With(&memorytest.None{})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	changed := broker.Directory().Changed()
	go func() { done <- broker.Serve(ctx, fns) }()
	<-changed
	b.ReportAllocs()
	for b.Loop() {
		if _, err := broker.Call(ctx, contract.Call{Key: "ask"}); err != nil {
			b.Fatal(err)
		}
	}
	cancel()
	<-done
}
