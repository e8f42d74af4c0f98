package rabbit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
)

// cut ends the connection of l, as the loss of a network would.
func cut(t *testing.T, l *connection.Connection) {
	t.Helper()
	s := l.Await(t.Context())
	if s == nil {
		t.Fatal("there is no connection to cut")
	}
	_ = s.AMQP.CloseDeadline(time.Now().Add(time.Second))
}

func TestRepeatableCallSurvivesTheLossOfItsWorker(t *testing.T) {
	withAndWithoutBatches(t, func(t *testing.T, cfg Config) {
		caller := startCaller(t, cfg)
		begun := make(chan *contract.Event, 1)
		first := function("survive", func(ctx context.Context, e *contract.Event) ([]byte, error) {
			begun <- e
			<-ctx.Done()
			return nil, ctx.Err()
		}, readOnly)
		second := function("survive", func(_ context.Context, e *contract.Event) ([]byte, error) {
			if e.Attempt != 2 || !e.Redelivered {
				t.Errorf("got attempt %d, redelivered %v; want 2, true", e.Attempt, e.Redelivered)
			}
			return []byte(`"survived"`), nil
		}, readOnly)
		cfg.Grace = time.Millisecond
		dying := startCaller(t, cfg)
		serving, die := context.WithCancel(context.Background())
		served := make(chan error, 1)
		go func() { served <- dying.Serve(serving, []contract.Function{first}) }()
		awaitFunctions(t, caller, dying.cfg.Process, []contract.Function{first})

		replied := make(chan error, 1)
		go func() {
			reply, err := caller.Call(t.Context(), contract.Call{Key: "survive"})
			if err == nil && string(reply.Body) != `"survived"` {
				err = errors.New("got " + string(reply.Body))
			}
			replied <- err
		}()
		<-begun
		startWorker(t, cfg, []*Broker{caller}, second)
		die() // it does not finish in time, and its connection ends with it
		<-served
		if err := <-replied; err != nil {
			t.Errorf("the call did not survive: %v", err)
		}
	})
}

func TestCallSurvivesTheLossOfItsWorkersConnection(t *testing.T) {
	withAndWithoutBatches(t, func(t *testing.T, cfg Config) {
		caller := startCaller(t, cfg)
		var once, again atomic.Int64
		begun, release := make(chan struct{}, 4), make(chan struct{})
		wait := func(runs *atomic.Int64) contract.Handler {
			return func(context.Context, *contract.Event) ([]byte, error) {
				runs.Add(1)
				begun <- struct{}{}
				<-release
				return []byte(`"done"`), nil
			}
		}
		worker, stop := startWorker(t, cfg, []*Broker{caller}, function("once", wait(&once)), function("again", wait(&again), readOnly))
		var g sync.WaitGroup
		for _, key := range []string{"once", "again"} {
			g.Go(func() {
				reply, err := caller.Call(t.Context(), contract.Call{Key: key})
				if err != nil || string(reply.Body) != `"done"` {
					t.Errorf("%s: got %s, %v; want done", key, reply.Body, err)
				}
			})
		}
		<-begun
		<-begun
		cut(t, worker.work)
		<-begun // the one that only reads runs again
		close(release)
		g.Wait()
		stop()
		if once.Load() != 1 || again.Load() != 2 {
			t.Errorf("got %d runs of the call that must not repeat and %d of the other, want 1 and 2", once.Load(), again.Load())
		}
	})
}

func TestCallThatMayHaveRunIsNotRunAgain(t *testing.T) {
	withAndWithoutBatches(t, func(t *testing.T, cfg Config) {
		caller := startCaller(t, cfg)
		f := function("once", func(context.Context, *contract.Event) ([]byte, error) {
			t.Error("it ran")
			return nil, nil
		})
		_, stop := startWorker(t, cfg, []*Broker{caller}, f)
		stop()
		failed := make(chan error, 1)
		go func() {
			_, err := caller.Call(t.Context(), contract.Call{Key: "once"})
			failed <- err
		}()
		// A worker takes it and is lost; whether it ran is not to be known.
		ch := foreignChannel(t)
		deliveries, err := ch.Consume(cfg.Namespace+".request.once", "", false, false, false, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		<-deliveries
		if err := ch.Close(); err != nil {
			t.Fatal(err)
		}
		startWorker(t, cfg, []*Broker{caller}, f)
		wantError(t, <-failed, contract.CodeLost, contract.ExecutedUnknown)
	})
}

func TestLostConnectionFailsPendingCallsAtOnce(t *testing.T) {
	withAndWithoutBatches(t, func(t *testing.T, cfg Config) {
		caller := startCaller(t, cfg)
		begun, release := make(chan struct{}), make(chan struct{})
		startWorker(t, cfg, []*Broker{caller}, function("wait", func(context.Context, *contract.Event) ([]byte, error) {
			close(begun)
			<-release
			return nil, nil
		}), function("echo", echo))
		defer close(release)
		failed := make(chan error, 1)
		go func() {
			_, err := caller.Call(t.Context(), contract.Call{Key: "wait", Deadline: time.Now().Add(10 * time.Second)})
			failed <- err
		}()
		<-begun
		cut(t, caller.calls)
		select {
		case err := <-failed:
			wantError(t, err, contract.CodeUnconfirmed, contract.ExecutedUnknown)
		case <-time.After(5 * time.Second):
			t.Fatal("the call still waits 5 s after its connection was lost")
		}
		if err := caller.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := caller.Call(t.Context(), contract.Call{Key: "echo"}); err != nil {
			t.Errorf("a call after the connection was made again: %v", err)
		}
	})
}

func TestCallWithoutAConnectionFailsAtOnce(t *testing.T) {
	b, err := Open(Config{URL: "amqp://guest:secret@127.0.0.1:1/", Namespace: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	_, err = b.Call(t.Context(), contract.Call{Key: "any"})
	wantError(t, err, contract.CodeUnavailable, contract.ExecutedNo)
}

func TestRollingRestartFailsNoCall(t *testing.T) {
	withAndWithoutBatches(t, func(t *testing.T, cfg Config) {
		caller := startCaller(t, cfg)
		f := function("roll", echo, func(d *contract.Descriptor) { d.Concurrency = 4 })
		_, stop := startWorker(t, cfg, []*Broker{caller}, f)
		over := make(chan struct{})
		var calls atomic.Int64
		var g sync.WaitGroup
		for range 32 {
			g.Go(func() {
				for {
					select {
					case <-over:
						return
					default:
					}
					calls.Add(1)
					if _, err := caller.Call(t.Context(), contract.Call{Key: "roll"}); err != nil {
						t.Errorf("call %d: %v (executed %q)", calls.Load(), err, executedOf(err))
						return
					}
				}
			})
		}
		for range 3 {
			_, next := startWorker(t, cfg, []*Broker{caller}, f)
			stop()
			stop = next
		}
		close(over)
		g.Wait()
	})
}

func TestOneCallOfABatchTouchesNoOther(t *testing.T) {
	cfg := requestConfig(t, false)
	caller := startCaller(t, cfg)
	release := make(chan struct{})
	startWorker(t, cfg, []*Broker{caller}, function("mixed", func(ctx context.Context, e *contract.Event) ([]byte, error) {
		switch string(e.Body) {
		case "panic":
			panic("poison")
		case "slow":
			<-release
		case "late":
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return e.Body, nil
	}))
	var slow, fast sync.WaitGroup
	for range 40 {
		slow.Go(func() {
			if reply, err := caller.Call(t.Context(), contract.Call{Key: "mixed", Body: []byte("slow")}); err != nil || string(reply.Body) != "slow" {
				t.Errorf("slow: got %s, %v", reply.Body, err)
			}
		})
		for body, want := range map[string]contract.Code{"panic": contract.CodePanic, "late": contract.CodeExpired, "good": ""} {
			fast.Go(func() {
				r := contract.Call{Key: "mixed", Body: []byte(body), Deadline: time.Now().Add(20 * time.Second)}
				if body == "late" {
					r.Deadline = time.Now().Add(300 * time.Millisecond)
				}
				_, err := caller.Call(t.Context(), r)
				var got contract.Code
				if e := contract.AsError(err); e != nil {
					got = e.Code
				}
				if got != want {
					t.Errorf("%s: got %v, want code %q", body, err, want)
				}
			})
		}
	}
	fast.Wait() // while the slow ones still run
	close(release)
	slow.Wait()
}

// A run whose delivery is lost ends, and the call runs again.
func TestLostRunOfAnIdempotentCallIsCanceled(t *testing.T) {
	cfg := requestConfig(t, false)
	caller := startCaller(t, cfg)
	attempts, ended := make(chan int, 2), make(chan error, 1)
	f := function("replace", func(ctx context.Context, e *contract.Event) ([]byte, error) {
		attempts <- e.Attempt
		if e.Attempt == 1 {
			<-ctx.Done()
			ended <- ctx.Err()
		}
		return fmt.Appendf(nil, "%d", e.Attempt), nil
	}, func(d *contract.Descriptor) { d.Redeliver, d.Idempotent = true, true })
	worker, _ := startWorker(t, cfg, []*Broker{caller}, f)
	replied := make(chan string, 1)
	go func() {
		reply, err := caller.Call(t.Context(), contract.Call{Key: "replace"})
		replied <- fmt.Sprint(string(reply.Body), err)
	}()
	if n := receive(t, "the first run", attempts); n != 1 {
		t.Errorf("got attempt %d first", n)
	}
	cut(t, worker.work)
	if err := receive(t, "the end of the first run", ended); !errors.Is(err, context.Canceled) {
		t.Errorf("the lost run ended with %v, want canceled", err)
	}
	if n := receive(t, "the second run", attempts); n != 2 {
		t.Errorf("got attempt %d second", n)
	}
	if got := receive(t, "the reply", replied); got != "2<nil>" {
		t.Errorf("got %s, want the reply of the second run", got)
	}
}

// The callers of a killed worker are told before their deadline.
func TestCallerLearnsThatItsWorkerIsLost(t *testing.T) {
	cfg := requestConfig(t, false)
	removeAfter(t, cfg.Namespace)
	caller := startCaller(t, cfg)
	ran := make(chan struct{}, 1)
	w := startProcess(t, task{URL: cfg.URL, Namespace: cfg.Namespace, Serve: true, Slow: true}, func(string, string) { ran <- struct{}{} })
	awaitWorkers(t, caller, "once", true)
	failed := make(chan error, 1)
	go func() {
		_, err := caller.Call(t.Context(), contract.Call{Key: "once", Deadline: time.Now().Add(time.Minute)})
		failed <- err
	}()
	receive(t, "the run", ran)
	w.kill()
	wantError(t, receive(t, "the outcome of a call whose worker was killed", failed), contract.CodeLost, contract.ExecutedUnknown)
}

// A reply that is lost with the worker's connection, after the acknowledgement,
// does not leave its caller waiting for the deadline.
func TestCallerLearnsThatItsReplyIsLost(t *testing.T) {
	for name, change := range map[string]func(*contract.Descriptor){
		"at most once": func(*contract.Descriptor) {},
		"idempotent":   func(d *contract.Descriptor) { d.Redeliver, d.Idempotent = true, true },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := requestConfig(t, false)
			caller := startCaller(t, cfg)
			p, url := startProxy(t, cfg.URL)
			cfg.URL = url
			begun, release := make(chan struct{}, 2), make(chan struct{})
			startWorker(t, cfg, []*Broker{caller}, function("answer", func(_ context.Context, e *contract.Event) ([]byte, error) {
				begun <- struct{}{}
				<-release
				return nil, nil
			}, change))
			failed := make(chan error, 1)
			go func() {
				_, err := caller.Call(t.Context(), contract.Call{Key: "answer", Deadline: time.Now().Add(time.Minute)})
				failed <- err
			}()
			receive(t, "the run", begun)
			p.hole(upstream)
			close(release)
			time.Sleep(100 * time.Millisecond) // for the reply to fall into the hole
			p.hole()
			err := receive(t, "the outcome of a call whose reply was lost", failed)
			if err != nil || name == "at most once" { // the other one may have run again
				wantError(t, err, contract.CodeLost, contract.ExecutedUnknown)
			}
		})
	}
}

// A call whose caller is told that it was not executed has not run, even if its
// worker received it and lost its connection.
func TestExpiredCallHasNotRunOnALostWorker(t *testing.T) {
	withAndWithoutBatches(t, func(t *testing.T, cfg Config) {
		caller := startCaller(t, cfg)
		p, url := startProxy(t, cfg.URL)
		cfg.URL = url
		ran := make(chan struct{}, 1)
		startWorker(t, cfg, []*Broker{caller}, function("write", func(context.Context, *contract.Event) ([]byte, error) {
			ran <- struct{}{}
			return nil, nil
		}))
		p.hole(upstream) // the worker receives the call, but the broker not its acknowledgement
		failed := make(chan error, 1)
		go func() {
			_, err := caller.Call(t.Context(), contract.Call{Key: "write", Deadline: time.Now().Add(2 * time.Second)})
			failed <- err
		}()
		time.Sleep(500 * time.Millisecond) // for the worker to receive the call
		p.down()                           // the call returns to its queue, and expires there
		err := receive(t, "the outcome of the call", failed)
		wantError(t, err, contract.CodeExpired, contract.ExecutedNo)
		p.up(t)
		select {
		case <-ran:
			t.Error("it ran")
		case <-time.After(200 * time.Millisecond):
		}
	})
}
