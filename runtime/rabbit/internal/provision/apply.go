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

// Apply declares what of the topology is missing, and tells report of it. It
// changes and deletes nothing: what is there in another shape is an error, and
// the rest is declared all the same.
func (t Plan) Apply(ctx context.Context, l *connection.Connection, report func(what string)) error {
	var failures []error
	for what, piece := range t.pieces() {
		missing, err := inspect(ctx, l, piece)
		if missing {
			if err = l.Declare(ctx, piece.Declare); err == nil {
				report(what)
			}
		}
		failures = append(failures, err)
	}
	for _, b := range t.Bindings {
		failures = append(failures, l.Declare(ctx, topology.Part{Bindings: []topology.Binding{b}}.Declare))
	}
	if errors.Join(failures...) == nil {
		failures = append(failures, t.register(ctx, l))
	}
	return errors.Join(failures...)
}

// register puts the functions on the register of those with dead letters.
func (t Plan) register(ctx context.Context, l *connection.Connection) error {
	known, err := deadletter.Registered(ctx, l, t.Names)
	if err != nil {
		return err
	}
	for _, name := range t.functions {
		if known[name] {
			continue
		}
		if err := l.Declare(ctx, func(ch *amqp.Channel) error {
			if err := ch.Confirm(false); err != nil {
				return err
			}
			confirm, err := ch.PublishWithDeferredConfirm("", t.Names.DeadFunctions(), true, false, deadletter.Registration(name))
			if err != nil {
				return err
			}
			if taken, err := confirm.WaitContext(ctx); !taken || err != nil {
				return errors.Join(errors.New("the broker did not take it"), err)
			}
			return nil
		}); err != nil {
			return fmt.Errorf("register the function %q: %w", name, err)
		}
	}
	return nil
}

// inspect reports whether the one exchange or queue that piece is of is
// missing. It fails if it is there in another shape.
func inspect(ctx context.Context, l *connection.Connection, piece topology.Part) (missing bool, err error) {
	err = l.Declare(ctx, piece.CheckExists)
	if e, ok := errors.AsType[*amqp.Error](err); ok && e.Code == amqp.NotFound {
		return true, nil
	}
	if err != nil || len(piece.Exchanges) > 0 && piece.Exchanges[0].Foreign {
		return false, err
	}
	return false, l.Declare(ctx, piece.Declare) // of what exists it only compares the arguments
}
