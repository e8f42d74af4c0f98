package consumer

import (
	"context"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/delay"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// copyTimeout is how long a copy may take to be confirmed.
const copyTimeout = 30 * time.Second

// settle executes the decision. A delivery is acknowledged only after the function
// succeeded, or after the broker has confirmed the copy that replaces it.
func (c *Consumer) settle(ch *amqp.Channel, d *amqp.Delivery, e *contract.Event, decision *contract.Decision) {
	if decision.Outcome == contract.OutcomeDone {
		c.ack(ch, d, e)
		return
	}
	if ch.IsClosed() { // the broker delivers it again
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
	if decision.Outcome == contract.OutcomeRetry {
		own := amqp.Table{wire.HeaderAttempt: int64(decision.Attempt), wire.HeaderNotBefore: wire.UnixMilliCeil(now.Add(decision.After))}
		if decision.Attempt > e.Attempt { // the function failed
			own[wire.HeaderFirst] = first
		}
		c.replaceByCopy(ch, d, e, func(ctx context.Context) error {
			slack := time.Duration(delay.RetrySlack * float64(decision.After))
			return c.cfg.Delays.Delay(ctx, c.Queue, decision.After, slack, wire.CopyOf(d, e, own))
		})
		return
	}
	c.replaceByCopy(ch, d, e, func(ctx context.Context) error {
		return c.cfg.DeadLetters.Bury(ctx, c.cfg.Publisher, c.fn.Name, d, e, time.UnixMilli(first), now, decision.Err)
	})
}

// postpone delays a delivery that is not due yet.
func (c *Consumer) postpone(ch *amqp.Channel, d *amqp.Delivery, e *contract.Event, wait time.Duration) {
	c.replaceByCopy(ch, d, e, func(ctx context.Context) error {
		return c.cfg.Delays.Delay(ctx, c.Queue, wait, delay.Precision, wire.CopyOf(d, e, nil))
	})
}

// replaceByCopy acknowledges d once publish has returned nil, that is, once its
// copy is confirmed. It retries while the broker blocks publishers or cannot be
// reached, so that the function does not run again for that. After CopyPatience it
// rejects d, which returns it to its queue and counts the delivery.
func (c *Consumer) replaceByCopy(ch *amqp.Channel, d *amqp.Delivery, e *contract.Event, publish func(ctx context.Context) error) {
	began, pause, log := time.Now(), connection.Backoff{Pace: c.cfg.CopyPace}, c.cfg.Log.Warn
	for {
		ctx, cancel := context.WithTimeout(c.base, copyTimeout)
		err := publish(ctx)
		cancel()
		if err == nil {
			c.ack(ch, d, e)
			return
		}
		log("cannot publish the copy of an event yet, it stays in its queue",
			zap.String("function", c.fn.Name), zap.String("id", e.ID), zap.Error(err))
		log = c.cfg.Log.Debug
		again := pause.Wait(c.base)
		switch {
		case ch.IsClosed(): // the broker delivers it again by itself
			return
		case !again:
			c.requeue(d)
			return
		case time.Since(began) > c.cfg.CopyPatience:
			_ = d.Reject(true)
			return
		}
	}
}

// ack acknowledges d. If its channel is closed, the broker delivers d again.
func (c *Consumer) ack(ch *amqp.Channel, d *amqp.Delivery, e *contract.Event) {
	if c.fn.Ordered {
		c.cancelIfStopping(ch, d)
	}
	if err := d.Ack(false); err != nil {
		c.cfg.Log.Debug("cannot acknowledge an event, its channel is closed",
			zap.String("function", c.fn.Name), zap.String("id", e.ID), zap.Error(err))
	}
}
