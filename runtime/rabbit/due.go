package rabbit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// All delay tiers dead-letter into one queue, which never refuses. From there
// processes that host functions move what is due on to its target, confirmed.
//
// The broker could dead-letter straight to the targets, but then one target
// would hold up all others: its dead-letter worker has at most 32 messages
// unsettled for a tier, and waits for a target that is full or has no leader.

const (
	duePrefetch  = 512         // of a process
	missingPause = time.Second // how long an event waits for its queue to be declared again
)

// dueMover moves what is due on to its targets.
type dueMover struct {
	b       *Broker
	base    context.Context // of the targets
	targets targets
}

// moveDue moves what is due, until ctx is done.
func (b *Broker) moveDue(ctx context.Context) {
	base, stop := context.WithCancel(context.WithoutCancel(ctx))
	m := &dueMover{b: b, base: base, targets: targets{b: b, byName: map[string]*target{}}}
	defer m.targets.running.Wait()
	defer stop()
	b.consume.use(ctx, "due events", m.consume)
}

// consume moves what is due over conn, until ctx is done or conn fails.
func (m *dueMover) consume(ctx context.Context, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel for due events: %w", err)
	}
	defer closeChannel(ch)
	for _, t := range []topology{m.b.names.common(), m.b.names.dueEvents()} {
		if err := t.declare(ch); err != nil {
			return err
		}
	}
	if err := ch.Qos(duePrefetch, 0, false); err != nil {
		return fmt.Errorf("set the prefetch: %w", err)
	}
	deliveries, err := ch.Consume(m.b.names.due(), "", false, false, false, false, nil)
	if err != nil {
		return fmt.Errorf("consume from %q: %w", m.b.names.due(), err)
	}
	if err := m.consumeFormer(ctx, ch); err != nil {
		return err
	}
	moving, stop := context.WithCancel(ctx)
	var moves sync.WaitGroup
	defer moves.Wait()
	defer stop()
	return eachDelivery(ctx, m.b.names.due(), deliveries, func(d *amqp.Delivery) {
		moves.Go(func() { m.move(moving, d) })
	})
}

// consumeFormer moves what an earlier version has put into a queue of its own,
// if there is one: events whose queue was missing when they were due.
func (m *dueMover) consumeFormer(ctx context.Context, ch *amqp.Channel) error {
	former := m.b.names.dueAlternate()
	exists, err := m.exists(ctx, former)
	if err != nil || !exists {
		return err
	}
	if !m.b.names.fixed {
		if err := ch.QueueUnbind(former, "", former, nil); err != nil {
			return fmt.Errorf("unbind queue %q: %w", former, err)
		}
	}
	deliveries, err := ch.Consume(former, "", false, false, false, false, nil)
	if err != nil {
		return fmt.Errorf("consume from %q: %w", former, err)
	}
	go func() { // ends with ch
		for d := range deliveries {
			m.move(ctx, &d)
		}
	}()
	return nil
}

// move moves d on, however long that takes, and acknowledges it. It gives up
// when ctx is done: then d goes back with its channel.
func (m *dueMover) move(ctx context.Context, d *amqp.Delivery) {
	pause, log := backoff{pace: m.b.cfg.copyPace}, m.b.log.Warn
	for {
		attempt, cancel := context.WithTimeout(ctx, copyTimeout)
		err := m.moveOn(attempt, d)
		cancel()
		if err == nil {
			_ = d.Ack(false) // if the channel has gone it is moved once more
			return
		}
		log("cannot move a due event on yet", zap.String("queue", d.RoutingKey), zap.Error(err))
		log = m.b.log.Debug
		if !pause.wait(ctx) {
			return
		}
	}
}

// moveOn publishes d to its target, or to a delay tier if the target does not
// take it. It fails if neither is possible at present.
func (m *dueMover) moveOn(ctx context.Context, d *amqp.Delivery) error {
	name := d.RoutingKey
	function, ok := strings.CutPrefix(name, m.b.names.eventQueue(""))
	if !ok {
		if !strings.HasPrefix(name, canaryPrefix) { // of a process that has gone
			m.b.log.Warn("dropped a message that was delayed for a queue that is no event function's", zap.String("queue", name))
		}
		return nil
	}
	e := m.b.names.fromDelivery(d)
	if wait := time.Until(e.NotBefore); !e.NotBefore.IsZero() && wait > 0 {
		return m.b.copies.delay(ctx, name, wait, grain, copyOf(d, &e, nil))
	}
	t := m.targets.acquire(m.base, name)
	defer m.targets.release(t)
	wait, opened, err := t.send(ctx, name, copyOf(d, &e, nil))
	switch {
	case err == nil && wait == 0:
		return nil
	case errors.Is(err, contract.ErrUnroutable):
		exists, err := m.exists(ctx, name)
		if err != nil {
			return err
		}
		if !exists && !m.isHosted(function) {
			return m.buryUnroutable(ctx, function, d, &e)
		}
		wait = missingPause
	case err != nil:
		return err
	case opened != nil:
		m.b.log.Warn("a queue does not take its due events: they wait, and hold up no other queue",
			zap.String("queue", name), zap.Duration("for", wait), zap.Error(opened))
	}
	return m.b.copies.delay(ctx, name, wait, time.Duration(retrySlack*float64(wait)), copyOf(d, &e, nil))
}

// exists asks the broker whether it has the queue.
func (m *dueMover) exists(ctx context.Context, name string) (bool, error) {
	err := m.b.consume.declare(ctx, topology{queues: []queue{{name: name}}}.look)
	refusal, ok := errors.AsType[*amqp.Error](err)
	switch {
	case err == nil:
		return true, nil
	case ok && refusal.Code == amqp.NotFound:
		return false, nil
	case ok && refusal.Code == amqp.AccessRefused:
		// RabbitMQ 4.2.6 and 4.3.0 show a queue only to users that may configure
		// it. The broker has returned the event: then there is none.
		return false, nil
	}
	return false, fmt.Errorf("look for queue %q: %w", name, err)
}

// isHosted reports whether a worker hosts the event function, or may host it:
// at first this process does not know all workers, nor hosts all its functions.
func (m *dueMover) isHosted(function string) bool {
	live, ok := m.b.directory.Find(function)
	return ok && live.Kind == contract.KindEvent && len(live.Workers) > 0 ||
		time.Since(m.b.system.started) < contract.AnnounceTimeout
}

// buryUnroutable makes d a dead letter: its queue was deleted, and no worker
// declares it again.
func (m *dueMover) buryUnroutable(ctx context.Context, function string, d *amqp.Delivery, e *contract.Event) error {
	now := time.Now()
	first := now
	if failed := intOf(d.Headers, headerFirst); failed > 0 {
		first = time.UnixMilli(failed)
	}
	e.Attempt-- // the run to come does not
	return m.b.bury(ctx, function, d, e, first, now, &contract.Error{
		Code: contract.CodeUnroutable, Detail: fmt.Sprintf("its queue %q was deleted while it waited, and no worker hosts the function", d.RoutingKey),
	})
}
