package rabbit

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// delays lets events wait in the broker, and moves those that are due to their
// target queues. DELAYS.md says how, and why so.
type delays struct {
	b       *Broker
	tiers   tierRegister
	outlets outlets
	watch   tierWatch

	moving    atomic.Int64  // due messages that this process moves at present
	watching  sync.Mutex    // held by the Serve that watches the tiers
	reconsume chan struct{} // asks for another consumer of due messages
}

func newDelays(b *Broker) *delays {
	return &delays{
		b: b, tiers: tierRegister{cfg: b.cfg.connection(), names: b.names}, outlets: outlets{b: b},
		watch: tierWatch{broadcast: b.system.broadcast}, reconsume: make(chan struct{}, 1),
	}
}

// run serves publishes until ctx is done, and waits for the confirmations of
// what is in flight, for a moment.
func (d *delays) run(ctx context.Context) { d.outlets.run(ctx) }

// serve moves due events, and watches the tiers, until ctx is done.
func (d *delays) serve(ctx context.Context) {
	var parts sync.WaitGroup
	parts.Go(func() { d.b.consume.Use(ctx, "due events", d.consumeDue) })
	parts.Go(func() { d.consumeOld(ctx) })
	parts.Go(func() { d.watchTiers(ctx) })
	parts.Wait()
}

const (
	targetPatience = time.Second     // for a queue to confirm what is due
	tierPatience   = 3 * time.Second // for a tier, or the dead letters, to confirm a copy
)

// delay publishes m so that it is published to the queue target after wait,
// later by slack at most. It returns nil once a tier has confirmed it. Where the
// best tier does not take it, another one does.
func (d *delays) delay(ctx context.Context, target string, wait, slack time.Duration, m amqp.Publishing) error {
	var failures []error
	for _, t := range tiersFor(wait, slack) {
		err := d.publishTo(ctx, t, target, m)
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

// publishTo publishes m to the tier.
func (d *delays) publishTo(ctx context.Context, t tier, target string, m amqp.Publishing) error {
	if err := d.tiers.ensure(ctx, t); err != nil {
		return err // watchTiers tells of it
	}
	exchange := d.b.names.Delay(t.name())
	due := d.delayIn(&m, t, target)
	err := d.through(ctx, d.outlets.of(exchange), tierPatience, func(ctx context.Context, p *publisher) error {
		return p.publish(ctx, exchange, target, m)
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
func (d *delays) delayIn(m *amqp.Publishing, t tier, target string) (due int64) {
	due = wire.UnixMilliCeil(time.Now().Add(t.length()))
	if m.Headers == nil {
		m.Headers = amqp.Table{}
	}
	m.Headers[wire.HeaderTarget], m.Headers[wire.HeaderTier], m.Headers[wire.HeaderDue] = target, t.name(), due
	m.Expiration = strconv.FormatInt(t.length().Milliseconds(), 10)
	return due
}

// through calls publish, which must fail within patience, with the publisher of
// the outlet, unless its circuit breaker is open, and tells the breaker how that
// went. What is wrong with the connection is no failure of the queue.
func (d *delays) through(ctx context.Context, o *outlet, patience time.Duration, publish func(ctx context.Context, p *publisher) error) error {
	if err := o.breaker.acquire(ctx, func() time.Duration {
		if patience == targetPatience && d.moving.Load() > duePrefetch/2 {
			return crowdedPatience
		}
		return patience
	}); err != nil {
		return err
	}
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := publish(limited, o.publisher)
	timeout := limited.Err() != nil && ctx.Err() == nil && !o.publisher.link.BlockedSince(began)
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
