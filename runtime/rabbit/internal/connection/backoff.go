package connection

import (
	"context"
	"math/rand/v2"
	"time"
)

// Pace is how long to pause between tries: first, then doubling up to longest.
type Pace struct{ First, Longest time.Duration }

// Backoff is the pause before the next try: it doubles, and is jittered so
// that a thousand processes do not come back as one.
type Backoff struct {
	Pace
	Current time.Duration
}

// reset makes the next pause the first one again.
func (b *Backoff) reset() { b.Current = 0 }

// Wait reports false when ctx was done first.
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
