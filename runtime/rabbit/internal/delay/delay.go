// Package delay makes events wait in the broker. An event waits in a tier, a queue
// with a TTL. From there it is dead-lettered to the one queue of due events, and
// processes of Rabbet move it to its target. DELAYS.md in runtime/rabbit has the
// reasons.
package delay

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/deadletter"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/publish"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// Delays publishes events to delay tiers, and moves due events to their targets.
type Delays struct {
	cfg     Config
	tiers   tierRegister
	outlets outlets
	monitor tierMonitor

	moving    atomic.Int64 // number of due messages that are being moved
	watching  sync.Mutex   // held by the Serve that monitors the tiers
	started   time.Time
	reconsume chan struct{} // requests another consumer of due messages
}

// Config is what Delays needs. All fields are required.
type Config struct {
	Names         topology.Names
	Connection    connection.Config // for the connection over which tiers are declared
	Publish       *connection.Connection
	Consume       *connection.Connection
	Directory     *contract.Directory
	DeadLetters   *deadletter.Store
	Broadcast     func(topic string, body []byte) error
	Listen        func(topic string, fn func(body []byte)) (stop func())
	CheckInterval time.Duration   // how often to check for tiers with overdue events
	Pace          connection.Pace // of attempts to move a due event
	Log           *zap.Logger
}

// New returns the Delays of a namespace.
func New(cfg Config) *Delays {
	return &Delays{
		cfg: cfg, tiers: tierRegister{cfg: cfg.Connection, names: cfg.Names}, outlets: outlets{connection: cfg.Publish},
		monitor: tierMonitor{broadcast: cfg.Broadcast}, reconsume: make(chan struct{}, 1), started: time.Now(),
	}
}

// Run publishes until ctx is done, and waits until the close deadline for the
// confirms of what is in flight.
func (d *Delays) Run(ctx context.Context) { d.outlets.run(ctx) }

// Serve moves due events and monitors the tiers until ctx is done.
func (d *Delays) Serve(ctx context.Context) {
	var parts sync.WaitGroup
	parts.Go(func() { d.cfg.Consume.Use(ctx, "due events", d.consumeDue) })
	parts.Go(func() { d.consumeOld(ctx) })
	parts.Go(func() { d.monitorTiers(ctx) })
	parts.Wait()
}

const (
	targetTimeout = time.Second     // for a target to confirm a due event
	tierTimeout   = 3 * time.Second // for a tier or a queue of dead letters to confirm a copy
)

// Delay publishes m to a tier, so that it reaches the queue target after wait, or
// later by slack at most. It returns nil once a tier has confirmed m. If the best
// tier does not accept m, Delay tries others.
func (d *Delays) Delay(ctx context.Context, target string, wait, slack time.Duration, m amqp.Publishing) error {
	var failures []error
	for _, t := range tiersFor(wait, slack) {
		err := d.PublishTo(ctx, t, target, m)
		if err == nil {
			return nil
		}
		failures = append(failures, err)
		if ctx.Err() != nil || errors.Is(err, contract.ErrUnavailable) || errors.Is(err, contract.ErrBlocked) {
			break // the same is true for the other tiers
		}
	}
	return errors.Join(failures...)
}

// PublishTo publishes m to the tier.
func (d *Delays) PublishTo(ctx context.Context, t Tier, target string, m amqp.Publishing) error {
	if err := d.tiers.ensure(ctx, t); err != nil {
		return err // monitorTiers reports it
	}
	exchange := d.cfg.Names.Delay(t.Name())
	due := d.delayIn(&m, t, target)
	err := d.publishThrough(ctx, d.outlets.of(exchange), tierTimeout, func(ctx context.Context, p *publish.Publisher) error {
		return p.Publish(ctx, exchange, target, m)
	})
	switch {
	case err == nil:
		d.monitor.published(t, due)
	case errors.Is(err, contract.ErrUnroutable): // it was deleted
		d.tiers.forget(t)
	}
	if err != nil {
		return fmt.Errorf("delay tier %q: %w", exchange, err)
	}
	return nil
}

// delayIn sets the headers and the expiration of m for the tier, and returns when m
// leaves it, in Unix milliseconds.
//
// The expiration is the length of the tier. Before 4.1.0, RabbitMQ starts a quorum
// queue without its TTL, and sets it a moment later. A second declaration succeeds
// meanwhile. A message that is then published without an expiration would never
// expire. It would also block all later messages, because quorum queues expire
// messages only at their head.
func (d *Delays) delayIn(m *amqp.Publishing, t Tier, target string) (due int64) {
	due = wire.UnixMilliCeil(time.Now().Add(t.Length()))
	if m.Headers == nil {
		m.Headers = amqp.Table{}
	}
	m.Headers[wire.HeaderTarget], m.Headers[wire.HeaderTier], m.Headers[wire.HeaderDue] = target, t.Name(), due
	m.Expiration = strconv.FormatInt(t.Length().Milliseconds(), 10)
	return due
}

// publishThrough calls publish with the publisher of the outlet, unless its circuit
// breaker is open, and reports the outcome to the breaker. publish must fail within
// timeout. A failure of the connection does not count as a failure of the queue.
func (d *Delays) publishThrough(ctx context.Context, o *outlet, timeout time.Duration, publish func(ctx context.Context, p *publish.Publisher) error) error {
	if err := o.breaker.acquire(ctx, func() time.Duration {
		if timeout == targetTimeout && d.moving.Load() > DuePrefetch/2 {
			return busyTimeout
		}
		return timeout
	}); err != nil {
		return err
	}
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := publish(limited, o.publisher)
	timedOut := limited.Err() != nil && ctx.Err() == nil && !o.publisher.BlockedSince(began)
	switch {
	case err == nil:
		o.breaker.release(succeeded)
	case errors.Is(err, contract.ErrUnroutable): // it is cheap and delays nothing else
		o.breaker.release(notTried)
		return &targetError{err}
	case errors.Is(err, contract.ErrRefused), errors.Is(err, contract.ErrUnconfirmed) && timedOut:
		o.breaker.release(failed)
		return &targetError{err}
	default:
		o.breaker.release(notTried)
	}
	return err
}

// targetError is a failure for which the queue is the reason, not the connection.
type targetError struct{ reason error }

func (e *targetError) Error() string { return e.reason.Error() }
func (e *targetError) Unwrap() error { return e.reason }

// EnsureTier declares the tier if this process has not done it yet.
func (d *Delays) EnsureTier(ctx context.Context, t Tier) error { return d.tiers.ensure(ctx, t) }

// IsMoving reports whether this process consumes due events.
func (d *Delays) IsMoving() bool { return d.monitor.isConsuming() }

// AssumeDeclared makes d take the tier as declared, and no other.
func (d *Delays) AssumeDeclared(t Tier) {
	d.tiers.mu.Lock()
	defer d.tiers.mu.Unlock()
	d.tiers.declared = map[Tier]bool{t: true}
}
