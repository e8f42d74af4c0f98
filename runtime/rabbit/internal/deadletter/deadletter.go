// Package deadletter stores events that failed permanently, with their bytes and
// the reason, and reads, replays, replaces and discards them.
package deadletter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/publish"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
)

// Store stores dead letters in one queue for each function.
type Store struct{ cfg Config }

// Config is what a Store needs. All fields are required.
type Config struct {
	Names     topology.Names
	Process   string
	Consume   *connection.Connection
	Publisher *publish.Publisher
	Directory *contract.Directory
}

// New returns the Store of a namespace.
func New(cfg Config) *Store { return &Store{cfg: cfg} }

// copyTimeout is how long a copy may take to be confirmed.
const copyTimeout = 30 * time.Second

// Counts returns the functions that have dead letters. It knows the functions that
// ever had a queue for them, and those in also.
func (s *Store) Counts(ctx context.Context, also ...string) ([]contract.DeadLetterCount, error) {
	names, err := Registered(ctx, s.cfg.Consume, s.cfg.Names)
	if err != nil {
		return nil, err
	}
	for _, fn := range s.cfg.Directory.Functions() {
		if fn.Kind == contract.KindEvent {
			names[fn.Name] = true
		}
	}
	for _, name := range also {
		names[name] = true
	}
	var list []contract.DeadLetterCount
	for _, name := range slices.Sorted(maps.Keys(names)) {
		q, err := awaitIdle(ctx, s.cfg.Consume, s.cfg.Names.DeadQueue(name))
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

// Visit calls visit with each dead letter of the function, oldest first, and does
// what it returns; see contract.DeadLetters. Up to maxRemovals copies are in flight
// at once. A letter is removed once its copy is confirmed.
func (s *Store) Visit(ctx context.Context, function string, visit func(*contract.DeadLetter) (contract.DeadLetterAction, error)) error {
	var notifying sync.Mutex // held during OnRemoved
	return NewBrowser(s.cfg.Consume, s.cfg.Names.DeadQueue(function), func(ctx context.Context, d *amqp.Delivery) (Disposition, error) {
		l := Read(s.cfg.Names, d, function)
		action, err := visit(&l)
		switch {
		case err != nil || action == contract.ActionKeep:
			return Disposition{}, err
		case action == contract.ActionStop:
			return Disposition{Stop: true}, nil
		}
		failed := func(err error) error { return fmt.Errorf("dead letter %q of %s: %w", l.Event.ID, function, err) }
		remove, err := s.PublishCopy(ctx, d, &l, action)
		if err != nil {
			return Disposition{}, failed(err)
		}
		return Disposition{Remove: func() error {
			if err := remove(); err != nil {
				return failed(err)
			}
			if l.OnRemoved != nil {
				notifying.Lock()
				defer notifying.Unlock()
				l.OnRemoved()
			}
			return nil
		}}, nil
	}).Run(ctx)
}

// PublishCopy publishes the copy of a letter. remove waits for its confirm and then
// removes the letter. The caller must call it.
func (s *Store) PublishCopy(ctx context.Context, d *amqp.Delivery, l *contract.DeadLetter, action contract.DeadLetterAction) (remove func() error, err error) {
	var queue string
	var m amqp.Publishing
	switch action {
	case contract.ActionReplay:
		queue, m = s.cfg.Names.EventQueue(l.Function), replayOf(d, l)
	case contract.ActionReplace:
		queue, m = s.cfg.Names.DeadQueue(l.Function), withoutDeath(d, l)
	case contract.ActionDiscard:
		return func() error { return d.Ack(false) }, nil
	default:
		return nil, fmt.Errorf("unknown action %d", action)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), copyTimeout)
	u, err := s.cfg.Publisher.Send(ctx, "", queue, m)
	if err != nil {
		cancel()
		return nil, err
	}
	return func() error {
		defer cancel()
		err := u.Confirmed(ctx)
		if action == contract.ActionReplay && errors.Is(err, contract.ErrUnroutable) {
			return fmt.Errorf("%w: there is no queue %q: start a worker that hosts the function, or discard the letter", err, queue)
		}
		if err != nil {
			return err
		}
		return d.Ack(false)
	}, nil
}
