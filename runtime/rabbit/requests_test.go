package rabbit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// withAndWithoutBatches runs the test with calls that may travel together and
// with each call in a message of its own.
func withAndWithoutBatches(t *testing.T, test func(t *testing.T, cfg Config)) {
	for name, noBatch := range map[string]bool{"batch": false, "no batch": true} {
		t.Run(name, func(t *testing.T) { test(t, requestConfig(t, noBatch)) })
	}
}

// requestConfig is the configuration of a process in a namespace of its own.
func requestConfig(t testing.TB, noBatch bool) Config {
	t.Helper()
	return Config{
		URL: brokerURL(t), Namespace: "test-" + contract.NewID()[:10], NoBatch: noBatch, Grace: 5 * time.Second,
	}
}

// startCaller returns a broker that is ready to call.
func startCaller(t testing.TB, cfg Config) *Broker {
	t.Helper()
	b, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := b.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return b
}

// startWorker serves fns on a broker of its own until stop or the test's end,
// and returns once the callers know of it.
func startWorker(t testing.TB, cfg Config, callers []*Broker, fns ...contract.Function) (b *Broker, stop func()) {
	t.Helper()
	b = startCaller(t, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- b.Serve(ctx, fns) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(stop)
	for _, c := range callers {
		awaitFunctions(t, c, b.cfg.Process, fns)
	}
	return b, stop
}

// awaitFunctions waits until c has heard that worker hosts fns.
func awaitFunctions(t testing.TB, c *Broker, worker string, fns []contract.Function) {
	t.Helper()
	late := time.After(15 * time.Second)
	for {
		changed := c.Directory().Changed()
		missing := slices.IndexFunc(fns, func(f contract.Function) bool {
			live, ok := c.Directory().Find(f.Name)
			return !ok || !slices.Contains(live.Workers, worker)
		})
		if missing < 0 {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("function %q was not announced within 15 s", fns[missing].Name)
		}
	}
}

// function is a request function on the key of its own name.
func function(name string, handle contract.Handler, change ...func(*contract.Descriptor)) contract.Function {
	f := contract.Function{
		Descriptor: contract.Descriptor{
			Name: name, Kind: contract.KindRequest, Keys: []string{name}, Timeout: 30 * time.Second, Concurrency: 128, Version: "1",
		},
		Handle: handle,
	}
	for _, c := range change {
		c(&f.Descriptor)
	}
	return f
}

func readOnly(d *contract.Descriptor)                           { d.ReadOnly, d.Redeliver, d.Idempotent = true, true, true }
func oneAtATime(d *contract.Descriptor)                         { d.Concurrency = 1 }
func echo(_ context.Context, e *contract.Event) ([]byte, error) { return e.Body, nil }

// wantError fails unless err is an *contract.Error with that code and Executed.
func wantError(t *testing.T, err error, code contract.Code, executed contract.Executed) *contract.Error {
	t.Helper()
	e, ok := errors.AsType[*contract.Error](err)
	if !ok || e.Code != code || e.Executed != executed {
		t.Fatalf("got %v (executed %q), want code %q, executed %q", err, executedOf(err), code, executed)
	}
	return e
}

func executedOf(err error) contract.Executed {
	if e, ok := errors.AsType[*contract.Error](err); ok {
		return e.Executed
	}
	return ""
}

func TestCallIsAnswered(t *testing.T) {
	withAndWithoutBatches(t, func(t *testing.T, cfg Config) {
		caller := startCaller(t, cfg)
		got := make(chan contract.Event, 1)
		meta := make(chan contract.Meta, 1)
		worker, _ := startWorker(t, cfg, []*Broker{caller}, function("greet", func(ctx context.Context, e *contract.Event) ([]byte, error) {
			got <- *e
			meta <- contract.MetaOf(ctx)
			return []byte(`{"hello":"you"}`), nil
		}))
		r := contract.Call{
			Key: "greet", ID: "call-1", Body: []byte(`{"name":"you"}`), Correlation: "first", Causation: "before",
			Trace: contract.Trace{Parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", State: "a=b", Baggage: "c=d"},
		}
		reply, err := caller.Call(t.Context(), r)
		if err != nil || string(reply.Body) != `{"hello":"you"}` || reply.Worker != worker.cfg.Process {
			t.Errorf("reply: got %+v, %v; want the greeting of worker %s", reply, err, worker.cfg.Process)
		}
		e := <-got
		if e.Key != "greet" || e.ID != "call-1" || string(e.Body) != string(r.Body) || e.Correlation != "first" || e.Causation != "before" ||
			e.Trace != r.Trace || e.Attempt != 1 || e.Redelivered || e.ContentType != "application/json" {
			t.Errorf("event: got %+v, want what the call had", e)
		}
		if m := <-meta; m.ID != "call-1" || m.Correlation != "first" || m.Trace != r.Trace || m.Function != "greet" {
			t.Errorf("meta: got %+v, want the call's", m)
		}
	})
}

func TestManyCallsAtOnceEachGetTheirOwnReply(t *testing.T) {
	withAndWithoutBatches(t, func(t *testing.T, cfg Config) {
		caller := startCaller(t, cfg)
		var running, most atomic.Int64
		startWorker(t, cfg, []*Broker{caller}, function("echo", func(_ context.Context, e *contract.Event) ([]byte, error) {
			n := running.Add(1)
			defer running.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			return e.Body, nil
		}, func(d *contract.Descriptor) { d.Concurrency = 7 }))
		var g sync.WaitGroup
		for i := range 100 {
			g.Go(func() {
				for n := range 30 {
					want := fmt.Sprintf(`{"n":"%d-%d"}`, i, n)
					reply, err := caller.Call(t.Context(), contract.Call{Key: "echo", Body: []byte(want)})
					if err != nil || string(reply.Body) != want {
						t.Errorf("got %s, %v; want %s", reply.Body, err, want)
						return
					}
				}
			})
		}
		g.Wait()
		if most.Load() > 7 {
			t.Errorf("%d runs at once, want at most 7", most.Load())
		}
	})
}

func TestDeclaredErrorReachesTheCaller(t *testing.T) {
	withAndWithoutBatches(t, func(t *testing.T, cfg Config) {
		caller := startCaller(t, cfg)
		startWorker(t, cfg, []*Broker{caller}, function("fail", func(_ context.Context, e *contract.Event) ([]byte, error) {
			switch string(e.Body) {
			case "field":
				return nil, faas.InvalidField("/email", "no @ in it")
			case "later":
				return nil, faas.RetryAfter(1500*time.Millisecond, errors.New("the password is hunter2"))
			case "panic":
				panic("the password is hunter2")
			}
			return nil, errors.New("the password is hunter2")
		}))
		call := func(body string) error {
			_, err := caller.Call(t.Context(), contract.Call{Key: "fail", Body: []byte(body)})
			if err == nil || len(err.Error()) > 200 || slices.Contains([]byte(err.Error()), '2') {
				t.Errorf("%s: got %v, want an error without the secret", body, err)
			}
			return err
		}
		if e := wantError(t, call("field"), contract.CodeInvalid, ""); len(e.Fields) != 1 || e.Fields[0].Pointer != "/email" {
			t.Errorf("fields: got %v, want /email", e.Fields)
		}
		if e := wantError(t, call("later"), contract.CodeUnavailable, contract.ExecutedYes); e.After != 1500*time.Millisecond {
			t.Errorf("after: got %v, want 1.5s", e.After)
		}
		wantError(t, call("panic"), contract.CodePanic, "")
		wantError(t, call("other"), contract.CodeInternal, "")
	})
}

func TestCallOfAnUnservedKeyFailsAtOnce(t *testing.T) {
	withAndWithoutBatches(t, func(t *testing.T, cfg Config) {
		caller := startCaller(t, cfg)
		began := time.Now()
		_, err := caller.Call(t.Context(), contract.Call{Key: "nobody"})
		wantError(t, err, contract.CodeUnroutable, contract.ExecutedNo)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %v, want one round trip", took)
		}
	})
}

func TestCallThatAMQPCannotCarryIsRefused(t *testing.T) {
	caller := startCaller(t, requestConfig(t, false))
	long := string(make([]byte, 256))
	for name, r := range map[string]contract.Call{
		"no key":            {},
		"long key":          {Key: long},
		"long id":           {Key: "k", ID: long},
		"long content type": {Key: "k", ContentType: long},
		"large body":        {Key: "k", Body: make([]byte, maxCallBody+1)},
	} {
		_, err := caller.Call(t.Context(), r)
		if e, ok := errors.AsType[*contract.Error](err); !ok || e.Code != contract.CodeInvalid || e.Executed != contract.ExecutedNo {
			t.Errorf("%s: got %v, want code invalid, executed no", name, err)
		}
	}
	_, err := caller.Call(t.Context(), contract.Call{Key: "nobody"})
	wantError(t, err, contract.CodeUnroutable, contract.ExecutedNo) // the connection has not suffered
}

func TestCallThatExpiresInItsQueueIsNeverStarted(t *testing.T) {
	withAndWithoutBatches(t, func(t *testing.T, cfg Config) {
		caller := startCaller(t, cfg)
		f := function("gone", echo)
		_, stop := startWorker(t, cfg, []*Broker{caller}, f)
		stop() // its queue stays for a while
		began := time.Now()
		_, err := caller.Call(t.Context(), contract.Call{Key: "gone", Deadline: began.Add(200 * time.Millisecond)})
		wantError(t, err, contract.CodeExpired, contract.ExecutedNo)
		if took := time.Since(began); took < 190*time.Millisecond || took > 2*time.Second {
			t.Errorf("it took %v, want the 200 ms of its deadline", took)
		}
	})
}

func TestCallThatExpiresInTheWorkerIsNeverStarted(t *testing.T) {
	withAndWithoutBatches(t, func(t *testing.T, cfg Config) {
		caller := startCaller(t, cfg)
		var runs atomic.Int64
		begun, release := make(chan struct{}), make(chan struct{})
		_, stop := startWorker(t, cfg, []*Broker{caller}, function("slow", func(context.Context, *contract.Event) ([]byte, error) {
			if runs.Add(1) == 1 {
				close(begun)
			}
			<-release
			return nil, nil
		}, oneAtATime))
		first := make(chan error, 1)
		go func() {
			_, err := caller.Call(t.Context(), contract.Call{Key: "slow"})
			first <- err
		}()
		<-begun
		_, err := caller.Call(t.Context(), contract.Call{Key: "slow", Deadline: time.Now().Add(100 * time.Millisecond)})
		wantError(t, err, contract.CodeExpired, contract.ExecutedNo)
		close(release)
		if err := <-first; err != nil {
			t.Errorf("the call that ran: %v", err)
		}
		stop()
		if runs.Load() != 1 {
			t.Errorf("%d runs, want 1", runs.Load())
		}
	})
}

func TestDeadlineReachesTheFunction(t *testing.T) {
	withAndWithoutBatches(t, func(t *testing.T, cfg Config) {
		caller := startCaller(t, cfg)
		ended := make(chan error, 1)
		startWorker(t, cfg, []*Broker{caller}, function("wait", untilDone(make(chan struct{}, 1), ended)))
		_, err := caller.Call(t.Context(), contract.Call{Key: "wait", Deadline: time.Now().Add(200 * time.Millisecond)})
		wantError(t, err, contract.CodeExpired, contract.ExecutedUnknown)
		if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the function's ctx ended with %v, want its deadline", err)
		}
	})
}

func TestCancellationReachesTheFunction(t *testing.T) {
	withAndWithoutBatches(t, func(t *testing.T, cfg Config) {
		caller := startCaller(t, cfg)
		begun, ended := make(chan struct{}, 1), make(chan error, 1)
		startWorker(t, cfg, []*Broker{caller}, function("wait", untilDone(begun, ended)))
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-begun
			cancel()
		}()
		_, err := caller.Call(ctx, contract.Call{Key: "wait"})
		wantError(t, err, contract.CodeCanceled, contract.ExecutedUnknown)
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the function's ctx ended with %v, want canceled", err)
		}
	})
}

// untilDone waits for the end of its ctx, and says when it begins and how that ended.
func untilDone(begun chan<- struct{}, ended chan<- error) contract.Handler {
	return func(ctx context.Context, _ *contract.Event) ([]byte, error) {
		begun <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	}
}

func TestFullQueueRefusesTheCall(t *testing.T) {
	cfg := requestConfig(t, true)
	caller := startCaller(t, cfg)
	_, stop := startWorker(t, cfg, []*Broker{caller}, function("full", echo))
	stop()
	ch := foreignChannel(t)
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	var last *amqp.DeferredConfirmation
	for range requestQueueLength + 100 {
		var err error
		if last, err = ch.PublishWithDeferredConfirm(cfg.Namespace+".requests", "full", false, false, amqp.Publishing{}); err != nil {
			t.Fatal(err)
		}
	}
	last.Wait()
	_, err := caller.Call(t.Context(), contract.Call{Key: "full"})
	wantError(t, err, contract.CodeRefused, contract.ExecutedNo)
}
