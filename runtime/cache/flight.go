package cache

import (
	"context"
	"errors"
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// flights lets equal calls that are made at the same time be one.
type flights struct {
	mu    sync.Mutex
	under map[string]*flight

	landings [1024]atomic.Uint32 // flights that have landed, by a hash of their entry
}

// errLanded says that a flight of this entry has landed since the caller
// looked: what it brought is worth another look.
var errLanded = errors.New("an equal call has just been answered")

// anyTime is for callers who do not care what has landed since.
const anyTime = math.MaxUint32

var seed = maphash.MakeSeed()

func (f *flights) slot(entry string) *atomic.Uint32 {
	return &f.landings[maphash.String(seed, entry)%uint64(len(f.landings))]
}

// landed is to be asked before a look at the store, for do.
func (f *flights) landed(entry string) uint32 { return f.slot(entry).Load() }

type flight struct {
	done    chan struct{}
	result  Result
	err     error
	waiting int                // callers that have not left
	cancel  context.CancelFunc // for when all have
}

// do returns what fn returns, run once for all who ask for key meanwhile. A
// caller whose ctx ends leaves the others alone; when the last one leaves, fn's
// ctx ends. fn has the values and the deadline of the first caller. It fails
// with errLanded if there is nothing to join any more.
func (f *flights) do(ctx context.Context, entry, key string, landed uint32, running *sync.WaitGroup, fn func(context.Context) (Result, error)) (Result, error) {
	f.mu.Lock()
	current, joined := f.under[key]
	switch {
	case joined:
		current.waiting++
	case landed != anyTime && landed != f.landed(entry):
		f.mu.Unlock()
		return Result{}, errLanded
	default:
		current = f.begin(ctx, key, f.slot(entry), running, fn)
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
func (f *flights) begin(ctx context.Context, key string, slot *atomic.Uint32, running *sync.WaitGroup, fn func(context.Context) (Result, error)) *flight {
	detached, cancel := context.WithCancel(context.WithoutCancel(ctx))
	if deadline, ok := ctx.Deadline(); ok {
		cancel()
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
		f.land(key, current, slot)
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

func (f *flights) land(key string, current *flight, slot *atomic.Uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	slot.Add(1)
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
