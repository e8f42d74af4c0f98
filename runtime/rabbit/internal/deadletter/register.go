package deadletter

import (
	"context"
	"errors"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
)

// AMQP cannot list queues, and a function that was removed is not announced.
// Therefore a queue of the broker holds one message for each function that ever had
// a queue for dead letters. The messages are browsed and never removed.

// Register adds the function to the register before its queue for dead letters is
// declared. If that queue exists, the function is registered.
func (s *Store) Register(ctx context.Context, function string) error {
	if s.cfg.Names.Predeclared { // provision.Plan.Apply has registered it
		return nil
	}
	_, err := s.cfg.Consume.InspectQueue(ctx, s.cfg.Names.DeadQueue(function))
	if !errors.Is(err, contract.ErrNotFound) {
		return err
	}
	pause := connection.Backoff{Pace: registerPace}
	for {
		err = s.cfg.Publisher.Publish(ctx, "", s.cfg.Names.DeadFunctions(), Registration(function))
		if !errors.Is(err, contract.ErrRefused) || pause.Current == pause.Longest || !pause.Wait(ctx) {
			return err
		}
	}
}

// registerPace is the pace of attempts to register. When several connections
// declare one quorum queue at the same moment, RabbitMQ confirms it to all but one
// before it accepts messages (tested with 3.10.8).
var registerPace = connection.Pace{First: 50 * time.Millisecond, Longest: time.Second}

// Registration returns the message of a function in the register.
func Registration(function string) amqp.Publishing {
	return amqp.Publishing{MessageId: function, AppId: "rabbet", DeliveryMode: amqp.Persistent}
}

// Registered returns the functions in the register.
func Registered(ctx context.Context, c *connection.Connection, n topology.Names) (map[string]bool, error) {
	functions := map[string]bool{}
	err := NewBrowser(c, n.DeadFunctions(), func(_ context.Context, d *amqp.Delivery) (Disposition, error) {
		functions[d.MessageId] = true
		return Disposition{}, nil
	}).Run(ctx)
	if errors.Is(err, contract.ErrNotFound) { // no function was ever registered
		err = nil
	}
	return functions, err
}
