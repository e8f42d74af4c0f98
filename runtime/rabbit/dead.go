package rabbit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// DeadLetterCounts lists the functions that have dead letters: of those that ever
// had a queue for them, and of those in also.
func (b *Broker) DeadLetterCounts(ctx context.Context, also ...string) ([]contract.DeadLetterCount, error) {
	names, err := deadRegister(ctx, b.consume, b.names)
	if err != nil {
		return nil, err
	}
	for _, fn := range b.directory.Functions() {
		if fn.Kind == contract.KindEvent {
			names[fn.Name] = true
		}
	}
	for _, name := range also {
		names[name] = true
	}
	var list []contract.DeadLetterCount
	for _, name := range slices.Sorted(maps.Keys(names)) {
		q, err := idleQueue(ctx, b.consume, b.names.DeadQueue(name))
		if errors.Is(err, contract.ErrNotFound) {
			continue
		}
		if err != nil && !errors.Is(err, contract.ErrConflict) {
			return nil, err
		}
		if q.Messages > 0 || q.Consumers > 0 {
			list = append(list, contract.DeadLetterCount{Name: name, Letters: q.Messages})
		}
	}
	return list, nil
}

// VisitDeadLetters calls visit with the function's dead letters and does what it says;
// see contract.DeadLetters and browser. Up to 100 copies are under way at once, in
// the order of the letters, each of which is removed once its own is confirmed.
func (b *Broker) VisitDeadLetters(ctx context.Context, function string, visit func(*contract.DeadLetter) (contract.DeadLetterAction, error)) error {
	var telling sync.Mutex // held for Gone
	return newBrowser(b.consume, b.names.DeadQueue(function), func(ctx context.Context, d *amqp.Delivery) (handling, error) {
		l := letterOf(b.names, d, function)
		fate, err := visit(&l)
		switch {
		case err != nil || fate == contract.ActionKeep:
			return handling{}, err
		case fate == contract.ActionStop:
			return handling{enough: true}, nil
		}
		failed := func(err error) error { return fmt.Errorf("dead letter %q of %s: %w", l.Event.ID, function, err) }
		unbury, err := b.unbury(ctx, d, &l, fate)
		if err != nil {
			return handling{}, failed(err)
		}
		return handling{remove: func() error {
			if err := unbury(); err != nil {
				return failed(err)
			}
			if l.OnRemoved != nil {
				telling.Lock()
				defer telling.Unlock()
				l.OnRemoved()
			}
			return nil
		}}, nil
	}).run(ctx)
}

// unbury sends the copy of a letter. The letter is removed by remove, once that
// is confirmed: whoever wants it to stop has to wait for that.
func (b *Broker) unbury(ctx context.Context, d *amqp.Delivery, l *contract.DeadLetter, fate contract.DeadLetterAction) (remove func() error, err error) {
	var queue string
	var m amqp.Publishing
	switch fate {
	case contract.ActionReplay:
		queue, m = b.names.EventQueue(l.Function), replayOf(d, l)
	case contract.ActionReplace:
		queue, m = b.names.DeadQueue(l.Function), unburied(d, l)
	case contract.ActionDiscard:
		return func() error { return d.Ack(false) }, nil
	default:
		return nil, fmt.Errorf("there is no fate %d", fate)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), copyTimeout)
	u, err := b.publisher.send(ctx, "", queue, m)
	if err != nil {
		cancel()
		return nil, err
	}
	return func() error {
		defer cancel()
		err := u.confirmed(ctx)
		if fate == contract.ActionReplay && errors.Is(err, contract.ErrUnroutable) {
			return fmt.Errorf("%w: there is no queue %q: start a worker that hosts the function, or discard the letter", err, queue)
		}
		if err != nil {
			return err
		}
		return d.Ack(false)
	}, nil
}
