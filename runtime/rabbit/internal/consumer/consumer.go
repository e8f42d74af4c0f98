// Package consumer runs an event function on the events of its queue, and settles
// each delivery by the outcome of its run.
package consumer

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/channel"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/deadletter"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/delay"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/publish"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// Consumer runs one event function on the events of its queue.
type Consumer struct {
	cfg   Config
	fn    contract.Function
	Queue string
	slots chan struct{}   // holds one element for each run, also across connections
	base  context.Context // of all runs; done when the grace period is over
	Stop  chan struct{}   // closed when no further deliveries are accepted

	failing failing // of an ordered function, which has one run at a time

	onConsuming func() // called whenever it begins to consume
	bound       bool   // it has consumed before
	held        int    // slots that finish has acquired
}

// Config is what a Consumer needs. All fields are required.
type Config struct {
	Names        topology.Names
	Connection   *connection.Connection
	Publisher    *publish.Publisher
	Delays       *delay.Delays
	DeadLetters  *deadletter.Store
	Directory    *contract.Directory
	Grace        time.Duration   // how long running work may take to finish on shutdown
	CopyPace     connection.Pace // of publishing a copy again that the broker did not accept
	CopyPatience time.Duration   // how long a delivery is held whose copy the broker does not accept
	Observe      contract.Observer
	Log          *zap.Logger
}

// New returns the Consumer of an event function. onConsuming is called whenever it
// begins to consume.
func New(cfg Config, fn contract.Function, onConsuming func()) *Consumer {
	return &Consumer{
		cfg: cfg, fn: fn, Queue: cfg.Names.EventQueue(fn.Name), onConsuming: onConsuming,
		slots: make(chan struct{}, max(fn.Concurrency, 1)), Stop: make(chan struct{}),
	}
}

// cancelGrace is how long a run may take to return after its context is canceled.
const cancelGrace = time.Second

// Serve runs the function until ctx is done. Then it accepts no further deliveries,
// waits for the runs within the grace period, and returns the rest to the queue.
// The error says which function did not finish.
func (c *Consumer) Serve(ctx context.Context) error {
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	c.base = base
	connected, disconnect := context.WithCancel(base)
	defer disconnect()
	var consuming sync.WaitGroup
	consuming.Go(func() {
		c.cfg.Connection.Use(connected, "function "+c.fn.Name, func(conn context.Context, amqpConn *amqp.Connection) error {
			return c.consume(ctx, conn, amqpConn)
		})
	})
	<-ctx.Done()
	close(c.Stop)

	grace := time.NewTimer(c.cfg.Grace)
	defer grace.Stop()
	err := c.finish(grace.C)
	if err != nil {
		cut() // runs that return now are requeued; the others are requeued with the channel
		_ = c.finish(time.After(cancelGrace))
	}
	disconnect()
	consuming.Wait()
	return err
}

// finish waits until no run is left, and prevents new ones. It fails when stop
// delivers first.
func (c *Consumer) finish(stop <-chan time.Time) error {
	for ; c.held < cap(c.slots); c.held++ {
		select {
		case c.slots <- struct{}{}:
		case <-stop:
			return fmt.Errorf("function %q was not finished within the grace period of %v: its events go back to the queue", c.fn.Name, c.cfg.Grace)
		}
	}
	return nil
}

// consume receives deliveries over conn until serving is done, the consumer is
// canceled or conn fails. Deliveries are acknowledged over the channel that
// delivered them; a late acknowledgement fails with its channel.
func (c *Consumer) consume(serving, conn context.Context, amqpConn *amqp.Connection) error {
	if serving.Err() != nil {
		<-conn.Done()
		return nil
	}
	ch, err := amqpConn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel to consume on: %w", err)
	}
	var runs sync.WaitGroup // of deliveries of ch
	defer func() {
		if conn.Err() != nil {
			c.close(ch) // unsettled deliveries are requeued
			return
		}
		go func() { // ends with the runs; meanwhile another channel consumes
			runs.Wait()
			c.close(ch)
		}()
	}()
	if err := c.declare(conn, ch); err != nil {
		return err
	}
	// A larger prefetch would keep events waiting here that could run elsewhere.
	if err := ch.Qos(cap(c.slots), 0, false); err != nil {
		return fmt.Errorf("set the prefetch: %w", err)
	}
	// Before RabbitMQ 4.3, a delivery that a worker requeues counts towards the
	// delivery limit. A worker that is stopped while it starts must therefore receive
	// nothing.
	if serving.Err() != nil {
		<-conn.Done()
		return nil
	}
	tag := contract.NewID()
	deliveries, err := ch.Consume(c.Queue, tag, false, false, false, false, nil)
	if err != nil {
		return fmt.Errorf("consume from %q: %w", c.Queue, err)
	}
	closed, gone := ch.NotifyClose(make(chan *amqp.Error, 1)), ch.NotifyClose(make(chan *amqp.Error, 1))
	c.bound = true
	c.onConsuming()
	if cancelled := c.intake(serving, ch, gone, tag, deliveries, &runs); !cancelled {
		<-conn.Done()
		return nil
	}
	if conn.Err() != nil || amqpConn.IsClosed() {
		return nil
	}
	select {
	case reason := <-closed:
		if reason != nil {
			return &channel.ClosedError{What: fmt.Sprintf("the channel of %q", c.Queue), Reason: reason}
		}
	default:
	}
	return fmt.Errorf("the broker cancelled the consumer of %q: its queue was deleted or has moved", c.Queue)
}

// close closes a channel of the consumer after its acknowledgements are stored.
func (c *Consumer) close(ch *amqp.Channel) {
	channel.AwaitClose(func() {
		if cap(c.slots) > channel.QuorumAckLimit { // otherwise the broker keeps none back
			_ = channel.SettleAcks(ch, c.Queue) // fails if ch is closed
		}
		_ = ch.Close()
	})
}

// intake starts a run for each delivery. It returns false when serving is done, and
// true when the broker ends the consumer. gone delivers when ch is closed.
func (c *Consumer) intake(serving context.Context, ch *amqp.Channel, gone <-chan *amqp.Error, tag string, deliveries <-chan amqp.Delivery, runs *sync.WaitGroup) bool {
	var unstarted []amqp.Delivery
	for {
		select {
		case d, ok := <-deliveries:
			if !ok {
				return true
			}
			arrived := time.Now()
			select {
			case c.slots <- struct{}{}:
				runs.Go(func() {
					defer func() { <-c.slots }()
					c.run(ch, gone, &d, arrived)
				})
				continue
			case <-serving.Done():
				unstarted = append(unstarted, d)
			}
		case <-serving.Done():
		}
		if c.fn.Ordered {
			return false // see ordered.go
		}
		// The client closes deliveries after the broker has confirmed the cancel. A
		// delivery that is requeued earlier would be delivered here again.
		var cancel sync.WaitGroup
		cancel.Go(func() { _ = ch.Cancel(tag, false) })
		for d := range deliveries {
			unstarted = append(unstarted, d)
		}
		cancel.Wait()
		for _, d := range unstarted {
			_ = d.Nack(false, true) // it counts as no attempt
		}
		return false
	}
}

// run runs the function on one delivery and settles it.
func (c *Consumer) run(ch *amqp.Channel, gone <-chan *amqp.Error, d *amqp.Delivery, arrived time.Time) {
	if ch.IsClosed() { // the broker delivers it again
		return
	}
	e := wire.ToEvent(c.cfg.Names, d)
	if wait := time.Until(e.NotBefore); !e.NotBefore.IsZero() && wait > 0 {
		c.postpone(ch, d, &e, wait)
		return
	}
	if !c.fn.Has(e.Key) && c.yieldToNewer(ch, gone, d, &e) {
		return
	}
	if c.fn.Ordered {
		e.Attempt = orderedAttempt(d)
	}
	began := time.Now()
	_, err := c.fn.Run(c.base, &e, time.Time{})
	ran := time.Since(began)
	decision := c.fn.Retry.Decide(err, e.Attempt)
	switch {
	case c.base.Err() != nil && err != nil: // canceled after the grace period
		c.requeue(d)
		decision = contract.Decision{Outcome: contract.OutcomeRetry, Err: contract.AsError(err)}
	case c.fn.Ordered && decision.Outcome == contract.OutcomeRetry:
		c.awaitRetry(gone, d, &e, &decision)
	default:
		c.settle(ch, d, &e, &decision)
	}
	c.cfg.Observe(contract.Invocation{
		Function: c.fn.Name, Kind: contract.KindEvent, Key: e.Key, ID: e.ID, Trace: e.Trace, Attempt: e.Attempt,
		Wait: began.Sub(arrived), Run: ran, Outcome: decision.Outcome, After: decision.After, Err: err,
	})
}

// YieldPause is how long an event waits that this version of the function cannot
// process. Without it, the event would loop between workers of that version.
const YieldPause = time.Second

// yieldToNewer leaves an event to a newer version of the function, which has bound
// the queue to its key, while both versions are deployed. It returns false if there
// is no such version any more.
//
// The event waits in a delay tier: before RabbitMQ 4.3 the broker counts deliveries
// that are requeued, and dead-letters an event that exceeds the delivery limit.
func (c *Consumer) yieldToNewer(ch *amqp.Channel, gone <-chan *amqp.Error, d *amqp.Delivery, e *contract.Event) bool {
	hold := time.NewTimer(maxHold)
	defer hold.Stop()
	for {
		changed := c.cfg.Directory.Changed()
		if newest, ok := c.cfg.Directory.Find(c.fn.Name); !ok || !newest.Has(e.Key) || len(newest.Workers) == 0 {
			return false
		}
		if !c.fn.Ordered {
			c.postpone(ch, d, e, YieldPause)
			return true
		}
		select { // no other worker receives events before this one stops
		case <-changed:
		case <-hold.C:
			_ = d.Nack(false, true)
			return true
		case <-c.Stop:
			return true
		case <-gone: //nolint:errcheck // the reason is not needed
			return true
		}
	}
}

// requeue returns a delivery to its queue because the worker stops.
func (c *Consumer) requeue(d *amqp.Delivery) {
	if !c.fn.Ordered { // otherwise it is requeued when the channel is closed
		_ = d.Nack(false, true)
	}
}

// declare declares the queue of the function and binds it to its keys. It removes
// bindings to keys that an earlier version had, if that version is announced.
func (c *Consumer) declare(ctx context.Context, ch *amqp.Channel) error {
	exchange := cmp.Or(c.fn.Exchange, c.cfg.Names.Events())
	for _, t := range []topology.Part{c.cfg.Names.Common(), c.cfg.Names.DeadRegister()} {
		if err := t.Declare(ch); err != nil {
			return err
		}
	}
	if !c.bound {
		if err := c.cfg.DeadLetters.Register(ctx, c.fn.Name); err != nil {
			return fmt.Errorf("register the function %q: %w", c.fn.Name, err)
		}
	}
	if err := topology.DeclareSource(ctx, c.cfg.Connection, c.cfg.Names, exchange); err != nil {
		return err
	}
	if err := c.cfg.Names.EventFunction(&c.fn.Descriptor, exchange).Declare(ch); err != nil {
		return err
	}
	if c.bound || c.cfg.Names.Predeclared { // a newer version may have bound other keys since
		return nil
	}
	return c.unbindOld(ch, exchange)
}

// unbindOld removes the bindings of announced versions of the function that this
// version does not want.
func (c *Consumer) unbindOld(ch *amqp.Channel, exchange string) error {
	old, ok := c.cfg.Directory.Find(c.fn.Name)
	if !ok || old.Kind != contract.KindEvent {
		return nil
	}
	from := cmp.Or(old.Exchange, c.cfg.Names.Events())
	for _, key := range old.Keys {
		if from == exchange && slices.Contains(c.fn.Keys, key) {
			continue
		}
		if err := ch.QueueUnbind(c.Queue, key, from, nil); err != nil {
			return fmt.Errorf("remove the old binding %q of queue %q: %w", key, c.Queue, err)
		}
		c.cfg.Log.Info("removed an old binding", zap.String("queue", c.Queue), zap.String("key", key))
	}
	return nil
}
