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

const (
	moveTimeout = 30 * time.Second // for a copy to be confirmed
)

// settle makes the verdict take effect. A delivery is acknowledged only after
// the function succeeded, or the broker has confirmed the copy that carries on.
func (c *Consumer) settle(ch *amqp.Channel, d *amqp.Delivery, e *contract.Event, v *contract.Decision) {
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
		c.replaceByCopy(ch, d, e, func(ctx context.Context) error {
			slack := time.Duration(delay.RetrySlack * float64(v.After))
			return c.cfg.Delays.Delay(ctx, c.Queue, v.After, slack, wire.CopyOf(d, e, own))
		})
		return
	}
	c.replaceByCopy(ch, d, e, func(ctx context.Context) error {
		return c.cfg.DeadLetters.Bury(ctx, c.cfg.Publisher, c.fn.Name, d, e, time.UnixMilli(first), now, v.Err)
	})
}

// postpone sends a delivery that comes too early to wait.
func (c *Consumer) postpone(ch *amqp.Channel, d *amqp.Delivery, e *contract.Event, wait time.Duration) {
	c.replaceByCopy(ch, d, e, func(ctx context.Context) error {
		return c.cfg.Delays.Delay(ctx, c.Queue, wait, delay.Precision, wire.CopyOf(d, e, nil))
	})
}

// replaceByCopy acknowledges d once its copy is confirmed, however long the broker is
// short of memory or out of reach for publishers: the function need not run
// again for that. In the end d goes back to its queue: by reject, so that the
// broker counts it.
func (c *Consumer) replaceByCopy(ch *amqp.Channel, d *amqp.Delivery, e *contract.Event, publish func(ctx context.Context) error) {
	began, pause, log := time.Now(), connection.Backoff{Pace: c.cfg.CopyPace}, c.cfg.Log.Warn
	for {
		ctx, cancel := context.WithTimeout(c.base, moveTimeout)
		err := publish(ctx)
		cancel()
		if err == nil {
			c.ack(ch, d, e)
			return
		}
		log("cannot move an event on yet, it stays in its queue",
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

// ack tells the broker that d is done. When its channel has gone the broker
// delivers d again; there is nothing more to do about it here.
func (c *Consumer) ack(ch *amqp.Channel, d *amqp.Delivery, e *contract.Event) {
	if c.fn.Ordered {
		c.cancelIfStopping(ch, d)
	}
	if err := d.Ack(false); err != nil {
		c.cfg.Log.Debug("an acknowledgement came after its channel had gone",
			zap.String("function", c.fn.Name), zap.String("id", e.ID), zap.Error(err))
	}
}
