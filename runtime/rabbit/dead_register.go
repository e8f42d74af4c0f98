package rabbit

import (
	"context"
	"errors"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// AMQP cannot list queues, and nobody announces a function that is gone. So
// the broker keeps the names of all functions that ever got a queue for their
// dead letters, as messages in a queue that are only ever looked at.

// registerDead puts the function on the register, unless it has its queue, and
// so has been put there, already.
func (b *Broker) registerDead(ctx context.Context, function string) error {
	if b.names.fixed { // Apply has done it
		return nil
	}
	_, err := b.consume.lookAt(ctx, b.names.deadQueue(function))
	if !errors.Is(err, faas.ErrNotFound) {
		return err
	}
	return b.publisher.publish(ctx, "", b.names.deadFunctions(), registration(function))
}

func registration(function string) amqp.Publishing {
	return amqp.Publishing{MessageId: function, AppId: "rabbet", DeliveryMode: amqp.Persistent}
}

// deadRegister returns the functions on the register.
func (l *link) deadRegister(ctx context.Context, n names) (map[string]bool, error) {
	functions := map[string]bool{}
	err := l.newBrowser(n.deadFunctions(), func(_ context.Context, d *amqp.Delivery) (handling, error) {
		functions[d.MessageId] = true
		return handling{}, nil
	}).run(ctx)
	if errors.Is(err, faas.ErrNotFound) { // no worker was ever here
		err = nil
	}
	return functions, err
}
