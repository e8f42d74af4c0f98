package rabbit

import (
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// declare brings about what of t is missing. Drift is an error that names the
// queue and what differs; nothing is ever deleted for it. A fixed topology is
// taken to be there: RabbitMQ 4.2.6 and 4.3.0 do not even let a user look who
// may not declare. An error closes ch.
func (t topology) declare(ch *amqp.Channel) error {
	if t.fixed {
		return nil
	}
	for _, x := range t.exchanges {
		if err := ch.ExchangeDeclare(x.name, x.kind, true, false, false, false, x.arguments()); err != nil {
			return explainDeclare(x.String(), err)
		}
	}
	for _, q := range t.queues {
		if _, err := ch.QueueDeclare(q.name, true, false, false, false, q.arguments); err != nil {
			return explainDeclare(q.String(), err)
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
		return explainDeclare(binding{queue, key, exchange}.String(), err)
	}
	return nil
}

// look fails with amqp.NotFound if an exchange or a queue of t is missing.
func (t topology) look(ch *amqp.Channel) error {
	for _, x := range t.exchanges {
		if err := ch.ExchangeDeclarePassive(x.name, x.kind, true, false, false, false, nil); err != nil {
			return explainDeclare(x.String(), err)
		}
	}
	for _, q := range t.queues {
		if _, err := ch.QueueDeclarePassive(q.name, true, false, false, false, nil); err != nil {
			return explainDeclare(q.String(), err)
		}
	}
	return nil
}

func (x exchange) String() string { return fmt.Sprintf("exchange %q", x.name) }
func (q queue) String() string    { return fmt.Sprintf("queue %q", q.name) }

func (b binding) String() string {
	return fmt.Sprintf("binding %q from exchange %q to queue %q", b.key, b.exchange, b.queue)
}
