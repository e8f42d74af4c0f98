package cache

import (
	"errors"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// After guardFailures failures in a row a server is left alone, but for one
// operation every guardPause.
const (
	guardFailures = 5
	guardPause    = time.Second
)

// errShut says that a server was not asked, because it has not answered lately.
var errShut = errors.New("the store has failed several times in a row and is left alone for a moment")

// guard is a circuit breaker: it keeps calls from waiting for a server that
// does not answer. What waits for a trip when it shuts is told at once.
type guard struct {
	log      *zap.Logger
	failures atomic.Int32
	until    atomic.Int64 // Unix nanoseconds of the next try; 0 while the server works
}

// open reports whether to try the server.
func (g *guard) open() bool {
	until := g.until.Load()
	if until == 0 {
		return true
	}
	now := time.Now()
	return now.UnixNano() >= until && g.until.CompareAndSwap(until, now.Add(guardPause).UnixNano())
}

// tell says how an operation went.
func (g *guard) tell(err error) {
	if err == nil || errors.Is(err, errFull) || errors.Is(err, errUnsettled) {
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
