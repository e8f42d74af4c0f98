package cache

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// flights lets equal calls that are made at the same time be one.
type flights struct {
	mu      sync.Mutex
	under   map[string]*flight
	running sync.WaitGroup

	landings [1024]atomic.Uint32 // flights that have landed, by a part of their entry's sum
}

// errLanded says that a flight of this entry has landed since the caller
// looked: what it brought is worth another look.
var errLanded = errors.New("an equal call has just been answered")

// anyTime is for callers who do not care what has landed since.
const anyTime = math.MaxUint32

func (f *flights) slot(sum *[sha256.Size]byte) *atomic.Uint32 {
	return &f.landings[int(binary.BigEndian.Uint16(sum[:]))%len(f.landings)]
}

// landed is to be asked before a look at the store, for do.
func (f *flights) landed(sum *[sha256.Size]byte) uint32 { return f.slot(sum).Load() }

type flight struct {
	done    chan struct{}
	result  contract.CacheResult
	err     error
	waiting int                // callers that have not left; the one of start never does
	cancel  context.CancelFunc // for when all have
}

// do returns what fn returns, run once for all who ask for key meanwhile. A
// caller whose ctx ends leaves the others alone; when the last one leaves, fn's
// ctx ends. fn has the values and the deadline of the first caller. It fails
// with errLanded if there is nothing to join any more.
func (f *flights) do(ctx context.Context, sum *[sha256.Size]byte, key string, landed uint32, fn func(context.Context) (contract.CacheResult, error)) (contract.CacheResult, error) {
	f.mu.Lock()
	current, joined := f.under[key]
	switch {
	case joined:
		current.waiting++
	case landed != anyTime && landed != f.landed(sum):
		f.mu.Unlock()
		return contract.CacheResult{}, errLanded
	default:
		deadline, _ := ctx.Deadline()
		current = f.begin(ctx, deadline, sum, key, fn)
	}
	f.mu.Unlock()

	select {
	case <-current.done:
	case <-ctx.Done():
		f.leave(key, current)
		return contract.CacheResult{}, gone(ctx)
	}
	result := current.result
	if joined {
		result.Collapsed, result.Stored = true, false
	}
	return result, current.err
}

// start runs fn until deadline for all who ask for key meanwhile, and waits for
// nothing. It does nothing while such a run is under way.
func (f *flights) start(ctx context.Context, deadline time.Time, sum *[sha256.Size]byte, key string, fn func(context.Context) (contract.CacheResult, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, under := f.under[key]; !under {
		f.begin(ctx, deadline, sum, key, fn)
	}
}

// begin starts the run, which ends when fn returns. A deadline that is zero is
// none. f.mu is held.
func (f *flights) begin(ctx context.Context, deadline time.Time, sum *[sha256.Size]byte, key string, fn func(context.Context) (contract.CacheResult, error)) *flight {
	detached, cancel := detach(ctx, deadline)
	current := &flight{done: make(chan struct{}), waiting: 1, cancel: cancel}
	if f.under == nil {
		f.under = map[string]*flight{}
	}
	f.under[key] = current
	f.running.Go(func() {
		defer cancel()
		current.result, current.err = safely(detached, fn)
		f.land(key, current, f.slot(sum))
		close(current.done)
	})
	return current
}

// detach returns a context with the values of ctx that ends at the deadline, if
// there is one, and when it is cancelled.
func detach(ctx context.Context, deadline time.Time) (context.Context, context.CancelFunc) {
	ctx = context.WithoutCancel(ctx)
	if deadline.IsZero() {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline)
}

// safely returns what fn returns, and an error if it panics: this is nobody's
// goroutine, so that nobody else could tell those who wait.
func safely(ctx context.Context, fn func(context.Context) (contract.CacheResult, error)) (result contract.CacheResult, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &contract.Error{
				Code: contract.CodeInternal, Detail: "the call panicked", Executed: contract.ExecutedUnknown,
				Cause: fmt.Errorf("panic: %v\n%s", p, debug.Stack()),
			}
		}
	}()
	return fn(ctx)
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
		return contract.Expired(contract.ExecutedUnknown)
	}
	return &contract.Error{Code: contract.CodeCanceled, Detail: "the caller went away", Cause: context.Cause(ctx), Executed: contract.ExecutedUnknown}
}
