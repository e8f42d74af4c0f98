package rabbit

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
)

// consumer runs one event function on the events of its queue.
type consumer struct {
	b     *Broker
	fn    contract.Function
	queue string
	slots chan struct{}   // one for each run; it outlives connections, so that concurrency holds across them
	base  context.Context // of the runs: done when the grace period is over
	stop  chan struct{}   // closed when it is to take no more

	failing failing // of an ordered function, which has one run at a time

	live  func() // told when it consumes
	bound bool   // it has consumed before
	held  int    // slots that finish has taken
}

func newConsumer(b *Broker, fn contract.Function, live func()) *consumer {
	return &consumer{
		b: b, fn: fn, queue: b.names.eventQueue(fn.Name), live: live,
		slots: make(chan struct{}, max(fn.Concurrency, 1)), stop: make(chan struct{}),
	}
}

// cutTime is how long a run may take to end whose ctx has.
const cutTime = time.Second

// serve runs the function until ctx is done. Then it takes no more, finishes
// what runs, within the grace period, and gives the rest back.
func (c *consumer) serve(ctx context.Context) error {
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	c.base = base
	connected, disconnect := context.WithCancel(base)
	defer disconnect()
	var session sync.WaitGroup
	session.Go(func() {
		c.b.consume.use(connected, "function "+c.fn.Name, func(conn context.Context, amqpConn *amqp.Connection) error {
			return c.consume(ctx, conn, amqpConn)
		})
	})
	<-ctx.Done()
	close(c.stop)

	grace := time.NewTimer(c.b.cfg.Grace)
	defer grace.Stop()
	err := c.finish(grace.C)
	if err != nil {
		cut() // what listens to its ctx gives back now; the rest goes back with the channel
		_ = c.finish(time.After(cutTime))
	}
	disconnect()
	session.Wait()
	return err
}

// finish waits until nothing runs, and nothing can start any more, until stop.
func (c *consumer) finish(stop <-chan time.Time) error {
	for ; c.held < cap(c.slots); c.held++ {
		select {
		case c.slots <- struct{}{}:
		case <-stop:
			return fmt.Errorf("function %q was not finished within the grace period of %v: its events go back to the queue", c.fn.Name, c.b.cfg.Grace)
		}
	}
	return nil
}

// consume takes deliveries over conn until serving is done, the consumer is
// cancelled or conn fails. All that it acknowledges goes over its own channel:
// an acknowledgement that comes after conn has gone goes nowhere.
func (c *consumer) consume(serving, conn context.Context, amqpConn *amqp.Connection) error {
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
	deliveries, err := ch.Consume(c.queue, tag, false, false, false, false, nil)
	if err != nil {
		return fmt.Errorf("consume from %q: %w", c.queue, err)
	}
	closed, gone := ch.NotifyClose(make(chan *amqp.Error, 1)), ch.NotifyClose(make(chan *amqp.Error, 1))
	c.bound = true
	c.live()
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
			return &closedError{fmt.Sprintf("the channel of %q", c.queue), reason}
		}
	default:
	}
	return fmt.Errorf("the broker cancelled the consumer of %q: its queue was deleted or has moved", c.queue)
}

// close closes a channel of the consumer once its acknowledgements are taken.
func (c *consumer) close(ch *amqp.Channel) {
	ending(func() {
		if cap(c.slots) > ackLimit { // else none are kept
			_ = settleAcks(ch, c.queue) // it fails if ch has gone, and they with it
		}
		_ = ch.Close()
	})
}

// intake starts a run for each delivery, until serving is done (false), or the
// broker ends the consumer (true). gone ends with ch.
func (c *consumer) intake(serving context.Context, ch *amqp.Channel, gone <-chan *amqp.Error, tag string, deliveries <-chan amqp.Delivery, runs *sync.WaitGroup) bool {
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
func (c *consumer) run(ch *amqp.Channel, gone <-chan *amqp.Error, d *amqp.Delivery, arrived time.Time) {
	if ch.IsClosed() { // the broker delivers it again, and perhaps has already
		return
	}
	e := c.b.names.fromDelivery(d)
	if wait := time.Until(e.NotBefore); !e.NotBefore.IsZero() && wait > 0 {
		c.putOff(ch, d, &e, wait)
		return
	}
	if !c.fn.Has(e.Key) && c.passOn(ch, gone, d, &e) {
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
		c.giveBack(d)
		verdict = contract.Decision{Outcome: contract.OutcomeRetry, Err: contract.AsError(err)}
	case c.fn.Ordered && verdict.Outcome == contract.OutcomeRetry:
		c.holdBack(gone, d, &e, &verdict)
	default:
		c.settle(ch, d, &e, &verdict)
	}
	c.b.cfg.Observe(contract.Invocation{
		Function: c.fn.Name, Kind: contract.KindEvent, Key: e.Key, ID: e.ID, Trace: e.Trace, Attempt: e.Attempt,
		Wait: began.Sub(arrived), Run: ran, Outcome: verdict.Outcome, After: verdict.After, Err: err,
	})
}

// passOnPause keeps an event from going round between workers that cannot take it.
const passOnPause = time.Second

// passOn leaves an event to a newer version of the function, which bound the
// queue for it, while both versions are out. It reports false if there is none,
// or no longer. The event waits apart: up to RabbitMQ 4.2 the broker counts what
// is given back, and takes an event that it has delivered too often for lost.
func (c *consumer) passOn(ch *amqp.Channel, gone <-chan *amqp.Error, d *amqp.Delivery, e *contract.Event) bool {
	hold := time.NewTimer(longestHold)
	defer hold.Stop()
	for {
		changed := c.b.directory.Changed()
		if newest, ok := c.b.directory.Find(c.fn.Name); !ok || !newest.Has(e.Key) || len(newest.Workers) == 0 {
			return false
		}
		if !c.fn.Ordered {
			c.putOff(ch, d, e, passOnPause)
			return true
		}
		select { // nobody else gets anything before this worker stops
		case <-changed:
		case <-hold.C:
			_ = d.Nack(false, true)
			return true
		case <-c.stop:
			return true
		case <-gone: //nolint:errcheck // when, not why
			return true
		}
	}
}

// giveBack returns to its queue what the end of this worker keeps from being
// done.
func (c *consumer) giveBack(d *amqp.Delivery) {
	if !c.fn.Ordered { // else the end of the channel does it
		_ = d.Nack(false, true)
	}
}

// declare declares the function's queue and binds it to its keys, and to no
// other key that it had on the same broker before, as far as that is known.
func (c *consumer) declare(ctx context.Context, ch *amqp.Channel) error {
	exchange := cmp.Or(c.fn.Exchange, c.b.names.events())
	for _, t := range []topology{c.b.names.common(), c.b.names.deadRegister()} {
		if err := t.declare(ch); err != nil {
			return err
		}
	}
	if !c.bound {
		if err := c.b.registerDead(ctx, c.fn.Name); err != nil {
			return fmt.Errorf("register the function %q: %w", c.fn.Name, err)
		}
	}
	if err := c.b.declareSource(ctx, exchange); err != nil {
		return err
	}
	if err := c.b.names.eventFunction(&c.fn.Descriptor, exchange).declare(ch); err != nil {
		return err
	}
	if c.bound || c.b.names.fixed { // whoever came since may be newer, and know better which keys it wants
		return nil
	}
	return c.unbindOld(ch, exchange)
}

// unbindOld removes the bindings that other versions of the function, announced
// on the namespace, had and this one no longer wants.
func (c *consumer) unbindOld(ch *amqp.Channel, exchange string) error {
	old, ok := c.b.directory.Find(c.fn.Name)
	if !ok || old.Kind != contract.KindEvent {
		return nil
	}
	from := cmp.Or(old.Exchange, c.b.names.events())
	for _, key := range old.Keys {
		if from == exchange && slices.Contains(c.fn.Keys, key) {
			continue
		}
		if err := ch.QueueUnbind(c.queue, key, from, nil); err != nil {
			return fmt.Errorf("remove the old binding %q of queue %q: %w", key, c.queue, err)
		}
		c.b.log.Info("removed an old binding", zap.String("queue", c.queue), zap.String("key", key))
	}
	return nil
}

// eachDelivery calls fn with each delivery of what is consumed, a queue or a
// pattern, one after the other, until ctx is done. It fails when the broker ends
// the consumer.
func eachDelivery(ctx context.Context, consumed string, deliveries <-chan amqp.Delivery, fn func(*amqp.Delivery)) error {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case d, ok := <-deliveries:
			switch {
			case ok:
				fn(&d)
			case ctx.Err() == nil:
				return fmt.Errorf("the broker ended the consumer of %q", consumed)
			}
		}
	}
	return nil
}
