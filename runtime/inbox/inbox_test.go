package inbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/inbox/memory"
	"github.com/rabbet-fn/rabbet/runtime/inbox/store"
)

// once makes a wrapped function of fn.
func once(i *Inbox, fn func(context.Context, contract.Event) error, options ...faas.Option) contract.Function {
	var set faas.Set[struct{}]
	faas.OnEvent(&set, "act", func(ctx context.Context, _ *struct{}, e contract.Event) error { return fn(ctx, e) },
		append([]faas.Option{faas.Keys("act.#"), faas.Once("")}, options...)...)
	fns, err := set.With(&struct{}{})
	if err != nil {
		panic(err) // With fails on names only, and none is given
	}
	return i.Wrap(fns)[0]
}

func deliver(f *contract.Function, id string) error {
	_, err := f.Run(context.Background(), &contract.Event{Key: "act.now", ID: id, Attempt: 1}, time.Time{})
	return err
}

// wantPostponed checks that the event waits, and no attempt is counted.
func wantPostponed(t *testing.T, err error) {
	t.Helper()
	if v := (contract.Retry{Max: 1}).Decide(err, 1); v.Outcome != contract.OutcomeRetry || v.Attempt != 1 || v.After <= 0 {
		t.Errorf("got %+v of %v, want the event put off without a counted attempt", v, err)
	}
}

func TestAFailureSuppressesNothing(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			inbox := New(open(t), Config{Namespace: "test-" + contract.NewID()})
			runs := 0
			f := once(inbox, func(ctx context.Context, _ contract.Event) error {
				runs++
				switch runs {
				case 1:
					return errors.New("not yet")
				case 2:
					return faas.Permanent("never")
				case 3:
					panic("why")
				case 4:
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			}, faas.Timeout(50*time.Millisecond))
			for n := 1; n <= 7; n++ {
				err := deliver(&f, "one")
				if failed := err != nil; failed != (n < 5) {
					t.Errorf("delivery %d: got %v", n, err)
				}
			}
			if runs != 5 {
				t.Errorf("it ran %d times, want 4 failures and one success", runs)
			}
			if err := deliver(&f, "another"); err != nil || runs != 6 {
				t.Errorf("another event: got %v after %d runs, want a sixth", err, runs)
			}
		})
	}
}

func TestFunctionsAndNamespacesAreKeptApart(t *testing.T) {
	shared := &memory.Store{}
	var ran atomic.Int32
	count := func(context.Context, contract.Event) error { ran.Add(1); return nil }
	one, other := New(shared, Config{Namespace: "one"}), New(shared, Config{Namespace: "other"})
	f := once(one, count)
	var set faas.Set[struct{}]
	faas.OnEvent(&set, "react", func(context.Context, *struct{}, contract.Event) error { ran.Add(1); return nil }, faas.Keys("act.#"), faas.Once(""))
	faas.OnEvent(&set, "always", func(context.Context, *struct{}, contract.Event) error { ran.Add(1); return nil }, faas.Keys("act.#"))
	fns, err := set.With(&struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	fns = append(one.Wrap(fns), f, once(other, count))
	for range 2 {
		for n := range fns {
			if err := deliver(&fns[n], "one"); err != nil {
				t.Error(err)
			}
		}
	}
	if ran.Load() != 5 { // each once, and "always" once more
		t.Errorf("got %d runs, want 5", ran.Load())
	}
}

func TestAnEventWithoutItsFieldIsDead(t *testing.T) {
	f := once(New(&memory.Store{}, Config{}), func(context.Context, contract.Event) error {
		t.Error("it ran")
		return nil
	}, faas.Once("order:{id}"))
	if err := deliver(&f, "one"); (contract.Retry{}).Decide(err, 1).Outcome != contract.OutcomeDead {
		t.Errorf("got %v, want it dead", err)
	}
}

// A run of many leases is renewed, and whatever comes meanwhile waits.
func TestALongRunKeepsItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inbox := New(&memory.Store{}, Config{Lease: time.Second})
		var runs atomic.Int32
		f := once(inbox, func(context.Context, contract.Event) error {
			runs.Add(1)
			time.Sleep(10 * time.Second)
			return nil
		})
		ended := make(chan error)
		go func() { ended <- deliver(&f, "one") }()
		for range 90 {
			time.Sleep(99 * time.Millisecond)
			wantPostponed(t, deliver(&f, "one"))
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := deliver(&f, "one"); err != nil || runs.Load() != 1 {
			t.Errorf("after it: got %v and %d runs, want one run", err, runs.Load())
		}
	})
}

// A run that has lost its key to another one is cancelled.
func TestALostKeyCancelsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var forgetful forgetful
		forgetful.forget()
		inbox := New(&forgetful, Config{Lease: time.Second})
		f := once(inbox, func(ctx context.Context, _ contract.Event) error {
			forgetful.forget()
			if claim, err := forgetful.Claim(ctx, inbox.keyOf("act", `["act.now","","one"]`), "other", time.Minute); err != nil || claim.State != store.Mine {
				t.Errorf("claim: got %+v, %v", claim, err)
			}
			<-ctx.Done()
			return ctx.Err()
		})
		began := time.Now()
		if err := deliver(&f, "one"); !errors.Is(err, errTaken) || time.Since(began) > 500*time.Millisecond {
			t.Errorf("got %v after %v, want it cancelled at the next renewal", err, time.Since(began))
		}
		wantPostponed(t, deliver(&f, "one")) // the other one has it still
	})
}

// forgetful is a store that can lose its keys, like a Redis that does not persist.
type forgetful struct {
	mu sync.Mutex
	store.Store
}

func (s *forgetful) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Store = &memory.Store{}
}

func (s *forgetful) Claim(ctx context.Context, key, token string, lease time.Duration) (store.Claim, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Store.Claim(ctx, key, token, lease)
}

// flaky is a store that fails when it is told to.
type flaky struct {
	store.Store
	claim, complete atomic.Bool
}

var errDown = errors.New("down")

func (s *flaky) Claim(ctx context.Context, key, token string, lease time.Duration) (store.Claim, error) {
	if s.claim.Load() {
		return store.Claim{}, errDown
	}
	return s.Store.Claim(ctx, key, token, lease)
}

func (s *flaky) Complete(ctx context.Context, key string, keep time.Duration) error {
	if s.complete.Load() {
		return errDown
	}
	return s.Store.Complete(ctx, key, keep)
}

// Without its inbox a function does not run; nor is the event lost or counted.
func TestWithoutItsStoreNothingRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flaky := &flaky{Store: &memory.Store{}}
		runs := 0
		f := once(New(flaky, Config{}), func(context.Context, contract.Event) error { runs++; return nil })
		flaky.claim.Store(true)
		for range 20 {
			wantPostponed(t, deliver(&f, "one"))
		}
		if runs != 0 {
			t.Errorf("it ran %d times without its inbox", runs)
		}
		time.AfterFunc(time.Second, func() { flaky.claim.Store(false) })
		if err := deliver(&f, "one"); err != nil || runs != 1 {
			t.Errorf("a store that is back within the patience: got %v and %d runs", err, runs)
		}
	})
}

// What the documentation says about a crash in between: the effect has
// happened, that is not written down, and another copy runs once more.
func TestSuccessThatIsNotWrittenDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flaky := &flaky{Store: &memory.Store{}}
		runs := 0
		f := once(New(flaky, Config{}), func(context.Context, contract.Event) error { runs++; return nil })
		flaky.complete.Store(true)
		if err := deliver(&f, "one"); err != nil {
			t.Errorf("got %v, want the event acknowledged: its effect has happened", err)
		}
		flaky.complete.Store(false)
		if err := deliver(&f, "one"); err != nil || runs != 2 {
			t.Errorf("a copy: got %v after %d runs, want a second run", err, runs)
		}
		if err := deliver(&f, "one"); err != nil || runs != 2 {
			t.Errorf("one more copy: got %v after %d runs, want no third run", err, runs)
		}
	})
}

func ExampleInbox_Wrap() {
	var set faas.Set[struct{}]
	faas.OnEvent(&set, "charge", func(_ context.Context, _ *struct{}, e contract.Event) error {
		fmt.Println("charged:", string(e.Body))
		return nil
	}, faas.Keys("order.placed"), faas.Once("order:{id}"))
	fns, _ := set.With(&struct{}{})
	fns = New(&memory.Store{}, Config{}).Wrap(fns)
	for range 3 {
		fns[0].Run(context.Background(), &contract.Event{Key: "order.placed", Body: []byte(`{"id":"42"}`)}, time.Time{})
	}
	// Output: charged: {"id":"42"}
}
