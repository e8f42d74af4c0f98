package provision

import (
	"context"
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/deadletter"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
)

// Apply declares what is missing, and calls report with it. It changes and deletes
// nothing: what exists with other properties is an error, and the remaining parts
// are declared nevertheless.
func (p Plan) Apply(ctx context.Context, c *connection.Connection, report func(what string)) error {
	var failures []error
	for what, piece := range p.pieces() {
		missing, err := inspect(ctx, c, piece)
		if missing {
			if err = c.Declare(ctx, piece.Declare); err == nil {
				report(what)
			}
		}
		failures = append(failures, err)
	}
	for _, b := range p.Bindings {
		failures = append(failures, c.Declare(ctx, topology.Part{Bindings: []topology.Binding{b}}.Declare))
	}
	if errors.Join(failures...) == nil {
		failures = append(failures, p.register(ctx, c))
	}
	return errors.Join(failures...)
}

// register adds the functions to the register of dead letters.
func (p Plan) register(ctx context.Context, c *connection.Connection) error {
	known, err := deadletter.Registered(ctx, c, p.Names)
	if err != nil {
		return err
	}
	for _, name := range p.functions {
		if known[name] {
			continue
		}
		if err := c.Declare(ctx, func(ch *amqp.Channel) error {
			if err := ch.Confirm(false); err != nil {
				return err
			}
			confirm, err := ch.PublishWithDeferredConfirm("", p.Names.DeadFunctions(), true, false, deadletter.Registration(name))
			if err != nil {
				return err
			}
			if acked, err := confirm.WaitContext(ctx); !acked || err != nil {
				return errors.Join(errors.New("the broker did not confirm it"), err)
			}
			return nil
		}); err != nil {
			return fmt.Errorf("register the function %q: %w", name, err)
		}
	}
	return nil
}

// inspect reports whether the exchange or queue of piece is missing. It fails if it
// exists with other properties.
func inspect(ctx context.Context, c *connection.Connection, piece topology.Part) (missing bool, err error) {
	err = c.Declare(ctx, piece.CheckExists)
	if e, ok := errors.AsType[*amqp.Error](err); ok && e.Code == amqp.NotFound {
		return true, nil
	}
	if err != nil || len(piece.Exchanges) > 0 && piece.Exchanges[0].Foreign {
		return false, err
	}
	return false, c.Declare(ctx, piece.Declare) // declaring what exists only compares its properties
}
