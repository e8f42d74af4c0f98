// Package singleflight lets equal calls that are made at the same time share one
// run.
//
// It differs from golang.org/x/sync/singleflight in what the results cache
// depends on: a caller that gives up leaves the others alone, and the last one
// cancels the run; a panic becomes an error for all callers; and a caller learns
// that an equal run has ended since it looked at the cache.
package singleflight

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
)

// ErrFinished means that a run for the same entry has finished after the epoch
// of the caller, and that there is no run to join any more.
var ErrFinished = errors.New("an equal call has just finished")

// ErrGaveUp means that the ctx of the caller ended before the run did.
var ErrGaveUp = errors.New("the caller stopped waiting for an equal call")

// A PanicError is the error of a run that panicked.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.Value, e.Stack) }

// A Key identifies calls. Calls with the same Sum are about the same entry.
// Those that have the same Variant too are equal, and may share a run.
type Key struct {
	Sum     [sha256.Size]byte
	Variant string
}

// A Group is a set of runs. The zero value is ready for use.
type Group[T any] struct {
	mu      sync.Mutex
	runs    map[Key]*run[T]
	running sync.WaitGroup

	epochs [1024]atomic.Uint32 // how many runs have finished, by a part of the sum
}

type run[T any] struct {
	done    chan struct{}
	value   T
	err     error
	waiting int                // callers that have not given up; the one of Start never does
	cancel  context.CancelFunc // is called when all have
}

// AnyEpoch lets Do start a run, whatever has finished before.
const AnyEpoch = math.MaxUint32

// Epoch returns a number that changes when a run for the entry with that sum
// finishes. A caller gets it before it looks at the cache, and passes it to Do.
func (g *Group[T]) Epoch(sum *[sha256.Size]byte) uint32 { return g.epoch(sum).Load() }

func (g *Group[T]) epoch(sum *[sha256.Size]byte) *atomic.Uint32 {
	return &g.epochs[int(binary.BigEndian.Uint16(sum[:]))%len(g.epochs)]
}

// Do returns what fn returns, which runs once for all callers with an equal key
// that come in the meantime; shared is true for all but the first. It fails with
// ErrFinished if no run is in flight and one has finished since epoch.
//
// A caller whose ctx ends gets ErrGaveUp. The ctx of fn has the values and
// the deadline of the first caller, and ends when all callers have given up.
func (g *Group[T]) Do(ctx context.Context, key Key, epoch uint32, fn func(context.Context) (T, error)) (value T, shared bool, err error) {
	g.mu.Lock()
	r, shared := g.runs[key]
	switch {
	case shared:
		r.waiting++
	case epoch != AnyEpoch && epoch != g.Epoch(&key.Sum):
		g.mu.Unlock()
		return value, false, ErrFinished
	default:
		deadline, _ := ctx.Deadline()
		r = g.start(ctx, deadline, key, fn)
	}
	g.mu.Unlock()

	select {
	case <-r.done:
		return r.value, shared, r.err
	case <-ctx.Done():
		g.giveUp(key, r)
		return value, false, ErrGaveUp
	}
}

// Start runs fn until deadline, for all callers with an equal key that come in the
// meantime, and does not wait for it. It does nothing while such a run is in
// flight.
func (g *Group[T]) Start(ctx context.Context, deadline time.Time, key Key, fn func(context.Context) (T, error)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.runs[key]; !ok {
		g.start(ctx, deadline, key, fn)
	}
}

// Wait waits until no run is in flight.
func (g *Group[T]) Wait() { g.running.Wait() }

// Waiting returns how many callers wait for a run; Start counts as one.
func (g *Group[T]) Waiting() (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.runs {
		n += r.waiting
	}
	return n
}

// start starts a run, whose goroutine ends when fn returns. A zero deadline is
// none. The caller must hold g.mu.
func (g *Group[T]) start(ctx context.Context, deadline time.Time, key Key, fn func(context.Context) (T, error)) *run[T] {
	detached, cancel := detach(ctx, deadline)
	r := &run[T]{done: make(chan struct{}), waiting: 1, cancel: cancel}
	if g.runs == nil {
		g.runs = map[Key]*run[T]{}
	}
	g.runs[key] = r
	g.running.Go(func() {
		defer cancel()
		r.value, r.err = recovered(detached, fn)
		g.finish(key, r)
		close(r.done)
	})
	return r
}

// detach returns a context with the values of ctx that ends at the deadline, if
// there is one, or when it is cancelled.
func detach(ctx context.Context, deadline time.Time) (context.Context, context.CancelFunc) {
	ctx = context.WithoutCancel(ctx)
	if deadline.IsZero() {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline)
}

// recovered returns what fn returns, and a PanicError if it panics.
func recovered[T any](ctx context.Context, fn func(context.Context) (T, error)) (value T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{p, debug.Stack()}
		}
	}()
	return fn(ctx)
}

func (g *Group[T]) finish(key Key, r *run[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.epoch(&key.Sum).Add(1)
	if g.runs[key] == r {
		delete(g.runs, key)
	}
}

// giveUp is called when a caller does not wait any longer. After the last one,
// new callers start a run of their own.
func (g *Group[T]) giveUp(key Key, r *run[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r.waiting--
	if r.waiting == 0 {
		r.cancel()
		if g.runs[key] == r {
			delete(g.runs, key)
		}
	}
}
