package rabbit

import (
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// declare brings about what of t is missing. Drift is an error that names the
// queue and what differs; nothing is ever deleted for it. An error closes ch.
func (t topology) declare(ch *amqp.Channel) error {
	for _, x := range t.exchanges {
		if err := ch.ExchangeDeclare(x.name, x.kind, true, false, false, false, nil); err != nil {
			return explainDeclare(fmt.Sprintf("exchange %q", x.name), err)
		}
	}
	for _, q := range t.queues {
		if _, err := ch.QueueDeclare(q.name, true, false, false, false, q.arguments); err != nil {
			return explainDeclare(fmt.Sprintf("queue %q", q.name), err)
		}
	}
	for _, b := range t.bindings {
		if err := bindQueue(ch, b.queue, b.key, b.exchange); err != nil {
			return err
		}
	}
	return nil
}

func bindQueue(ch *amqp.Channel, queue, key, exchange string) error {
	if err := ch.QueueBind(queue, key, exchange, false, nil); err != nil {
		return explainDeclare(fmt.Sprintf("binding %q from exchange %q to queue %q", key, exchange, queue), err)
	}
	return nil
}
