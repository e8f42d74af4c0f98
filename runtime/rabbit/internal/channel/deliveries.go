package channel

import (
	"context"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// EachDelivery calls fn with each delivery, one after the other, until ctx is done.
// It fails when the broker ends the consumer. consumed is what is consumed, for the
// error.
func EachDelivery(ctx context.Context, consumed string, deliveries <-chan amqp.Delivery, fn func(*amqp.Delivery)) error {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case d, ok := <-deliveries:
			switch {
			case ok:
				fn(&d)
			case ctx.Err() == nil:
				return fmt.Errorf("the broker ended the consumer of %q", consumed)
			}
		}
	}
	return nil
}
