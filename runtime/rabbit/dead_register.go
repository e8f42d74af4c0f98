package rabbit

import (
	"context"
	"errors"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
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
	if !errors.Is(err, contract.ErrNotFound) {
		return err
	}
	pause := backoff{pace: registerPace}
	for {
		err = b.publisher.publish(ctx, "", b.names.deadFunctions(), registration(function))
		if !errors.Is(err, contract.ErrRefused) || pause.now == pause.longest || !pause.wait(ctx) {
			return err
		}
	}
}

// registerPace is of trying again to register: of several that declare a quorum
// queue at the same moment, all but one are told that it is there before it can
// take anything (probed on 3.10.8).
var registerPace = pace{first: 50 * time.Millisecond, longest: time.Second}

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
	if errors.Is(err, contract.ErrNotFound) { // no worker was ever here
		err = nil
	}
	return functions, err
}
