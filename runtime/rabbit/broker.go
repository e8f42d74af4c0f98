// Package rabbit carries events and calls over RabbitMQ: topology, confirmed
// publishing, consuming with settlement, delays, dead letters, calls with
// replies, and the announcements by which processes find each other.
//
// It knows the functions it hosts as contract.Function values only: nothing of
// what they do, of HTTP or of caches.
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

// Broker is this process's place on RabbitMQ. It keeps two connections, one to
// publish and one to consume, so that a broker that blocks publishers still
// gets its acknowledgements. All its methods are safe for concurrent use.
type Broker struct {
	cfg   Config
	names topology.Names
	log   *zap.Logger

	publish *connection.Connection
	consume *connection.Connection
	calls   *connection.Connection // of callers: replies come in by it, so calls wait for no event
	work    *connection.Connection // of request functions: a blocked one must not hold back the acks of consume
	all     []*connection.Connection

	directory   contract.Directory
	publisher   *publish.Publisher
	events      *publish.Events
	deadLetters *deadletter.Store
	delays      *delay.Delays
	caller      *caller.Caller
	presence    *presence.Presence

	stop    context.CancelFunc // ends the parts
	parts   sync.WaitGroup
	unplug  context.CancelFunc // ends the links
	links   sync.WaitGroup
	closing sync.Once
}

// Open returns a Broker that connects in the background, and reconnects for as
// long as it takes. It fails only on a configuration that cannot be used.
// Whoever opens a Broker closes it.
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
	plugged, unplug := context.WithCancel(context.Background())
	b.unplug = unplug
	b.all = []*connection.Connection{b.publish, b.consume, b.calls, b.work}
	for _, l := range b.all {
		l.OnMissingExchange = b.restore
		b.links.Go(func() { l.Run(plugged) })
	}

	running, stop := context.WithCancel(plugged)
	b.stop = stop
	b.parts.Go(func() { b.publisher.Run(running) })
	b.parts.Go(func() { b.delays.Run(running) })
	b.parts.Go(func() { b.presence.Run(running) })
	b.parts.Go(func() { b.caller.Run(running) })
	return b, nil
}

// Close ends what still runs, then the connections. Serve is to have returned
// before: see its ctx.
func (b *Broker) Close() error {
	b.closing.Do(func() {
		by := time.Now().Add(channel.CloseTimeout)
		if slices.ContainsFunc(b.all, (*connection.Connection).IsUnresponsive) {
			by = time.Now() // it has had its time
		}
		for _, l := range b.all {
			l.SetCloseDeadline(by)
		}
		b.stop()
		b.parts.Wait()
		b.unplug()
		b.links.Wait()
	})
	return nil
}

// Directory returns the functions that live on the namespace, as announced.
func (b *Broker) Directory() *contract.Directory { return &b.directory }

// Ready waits until the broker can be used. When ctx ends first, the error
// says what is in the way.
func (b *Broker) Ready(ctx context.Context) error {
	for _, l := range []*connection.Connection{b.publish, b.consume} {
		if err := l.Ready(ctx); err != nil {
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

// Publish returns nil once the broker has confirmed the event and did not
// return it: it stands, safe, in every queue bound to its key. It fails with
// ErrUnroutable (no queue is bound; where a live function listens to the key,
// 0.3 s after the first try), ErrBlocked (the broker is short of memory
// or disk), ErrUnavailable (no connection within 5 s, or ctx) or ErrInvalid; of
// these nothing was taken. With ErrRefused a queue is full, and others may have
// taken it, or the user may not publish there: its Executed says which. With
// ErrUnconfirmed it may have been taken. Waiting ends with ctx always.
func (b *Broker) Publish(ctx context.Context, e contract.Event) error {
	return b.events.Publish(ctx, e)
}

// Call calls the function that answers r's key and returns its reply. Every
// error is an *contract.Error; see contract.Broker.
func (b *Broker) Call(ctx context.Context, r contract.Call) (contract.Reply, error) {
	return b.caller.Call(ctx, r)
}

// Broadcast sends body to every process on the namespace that listens to the
// topic, this one included. It is best effort: nothing is confirmed or kept.
func (b *Broker) Broadcast(ctx context.Context, topic string, body []byte) error {
	if err := ctx.Err(); err != nil {
		return &contract.Error{Code: contract.CodeUnavailable, Detail: "the broadcast was not sent", Cause: err, Executed: contract.ExecutedNo}
	}
	return b.presence.Broadcast(topic, body)
}

// Listen calls fn with the body of each broadcast on the topic, one at a time,
// until stop is called. fn must be quick.
func (b *Broker) Listen(topic string, fn func(body []byte)) (stop func()) {
	return b.presence.Listen(topic, fn)
}

// Health returns nil, or what is wrong now in one sentence.
func (b *Broker) Health() error {
	for _, l := range []*connection.Connection{b.publish, b.consume, b.calls, b.work} {
		if err := l.Health(); err != nil {
			return err
		}
	}
	return nil
}

// DeadLetterCounts lists the functions that have dead letters: of those that ever
// had a queue for them, and of those in also.
func (b *Broker) DeadLetterCounts(ctx context.Context, also ...string) ([]contract.DeadLetterCount, error) {
	return b.deadLetters.Counts(ctx, also...)
}

// VisitDeadLetters calls visit with each of the function's dead letters, oldest
// first, and does what it returns; see contract.DeadLetters.
func (b *Broker) VisitDeadLetters(ctx context.Context, function string, visit func(*contract.DeadLetter) (contract.DeadLetterAction, error)) error {
	return b.deadLetters.Visit(ctx, function, visit)
}
