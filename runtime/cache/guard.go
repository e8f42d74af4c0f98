package cache

import (
	"context"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// After guardFailures failures in a row the store is left alone, but for one
// operation every guardPause.
const (
	guardFailures = 5
	guardPause    = time.Second
)

// guard is a circuit breaker: it keeps calls from waiting for a store that does not answer.
type guard struct {
	log      *zap.Logger
	failures atomic.Int32
	until    atomic.Int64 // Unix nanoseconds of the next try; 0 while the store works
}

// open reports whether to try the store.
func (g *guard) open() bool {
	until := g.until.Load()
	if until == 0 {
		return true
	}
	now := time.Now()
	return now.UnixNano() >= until && g.until.CompareAndSwap(until, now.Add(guardPause).UnixNano())
}

// tell says how an operation for ctx went.
func (g *guard) tell(ctx context.Context, err error) {
	if err != nil && ctx.Err() != nil {
		return // a caller who left says nothing about the store
	}
	if err == nil {
		if g.failures.Load() != 0 {
			g.failures.Store(0)
		}
		if g.until.Load() != 0 && g.until.Swap(0) != 0 {
			g.log.Info("results cache is back")
		}
		return
	}
	if g.failures.Add(1) < guardFailures {
		return
	}
	if g.until.Swap(time.Now().Add(guardPause).UnixNano()) == 0 {
		g.log.Warn("results cache is out of reach, calls run without it", zap.Error(err))
	}
}
