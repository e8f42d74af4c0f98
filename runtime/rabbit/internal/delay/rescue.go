package delay

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/channel"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/publish"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// probeAll sends a probe through each tier that exists. Messages that are stuck
// there may be older than this process.
func (d *Delays) probeAll(ctx context.Context) {
	for _, t := range Tiers {
		p, due := d.probeOf(t)
		err := d.sendProbe(ctx, d.cfg.Names.Delay(t.Name()), p)
		switch {
		case err == nil:
			d.monitor.published(t, due)
		case ctx.Err() != nil:
			return
		case !errors.Is(err, contract.ErrUnroutable):
			d.cfg.Log.Warn("cannot test a delay tier", zap.String("queue", d.cfg.Names.Delay(t.Name())), zap.Error(err))
		}
	}
}

// sendProbe publishes the probe p to the queue. It fails with
// contract.ErrUnroutable if the queue does not exist. (A passive declaration of a
// missing queue would be logged by RabbitMQ as an error.)
func (d *Delays) sendProbe(ctx context.Context, queue string, p amqp.Publishing) error {
	return d.publishThrough(ctx, d.outlets.of("delay tier probes"), tierTimeout, func(ctx context.Context, by *publish.Publisher) error {
		return by.Publish(ctx, "", queue, p)
	})
}

// moveLate moves messages at the head of the tier that are overdue by more than
// tolerance to the queue of due messages, and returns how many. It is needed for a
// message that never expires: it blocks the tier, because quorum queues expire
// messages only at their head.
func (d *Delays) moveLate(ctx context.Context, t Tier, tolerance time.Duration) (moved int, err error) {
	queue := d.cfg.Names.Delay(t.Name())
	s := d.cfg.Consume.Await(ctx)
	if s == nil {
		return 0, context.Cause(ctx)
	}
	ch, err := s.AMQP.Channel()
	if err != nil {
		return 0, fmt.Errorf("open a channel to inspect %q: %w", queue, err)
	}
	// Messages that are not acknowledged return to their places when the channel is
	// closed. After a nack, RabbitMQ 3.10 requeues them elsewhere.
	defer channel.Close(ch)
	defer func() {
		if moved > 0 {
			_ = channel.SettleAcks(ch, queue)
			d.cfg.Log.Warn("moved overdue events out of a delay tier: a message without an expiration blocked it",
				zap.String("queue", queue), zap.Int("moved", moved))
		}
	}()
	for ctx.Err() == nil {
		m, ok, err := ch.Get(queue, false)
		if err != nil {
			return moved, fmt.Errorf("get the oldest message of %q: %w", queue, err)
		}
		if !ok || !isLate(&m, t, time.Now().Add(-tolerance)) {
			return moved, nil
		}
		p := withHeaders(&m, amqp.Table{
			wire.HeaderTarget: targetInTier(&m), wire.HeaderTier: t.Name(), wire.HeaderDue: wire.Int(m.Headers, wire.HeaderDue), wire.HeaderPutOff: wire.Int(m.Headers, wire.HeaderPutOff),
		})
		if err := d.publishThrough(ctx, d.outlets.of(d.cfg.Names.Due()), tierTimeout, func(ctx context.Context, by *publish.Publisher) error {
			return by.Publish(ctx, "", d.cfg.Names.Due(), p)
		}); err != nil {
			return moved, fmt.Errorf("move a message of %q: %w", queue, err)
		}
		if err := m.Ack(false); err != nil {
			return moved, fmt.Errorf("remove a moved message of %q: %w", queue, err)
		}
		moved++
	}
	return moved, context.Cause(ctx)
}

// isLate reports whether a message in the tier was due before that time. For a
// message of another client only the timestamp is known, if it has one.
func isLate(m *amqp.Delivery, t Tier, before time.Time) bool {
	if due := wire.Int(m.Headers, wire.HeaderDue); due > 0 && wire.String(m.Headers, wire.HeaderTier) == t.Name() {
		return time.UnixMilli(due).Before(before)
	}
	return m.Expiration == "" && m.Timestamp.Add(t.Length()).Before(before)
}

// targetInTier is targetOf for a message that is still in its tier.
func targetInTier(m *amqp.Delivery) string {
	if target := wire.String(m.Headers, wire.HeaderTarget); target != "" {
		return target
	}
	return m.RoutingKey
}
