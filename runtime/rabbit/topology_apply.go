package rabbit

import (
	"context"
	"errors"
	"fmt"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Apply declares what of the topology is missing, and tells report of it. It
// changes and deletes nothing: what is there in another shape is an error, and
// the rest is declared all the same.
func (t Topology) Apply(ctx context.Context, cfg Config, report func(what string)) error {
	l, unplug, err := plug(ctx, cfg)
	if err != nil {
		return err
	}
	defer unplug()
	var failures []error
	for what, piece := range t.pieces() {
		missing, err := l.inspect(ctx, piece)
		if missing {
			if err = l.declare(ctx, piece.declare); err == nil {
				report(what)
			}
		}
		failures = append(failures, err)
	}
	for _, b := range t.bindings {
		failures = append(failures, l.declare(ctx, topology{bindings: []binding{b}}.declare))
	}
	if errors.Join(failures...) == nil {
		failures = append(failures, t.register(ctx, l))
	}
	return errors.Join(failures...)
}

// register puts the functions on the register of those with dead letters.
func (t Topology) register(ctx context.Context, l *link) error {
	known, err := l.deadRegister(ctx, t.names)
	if err != nil {
		return err
	}
	for _, name := range t.functions {
		if known[name] {
			continue
		}
		if err := l.declare(ctx, func(ch *amqp.Channel) error {
			if err := ch.Confirm(false); err != nil {
				return err
			}
			confirm, err := ch.PublishWithDeferredConfirm("", t.names.deadFunctions(), true, false, registration(name))
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
func (l *link) inspect(ctx context.Context, piece topology) (missing bool, err error) {
	err = l.declare(ctx, piece.look)
	if e, ok := errors.AsType[*amqp.Error](err); ok && e.Code == amqp.NotFound {
		return true, nil
	}
	if err != nil || len(piece.exchanges) > 0 && piece.exchanges[0].foreign {
		return false, err
	}
	return false, l.declare(ctx, piece.declare) // of what exists it only compares the arguments
}

// plug connects for a while.
func plug(ctx context.Context, cfg Config) (l *link, unplug func(), err error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, nil, err
	}
	l = newLink(cfg, "topology")
	plugged, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { l.run(plugged) })
	unplug = func() { cancel(); running.Wait() }
	ctx, stop := context.WithTimeout(ctx, reconnectPatience)
	defer stop()
	if err := l.ready(ctx); err != nil {
		unplug()
		return nil, nil, err
	}
	return l, unplug, nil
}
