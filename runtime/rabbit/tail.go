package rabbit

import (
	"context"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/channel"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// Tail calls fn with a copy of each event of the namespace that matches the
// pattern, until ctx is done. Other consumers are not affected. Events are missed
// while fn is too slow, and while there is no connection.
func (b *Broker) Tail(ctx context.Context, pattern string, fn func(contract.Event)) error {
	if pattern == "" || len(pattern) > wire.MaxShort {
		return contract.Errorf(contract.CodeInvalid, "pattern %.40q: AMQP allows 1 to %d bytes; # is every key", pattern, wire.MaxShort)
	}
	b.consume.Use(ctx, "tail "+pattern, func(ctx context.Context, conn *amqp.Connection) error {
		ch, err := conn.Channel()
		if err != nil {
			return fmt.Errorf("open a channel to follow events on: %w", err)
		}
		defer ch.Close()
		if err := b.names.Common().Declare(ch); err != nil {
			return err
		}
		deliveries, err := b.names.ConsumeOwnQueue(ch, b.names.Events(), pattern)
		if err != nil {
			return err
		}
		return channel.EachDelivery(ctx, pattern, deliveries, func(d *amqp.Delivery) {
			_ = d.Ack(false)
			fn(wire.ToEvent(b.names, d))
		})
	})
	return nil
}
