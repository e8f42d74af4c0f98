package rabbit

import (
	"context"
	"fmt"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// An event that comes back from a delay may find the queue of its function
// deleted: by mistake, or because the function is no more. The tier that it
// waited in would try it again and again, and 32 of such events, which is as
// many as at-least-once dead-lettering has in hand, would hold up the events of
// all other functions. So the broker puts it apart, from where any worker
// rescues it.

// strandedPause is how long an event waits for its queue to be declared again.
const strandedPause = time.Second

// rescueStranded looks after stranded events until ctx is done or conn fails.
func (b *Broker) rescueStranded(ctx context.Context, conn *amqp.Connection) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel for stranded events: %w", err)
	}
	defer closeChannel(ch)
	for _, t := range []topology{b.names.common(), b.names.strandedEvents()} {
		if err := t.declare(ch); err != nil {
			return err
		}
	}
	if err := ch.Qos(1, 0, false); err != nil { // the others are for other workers
		return fmt.Errorf("set the prefetch: %w", err)
	}
	stranded, err := ch.Consume(b.names.stranded(), "", false, false, false, false, nil)
	if err != nil {
		return fmt.Errorf("consume from %q: %w", b.names.stranded(), err)
	}
	return eachDelivery(ctx, b.names.stranded(), stranded, func(d *amqp.Delivery) {
		if b.rescue(ctx, d) { // else it goes back with ch
			_ = d.Ack(false) // if ch has gone it is rescued once more
		}
	})
}

// rescue moves d on, however long that takes. It reports false if ctx is done
// first.
func (b *Broker) rescue(ctx context.Context, d *amqp.Delivery) bool {
	pause, log := backoff{pace: b.cfg.copyPace}, b.log.Warn
	for {
		attempt, cancel := context.WithTimeout(ctx, copyTimeout)
		err := b.moveStranded(attempt, d)
		cancel()
		if err == nil {
			return true
		}
		log("cannot move an event on yet whose queue is gone", zap.String("queue", d.RoutingKey), zap.Error(err))
		log = b.log.Debug
		if !pause.wait(ctx) {
			return false
		}
	}
}

// moveStranded lets d wait for its queue if some worker hosts the function, or
// may, and will declare it again. Else it is a dead letter.
func (b *Broker) moveStranded(ctx context.Context, d *amqp.Delivery) error {
	e := b.names.fromDelivery(d)
	function, ok := strings.CutPrefix(d.RoutingKey, b.names.eventQueue(""))
	if !ok {
		b.log.Warn("dropped a message that somebody has delayed for a queue that is no event function's", zap.String("queue", d.RoutingKey))
		return nil
	}
	live, ok := b.directory.Find(function)
	hosted := ok && live.Kind == contract.KindEvent && len(live.Workers) > 0
	if hosted || time.Since(b.system.started) < contract.AnnounceTimeout { // at first this process has not heard of all, nor hosts all that it will
		return b.publisher.delay(ctx, d.RoutingKey, strandedPause, grain, copyOf(d, &e, nil))
	}
	now := time.Now()
	first := now
	if failed := intOf(d.Headers, headerFirst); failed > 0 {
		first = time.UnixMilli(failed)
	}
	e.Attempt-- // the run to come does not
	return b.bury(ctx, function, d, &e, first, now, &contract.Error{
		Code: contract.CodeUnroutable, Detail: fmt.Sprintf("its queue %q was deleted while it waited, and no worker hosts the function", d.RoutingKey),
	})
}
