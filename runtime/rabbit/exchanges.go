package rabbit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// knownFor is how long an exchange that was seen is taken to exist.
const knownFor = time.Minute

// exchanges knows which foreign exchanges exist. A publish to one that does
// not would close the channel under everybody else's publishes.
type exchanges struct {
	link *link // the consuming one: a blocked connection would not answer

	mu   sync.Mutex
	seen map[string]time.Time
}

// check fails with contract.ErrUnroutable when there is no such exchange.
func (x *exchanges) check(ctx context.Context, name string) error {
	x.mu.Lock()
	known := time.Since(x.seen[name]) < knownFor
	x.mu.Unlock()
	if known {
		return nil
	}
	err := x.link.declare(ctx, func(ch *amqp.Channel) error {
		return ch.ExchangeDeclarePassive(name, amqp.ExchangeTopic, true, false, false, false, nil)
	})
	e, ok := errors.AsType[*amqp.Error](err)
	if ok && e.Code == amqp.NotFound {
		return noExchange(name)
	}
	if ok && e.Code == amqp.AccessRefused { // RabbitMQ 4.2.6 and 4.3.0 ask for permission to declare it
		err = nil
	}
	if err != nil {
		return &contract.Error{Code: contract.CodeUnavailable, Detail: fmt.Sprintf("cannot ask for exchange %q", name), Cause: err, Executed: contract.ExecutedNo}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.seen == nil {
		x.seen = map[string]time.Time{}
	}
	x.seen[name] = time.Now()
	return nil
}

// forget makes the next check ask the broker.
func (x *exchanges) forget(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.seen, name)
}

// declareSource makes sure that the exchange exists that a function listens on:
// as it stands, or as a topic exchange.
func (b *Broker) declareSource(ctx context.Context, source string) error {
	if source == b.names.events() || b.names.fixed {
		return nil
	}
	t := b.names.source(source)
	err := b.consume.declare(ctx, t.look)
	if e, ok := errors.AsType[*amqp.Error](err); !ok || e.Code != amqp.NotFound {
		return err
	}
	return b.consume.declare(ctx, t.declare)
}

// checkSource fails if the foreign exchange that fn listens on is of the type
// that takes its patterns for plain keys. Only a declaration can tell.
func (b *Broker) checkSource(ctx context.Context, fn *contract.Descriptor) error {
	i := slices.IndexFunc(fn.Keys, func(key string) bool { return strings.ContainsAny(key, "*#") })
	if fn.Exchange == "" || fn.Exchange == b.names.events() || i < 0 || b.names.fixed {
		return nil
	}
	err := b.consume.declare(ctx, b.names.source(fn.Exchange).declare)
	e, ok := errors.AsType[*amqp.Error](err)
	if !ok {
		return err
	}
	if d, ok := parseDrift(e.Reason); !ok || d.argument != "type" || d.found != amqp.ExchangeDirect {
		return nil // it is used as it stands
	}
	return &declareError{fmt.Sprintf("exchange %q is a direct one, where nothing has the key %q: make it a topic exchange, or name keys without patterns", fn.Exchange, fn.Keys[i]), e}
}

// declare runs fn on a channel of its own, which an error may close.
func (l *link) declare(ctx context.Context, fn func(ch *amqp.Channel) error) error {
	ctx, cancel := context.WithTimeout(ctx, reconnectPatience)
	defer cancel()
	s := l.next(ctx)
	if s == nil {
		return errors.Join(l.health(), ctx.Err())
	}
	done := make(chan error, 1)
	go func() { // ends with the connection at the latest
		ch, err := s.conn.Channel()
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
