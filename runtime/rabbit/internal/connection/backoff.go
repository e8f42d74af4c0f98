package connection

import (
	"context"
	"math/rand/v2"
	"time"
)

// Pace says how long to wait between attempts: First, then twice as long each time,
// up to Longest.
type Pace struct{ First, Longest time.Duration }

// Backoff waits before the next attempt, longer each time, with jitter so that many
// processes do not reconnect at the same moment.
type Backoff struct {
	Pace
	Current time.Duration
}

// reset makes the next wait the first one again.
func (b *Backoff) reset() { b.Current = 0 }

// Wait waits and returns true, or false when ctx is done first.
func (b *Backoff) Wait(ctx context.Context) bool {
	b.Current = max(b.First, min(2*b.Current, b.Longest))
	t := time.NewTimer(b.Current/2 + rand.N(b.Current/2+1))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
