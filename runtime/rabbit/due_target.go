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
	// maxPendingOfTarget is how many messages wait for the confirmation of one
	// target. RabbitMQ blocks the whole connection of a publisher once a quorum
	// queue without a leader has 32 of its messages pending.
	maxPendingOfTarget = 24

	slotPatience   = 100 * time.Millisecond // for one of these places
	firstOpen      = time.Second            // the breaker's pause after the first failure; it doubles
	longestOpen    = 30 * time.Second
	stuckAfter     = time.Minute // without any confirmation, a new channel is tried
	maxIdleTargets = 1000
)

// target is a queue that due messages go to, with a circuit breaker: after a
// failure, messages wait in a delay tier without an attempt until it closes.
type target struct {
	slots chan struct{} // one for each message that is not confirmed

	mu        sync.Mutex
	failures  int       // in a row
	openUntil time.Time // of the breaker
	progress  time.Time // of the last confirmation, or refusal
}

type targets struct {
	mu     sync.Mutex
	byName map[string]*target
}

func (s *targets) get(name string) *target {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.byName[name]; t != nil {
		return t
	}
	if len(s.byName) > maxIdleTargets {
		for other, t := range s.byName {
			if len(t.slots) == 0 {
				delete(s.byName, other)
			}
		}
	}
	if s.byName == nil {
		s.byName = map[string]*target{}
	}
	t := &target{slots: make(chan struct{}, maxPendingOfTarget), progress: time.Now()}
	s.byName[name] = t
	return t
}

// send publishes m to the queue, and returns zeroes once it is confirmed. Else
// it returns how long m should wait for the next attempt, and the error of this
// one; nil if the breaker allowed none.
func (t *target) send(ctx context.Context, p *publisher, queue string, m amqp.Publishing) (wait time.Duration, err error) {
	if wait := t.open(); wait > 0 {
		return wait, nil
	}
	place := time.NewTimer(slotPatience)
	defer place.Stop()
	select {
	case t.slots <- struct{}{}:
	case <-place.C:
		t.renewIfStuck(p)
		return t.failed(), errNoConfirmation
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if wait := t.open(); wait > 0 { // since a moment
		<-t.slots
		return wait, nil
	}
	u, err := p.send(ctx, "", queue, m)
	if err != nil {
		<-t.slots
		return 0, err
	}
	patience, cancel := context.WithTimeout(ctx, targetPatience)
	defer cancel()
	err = u.confirmed(patience)
	if err != nil && patience.Err() != nil {
		go func() { // ends with the confirmation, or with the connection
			<-u.confirm.Done()
			t.confirmed()
			<-t.slots
		}()
	} else {
		t.confirmed()
		<-t.slots
	}
	switch {
	case err == nil:
		t.succeeded()
		return 0, nil
	case errors.Is(err, contract.ErrUnroutable), ctx.Err() != nil:
		return 0, err
	}
	return t.failed(), err
}

var errNoConfirmation = contract.Errorf(contract.CodeUnconfirmed, "the queue confirms nothing")

// open returns for how long the breaker is open; 0 if it is closed.
func (t *target) open() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return max(0, time.Until(t.openUntil))
}

func (t *target) succeeded() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failures, t.openUntil = 0, time.Time{}
}

// failed opens the breaker, and returns for how long. Messages that were sent
// together and fail together count once.
func (t *target) failed() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if now.After(t.openUntil) {
		t.openUntil = now.Add(min(firstOpen<<min(t.failures, 10), longestOpen))
		t.failures++
	}
	return t.openUntil.Sub(now)
}

func (t *target) confirmed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.progress = time.Now()
}

// renewIfStuck lets p take a new channel if the target has confirmed nothing for
// long: what is pending on the old one may be so for good.
func (t *target) renewIfStuck(p *publisher) {
	t.mu.Lock()
	stuck := time.Since(t.progress) > stuckAfter
	if stuck {
		t.progress = time.Now()
	}
	t.mu.Unlock()
	if stuck {
		p.renew(nil)
	}
}
