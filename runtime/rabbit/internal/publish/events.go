package publish

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/wire"
)

// Events publishes events of functions. It fills in missing properties, and
// reports an exchange that does not exist without an error of the channel.
type Events struct {
	publisher *Publisher
	names     topology.Names
	directory *contract.Directory
	exchanges exchanges
}

// NewEvents returns Events that publish over p. consume is a connection that the
// broker never blocks; it is used to check whether an exchange exists.
func NewEvents(p *Publisher, consume *connection.Connection, n topology.Names, directory *contract.Directory) *Events {
	return &Events{publisher: p, names: n, directory: directory, exchanges: exchanges{connection: consume}}
}

// Publish publishes e; see Broker.Publish.
func (p *Events) Publish(ctx context.Context, e contract.Event) error {
	e.Exchange = cmp.Or(e.Exchange, p.names.Events())
	e.ID = cmp.Or(e.ID, contract.NewID())
	e.ContentType = cmp.Or(e.ContentType, "application/json")
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	m, err := wire.FromEvent(&e)
	if err != nil {
		return err
	}
	err = p.publishTo(ctx, &e, m)
	for pause := firstRouteWait; errors.Is(err, contract.ErrUnroutable) && pause <= lastRouteWait && p.hasListener(&e); pause *= 2 {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
		err = p.publishTo(ctx, &e, m)
	}
	return err
}

// publishTo publishes m, the message of e, once.
func (p *Events) publishTo(ctx context.Context, e *contract.Event, m amqp.Publishing) error {
	if e.Exchange != p.names.Events() {
		if err := p.exchanges.check(ctx, e.Exchange); err != nil {
			return err
		}
	}
	err := p.publisher.Publish(ctx, e.Exchange, e.Key, m)
	if errors.Is(err, contract.ErrUnroutable) {
		p.exchanges.forget(e.Exchange)
	}
	return err
}

// A function that was announced has bound its queue, but the broker may not route
// by the binding yet: when several connections declare one binding at the same
// moment, RabbitMQ 4.0 confirms it to all but the first before it routes. (Tested
// with 4.0.5 and four connections: in about half of the cases it did not route
// for up to 50 ms. 3.10.8 always did.)
const (
	firstRouteWait = 10 * time.Millisecond
	lastRouteWait  = 160 * time.Millisecond // 310 ms in all
)

// hasListener reports whether a live function listens to e.
func (p *Events) hasListener(e *contract.Event) bool {
	return slices.ContainsFunc(p.directory.Functions(), func(f contract.Live) bool {
		return f.Kind == contract.KindEvent && len(f.Workers) > 0 && cmp.Or(f.Exchange, p.names.Events()) == e.Exchange && f.Has(e.Key)
	})
}
