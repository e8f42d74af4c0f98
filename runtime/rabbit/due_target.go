package rabbit

import (
	"context"
	"errors"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

const (
	maxPendingOfTarget = 24                     // messages of one target that are not confirmed yet
	slotPatience       = 100 * time.Millisecond // for one of these places
	targetPatience     = time.Second            // for a message to be confirmed
	firstOpen          = time.Second            // the breaker's pause after the first failure; it doubles
	longestOpen        = 30 * time.Second
	idleTarget         = time.Minute // a target that was not used for so long gives its channel back
)

// target is a queue that due messages go to.
//
// It has a channel of its own: RabbitMQ blocks a channel, for 30 s and more,
// that publishes for the first time to a quorum queue without a leader. And it
// has a circuit breaker: after a failure, messages wait in a delay tier without
// an attempt until it closes.
type target struct {
	publisher *publisher
	slots     chan struct{} // one for each message that is not confirmed
	stop      context.CancelFunc
	used      time.Time // guarded by targets.mu
	users     int       // guarded by targets.mu

	mu        sync.Mutex
	failures  int       // in a row
	openUntil time.Time // of the breaker
}

// targets are those that were used of late.
type targets struct {
	b *Broker

	mu      sync.Mutex
	byName  map[string]*target
	running sync.WaitGroup
}

// acquire returns the target of that name, which lives until ctx is done; the
// caller must release it.
func (s *targets) acquire(ctx context.Context, name string) *target {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	t := s.byName[name]
	if t == nil {
		for other, t := range s.byName {
			if t.users == 0 && now.Sub(t.used) > idleTarget {
				t.stop()
				delete(s.byName, other)
			}
		}
		running, stop := context.WithCancel(ctx)
		t = &target{
			publisher: newPublisher(s.b, maxPendingOfTarget*minShare),
			slots:     make(chan struct{}, maxPendingOfTarget),
			stop:      stop,
		}
		t.publisher.renews = true
		s.running.Go(func() { t.publisher.run(running) })
		s.byName[name] = t
	}
	t.used = now
	t.users++
	return t
}

func (s *targets) release(t *target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.users--
}

// send publishes m to the queue, and returns zeroes once it is confirmed. Else
// it returns how long m should wait for the next attempt, or an error:
// ErrUnroutable, or one that has nothing to do with the target. opened is the
// error that has opened the breaker.
func (t *target) send(ctx context.Context, queue string, m amqp.Publishing) (wait time.Duration, opened, err error) {
	if wait := t.open(); wait > 0 {
		return wait, nil, nil
	}
	place := time.NewTimer(slotPatience)
	defer place.Stop()
	select {
	case t.slots <- struct{}{}:
	case <-place.C:
		return t.failed(errSlow)
	case <-ctx.Done():
		return 0, nil, ctx.Err()
	}
	if wait := t.open(); wait > 0 { // since a moment
		<-t.slots
		return wait, nil, nil
	}
	u, err := t.publisher.send(ctx, "", queue, m)
	if err != nil {
		<-t.slots
		return 0, nil, err
	}
	patience, cancel := context.WithTimeout(ctx, targetPatience)
	defer cancel()
	err = u.confirmed(patience)
	if err != nil && patience.Err() != nil {
		t.publisher.renew(u.session)
	}
	go func() { // ends at once, unless the channel does not close; then with the connection
		<-u.confirm.Done()
		<-t.slots
	}()
	switch {
	case err == nil:
		t.succeeded()
		return 0, nil, nil
	case errors.Is(err, contract.ErrUnroutable), ctx.Err() != nil:
		return 0, nil, err
	}
	return t.failed(err)
}

var errSlow = contract.Errorf(contract.CodeUnconfirmed, "the queue confirms too slowly")

// open returns for how long the breaker is open; 0 if it is closed.
func (t *target) open() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return max(0, time.Until(t.openUntil))
}

func (t *target) succeeded() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failures = 0
}

// failed opens the breaker, unless another message has done that since this one
// was sent, and returns for how long it is open.
func (t *target) failed(err error) (wait time.Duration, opened, _ error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if now.Before(t.openUntil) {
		return t.openUntil.Sub(now), nil, nil
	}
	wait = min(firstOpen<<min(t.failures, 10), longestOpen)
	t.openUntil = now.Add(wait)
	t.failures++
	return wait, err, nil
}
