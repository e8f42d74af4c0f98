// Package host runs the functions of one worker, each run in a goroutine of its
// own. It does not know where runs come from, nor what their results cause.
package host

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Config says how a Host behaves. Both fields are required.
type Config struct {
	Grace   time.Duration     // how long Drain lets running functions finish
	Observe contract.Observer // called after every run
}

// A Host runs functions. Create it with New. Its methods are safe for
// concurrent use.
type Host struct {
	cfg         Config
	functions   map[string]*contract.Function // by name
	descriptors []contract.Descriptor

	ctx         context.Context // parent of the ctx of every run
	cancel      context.CancelFunc
	interrupted atomic.Bool // the grace period has passed
	running     atomic.Int64
	runs        sync.WaitGroup
}

// A Run is one run of a function.
type Run struct {
	Function string // its name
	Event    contract.Event
	Deadline time.Time // of the caller; zero for an event

	// Settle is called once, after the run, and returns what its result caused.
	Settle func(Result) contract.Decision
}

// A Result is how a run ended.
type Result struct {
	Reply       contract.Reply
	Err         error
	Run         time.Duration // how long the function ran
	Interrupted bool          // it failed because the grace period had passed

	// Decision is what becomes of an event; zero for a call. It is made where the
	// function runs, because a retry policy may have code.
	Decision contract.Decision
}

// New returns a Host of fns. The ctx of every run has the values of ctx, but is
// not cancelled with it: see Drain and Close. It fails if two functions have the
// same name, or one has no routing key.
func New(ctx context.Context, fns []contract.Function, cfg Config) (*Host, error) {
	h := &Host{cfg: cfg, functions: map[string]*contract.Function{}}
	for _, f := range fns {
		if h.functions[f.Name] != nil {
			return nil, fmt.Errorf("serve: there are two functions called %q", f.Name)
		}
		if len(f.Keys) == 0 {
			return nil, fmt.Errorf("serve: the function %q has no routing key", f.Name)
		}
		f.Concurrency = max(f.Concurrency, 1)
		if f.Timeout <= 0 {
			f.Timeout = contract.DefaultTimeout
		}
		h.functions[f.Name] = &f
		h.descriptors = append(h.descriptors, f.Descriptor)
	}
	h.ctx, h.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return h, nil
}

// Descriptors returns the descriptors of the functions, with a Concurrency of at
// least 1 and a Timeout above 0.
func (h *Host) Descriptors() []contract.Descriptor { return h.descriptors }

// Start starts r in a goroutine that ends with the run, and returns a function
// that cancels its ctx. The Host must have the function of r.
func (h *Host) Start(r *Run) (cancel func()) {
	ctx, cancel := context.WithCancel(h.ctx)
	arrived := time.Now()
	h.runs.Add(1)
	h.running.Add(1)
	go func() {
		defer h.runs.Done()
		defer h.running.Add(-1)
		defer cancel()
		h.run(ctx, r, arrived)
	}()
	return cancel
}

func (h *Host) run(ctx context.Context, r *Run, arrived time.Time) {
	f, start, attempt := h.functions[r.Function], time.Now(), r.Event.Attempt
	result := Result{Err: &contract.Error{Code: contract.CodePanic, Detail: "the function failed", Cause: errors.New("it ended its goroutine")}}
	defer func() { // deferred because the function may call runtime.Goexit
		result.Run = time.Since(start)
		if f.Kind == contract.KindEvent {
			result.Decision = f.Retry.Decide(result.Err, attempt)
		}
		decision := r.Settle(result)
		h.cfg.Observe(contract.Invocation{
			Function: f.Name, Kind: f.Kind, Key: r.Event.Key, ID: r.Event.ID, Trace: r.Event.Trace,
			Attempt: attempt, Wait: start.Sub(arrived), Run: result.Run,
			Outcome: decision.Outcome, After: decision.After, Err: result.Err,
		})
	}()
	result.Reply, result.Err = f.Run(ctx, &r.Event, r.Deadline)
	result.Interrupted = h.interrupted.Load() && errors.Is(result.Err, context.Canceled)
}

// interruptTimeout is how long Drain waits for functions to return after it has
// cancelled their ctx.
const interruptTimeout = time.Second

// Drain waits until no function runs, for at most the grace period. Then it
// cancels the runs, waits for them for at most 1 s more, and returns an error. A
// function that ignores its ctx may still be running after that. Start must not
// be called any more.
func (h *Host) Drain() error {
	done := make(chan struct{})
	go func() { // ends with the last run
		h.runs.Wait()
		close(done)
	}()
	timer := time.NewTimer(h.cfg.Grace)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
	}
	running := h.running.Load()
	h.interrupted.Store(true)
	h.cancel()
	timer.Reset(interruptTimeout)
	select {
	case <-done:
	case <-timer.C:
	}
	return fmt.Errorf("stop: %d functions were still running after the grace period of %v and were cut short", running, h.cfg.Grace)
}

// Close cancels the ctx of every run. It does not wait for them.
func (h *Host) Close() { h.cancel() }
