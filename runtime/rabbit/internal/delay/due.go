package delay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/channel"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/publish"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

const (
	DuePrefetch = 512         // due messages that one process moves at the same time
	dueAcks     = 16          // moved messages that are acknowledged together, at the latest after ackDelay
	dueGrace    = time.Second // for those to be moved when the process stops
)

// consumeDue moves due messages that come over conn until ctx is done, or conn or
// the consumer ends.
func (d *Delays) consumeDue(ctx context.Context, conn *amqp.Connection) error {
	consuming, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var check sync.WaitGroup
	defer check.Wait()
	check.Go(func() { d.checkConsumed(consuming, cancel) })
	err := d.moveAll(consuming, conn, d.cfg.Names.Due(), d.cfg.Names.DueEvents())
	cancel(nil)
	if err == nil && ctx.Err() == nil {
		err = context.Cause(consuming)
	}
	return err
}

// checkConsumed ends the consumer, by cancel, when the broker says that the queue
// has none, or the tiers are late. RabbitMQ 3.10 may neither cancel a consumer that
// begins at the moment in which its queue is deleted and declared again, nor give
// it anything.
func (d *Delays) checkConsumed(ctx context.Context, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(d.cfg.CheckInterval)
	defer tick.Stop()
	for {
		select {
		case <-d.reconsume:
			cancel(fmt.Errorf("nothing comes from queue %q: it is consumed again", d.cfg.Names.Due()))
			return
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		q, err := d.cfg.Consume.InspectQueue(ctx, d.cfg.Names.Due())
		if errors.Is(err, contract.ErrNotFound) || err == nil && q.Consumers == 0 && d.watch.isConsuming() {
			cancel(fmt.Errorf("the broker has lost the consumer of %q: its queue was deleted", d.cfg.Names.Due()))
			return
		}
	}
}

// moveAll moves what is in the queue, which wanted declares. A message that is
// not moved goes back.
func (d *Delays) moveAll(ctx context.Context, conn *amqp.Connection, queue string, wanted topology.Part) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel to consume from %q on: %w", queue, err)
	}
	defer channel.Close(ch)
	if err := wanted.Declare(ch); err != nil {
		return err
	}
	if err := ch.Qos(DuePrefetch, 0, false); err != nil {
		return fmt.Errorf("set the prefetch: %w", err)
	}
	tag := contract.NewID()
	deliveries, err := ch.Consume(queue, tag, false, false, false, false, nil)
	if err != nil {
		return fmt.Errorf("consume from %q: %w", queue, err)
	}
	defer d.watch.consuming()()
	acks := channel.NewAcks(ch, dueAcks)
	defer acks.Close()
	moving, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var moves sync.WaitGroup
	defer moves.Wait()
	err = channel.EachDelivery(ctx, queue, deliveries, func(m *amqp.Delivery) {
		acks.Delivered(m.DeliveryTag)
		moves.Go(func() { d.move(moving, ch, acks, m) })
	})
	if err != nil || ch.IsClosed() {
		cut()
		return err
	}
	// The client closes deliveries once the broker has answered. Only then they
	// go back, or the broker would send them here again.
	moves.Go(func() { _ = ch.Cancel(tag, false) })
	for m := range deliveries {
		acks.Delivered(m.DeliveryTag)
		acks.Requeue(m.DeliveryTag)
	}
	time.AfterFunc(dueGrace, cut)
	moves.Wait()
	acks.Flush()
	_ = channel.SettleAcks(ch, queue) // it fails if ch has gone, and they with it
	return nil
}

// move moves m to where it belongs, for as long as it takes: to its target, to
// another tier or to the dead letters. Only then it is acknowledged.
func (d *Delays) move(ctx context.Context, ch *amqp.Channel, acks *channel.Acks, m *amqp.Delivery) {
	if t, ok := ParseTier(wire.String(m.Headers, wire.HeaderTier)); ok {
		d.watch.arrived(t, wire.Int(m.Headers, wire.HeaderDue))
	}
	d.moving.Add(1)
	defer d.moving.Add(-1)
	pause, log := connection.Backoff{Pace: d.cfg.Pace}, d.cfg.Log.Warn
	for {
		err := d.moveOnce(ctx, m)
		if err == nil {
			acks.Done(m.DeliveryTag) // if ch has gone it is moved once more
			return
		}
		if ctx.Err() == nil {
			log("cannot move a due event on yet", zap.String("queue", targetOf(d.cfg.Names, m)), zap.Error(err))
			log = d.cfg.Log.Debug
		}
		again := pause.Wait(ctx)
		switch {
		case ch.IsClosed(): // the broker delivers it again by itself
			return
		case !again:
			acks.Requeue(m.DeliveryTag)
			return
		}
	}
}

// moveOnce moves m, or says why it cannot be moved at present.
func (d *Delays) moveOnce(ctx context.Context, m *amqp.Delivery) error {
	target := targetOf(d.cfg.Names, m)
	if target == d.cfg.Names.Due() { // a probe: it has done its work
		return nil
	}
	function, ok := strings.CutPrefix(target, d.cfg.Names.EventQueue(""))
	if !ok {
		d.cfg.Log.Warn("dropped a message that was delayed for a queue that is no event function's", zap.String("queue", target))
		return nil
	}
	if ms := wire.Int(m.Headers, wire.HeaderNotBefore); ms > 0 {
		if wait := time.Until(time.UnixMilli(ms)); wait > 0 { // its tier was shorter than its delay
			return d.Delay(ctx, target, wait, Precision, withHeaders(m, nil))
		}
	}
	o := d.outlets.of(target)
	k := &o.breaker
	var err error
	if !k.wasMissing() {
		err = d.publishThrough(ctx, o, targetTimeout, func(ctx context.Context, p *publish.Publisher) error {
			return p.Publish(ctx, "", target, withHeaders(m, nil))
		})
	}
	var refusal *targetError
	var open *openError
	switch {
	case err == nil && !k.wasMissing():
		return nil
	case err == nil, errors.Is(err, contract.ErrUnroutable):
		if gone, lookupErr := d.isMissing(ctx, k); lookupErr != nil || !gone {
			return d.postpone(ctx, m, target, 0)
		}
		if d.isHosted(function) { // a worker will declare it again
			return d.postpone(ctx, m, target, 0)
		}
		return d.bury(ctx, m, function, target)
	case errors.As(err, &open) && open.stalled:
		return d.Delay(ctx, target, overflowWait, Precision, withHeaders(m, amqp.Table{wire.HeaderPutOff: wire.Int(m.Headers, wire.HeaderPutOff)}))
	case errors.As(err, &open):
		return d.postpone(ctx, m, target, open.wait)
	case errors.As(err, &refusal):
		return d.postpone(ctx, m, target, 0)
	}
	return err
}

// overflowWait is how long a message waits more for whose queue too many wait already.
const overflowWait = 250 * time.Millisecond

// postponeWaits are the waits of a message whose target did not take it.
var postponeWaits = []time.Duration{
	time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute,
}

// postpone lets m wait again, longer each time, and for least at least.
func (d *Delays) postpone(ctx context.Context, m *amqp.Delivery, target string, least time.Duration) error {
	n := max(0, wire.Int(m.Headers, wire.HeaderPutOff))
	wait := max(least, postponeWaits[min(n, int64(len(postponeWaits)-1))])
	return d.Delay(ctx, target, wait, time.Duration(RetrySlack*float64(wait)), withHeaders(m, amqp.Table{wire.HeaderPutOff: n + 1}))
}

// isMissing asks the broker whether the queue of k is missing. An unroutable publish
// alone does not say so: a broker that starts may not have all queues yet.
func (d *Delays) isMissing(ctx context.Context, k *breaker) (bool, error) {
	if k.wasMissing() {
		return true, nil
	}
	_, err := d.cfg.Consume.InspectQueue(ctx, k.name)
	refusal, _ := errors.AsType[*amqp.Error](err)
	switch {
	case err == nil:
		return false, nil
	case errors.Is(err, contract.ErrNotFound), refusal != nil && refusal.Code == amqp.AccessRefused: // RabbitMQ 4.2.6 and 4.3.0 ask for permission to declare it
		k.setMissing()
		return true, nil
	}
	return false, err
}

// isHosted reports whether a worker hosts the function, or may: at first this
// process has not heard of all, nor hosts all that it will.
func (d *Delays) isHosted(function string) bool {
	live, ok := d.cfg.Directory.Find(function)
	return ok && live.Kind == contract.KindEvent && len(live.Workers) > 0 || time.Since(d.started) < contract.AnnounceTimeout
}

// bury publishes the dead letter of an event whose function is no more.
func (d *Delays) bury(ctx context.Context, m *amqp.Delivery, function, target string) error {
	clean := *m
	clean.Headers, clean.Exchange, clean.RoutingKey = withoutDelay(m.Headers), "", target
	e := wire.ToEvent(d.cfg.Names, &clean)
	e.Attempt-- // the run to come does not
	now := time.Now()
	first := now
	if failed := wire.Int(m.Headers, wire.HeaderFirst); failed > 0 {
		first = time.UnixMilli(failed)
	}
	err := d.publishThrough(ctx, d.outlets.of(d.cfg.Names.DeadQueue(function)), tierTimeout, func(ctx context.Context, p *publish.Publisher) error {
		return d.cfg.DeadLetters.Bury(ctx, p, function, &clean, &e, first, now, &contract.Error{
			Code: contract.CodeUnroutable, Detail: fmt.Sprintf("its queue %q was deleted while it waited, and no worker hosts the function", target),
		})
	})
	if _, ok := errors.AsType[*openError](err); ok || errors.Is(err, contract.ErrRefused) || errors.Is(err, contract.ErrUnconfirmed) {
		return d.postpone(ctx, m, target, 0)
	}
	return err
}

// targetOf is the queue that a delayed message goes to. A client that is not
// Rabbet's publishes to a tier with the target as the routing key: the broker
// keeps that in the first entry of x-death.
func targetOf(n topology.Names, m *amqp.Delivery) string {
	if target := wire.String(m.Headers, wire.HeaderTarget); target != "" {
		return target
	}
	if m.RoutingKey != n.Due() { // from a tier of an earlier version
		return m.RoutingKey
	}
	list, _ := m.Headers["x-death"].([]any)
	if len(list) == 0 {
		return ""
	}
	last, _ := list[0].(amqp.Table)
	keys, _ := last["routing-keys"].([]any)
	if len(keys) == 0 || !strings.HasPrefix(wire.String(last, "queue"), n.Delay("")) {
		return ""
	}
	target, _ := keys[0].(string)
	return target
}

// withoutDelay is headers without those of a delay, and without what the broker
// says of it.
func withoutDelay(headers amqp.Table) amqp.Table {
	kept := make(amqp.Table, len(headers)+4)
	maps.Copy(kept, headers)
	for _, name := range []string{
		wire.HeaderTarget, wire.HeaderTier, wire.HeaderDue, wire.HeaderPutOff, wire.HeaderPublish, "CC", "BCC", "x-death", "x-delivery-count", "x-acquired-count",
	} {
		delete(kept, name)
	}
	return kept
}

// withHeaders is m as it goes on, with own on top of its headers.
func withHeaders(m *amqp.Delivery, own amqp.Table) amqp.Publishing {
	headers := withoutDelay(m.Headers)
	maps.Copy(headers, own)
	return amqp.Publishing{
		Headers: headers, ContentType: m.ContentType, ContentEncoding: m.ContentEncoding, DeliveryMode: amqp.Persistent,
		Priority: m.Priority, CorrelationId: m.CorrelationId, ReplyTo: m.ReplyTo, MessageId: m.MessageId, Timestamp: m.Timestamp,
		Type: m.Type, AppId: m.AppId, Body: m.Body,
	}
}
