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

// DuePrefetch is how many due messages one process moves concurrently.
const DuePrefetch = 512

const (
	dueAcks  = 16          // moved messages that are acknowledged together
	dueGrace = time.Second // for messages to be moved when the process stops
)

// consumeDue moves due messages that arrive over conn, until ctx is done, or conn
// or the consumer ends.
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

// checkConsumed cancels the consumer when the broker reports none for the queue, or
// when monitorTiers requests it. A RabbitMQ 3.10 consumer that starts while its queue is
// being deleted and declared again may receive nothing, without being canceled.
func (d *Delays) checkConsumed(ctx context.Context, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(d.cfg.CheckInterval)
	defer tick.Stop()
	for {
		select {
		case <-d.reconsume:
			cancel(fmt.Errorf("no deliveries from queue %q: it is consumed again", d.cfg.Names.Due()))
			return
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		q, err := d.cfg.Consume.InspectQueue(ctx, d.cfg.Names.Due())
		if errors.Is(err, contract.ErrNotFound) || err == nil && q.Consumers == 0 && d.monitor.isConsuming() {
			cancel(fmt.Errorf("the broker has lost the consumer of %q: its queue was deleted", d.cfg.Names.Due()))
			return
		}
	}
}

// moveAll moves the messages of a queue, which wanted declares, until ctx is done.
// Messages that were not moved are requeued.
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
	defer d.monitor.consuming()()
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
	// The client closes deliveries after the broker has confirmed the cancel. A
	// message that is requeued earlier would be delivered here again.
	moves.Go(func() { _ = ch.Cancel(tag, false) })
	for m := range deliveries {
		acks.Delivered(m.DeliveryTag)
		acks.Requeue(m.DeliveryTag)
	}
	time.AfterFunc(dueGrace, cut)
	moves.Wait()
	acks.Flush()
	_ = channel.SettleAcks(ch, queue) // fails if ch is closed
	return nil
}

// move moves m to its target, to another tier or to the dead letters, and then
// acknowledges it. It retries until ctx is done.
func (d *Delays) move(ctx context.Context, ch *amqp.Channel, acks *channel.Acks, m *amqp.Delivery) {
	if t, ok := ParseTier(wire.String(m.Headers, wire.HeaderTier)); ok {
		d.monitor.arrived(t, wire.Int(m.Headers, wire.HeaderDue))
	}
	d.moving.Add(1)
	defer d.moving.Add(-1)
	pause, log := connection.Backoff{Pace: d.cfg.Pace}, d.cfg.Log.Warn
	for {
		err := d.moveOnce(ctx, m)
		if err == nil {
			acks.Done(m.DeliveryTag) // if ch is closed, it is delivered again
			return
		}
		if ctx.Err() == nil {
			log("cannot move a due event yet", zap.String("queue", targetOf(d.cfg.Names, m)), zap.Error(err))
			log = d.cfg.Log.Debug
		}
		again := pause.Wait(ctx)
		switch {
		case ch.IsClosed(): // the broker delivers it again
			return
		case !again:
			acks.Requeue(m.DeliveryTag)
			return
		}
	}
}

// moveOnce moves m, or returns why that is not possible at present.
func (d *Delays) moveOnce(ctx context.Context, m *amqp.Delivery) error {
	target := targetOf(d.cfg.Names, m)
	if target == d.cfg.Names.Due() { // a probe, which has arrived
		return nil
	}
	function, ok := strings.CutPrefix(target, d.cfg.Names.EventQueue(""))
	if !ok {
		d.cfg.Log.Warn("dropped a delayed message whose target is not the queue of an event function", zap.String("queue", target))
		return nil
	}
	if ms := wire.Int(m.Headers, wire.HeaderNotBefore); ms > 0 {
		if wait := time.Until(time.UnixMilli(ms)); wait > 0 { // the tier was shorter than the delay
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
		if d.isHosted(function) { // a worker declares it again
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

// overflowWait is how long a message waits whose target has too many publishes in
// flight.
const overflowWait = 250 * time.Millisecond

// postponeWaits are the waits after the first, second, … time that a target did not
// accept a message.
var postponeWaits = []time.Duration{
	time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute,
}

// postpone publishes m to a tier again, for longer each time, and for at least that
// long.
func (d *Delays) postpone(ctx context.Context, m *amqp.Delivery, target string, least time.Duration) error {
	n := max(0, wire.Int(m.Headers, wire.HeaderPutOff))
	wait := max(least, postponeWaits[min(n, int64(len(postponeWaits)-1))])
	return d.Delay(ctx, target, wait, time.Duration(RetrySlack*float64(wait)), withHeaders(m, amqp.Table{wire.HeaderPutOff: n + 1}))
}

// isMissing looks up whether the queue of k is missing. An unroutable publish is
// not sufficient: a broker that is starting may not have all queues yet.
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

// isHosted reports whether a worker hosts the function. It also returns true
// shortly after the start of this process, when not all workers are known.
func (d *Delays) isHosted(function string) bool {
	live, ok := d.cfg.Directory.Find(function)
	return ok && live.Kind == contract.KindEvent && len(live.Workers) > 0 || time.Since(d.started) < contract.AnnounceTimeout
}

// bury publishes m as a dead letter, because its function no longer exists.
func (d *Delays) bury(ctx context.Context, m *amqp.Delivery, function, target string) error {
	clean := *m
	clean.Headers, clean.Exchange, clean.RoutingKey = withoutDelay(m.Headers), "", target
	e := wire.ToEvent(d.cfg.Names, &clean)
	e.Attempt-- // the next run does not take place
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

// targetOf returns the target queue of a delayed message. Other clients publish to
// a tier with the target as the routing key, which the broker keeps in the first
// entry of x-death.
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

// withoutDelay returns the headers without those of a delay and those that the
// broker has added.
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

// withHeaders returns the message to publish for m, with own on top of its headers.
func withHeaders(m *amqp.Delivery, own amqp.Table) amqp.Publishing {
	headers := withoutDelay(m.Headers)
	maps.Copy(headers, own)
	return amqp.Publishing{
		Headers: headers, ContentType: m.ContentType, ContentEncoding: m.ContentEncoding, DeliveryMode: amqp.Persistent,
		Priority: m.Priority, CorrelationId: m.CorrelationId, ReplyTo: m.ReplyTo, MessageId: m.MessageId, Timestamp: m.Timestamp,
		Type: m.Type, AppId: m.AppId, Body: m.Body,
	}
}
