// Package delay lets events wait in the broker: in a tier, a queue with a TTL,
// from which they are dead-lettered to one queue of due events, and are moved to
// their targets from there. DELAYS.md in runtime/rabbit has the reasons.
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

// Delays lets events wait in the broker, and moves those that are due to their
// target queues. DELAYS.md says how, and why so.
type Delays struct {
	cfg     Config
	tiers   tierRegister
	outlets outlets
	watch   tierWatch

	moving    atomic.Int64 // due messages that this process moves at present
	watching  sync.Mutex   // held by the Serve that watches the tiers
	started   time.Time
	reconsume chan struct{} // asks for another consumer of due messages
}

// Config says what delays needs.
type Config struct {
	Names         topology.Names
	Connection    connection.Config // of the connection over which tiers are declared
	Publish       *connection.Connection
	Consume       *connection.Connection
	Directory     *contract.Directory
	DeadLetters   *deadletter.Store
	Broadcast     func(topic string, body []byte) error
	Listen        func(topic string, fn func(body []byte)) (stop func())
	CheckInterval time.Duration   // how often to check for tiers that hold events for too long
	Pace          connection.Pace // of moving a due event that cannot be moved yet
	Log           *zap.Logger
}

func New(cfg Config) *Delays {
	return &Delays{
		cfg: cfg, tiers: tierRegister{cfg: cfg.Connection, names: cfg.Names}, outlets: outlets{connection: cfg.Publish},
		watch: tierWatch{broadcast: cfg.Broadcast}, reconsume: make(chan struct{}, 1), started: time.Now(),
	}
}

// Run serves publishes until ctx is done, and waits for the confirmations of
// what is in flight, for a moment.
func (d *Delays) Run(ctx context.Context) { d.outlets.run(ctx) }

// Serve moves due events, and watches the tiers, until ctx is done.
func (d *Delays) Serve(ctx context.Context) {
	var parts sync.WaitGroup
	parts.Go(func() { d.cfg.Consume.Use(ctx, "due events", d.consumeDue) })
	parts.Go(func() { d.consumeOld(ctx) })
	parts.Go(func() { d.watchTiers(ctx) })
	parts.Wait()
}

const (
	targetTimeout = time.Second     // for a queue to confirm what is due
	tierTimeout   = 3 * time.Second // for a tier, or the dead letters, to confirm a copy
)

// Delay publishes m so that it is published to the queue target after wait,
// later by slack at most. It returns nil once a tier has confirmed it. Where the
// best tier does not take it, another one does.
func (d *Delays) Delay(ctx context.Context, target string, wait, slack time.Duration, m amqp.Publishing) error {
	var failures []error
	for _, t := range tiersFor(wait, slack) {
		err := d.PublishTo(ctx, t, target, m)
		if err == nil {
			return nil
		}
		failures = append(failures, err)
		if ctx.Err() != nil || errors.Is(err, contract.ErrUnavailable) || errors.Is(err, contract.ErrBlocked) {
			break // no tier can be reached
		}
	}
	return errors.Join(failures...)
}

// PublishTo publishes m to the tier.
func (d *Delays) PublishTo(ctx context.Context, t Tier, target string, m amqp.Publishing) error {
	if err := d.tiers.ensure(ctx, t); err != nil {
		return err // watchTiers tells of it
	}
	exchange := d.cfg.Names.Delay(t.Name())
	due := d.delayIn(&m, t, target)
	err := d.publishThrough(ctx, d.outlets.of(exchange), tierTimeout, func(ctx context.Context, p *publish.Publisher) error {
		return p.Publish(ctx, exchange, target, m)
	})
	switch {
	case err == nil:
		d.watch.published(t, due)
	case errors.Is(err, contract.ErrUnroutable): // it was deleted
		d.tiers.forget(t)
	}
	if err != nil {
		return fmt.Errorf("delay tier %q: %w", exchange, err)
	}
	return nil
}

// delayIn makes m wait in the tier for its way to the queue target. It returns
// when m comes out, in Unix milliseconds.
//
// The message gets the length of the tier as its own expiration, too. Before
// 4.1.0, RabbitMQ starts a quorum queue without its TTL and sets it a moment
// later. A second declaration succeeds meanwhile, and what is published then
// would never expire, and nothing behind it either: quorum queues expire
// messages at their head only.
func (d *Delays) delayIn(m *amqp.Publishing, t Tier, target string) (due int64) {
	due = wire.UnixMilliCeil(time.Now().Add(t.Length()))
	if m.Headers == nil {
		m.Headers = amqp.Table{}
	}
	m.Headers[wire.HeaderTarget], m.Headers[wire.HeaderTier], m.Headers[wire.HeaderDue] = target, t.Name(), due
	m.Expiration = strconv.FormatInt(t.Length().Milliseconds(), 10)
	return due
}

// publishThrough calls publish, which must fail within patience, with the publisher of
// the outlet, unless its circuit breaker is open, and tells the breaker how that
// went. What is wrong with the connection is no failure of the queue.
func (d *Delays) publishThrough(ctx context.Context, o *outlet, patience time.Duration, publish func(ctx context.Context, p *publish.Publisher) error) error {
	if err := o.breaker.acquire(ctx, func() time.Duration {
		if patience == targetTimeout && d.moving.Load() > DuePrefetch/2 {
			return busyTimeout
		}
		return patience
	}); err != nil {
		return err
	}
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := publish(limited, o.publisher)
	timeout := limited.Err() != nil && ctx.Err() == nil && !o.publisher.BlockedSince(began)
	switch {
	case err == nil:
		o.breaker.release(succeeded)
	case errors.Is(err, contract.ErrUnroutable): // that costs little, and holds up nothing
		o.breaker.release(notTried)
		return &targetError{err}
	case errors.Is(err, contract.ErrRefused), errors.Is(err, contract.ErrUnconfirmed) && timeout:
		o.breaker.release(failed)
		return &targetError{err}
	default:
		o.breaker.release(notTried)
	}
	return err
}

// targetError is a failure that the queue, not the connection, is the reason of.
type targetError struct{ reason error }

func (e *targetError) Error() string { return e.reason.Error() }
func (e *targetError) Unwrap() error { return e.reason }

// EnsureTier declares the tier if that was not done yet.
func (d *Delays) EnsureTier(ctx context.Context, t Tier) error { return d.tiers.ensure(ctx, t) }

// IsMoving reports whether this process consumes due messages.
func (d *Delays) IsMoving() bool { return d.watch.isConsuming() }

// AssumeDeclared makes d use the tier as it exists, and no other. It is for tests
// of tiers that were declared with other arguments.
func (d *Delays) AssumeDeclared(t Tier) {
	d.tiers.mu.Lock()
	defer d.tiers.mu.Unlock()
	d.tiers.declared = map[Tier]bool{t: true}
}
