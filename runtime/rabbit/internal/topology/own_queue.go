package topology

import (
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// ConsumeOwnQueue binds an exclusive queue to the exchange, and consumes from it.
// It drops its oldest messages when it is full.
func (n Names) ConsumeOwnQueue(ch *amqp.Channel, exchange, key string) (<-chan amqp.Delivery, error) {
	q, err := ch.QueueDeclare("", false, true, true, false, amqp.Table{"x-queue-type": "classic", "x-max-length": int64(10_000)})
	if err != nil {
		return nil, n.ExplainOwnQueue(err)
	}
	if err := BindQueue(ch, q.Name, key, exchange); err != nil {
		return nil, err
	}
	if err := ch.Qos(256, 0, false); err != nil {
		return nil, fmt.Errorf("set the prefetch: %w", err)
	}
	deliveries, err := ch.Consume(q.Name, "", false, true, false, false, nil)
	if err != nil {
		return nil, fmt.Errorf("consume from %q: %w", q.Name, err)
	}
	return deliveries, nil
}

// ExplainOwnQueue says why the broker refused to declare an exclusive queue, for
// replies or for broadcasts.
func (n Names) ExplainOwnQueue(err error) error {
	if e, ok := errors.AsType[*amqp.Error](err); ok && e.Code == amqp.AccessRefused {
		return fmt.Errorf("declare a queue of this process's own: the broker user has no permission (%s): every process needs it, grant the user configure permission on %s", e.Reason, n.ownQueues())
	}
	return explainDeclare("a queue of this process's own", err)
}
