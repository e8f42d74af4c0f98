package connection

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// ReconnectPatience is how long to wait for a connection while it is being
// established again.
const ReconnectPatience = 5 * time.Second

// Declare calls fn with a channel of its own, which an error may close.
func (c *Connection) Declare(ctx context.Context, fn func(ch *amqp.Channel) error) error {
	ctx, cancel := context.WithTimeout(ctx, ReconnectPatience)
	defer cancel()
	s := c.Await(ctx)
	if s == nil {
		return errors.Join(c.Health(), ctx.Err())
	}
	done := make(chan error, 1)
	go func() { // ends with the connection at the latest
		ch, err := s.AMQP.Channel()
		if err == nil {
			err = fn(ch)
			_ = ch.Close()
		}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// InspectQueue returns how many messages and consumers a queue has. It fails with
// contract.ErrNotFound if there is no such queue.
func (c *Connection) InspectQueue(ctx context.Context, queue string) (amqp.Queue, error) {
	found := make(chan amqp.Queue, 1) // buffered: the answer may come after ctx is done
	err := c.Declare(ctx, func(ch *amqp.Channel) error {
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		found <- q
		return err
	})
	if err == nil {
		return <-found, nil
	}
	if e, ok := errors.AsType[*amqp.Error](err); ok && e.Code == amqp.NotFound {
		return amqp.Queue{}, &contract.Error{Code: contract.CodeNotFound, Detail: fmt.Sprintf("there is no queue %q", queue), Executed: contract.ExecutedNo}
	}
	return amqp.Queue{}, &contract.Error{Code: contract.CodeUnavailable, Detail: fmt.Sprintf("cannot inspect queue %q", queue), Cause: err, Executed: contract.ExecutedNo}
}
