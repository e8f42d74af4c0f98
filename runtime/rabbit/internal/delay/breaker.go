package delay

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
)

const (
	// maxInFlight is how many publishes to one queue may be unconfirmed. RabbitMQ
	// stops reading from a channel with 32 of them (quorum_commands_soft_limit), and
	// finally from the connection with all its channels.
	maxInFlight = 16

	probeWait  = time.Second // how long a message waits while another one probes the queue
	missingFor = time.Second // how long a missing queue is not looked up again
)

// busyTimeout is how long a message waits for a queue that confirms nothing while
// this process moves almost as many messages as it may.
const busyTimeout = 50 * time.Millisecond

// breakerPace is how long a circuit breaker stays open after the first and after
// later failures.
var breakerPace = connection.Pace{First: time.Second, Longest: 15 * time.Second}

// breaker is the circuit breaker of one queue. It also limits the publishes in
// flight to the queue. After a failure it is open: publishes fail immediately.
// After some time it lets one publish through, whose outcome closes it or opens it
// again.
type breaker struct {
	name string

	mu           sync.Mutex
	inFlight     int
	changed      chan struct{} // closed when inFlight decreases
	progress     time.Time     // when inFlight last decreased, or rose from zero
	failures     int           // consecutive
	openUntil    time.Time
	missingSince time.Time // zero: it exists, as far as is known
}

// openError is the error of a publish that was not tried.
type openError struct {
	name    string
	wait    time.Duration
	stalled bool // the queue did not fail, but confirms nothing
}

func (e *openError) Error() string {
	if e.stalled {
		return fmt.Sprintf("queue %q is slow: %d messages wait for its confirmation", e.name, maxInFlight)
	}
	return fmt.Sprintf("queue %q did not take a message a moment ago", e.name)
}

// acquire reserves one of maxInFlight publishes. It waits while others are being
// confirmed, and fails with an *openError if none was confirmed for longer than
// timeout returns, or when ctx is done. The caller must call release after a
// success.
func (k *breaker) acquire(ctx context.Context, timeout func() time.Duration) error {
	for {
		stalled := timeout()
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

// attempt is the outcome of a publish.
type attempt int

const (
	notTried  attempt = iota // it failed for a reason other than the queue
	succeeded                // the queue confirmed it
	failed                   // the queue rejected it, or did not confirm it in time
)

// release ends a publish with that outcome.
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
	case a == failed && !now.Before(k.openUntil): // otherwise it was in flight when another failure opened the breaker
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

// wasMissing reports whether the queue was missing within missingFor.
func (k *breaker) wasMissing() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return time.Since(k.missingSince) < missingFor
}

// isIdle reports whether the breaker has the state of a new one.
func (k *breaker) isIdle() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.inFlight == 0 && k.failures == 0 && time.Since(k.missingSince) > missingFor
}
