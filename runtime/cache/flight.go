package cache

import (
	"context"
	"sync"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// flights lets equal calls that are made at the same time be one.
type flights struct {
	mu    sync.Mutex
	under map[string]*flight
}

type flight struct {
	done    chan struct{}
	result  Result
	err     error
	waiting int                // callers that have not left
	cancel  context.CancelFunc // for when all have
}

// do returns what fn returns, run once for all who ask for key meanwhile. A
// caller whose ctx ends leaves the others alone; when the last one leaves, fn's
// ctx ends. fn has the values and the deadline of the first caller.
func (f *flights) do(ctx context.Context, key string, running *sync.WaitGroup, fn func(context.Context) (Result, error)) (Result, error) {
	f.mu.Lock()
	current, joined := f.under[key]
	if joined {
		current.waiting++
	} else {
		current = f.begin(ctx, key, running, fn)
	}
	f.mu.Unlock()

	select {
	case <-current.done:
	case <-ctx.Done():
		f.leave(key, current)
		return Result{}, gone(ctx)
	}
	result := current.result
	if joined {
		result.Collapsed, result.Stored = true, false
	}
	return result, current.err
}

// begin starts the run, which ends when fn returns. f.mu is held.
func (f *flights) begin(ctx context.Context, key string, running *sync.WaitGroup, fn func(context.Context) (Result, error)) *flight {
	detached, cancel := context.WithCancel(context.WithoutCancel(ctx))
	if deadline, ok := ctx.Deadline(); ok {
		detached, cancel = context.WithDeadline(context.WithoutCancel(ctx), deadline)
	}
	current := &flight{done: make(chan struct{}), waiting: 1, cancel: cancel}
	if f.under == nil {
		f.under = map[string]*flight{}
	}
	f.under[key] = current
	running.Go(func() {
		defer cancel()
		current.result, current.err = fn(detached)
		f.land(key, current)
		close(current.done)
	})
	return current
}

func (f *flights) leave(key string, current *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	current.waiting--
	if current.waiting == 0 {
		current.cancel()
		if f.under[key] == current {
			delete(f.under, key) // who comes now needs one that is not cancelled
		}
	}
}

func (f *flights) land(key string, current *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.under[key] == current {
		delete(f.under, key)
	}
}

// gone is the error of a caller who waited for somebody else's call for too long.
func gone(ctx context.Context) error {
	if ctx.Err() == context.DeadlineExceeded {
		return faas.Expired(faas.ExecutedUnknown)
	}
	return &faas.Error{Code: faas.CodeCanceled, Detail: "the caller went away", Cause: context.Cause(ctx), Executed: faas.ExecutedUnknown}
}
