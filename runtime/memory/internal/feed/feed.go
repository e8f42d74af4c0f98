// Package feed passes items to consumers that may be slow. A producer never
// blocks: what a consumer cannot take in time is dropped.
package feed

import (
	"context"
	"sync"
)

// size is the number of items that a Feed holds for its consumer.
const size = 256

// A Feed passes items to one consumer. Create it with New. Its methods are safe
// for concurrent use.
type Feed[T any] struct {
	items   chan T
	stopped chan struct{}
	once    sync.Once
}

// New returns an empty Feed.
func New[T any]() *Feed[T] {
	return &Feed[T]{items: make(chan T, size), stopped: make(chan struct{})}
}

// Offer passes v to the consumer. It drops v if 256 items are already waiting.
func (f *Feed[T]) Offer(v T) {
	select {
	case f.items <- v:
	default:
	}
}

// Each calls fn with every item, one at a time, until ctx is done or the Feed is
// stopped.
func (f *Feed[T]) Each(ctx context.Context, fn func(T)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.stopped:
			return
		case v := <-f.items:
			fn(v)
		}
	}
}

// Stop ends Each. It may be called more than once.
func (f *Feed[T]) Stop() { f.once.Do(func() { close(f.stopped) }) }
