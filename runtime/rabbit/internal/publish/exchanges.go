package publish

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
)

// knownFor is how long an exchange is assumed to exist after a check.
const knownFor = time.Minute

// exchanges checks whether exchanges exist. A publish to one that does not would
// close the channel, and fail all publishes in flight on it.
type exchanges struct {
	connection *connection.Connection // one that the broker never blocks: a blocked connection does not answer

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
	err := x.connection.Declare(ctx, func(ch *amqp.Channel) error {
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
		return &contract.Error{Code: contract.CodeUnavailable, Detail: fmt.Sprintf("cannot check exchange %q", name), Cause: err, Executed: contract.ExecutedNo}
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
