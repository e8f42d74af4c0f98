package topology

import (
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Declare declares what of t is missing. An exchange or a queue with other
// properties is an error that names the difference; nothing is ever deleted. A
// predeclared topology is not checked: RabbitMQ 4.2.6 and 4.3.0 refuse even a
// passive declaration to a user without configure permission. An error closes ch.
func (t Part) Declare(ch *amqp.Channel) error {
	if t.Predeclared {
		return nil
	}
	for _, x := range t.Exchanges {
		if err := ch.ExchangeDeclare(x.Name, x.Kind, true, false, false, false, x.Arguments()); err != nil {
			return explainDeclare(x.String(), err)
		}
	}
	for _, q := range t.Queues {
		if _, err := ch.QueueDeclare(q.Name, true, false, false, false, q.Arguments); err != nil {
			return explainDeclare(q.String(), err)
		}
	}
	for _, b := range t.Bindings {
		if err := BindQueue(ch, b.Queue, b.Key, b.Exchange); err != nil {
			return err
		}
	}
	return nil
}

// BindQueue binds a queue to an exchange. An error closes ch.
func BindQueue(ch *amqp.Channel, queue, key, exchange string) error {
	if err := ch.QueueBind(queue, key, exchange, false, nil); err != nil {
		return explainDeclare(Binding{queue, key, exchange}.String(), err)
	}
	return nil
}

// CheckExists fails with amqp.NotFound if an exchange or a queue of t is missing.
func (t Part) CheckExists(ch *amqp.Channel) error {
	for _, x := range t.Exchanges {
		if err := ch.ExchangeDeclarePassive(x.Name, x.Kind, true, false, false, false, nil); err != nil {
			return explainDeclare(x.String(), err)
		}
	}
	for _, q := range t.Queues {
		if _, err := ch.QueueDeclarePassive(q.Name, true, false, false, false, nil); err != nil {
			return explainDeclare(q.String(), err)
		}
	}
	return nil
}

func (x Exchange) String() string { return fmt.Sprintf("exchange %q", x.Name) }
func (q Queue) String() string    { return fmt.Sprintf("queue %q", q.Name) }

func (b Binding) String() string {
	return fmt.Sprintf("binding %q from exchange %q to queue %q", b.Key, b.Exchange, b.Queue)
}
