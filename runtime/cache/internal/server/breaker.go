package server

import (
	"errors"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/cache/store"
)

const (
	// BreakerFailures is how many failures in a row open a circuit breaker.
	BreakerFailures = 5
	// BreakerPause is how long an open circuit breaker waits before it allows
	// one operation, to find out whether the server works again.
	BreakerPause = time.Second
)

// A Breaker is a circuit breaker. It keeps calls from waiting for a server that
// does not answer. While the server works, it costs one atomic load.
type Breaker struct {
	log      *zap.Logger
	failures atomic.Int32
	retryAt  atomic.Int64 // Unix nanoseconds; 0 while the breaker is closed
}

// NewBreaker returns a closed circuit breaker, which logs when it opens and when
// it closes again.
func NewBreaker(log *zap.Logger) *Breaker { return &Breaker{log: log} }

// Allow reports whether an operation may be tried. Its outcome must be passed to
// Record.
func (b *Breaker) Allow() bool {
	retryAt := b.retryAt.Load()
	if retryAt == 0 {
		return true
	}
	now := time.Now()
	return now.UnixNano() >= retryAt && b.retryAt.CompareAndSwap(retryAt, now.Add(BreakerPause).UnixNano())
}

// Record takes the outcome of an operation into account. A full store and a
// conflict are answers of a server that works.
func (b *Breaker) Record(err error) {
	if err == nil || errors.Is(err, store.ErrFull) || errors.Is(err, store.ErrConflict) {
		if b.failures.Load() != 0 {
			b.failures.Store(0)
		}
		if b.retryAt.Load() != 0 && b.retryAt.Swap(0) != 0 {
			b.log.Info("results cache is reachable again")
		}
		return
	}
	if b.failures.Add(1) < BreakerFailures {
		return
	}
	if b.retryAt.Swap(time.Now().Add(BreakerPause).UnixNano()) == 0 {
		b.log.Warn("results cache is unreachable, calls run without it", zap.Error(err))
	}
}
