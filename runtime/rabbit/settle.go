package rabbit

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

const (
	copyTimeout = 30 * time.Second // for a copy to be confirmed
	maxReason   = 4 << 10          // bytes of an error or a stack in a dead letter
)

// The headers of a dead letter. All begin with headerDeadPrefix.
const (
	headerDeadPrefix   = "rabbet-dead-"
	headerDeadReason   = "rabbet-dead-reason" // contract.Code
	headerDeadError    = "rabbet-dead-error"
	headerDeadAttempts = "rabbet-dead-attempts"
	headerDeadFirst    = "rabbet-dead-first" // RFC 3339: the first failure
	headerDeadLast     = "rabbet-dead-last"  // RFC 3339: the last failure
	headerDeadWorker   = "rabbet-dead-worker"
	headerDeadStack    = "rabbet-dead-stack"
)

// settle makes the verdict take effect. A delivery is acknowledged only after
// the function succeeded, or the broker has confirmed the copy that carries on.
func (c *consumer) settle(ch *amqp.Channel, d *amqp.Delivery, e *contract.Event, v *contract.Decision) {
	if v.Outcome == contract.OutcomeDone {
		c.ack(ch, d, e)
		return
	}
	if ch.IsClosed() { // the broker delivers it again by itself
		return
	}
	now := time.Now()
	first := wire.Int(d.Headers, wire.HeaderFirst)
	if first == 0 && c.fn.Ordered && c.failing.id == e.ID {
		first = c.failing.since
	}
	if first == 0 {
		first = now.UnixMilli()
	}
	if v.Outcome == contract.OutcomeRetry {
		own := amqp.Table{wire.HeaderAttempt: int64(v.Attempt), wire.HeaderNotBefore: wire.UnixMilliCeil(now.Add(v.After))}
		if v.Attempt > e.Attempt { // it failed, and did not merely wait
			own[wire.HeaderFirst] = first
		}
		c.move(ch, d, e, func(ctx context.Context) error {
			slack := time.Duration(retrySlack * float64(v.After))
			return c.b.delays.delay(ctx, c.queue, v.After, slack, wire.CopyOf(d, e, own))
		})
		return
	}
	c.move(ch, d, e, func(ctx context.Context) error {
		return c.b.bury(ctx, c.b.publisher, c.fn.Name, d, e, time.UnixMilli(first), now, v.Err)
	})
}

// bury publishes the dead letter that d becomes, by p.
func (b *Broker) bury(ctx context.Context, p *publisher, function string, d *amqp.Delivery, e *contract.Event, first, last time.Time, reason *contract.Error) error {
	own := amqp.Table{
		headerDeadReason:   string(reason.Code),
		headerDeadError:    clip(reason.Error()),
		headerDeadAttempts: int64(e.Attempt),
		headerDeadFirst:    first.UTC().Format(time.RFC3339Nano),
		headerDeadLast:     last.UTC().Format(time.RFC3339Nano),
		headerDeadWorker:   b.cfg.Process,
	}
	if len(reason.Stack) > 0 {
		own[headerDeadStack] = clip(string(reason.Stack))
	}
	err := p.publish(ctx, b.names.Dead(), function, wire.CopyOf(d, e, own))
	if errors.Is(err, contract.ErrUnroutable) { // somebody has deleted the queue
		return errors.Join(err, b.consume.Declare(ctx, b.names.DeadLetters(function).Declare))
	}
	return err
}

// putOff sends a delivery that comes too early to wait.
func (c *consumer) putOff(ch *amqp.Channel, d *amqp.Delivery, e *contract.Event, wait time.Duration) {
	c.move(ch, d, e, func(ctx context.Context) error {
		return c.b.delays.delay(ctx, c.queue, wait, grain, wire.CopyOf(d, e, nil))
	})
}

// move acknowledges d once its copy is confirmed, however long the broker is
// short of memory or out of reach for publishers: the function need not run
// again for that. In the end d goes back to its queue: by reject, so that the
// broker counts it.
func (c *consumer) move(ch *amqp.Channel, d *amqp.Delivery, e *contract.Event, publish func(ctx context.Context) error) {
	began, pause, log := time.Now(), connection.Backoff{Pace: c.b.cfg.copyPace}, c.b.log.Warn
	for {
		ctx, cancel := context.WithTimeout(c.base, copyTimeout)
		err := publish(ctx)
		cancel()
		if err == nil {
			c.ack(ch, d, e)
			return
		}
		log("cannot move an event on yet, it stays in its queue",
			zap.String("function", c.fn.Name), zap.String("id", e.ID), zap.Error(err))
		log = c.b.log.Debug
		again := pause.Wait(c.base)
		switch {
		case ch.IsClosed(): // the broker delivers it again by itself
			return
		case !again:
			c.giveBack(d)
			return
		case time.Since(began) > c.b.cfg.copyPatience:
			_ = d.Reject(true)
			return
		}
	}
}

// ack tells the broker that d is done. When its channel has gone the broker
// delivers d again; there is nothing more to do about it here.
func (c *consumer) ack(ch *amqp.Channel, d *amqp.Delivery, e *contract.Event) {
	if c.fn.Ordered {
		c.endOrder(ch, d)
	}
	if err := d.Ack(false); err != nil {
		c.b.log.Debug("an acknowledgement came after its channel had gone",
			zap.String("function", c.fn.Name), zap.String("id", e.ID), zap.Error(err))
	}
}

func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxReason)], "") }
