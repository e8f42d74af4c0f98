package delay

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
)

const (
	// maxInFlight is how many publishes to one queue may be unconfirmed. A
	// channel of RabbitMQ with 32 of them (quorum_commands_soft_limit) stops
	// reading, and so would the connection with all other channels in the end.
	maxInFlight = 16

	probeWait  = time.Second // while another message tries a queue that has failed
	missingFor = time.Second // how long a queue that was found missing is not asked for again
)

// busyTimeout is how long a message waits for a queue that confirms nothing,
// when there is hardly room for those of other queues.
const busyTimeout = 50 * time.Millisecond

// breakerPace is how long a circuit breaker stays open.
var breakerPace = connection.Pace{First: time.Second, Longest: 15 * time.Second}

// breaker is the circuit breaker of one queue. It bounds what is in flight to the
// queue. After a failure it is open: nothing is tried for a while. Then one message
// tries the queue, and closes or opens the breaker again.
type breaker struct {
	name string

	mu           sync.Mutex
	inFlight     int
	changed      chan struct{} // closed when inFlight shrinks
	progress     time.Time     // when it last did, or grew from zero
	failures     int           // in a row
	openUntil    time.Time
	missingSince time.Time // when the broker last said that there is no such queue
}

// openError says that a message has to wait, and for how long at least.
type openError struct {
	name    string
	wait    time.Duration
	stalled bool // the queue has not failed, but is slow
}

func (e *openError) Error() string {
	if e.stalled {
		return fmt.Sprintf("queue %q is slow: %d messages wait for its confirmation", e.name, maxInFlight)
	}
	return fmt.Sprintf("queue %q did not take a message a moment ago", e.name)
}

// acquire takes a place among the publishes in flight, and waits for one while
// others are confirmed, unless none was for longer than patience returns. It fails
// with an *openError, or when ctx is done. Each success needs a release.
func (k *breaker) acquire(ctx context.Context, patience func() time.Duration) error {
	for {
		stalled := patience()
		k.mu.Lock()
		now := time.Now()
		limit := maxInFlight
		if k.failures > 0 {
			limit = 1
		}
		switch {
		case now.Before(k.openUntil):
			defer k.mu.Unlock()
			return &openError{name: k.name, wait: k.openUntil.Sub(now)}
		case k.inFlight < limit:
			if k.inFlight++; k.inFlight == 1 {
				k.progress = now
			}
			k.mu.Unlock()
			return nil
		case k.failures > 0:
			defer k.mu.Unlock()
			return &openError{name: k.name, wait: probeWait}
		case now.Sub(k.progress) > stalled:
			defer k.mu.Unlock()
			return &openError{name: k.name, stalled: true}
		}
		changed := k.changed
		k.mu.Unlock()
		again := time.NewTimer(busyTimeout)
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
		}
		again.Stop()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// attempt is how a publish to a queue ended.
type attempt int

const (
	notTried  attempt = iota // it failed for another reason than the queue
	succeeded                // the queue has confirmed
	failed                   // the queue refused, or did not confirm in time
)

// release gives back the place of a publish that ended so.
func (k *breaker) release(a attempt) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	k.inFlight--
	k.progress = now
	close(k.changed)
	k.changed = make(chan struct{})
	switch {
	case a == succeeded:
		k.failures, k.openUntil, k.missingSince = 0, time.Time{}, time.Time{}
	case a == failed && !now.Before(k.openUntil): // else it belongs to the failure that has opened it
		k.openUntil = now.Add(min(breakerPace.First<<min(k.failures, 10), breakerPace.Longest))
		k.failures++
	}
}

// setMissing notes that the broker has no such queue.
func (k *breaker) setMissing() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.missingSince = time.Now()
}

// wasMissing reports whether the queue was missing a moment ago.
func (k *breaker) wasMissing() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return time.Since(k.missingSince) < missingFor
}

// isIdle reports whether the breaker is like a new one.
func (k *breaker) isIdle() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.inFlight == 0 && k.failures == 0 && time.Since(k.missingSince) > missingFor
}
