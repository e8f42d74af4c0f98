package rabbit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// DeadFunctions lists the functions that have dead letters: of those that ever
// had a queue for them, and of those in also.
func (b *Broker) DeadFunctions(ctx context.Context, also ...string) ([]faas.DeadFunction, error) {
	names, err := b.consume.deadRegister(ctx, b.names)
	if err != nil {
		return nil, err
	}
	for _, fn := range b.directory.Functions() {
		if fn.Kind == faas.KindEvent {
			names[fn.Name] = true
		}
	}
	for _, name := range also {
		names[name] = true
	}
	var list []faas.DeadFunction
	for _, name := range slices.Sorted(maps.Keys(names)) {
		q, err := b.consume.lookUndisturbed(ctx, b.names.deadQueue(name))
		if errors.Is(err, faas.ErrNotFound) {
			continue
		}
		if err != nil && !errors.Is(err, faas.ErrConflict) {
			return nil, err
		}
		if q.Messages > 0 || q.Consumers > 0 {
			list = append(list, faas.DeadFunction{Name: name, Letters: q.Messages})
		}
	}
	return list, nil
}

// VisitDead calls visit with the function's dead letters and does what it says;
// see faas.DeadLetters and browser.
func (b *Broker) VisitDead(ctx context.Context, function string, visit func(*faas.DeadLetter) (faas.Fate, error)) error {
	return b.consume.newBrowser(b.names.deadQueue(function), func(ctx context.Context, d *amqp.Delivery) (handling, error) {
		l := b.names.letterOf(d, function)
		fate, err := visit(&l)
		switch {
		case err != nil:
			return kept, err
		case fate == faas.Keep:
			return kept, nil
		case fate == faas.Enough:
			return enough, nil
		}
		if err := b.unbury(ctx, d, &l, fate); err != nil {
			return kept, fmt.Errorf("dead letter %q of %s: %w", l.Event.ID, function, err)
		}
		return removed, nil
	}).run(ctx)
}

// unbury takes a letter out of the queue once its copy is confirmed. Whoever
// wants it to stop has to wait for that.
func (b *Broker) unbury(ctx context.Context, d *amqp.Delivery, l *faas.DeadLetter, fate faas.Fate) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), copyTimeout)
	defer cancel()
	var err error
	switch fate {
	case faas.Replay:
		queue := b.names.eventQueue(l.Function)
		err = b.publisher.publish(ctx, "", queue, replayOf(d, l))
		if errors.Is(err, faas.ErrUnroutable) {
			err = fmt.Errorf("%w: there is no queue %q: start a worker that hosts the function, or discard the letter", err, queue)
		}
	case faas.Replace:
		err = b.publisher.publish(ctx, "", b.names.deadQueue(l.Function), unburied(d, l))
	case faas.Discard:
	default:
		err = fmt.Errorf("there is no fate %d", fate)
	}
	if err != nil {
		return err
	}
	return d.Ack(false)
}
