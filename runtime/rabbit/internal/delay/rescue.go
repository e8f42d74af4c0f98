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

// probeAll sends a probe through each tier that there is: messages that are stuck
// there may be older than this process.
func (d *Delays) probeAll(ctx context.Context) {
	for _, t := range Tiers {
		p, due := d.probeOf(t)
		err := d.sendProbe(ctx, d.cfg.Names.Delay(t.Name()), p)
		switch {
		case err == nil:
			d.watch.published(t, due)
		case ctx.Err() != nil:
			return
		case !errors.Is(err, contract.ErrUnroutable):
			d.cfg.Log.Warn("cannot test a delay tier", zap.String("queue", d.cfg.Names.Delay(t.Name())), zap.Error(err))
		}
	}
}

// sendProbe publishes the probe p to the queue, and fails with contract.ErrUnroutable
// if there is none. (RabbitMQ logs a passive declaration of a queue that is missing
// as an error.)
func (d *Delays) sendProbe(ctx context.Context, queue string, p amqp.Publishing) error {
	return d.publishThrough(ctx, d.outlets.of("delay tier probes"), tierTimeout, func(ctx context.Context, by *publish.Publisher) error {
		return by.Publish(ctx, "", queue, p)
	})
}

// moveLate moves the messages at the head of the tier that are late by more than
// tolerance to the queue due, and reports how many they were. A message that never
// expires blocks the tier: quorum queues expire messages at their head only.
func (d *Delays) moveLate(ctx context.Context, t Tier, tolerance time.Duration) (moved int, err error) {
	queue := d.cfg.Names.Delay(t.Name())
	s := d.cfg.Consume.Await(ctx)
	if s == nil {
		return 0, context.Cause(ctx)
	}
	ch, err := s.AMQP.Channel()
	if err != nil {
		return 0, fmt.Errorf("open a channel to look into %q: %w", queue, err)
	}
	// What is not acknowledged goes back to its place with the channel; after a
	// nack, RabbitMQ 3.10 puts it elsewhere.
	defer channel.Close(ch)
	defer func() {
		if moved > 0 {
			_ = channel.SettleAcks(ch, queue)
			d.cfg.Log.Warn("moved events by hand that a delay tier held for longer than its time: a message without an expiration blocked it",
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
			return moved, fmt.Errorf("move a message of %q on: %w", queue, err)
		}
		if err := m.Ack(false); err != nil {
			return moved, fmt.Errorf("remove a message of %q that was moved on: %w", queue, err)
		}
		moved++
	}
	return moved, context.Cause(ctx)
}

// isLate reports whether a message in the tier was due before t. Of one that
// another client has published only the timestamp, if it has any, tells.
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
