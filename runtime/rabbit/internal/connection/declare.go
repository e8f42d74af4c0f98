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

// Declare runs fn on a channel of its own, which an error may close.
func (l *Connection) Declare(ctx context.Context, fn func(ch *amqp.Channel) error) error {
	ctx, cancel := context.WithTimeout(ctx, ReconnectPatience)
	defer cancel()
	s := l.Await(ctx)
	if s == nil {
		return errors.Join(l.Health(), ctx.Err())
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

// InspectQueue asks how a queue is doing. It fails with contract.ErrNotFound if there is
// none of that name.
func (l *Connection) InspectQueue(ctx context.Context, queue string) (amqp.Queue, error) {
	found := make(chan amqp.Queue, 1) // an answer may come when nobody waits for it any more
	err := l.Declare(ctx, func(ch *amqp.Channel) error {
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
	return amqp.Queue{}, &contract.Error{Code: contract.CodeUnavailable, Detail: fmt.Sprintf("cannot look at queue %q", queue), Cause: err, Executed: contract.ExecutedNo}
}
