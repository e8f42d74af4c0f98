// Package memorytest has functions and waits for the tests of package memory and
// of package remote.
package memorytest

import (
	"context"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// limit is how long a test waits for an event before it fails.
const limit = 10 * time.Second

// None is what the functions depend on.
type None struct{}

// Ask is the input of Request. Its routing key is "ask".
type Ask struct{}

// RoutingKey returns "ask".
func (Ask) RoutingKey() string { return "ask" }

// Request returns the request function "answer", which answers Ask with fn.
func Request(t testing.TB, fn func(context.Context) error, options ...faas.Option) []contract.Function {
	t.Helper()
	var set faas.Set[None]
	faas.OnRequest(&set, "answer", func(ctx context.Context, _ *None, _ Ask) (None, error) { return None{}, fn(ctx) }, options...)
	return Functions(t, &set)
}

// Event returns the event function "react", which handles the key "x" with fn.
func Event(t testing.TB, fn func(context.Context, contract.Event) error, options ...faas.Option) []contract.Function {
	t.Helper()
	var set faas.Set[None]
	faas.OnEvent(&set, "react", func(ctx context.Context, _ *None, e contract.Event) error { return fn(ctx, e) }, append(options, faas.Keys("x"))...)
	return Functions(t, &set)
}

// Functions returns the functions of set.
func Functions(t testing.TB, set *faas.Set[None]) []contract.Function {
	t.Helper()
	fns, err := set.With(&None{})
	if err != nil {
		t.Fatal(err)
	}
	return fns
}

// A Server is a memory.Broker or a remote.Broker.
type Server interface {
	Serve(ctx context.Context, fns []contract.Function) error
	Directory() *contract.Directory
}

// Serve hosts fns on s until the test ends or stop is called, which returns the
// error of s.Serve. It waits until the directory has the given number of workers
// that host them.
func Serve(t testing.TB, s Server, workers int, fns []contract.Function) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, fns) }()
	t.Cleanup(cancel)
	AwaitWorkers(t, s.Directory(), fns[0].Name, workers)
	return func() error {
		cancel()
		return Receive(t, done)
	}
}

// AwaitWorkers waits until d has the given number of workers that host a function.
func AwaitWorkers(t testing.TB, d *contract.Directory, function string, workers int) {
	t.Helper()
	timeout := time.After(limit)
	for {
		changed := d.Changed()
		f, _ := d.Find(function)
		if len(f.Workers) == workers {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("%s has the workers %q, want %d", function, f.Workers, workers)
		}
	}
}

// Receive returns the next value of ch, for which it waits up to 10 s.
func Receive[T any](t testing.TB, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(limit):
		t.Fatalf("received nothing within %v", limit)
		panic("unreachable")
	}
}

// WantLost checks that err says that a call was lost and may have run.
func WantLost(t testing.TB, err error) {
	t.Helper()
	if e := contract.AsError(err); e == nil || e.Code != contract.CodeLost || e.Executed != contract.ExecutedUnknown {
		t.Errorf("got %v, want lost with executed unknown", err)
	}
}
