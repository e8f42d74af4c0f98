package memory

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// afterGrace is how long a function has to return once its ctx is cancelled
// because the grace period is over.
const afterGrace = time.Second

// host runs functions in this process, for a broker that is here or elsewhere.
type host struct {
	cfg       Config
	functions map[string]*contract.Function
	ctx       context.Context // of every run; outlives Serve's by the grace period
	stop      context.CancelFunc
	cut       atomic.Bool // the grace period is over
	running   atomic.Int64
	runs      sync.WaitGroup
}

// run is one run of a function as its host sees it.
type run struct {
	function string
	event    contract.Event
	deadline time.Time
	settle   func(result) contract.Decision
}

// result is what came of a run.
type result struct {
	reply    contract.Reply
	err      error
	run      time.Duration
	returned bool // cut short by the end of the grace period: not the function's doing
}

func newHost(ctx context.Context, cfg Config, fns []contract.Function) (*host, error) {
	h := &host{cfg: cfg, functions: map[string]*contract.Function{}}
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
	}
	h.ctx, h.stop = context.WithCancel(context.WithoutCancel(ctx))
	return h, nil
}

func (h *host) descriptors() []contract.Descriptor {
	var list []contract.Descriptor
	for _, f := range h.functions {
		list = append(list, f.Descriptor)
	}
	return list
}

// begin starts a run in a goroutine of its own, which ends with it, and
// returns what cancels it.
func (h *host) begin(r *run) (cancel func()) {
	ctx, cancel := context.WithCancel(h.ctx)
	f, arrived := h.functions[r.function], time.Now()
	h.runs.Add(1)
	h.running.Add(1)
	go func() {
		defer h.runs.Done()
		defer h.running.Add(-1)
		defer cancel()
		h.do(ctx, f, r, arrived)
	}()
	return cancel
}

func (h *host) do(ctx context.Context, f *contract.Function, r *run, arrived time.Time) {
	start := time.Now()
	res := result{err: &contract.Error{Code: contract.CodePanic, Detail: "the function failed", Cause: errors.New("it ended its goroutine")}}
	defer func() { // deferred, for the function may call runtime.Goexit
		res.run = time.Since(start)
		verdict := r.settle(res)
		h.cfg.Observe(contract.Invocation{
			Function: f.Name, Kind: f.Kind, Key: r.event.Key, ID: r.event.ID, Trace: r.event.Trace,
			Attempt: r.event.Attempt, Wait: start.Sub(arrived), Run: res.run,
			Outcome: verdict.Outcome, After: verdict.After, Err: res.err,
		})
	}()
	res.reply, res.err = f.Run(ctx, &r.event, r.deadline)
	res.returned = h.cut.Load() && errors.Is(res.err, context.Canceled)
}

// drain waits for what runs, within the grace period; then it cancels it. The
// intake must have stopped. What ignores the cancellation is left behind.
func (h *host) drain() error {
	done := make(chan struct{})
	go func() { // ends with the last run
		h.runs.Wait()
		close(done)
	}()
	grace := time.NewTimer(h.cfg.Grace)
	defer grace.Stop()
	select {
	case <-done:
		return nil
	case <-grace.C:
	}
	left := h.running.Load()
	h.cut.Store(true)
	h.stop()
	grace.Reset(afterGrace)
	select {
	case <-done:
	case <-grace.C:
	}
	return fmt.Errorf("stop: %d functions were still running after the grace period of %v and were cut short", left, h.cfg.Grace)
}
