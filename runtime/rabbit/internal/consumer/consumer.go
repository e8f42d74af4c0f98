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
	slots chan struct{}   // one for each run; it outlives connections, so that concurrency holds across them
	base  context.Context // of the runs: done when the grace period is over
	Stop  chan struct{}   // closed when it is to take no more

	failing failing // of an ordered function, which has one run at a time

	onConsuming func() // told when it consumes
	bound       bool   // it has consumed before
	held        int    // slots that finish has taken
}

// Config says what a consumer needs.
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

func New(cfg Config, fn contract.Function, live func()) *Consumer {
	return &Consumer{
		cfg: cfg, fn: fn, Queue: cfg.Names.EventQueue(fn.Name), onConsuming: live,
		slots: make(chan struct{}, max(fn.Concurrency, 1)), Stop: make(chan struct{}),
	}
}

// cancelGrace is how long a run may take to end whose ctx has.
const cancelGrace = time.Second

// Serve runs the function until ctx is done. Then it takes no more, finishes
// what runs, within the grace period, and gives the rest back.
func (c *Consumer) Serve(ctx context.Context) error {
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	c.base = base
	connected, disconnect := context.WithCancel(base)
	defer disconnect()
	var session sync.WaitGroup
	session.Go(func() {
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
		cut() // what listens to its ctx gives back now; the rest goes back with the channel
		_ = c.finish(time.After(cancelGrace))
	}
	disconnect()
	session.Wait()
	return err
}

// finish waits until nothing runs, and nothing can start any more, until stop.
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

// consume takes deliveries over conn until serving is done, the consumer is
// cancelled or conn fails. All that it acknowledges goes over its own channel:
// an acknowledgement that comes after conn has gone goes nowhere.
func (c *Consumer) consume(serving, conn context.Context, amqpConn *amqp.Connection) error {
	if serving.Err() != nil {
		<-conn.Done()
		return nil
	}
	ch, err := amqpConn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel to consume on: %w", err)
	}
	var runs sync.WaitGroup // they settle over ch
	defer func() {
		if conn.Err() != nil {
			c.close(ch) // what is not settled goes back
			return
		}
		go func() { // ends with the runs; the function is consumed anew meanwhile
			runs.Wait()
			c.close(ch)
		}()
	}()
	if err := c.declare(conn, ch); err != nil {
		return err
	}
	// No more than what can run: what waits here could run elsewhere.
	if err := ch.Qos(cap(c.slots), 0, false); err != nil {
		return fmt.Errorf("set the prefetch: %w", err)
	}
	// Until RabbitMQ 4.3, what a worker gives back counts towards the delivery
	// limit: so one that is stopped as it starts had better take nothing.
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

// close closes a channel of the consumer once its acknowledgements are taken.
func (c *Consumer) close(ch *amqp.Channel) {
	channel.AwaitClose(func() {
		if cap(c.slots) > channel.QuorumAckLimit { // else none are kept
			_ = channel.SettleAcks(ch, c.Queue) // it fails if ch has gone, and they with it
		}
		_ = ch.Close()
	})
}

// intake starts a run for each delivery, until serving is done (false), or the
// broker ends the consumer (true). gone ends with ch.
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
			return false // see ordered
		}
		// The client closes deliveries once the broker has answered. Only then
		// they go back, or the broker would send them here again.
		var cancel sync.WaitGroup
		cancel.Go(func() { _ = ch.Cancel(tag, false) })
		for d := range deliveries {
			unstarted = append(unstarted, d)
		}
		cancel.Wait()
		for _, d := range unstarted {
			_ = d.Nack(false, true) // no attempt is burnt
		}
		return false
	}
}

// run runs the function on one delivery and settles it.
func (c *Consumer) run(ch *amqp.Channel, gone <-chan *amqp.Error, d *amqp.Delivery, arrived time.Time) {
	if ch.IsClosed() { // the broker delivers it again, and perhaps has already
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
	verdict := c.fn.Retry.Decide(err, e.Attempt)
	switch {
	case c.base.Err() != nil && err != nil: // cut short by the end of the grace period
		c.requeue(d)
		verdict = contract.Decision{Outcome: contract.OutcomeRetry, Err: contract.AsError(err)}
	case c.fn.Ordered && verdict.Outcome == contract.OutcomeRetry:
		c.awaitRetry(gone, d, &e, &verdict)
	default:
		c.settle(ch, d, &e, &verdict)
	}
	c.cfg.Observe(contract.Invocation{
		Function: c.fn.Name, Kind: contract.KindEvent, Key: e.Key, ID: e.ID, Trace: e.Trace, Attempt: e.Attempt,
		Wait: began.Sub(arrived), Run: ran, Outcome: verdict.Outcome, After: verdict.After, Err: err,
	})
}

// YieldPause keeps an event from going round between workers that cannot take it.
const YieldPause = time.Second

// yieldToNewer leaves an event to a newer version of the function, which bound the
// queue for it, while both versions are out. It reports false if there is none,
// or no longer. The event waits apart: up to RabbitMQ 4.2 the broker counts what
// is given back, and takes an event that it has delivered too often for lost.
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
		select { // nobody else gets anything before this worker stops
		case <-changed:
		case <-hold.C:
			_ = d.Nack(false, true)
			return true
		case <-c.Stop:
			return true
		case <-gone: //nolint:errcheck // when, not why
			return true
		}
	}
}

// requeue returns to its queue what the end of this worker keeps from being
// done.
func (c *Consumer) requeue(d *amqp.Delivery) {
	if !c.fn.Ordered { // else the end of the channel does it
		_ = d.Nack(false, true)
	}
}

// declare declares the function's queue and binds it to its keys, and to no
// other key that it had on the same broker before, as far as that is known.
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
	if c.bound || c.cfg.Names.Predeclared { // whoever came since may be newer, and know better which keys it wants
		return nil
	}
	return c.unbindOld(ch, exchange)
}

// unbindOld removes the bindings that other versions of the function, announced
// on the namespace, had and this one no longer wants.
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
