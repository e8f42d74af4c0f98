// Package rabbit is the broker over RabbitMQ: it publishes events, calls and hosts
// functions, delays events, and keeps dead letters.
//
// It wires the packages in internal, one for each role. It knows functions as
// contract.Function values only, and nothing of HTTP or caches.
package rabbit

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/caller"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/channel"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/deadletter"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/delay"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/presence"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/publish"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
)

// Broker connects this process to RabbitMQ. It publishes and consumes over separate
// connections, because RabbitMQ blocks connections that publish when it is short of
// memory or disk, and acknowledgements must still pass. All its methods are safe
// for concurrent use.
type Broker struct {
	cfg   Config
	names topology.Names
	log   *zap.Logger

	publish *connection.Connection
	consume *connection.Connection
	calls   *connection.Connection // calls and their replies, so that calls do not wait behind events
	work    *connection.Connection // request functions, which publish replies: a block must not delay the acknowledgements on consume
	all     []*connection.Connection

	directory   contract.Directory
	publisher   *publish.Publisher
	events      *publish.Events
	deadLetters *deadletter.Store
	delays      *delay.Delays
	caller      *caller.Caller
	presence    *presence.Presence

	stop        context.CancelFunc // ends the parts
	parts       sync.WaitGroup
	disconnect  context.CancelFunc // ends the connections
	connections sync.WaitGroup
	closing     sync.Once
}

// Open returns a Broker that connects in the background, and reconnects until it is
// closed. It fails only if cfg is invalid. The caller must close the Broker.
func Open(cfg Config) (*Broker, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	b := &Broker{
		cfg: cfg, names: topology.Names{Namespace: cfg.Namespace, Predeclared: cfg.NoDeclare}, log: cfg.Log,
		publish: connection.New(cfg.connection(), "publish"), consume: connection.New(cfg.connection(), "consume"),
		calls: connection.New(cfg.connection(), "call"), work: connection.New(cfg.connection(), "work"),
	}
	b.publisher = publish.New(publish.Config{Connection: b.publish, Name: "publish", Needs: b.names.Common()})
	b.events = publish.NewEvents(b.publisher, b.consume, b.names, &b.directory)
	b.deadLetters = deadletter.New(deadletter.Config{
		Names: b.names, Process: cfg.Process, Consume: b.consume, Publisher: b.publisher, Directory: &b.directory,
	})
	b.presence = presence.New(presence.Config{
		Names: b.names, Process: cfg.Process, NoBatch: cfg.NoBatch, Publish: b.publish, Consume: b.consume,
		Directory: &b.directory, OnWorkersLost: func(workers []string) { b.caller.WorkersLost(workers) },
		CheckInterval: cfg.broadcastCheck, Log: cfg.Log,
	})
	b.caller = caller.New(caller.Config{
		Names: b.names, Process: cfg.Process, NoBatch: cfg.NoBatch, Connection: b.calls, Publish: b.publish,
		Directory: &b.directory, Broadcast: b.presence.Broadcast, Health: b.Health, Log: cfg.Log,
	})
	b.delays = delay.New(delay.Config{
		Names: b.names, Connection: cfg.connection(), Publish: b.publish, Consume: b.consume, Directory: &b.directory,
		DeadLetters: b.deadLetters, Broadcast: b.presence.Broadcast, Listen: b.presence.Listen,
		CheckInterval: cfg.tierCheckInterval, Pace: cfg.copyPace, Log: cfg.Log,
	})
	connected, disconnect := context.WithCancel(context.Background())
	b.disconnect = disconnect
	b.all = []*connection.Connection{b.publish, b.consume, b.calls, b.work}
	for _, c := range b.all {
		c.OnMissingExchange = b.declareMissing
		b.connections.Go(func() { c.Run(connected) })
	}

	running, stop := context.WithCancel(connected)
	b.stop = stop
	b.parts.Go(func() { b.publisher.Run(running) })
	b.parts.Go(func() { b.delays.Run(running) })
	b.parts.Go(func() { b.presence.Run(running) })
	b.parts.Go(func() { b.caller.Run(running) })
	return b, nil
}

// Close ends all parts, then the connections. Serve must have returned before.
func (b *Broker) Close() error {
	b.closing.Do(func() {
		by := time.Now().Add(channel.CloseTimeout)
		if slices.ContainsFunc(b.all, (*connection.Connection).IsUnresponsive) {
			by = time.Now() // the time to answer has passed
		}
		for _, c := range b.all {
			c.SetCloseDeadline(by)
		}
		b.stop()
		b.parts.Wait()
		b.disconnect()
		b.connections.Wait()
	})
	return nil
}

// Directory returns the functions that workers of the namespace have announced.
func (b *Broker) Directory() *contract.Directory { return &b.directory }

// Ready waits until the broker can be used. When ctx is done first, the error says
// what is wrong.
func (b *Broker) Ready(ctx context.Context) error {
	for _, c := range []*connection.Connection{b.publish, b.consume} {
		if err := c.Ready(ctx); err != nil {
			return fmt.Errorf("broker not ready: %w", err)
		}
	}
	select {
	case <-b.presence.Discovered:
		return b.caller.Ready(ctx)
	case <-ctx.Done():
		if err := b.Health(); err != nil {
			return fmt.Errorf("broker not ready: %w", err)
		}
		return fmt.Errorf("broker not ready: %w", context.Cause(ctx))
	}
}

// Publish returns nil once RabbitMQ has confirmed the event and did not return it:
// it is stored in every queue that is bound to its key. The errors are:
//
//   - contract.ErrInvalid: AMQP cannot carry the event.
//   - contract.ErrUnroutable: no queue is bound to the key. If a live function listens to
//     it, Publish retries for 0.3 s before.
//   - contract.ErrBlocked: RabbitMQ is short of memory or disk.
//   - contract.ErrUnavailable: there was no connection for 5 s, or ctx was done first.
//   - contract.ErrRefused: a queue is full, in which case other queues may have stored the
//     event, or the broker user may not publish to the exchange. Its field Executed says
//     which.
//   - contract.ErrUnconfirmed: it is unknown whether RabbitMQ stored the event.
//
// After any of the first four, no queue has the event. Publish never waits longer
// than ctx.
func (b *Broker) Publish(ctx context.Context, e contract.Event) error {
	return b.events.Publish(ctx, e)
}

// Call calls the function that serves the routing key of r, and returns its reply.
// Every error is a *contract.Error; see contract.Broker.
func (b *Broker) Call(ctx context.Context, r contract.Call) (contract.Reply, error) {
	return b.caller.Call(ctx, r)
}

// Broadcast sends body to every process of the namespace that listens to the topic,
// including this one. Broadcasts are neither confirmed nor stored.
func (b *Broker) Broadcast(ctx context.Context, topic string, body []byte) error {
	if err := ctx.Err(); err != nil {
		return &contract.Error{Code: contract.CodeUnavailable, Detail: "the broadcast was not sent", Cause: err, Executed: contract.ExecutedNo}
	}
	return b.presence.Broadcast(topic, body)
}

// Listen calls fn with the body of each broadcast on the topic, one at a time,
// until stop is called. fn must not block.
func (b *Broker) Listen(topic string, fn func(body []byte)) (stop func()) {
	return b.presence.Listen(topic, fn)
}

// Health returns nil, or what is wrong at present, in one sentence.
func (b *Broker) Health() error {
	for _, c := range []*connection.Connection{b.publish, b.consume, b.calls, b.work} {
		if err := c.Health(); err != nil {
			return err
		}
	}
	return nil
}

// DeadLetterCounts returns the functions that have dead letters. It knows the
// functions that ever had a queue for them, and those in also.
func (b *Broker) DeadLetterCounts(ctx context.Context, also ...string) ([]contract.DeadLetterCount, error) {
	return b.deadLetters.Counts(ctx, also...)
}

// VisitDeadLetters calls visit with each of the function's dead letters, oldest
// first, and does what it returns; see contract.DeadLetters.
func (b *Broker) VisitDeadLetters(ctx context.Context, function string, visit func(*contract.DeadLetter) (contract.DeadLetterAction, error)) error {
	return b.deadLetters.Visit(ctx, function, visit)
}
