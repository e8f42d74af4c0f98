package memory

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/brokertest"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

func TestConformanceOfRemote(t *testing.T) {
	paths := map[*testing.T]string{}
	brokertest.Run(t, func(t *testing.T) brokertest.Broker {
		if paths[t] == "" {
			_, paths[t] = shared(t)
		}
		return dial(t, paths[t])
	})
}

// shared is a broker, and the path at which it is shared until the test ends.
func shared(t *testing.T) (*Broker, string) {
	t.Helper()
	b := New(Config{})
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

func dial(t *testing.T, path string) *Remote {
	t.Helper()
	r, err := Dial(path, Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

type empty struct{}

type ask struct{}

func (ask) RoutingKey() string { return "ask" }

// answering is a request function for ask.
func answering(t *testing.T, fn func(context.Context) error, options ...faas.Option) []contract.Function {
	t.Helper()
	var set faas.Set[empty]
	faas.OnRequest(&set, "answer", func(ctx context.Context, _ *empty, _ ask) (empty, error) { return empty{}, fn(ctx) }, options...)
	return all(t, &set)
}

// reacting is an event function for the key x.
func reacting(t *testing.T, fn func(context.Context, contract.Event) error, options ...faas.Option) []contract.Function {
	t.Helper()
	var set faas.Set[empty]
	faas.OnEvent(&set, "react", func(ctx context.Context, _ *empty, e contract.Event) error { return fn(ctx, e) }, append(options, faas.Keys("x"))...)
	return all(t, &set)
}

func all(t *testing.T, set *faas.Set[empty]) []contract.Function {
	t.Helper()
	fns, err := set.With(&empty{})
	if err != nil {
		t.Fatal(err)
	}
	return fns
}

// server is what a Broker and a Remote have in common here.
type server interface {
	Serve(ctx context.Context, fns []contract.Function) error
	Directory() *contract.Directory
}

// serving hosts fns on b until stop is called, which returns what Serve did, and
// waits until as many workers host them as are wanted.
func serving(t *testing.T, b server, workers int, fns []contract.Function) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Serve(ctx, fns) }()
	t.Cleanup(cancel)
	count(t, b.Directory(), fns[0].Name, workers)
	return func() error {
		cancel()
		return receive(t, done)
	}
}

func count(t *testing.T, d *contract.Directory, name string, workers int) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		changed := d.Changed()
		f, _ := d.Find(name)
		if len(f.Workers) == workers {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("%s has the workers %q, want %d", name, f.Workers, workers)
		}
	}
}

func receive[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came within 10 s")
		panic("unreachable")
	}
}

func TestDeadProcess(t *testing.T) {
	t.Run("its events are redelivered", func(t *testing.T) {
		b, path := shared(t)
		dying := dial(t, path)
		started := make(chan contract.Event, 1)
		stop := serving(t, dying, 1, reacting(t, func(ctx context.Context, e contract.Event) error {
			started <- e
			<-ctx.Done()
			return ctx.Err()
		}))
		count(t, b.Directory(), "react", 1)
		if err := b.Publish(t.Context(), contract.Event{Key: "x", ID: "1"}); err != nil {
			t.Fatal(err)
		}
		receive(t, started)
		_ = dying.conn.Close() // as if it was killed
		if err := stop(); !errors.Is(err, contract.ErrUnavailable) {
			t.Errorf("Serve without its broker: got %v, want contract.ErrUnavailable", err)
		}
		again := make(chan contract.Event, 1)
		serving(t, b, 1, reacting(t, func(_ context.Context, e contract.Event) error {
			again <- e
			return nil
		}))
		if e := receive(t, again); e.ID != "1" || e.Attempt != 1 || !e.Redelivered {
			t.Errorf("got %s on attempt %d, redelivered %v; want 1 on attempt 1, redelivered", e.ID, e.Attempt, e.Redelivered)
		}
	})
	t.Run("its idempotent calls run again", func(t *testing.T) {
		if err := callUnderDeath(t, 1, faas.Idempotent()); err != nil {
			t.Errorf("got %v, want the other worker's reply", err)
		}
	})
	t.Run("an idempotent call that nobody else can take is lost", func(t *testing.T) {
		wantLost(t, callUnderDeath(t, 0, faas.Idempotent()))
	})
	t.Run("its other calls are lost", func(t *testing.T) {
		wantLost(t, callUnderDeath(t, 1))
	})
}

func wantLost(t *testing.T, err error) {
	t.Helper()
	if e := contract.AsError(err); e == nil || e.Code != contract.CodeLost || e.Executed != contract.ExecutedUnknown {
		t.Errorf("got %v, want lost with executed unknown", err)
	}
}

// callUnderDeath makes a call whose worker dies under it, with some others left.
func callUnderDeath(t *testing.T, others int, options ...faas.Option) error {
	b, path := shared(t)
	dying, caller := dial(t, path), dial(t, path)
	started := make(chan struct{}, 1)
	serving(t, dying, 1, answering(t, func(ctx context.Context) error {
		started <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}, options...))
	count(t, caller.Directory(), "answer", 1)
	failed := make(chan error, 1)
	go func() {
		_, err := caller.Call(t.Context(), contract.Call{Key: "ask"})
		failed <- err
	}()
	receive(t, started)
	for n := range others {
		serving(t, b, n+2, answering(t, func(context.Context) error { return nil }, options...))
	}
	_ = dying.conn.Close()
	return receive(t, failed)
}

func TestBrokerGoesAway(t *testing.T) {
	b, path := shared(t)
	r := dial(t, path)
	started := make(chan struct{}, 1)
	serving(t, b, 1, answering(t, func(ctx context.Context) error {
		started <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}))
	count(t, r.Directory(), "answer", 1)
	failed := make(chan error, 1)
	go func() {
		_, err := r.Call(t.Context(), contract.Call{Key: "ask"})
		failed <- err
	}()
	receive(t, started)
	_ = r.conn.Close()
	if e := contract.AsError(receive(t, failed)); e == nil || e.Code != contract.CodeUnconfirmed || e.Executed != contract.ExecutedUnknown {
		t.Errorf("the call under way: got %v, want unconfirmed with executed unknown", e)
	}
	if err := r.Publish(t.Context(), contract.Event{Key: "x"}); !errors.Is(err, contract.ErrUnavailable) {
		t.Errorf("publish: got %v, want contract.ErrUnavailable", err)
	}
	if err := r.Health(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Health: got %v, want an error that names %s", err, path)
	}
	count(t, r.Directory(), "answer", 0)
}

func TestDialSaysWhatIsWrong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if _, err := Dial(path, Config{}); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "rabbet dev") {
		t.Errorf("nobody there: got %v", err)
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

func TestErrorsTravelWhole(t *testing.T) {
	sent := &contract.Error{
		Code: contract.CodeInvalid, Detail: "it does not fit", Fields: []contract.FieldError{{Pointer: "/a", Detail: "b"}},
		After: time.Second, Executed: contract.ExecutedUnknown, Cause: errors.New("inside"), Stack: []byte("stack"),
	}
	got, ok := errors.AsType[*contract.Error](failureOf(sent).error())
	if !ok || got.Error() != sent.Error() || got.After != sent.After || got.Executed != sent.Executed || string(got.Stack) != "stack" {
		t.Errorf("got %+v, want %+v", got, sent)
	}
	if err := failureOf(nil).error(); err != nil {
		t.Errorf("no error: got %v", err)
	}
}
