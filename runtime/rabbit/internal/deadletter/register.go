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

// AMQP cannot list queues, and nobody announces a function that is gone. So
// the broker keeps the names of all functions that ever got a queue for their
// dead letters, as messages in a queue that are only ever looked at.

// Register puts the function on the register, unless it has its queue, and
// so has been put there, already.
func (s *Store) Register(ctx context.Context, function string) error {
	if s.cfg.Names.Predeclared { // Apply has done it
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

// registerPace is of trying again to register: of several that declare a quorum
// queue at the same moment, all but one are told that it is there before it can
// take anything (probed on 3.10.8).
var registerPace = connection.Pace{First: 50 * time.Millisecond, Longest: time.Second}

func Registration(function string) amqp.Publishing {
	return amqp.Publishing{MessageId: function, AppId: "rabbet", DeliveryMode: amqp.Persistent}
}

// Registered returns the functions on the register.
func Registered(ctx context.Context, l *connection.Connection, n topology.Names) (map[string]bool, error) {
	functions := map[string]bool{}
	err := NewBrowser(l, n.DeadFunctions(), func(_ context.Context, d *amqp.Delivery) (Disposition, error) {
		functions[d.MessageId] = true
		return Disposition{}, nil
	}).Run(ctx)
	if errors.Is(err, contract.ErrNotFound) { // no worker was ever here
		err = nil
	}
	return functions, err
}
