package remote

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rabbet-fn/rabbet/runtime/brokertest"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/memory"
	"github.com/rabbet-fn/rabbet/runtime/memory/internal/memorytest"
)

func TestConformance(t *testing.T) {
	paths := map[*testing.T]string{}
	brokertest.Run(t, func(t *testing.T) brokertest.Broker {
		if paths[t] == "" {
			_, paths[t] = shared(t)
		}
		return dial(t, paths[t])
	})
}

// shared returns a broker, and the path at which it is shared until the test ends.
func shared(t *testing.T) (*memory.Broker, string) {
	t.Helper()
	b := memory.New(memory.Config{})
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Share(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Share: %v", err)
		}
		_ = b.Close()
	})
	return b, path
}

func dial(t *testing.T, path string) *Broker {
	t.Helper()
	r, err := Dial(path, Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func TestDeadProcess(t *testing.T) {
	t.Run("its events are redelivered", func(t *testing.T) {
		b, path := shared(t)
		dying := dial(t, path)
		started := make(chan contract.Event, 1)
		stop := memorytest.Serve(t, dying, 1, memorytest.Event(t, func(ctx context.Context, e contract.Event) error {
			started <- e
			<-ctx.Done()
			return ctx.Err()
		}))
		memorytest.AwaitWorkers(t, b.Directory(), "react", 1)
		if err := b.Publish(t.Context(), contract.Event{Key: "x", ID: "1"}); err != nil {
			t.Fatal(err)
		}
		memorytest.Receive(t, started)
		dying.conn.Close() // like kill -9 of its process
		if err := stop(); !errors.Is(err, contract.ErrUnavailable) {
			t.Errorf("Serve without its broker: got %v, want contract.ErrUnavailable", err)
		}
		again := make(chan contract.Event, 1)
		memorytest.Serve(t, b, 1, memorytest.Event(t, func(_ context.Context, e contract.Event) error {
			again <- e
			return nil
		}))
		if e := memorytest.Receive(t, again); e.ID != "1" || e.Attempt != 1 || !e.Redelivered {
			t.Errorf("got %s on attempt %d, redelivered %v; want 1 on attempt 1, redelivered", e.ID, e.Attempt, e.Redelivered)
		}
	})
	t.Run("its idempotent calls run again", func(t *testing.T) {
		if err := callUnderDeath(t, 1, faas.Idempotent()); err != nil {
			t.Errorf("got %v, want the other worker's reply", err)
		}
	})
	t.Run("an idempotent call without another worker is lost", func(t *testing.T) {
		memorytest.WantLost(t, callUnderDeath(t, 0, faas.Idempotent()))
	})
	t.Run("its other calls are lost", func(t *testing.T) {
		memorytest.WantLost(t, callUnderDeath(t, 1))
	})
}

// callUnderDeath makes a call and closes the connection of its worker while it
// runs, when the given number of other workers hosts the function. It returns the
// error of the call.
func callUnderDeath(t *testing.T, others int, options ...faas.Option) error {
	b, path := shared(t)
	dying, caller := dial(t, path), dial(t, path)
	started := make(chan struct{}, 1)
	memorytest.Serve(t, dying, 1, memorytest.Request(t, func(ctx context.Context) error {
		started <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}, options...))
	memorytest.AwaitWorkers(t, caller.Directory(), "answer", 1)
	failed := make(chan error, 1)
	go func() {
		_, err := caller.Call(t.Context(), contract.Call{Key: "ask"})
		failed <- err
	}()
	memorytest.Receive(t, started)
	for n := range others {
		memorytest.Serve(t, b, n+2, memorytest.Request(t, func(context.Context) error { return nil }, options...))
	}
	dying.conn.Close()
	return memorytest.Receive(t, failed)
}

func TestLostConnection(t *testing.T) {
	b, path := shared(t)
	r := dial(t, path)
	started := make(chan struct{}, 1)
	memorytest.Serve(t, b, 1, memorytest.Request(t, func(ctx context.Context) error {
		started <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}))
	memorytest.AwaitWorkers(t, r.Directory(), "answer", 1)
	failed := make(chan error, 1)
	go func() {
		_, err := r.Call(t.Context(), contract.Call{Key: "ask"})
		failed <- err
	}()
	memorytest.Receive(t, started)
	r.conn.Close()
	if e := contract.AsError(memorytest.Receive(t, failed)); e == nil || e.Code != contract.CodeUnconfirmed || e.Executed != contract.ExecutedUnknown {
		t.Errorf("the call in flight: got %v, want unconfirmed with executed unknown", e)
	}
	if err := r.Publish(t.Context(), contract.Event{Key: "x"}); !errors.Is(err, contract.ErrUnavailable) {
		t.Errorf("publish: got %v, want contract.ErrUnavailable", err)
	}
	if err := r.Health(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Health: got %v, want an error that names %s", err, path)
	}
	memorytest.AwaitWorkers(t, r.Directory(), "answer", 0)
}

func TestDialErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if _, err := Dial(path, Config{}); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "rabbet dev") {
		t.Errorf("no broker at the path: got %v", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		conn, err := l.Accept()
		if err == nil {
			_, _ = conn.Write([]byte("rabbet memory 9\n"))
			_, _ = conn.Read(make([]byte, 100))
			_ = conn.Close()
		}
	}()
	if _, err := Dial(path, Config{}); err == nil || !strings.Contains(err.Error(), "one version") {
		t.Errorf("another version: got %v", err)
	}
}
