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
)

// Broker is this process's place on RabbitMQ. It keeps two connections, one to
// publish and one to consume, so that a broker that blocks publishers still
// gets its acknowledgements. All its methods are safe for concurrent use.
type Broker struct {
	cfg   Config
	names names
	log   *zap.Logger

	publish *link
	consume *link
	calls   *link // of callers: replies come in by it, so calls wait for no event
	work    *link // of request functions: a blocked one must not hold back the acks of consume
	all     []*link

	directory contract.Directory
	publisher *publisher
	delays    *delays
	caller    *caller
	system    *system

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
		cfg: cfg, names: names{namespace: cfg.Namespace, fixed: cfg.NoDeclare}, log: cfg.Log,
		publish: newLink(cfg, "publish"), consume: newLink(cfg, "consume"),
		calls: newLink(cfg, "call"), work: newLink(cfg, "work"),
	}
	b.publisher, b.system, b.caller = newPublisher(b, "publish", true), newSystem(b), newCaller(b)
	b.delays = newDelays(b)
	plugged, unplug := context.WithCancel(context.Background())
	b.unplug = unplug
	b.all = []*link{b.publish, b.consume, b.calls, b.work}
	for _, l := range b.all {
		l.missed = b.restore
		b.links.Go(func() { l.run(plugged) })
	}

	running, stop := context.WithCancel(plugged)
	b.stop = stop
	b.parts.Go(func() { b.publisher.run(running) })
	b.parts.Go(func() { b.delays.run(running) })
	b.parts.Go(func() { b.system.run(running) })
	b.parts.Go(func() { b.caller.run(running) })
	return b, nil
}

// Close ends what still runs, then the connections. Serve is to have returned
// before: see its ctx.
func (b *Broker) Close() error {
	b.closing.Do(func() {
		by := time.Now().Add(closeTimeout)
		if slices.ContainsFunc(b.all, (*link).isMute) {
			by = time.Now() // it has had its time
		}
		for _, l := range b.all {
			l.closing(by)
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
	for _, l := range []*link{b.publish, b.consume} {
		if err := l.ready(ctx); err != nil {
			return fmt.Errorf("broker not ready: %w", err)
		}
	}
	select {
	case <-b.system.heard:
		return b.caller.ready(ctx)
	case <-ctx.Done():
		if err := b.Health(); err != nil {
			return fmt.Errorf("broker not ready: %w", err)
		}
		return fmt.Errorf("broker not ready: %w", context.Cause(ctx))
	}
}

// Call calls the function that answers r's key and returns its reply. Every
// error is an *contract.Error; see contract.Broker.
func (b *Broker) Call(ctx context.Context, r contract.Call) (contract.Reply, error) {
	return b.caller.call(ctx, r)
}

// Broadcast sends body to every process on the namespace that listens to the
// topic, this one included. It is best effort: nothing is confirmed or kept.
func (b *Broker) Broadcast(ctx context.Context, topic string, body []byte) error {
	if err := ctx.Err(); err != nil {
		return &contract.Error{Code: contract.CodeUnavailable, Detail: "the broadcast was not sent", Cause: err, Executed: contract.ExecutedNo}
	}
	return b.system.broadcast(topic, body)
}

// Listen calls fn with the body of each broadcast on the topic, one at a time,
// until stop is called. fn must be quick.
func (b *Broker) Listen(topic string, fn func(body []byte)) (stop func()) {
	return b.system.listen(topic, fn)
}

// Health returns nil, or what is wrong now in one sentence.
func (b *Broker) Health() error {
	for _, l := range []*link{b.publish, b.consume, b.calls, b.work} {
		if err := l.health(); err != nil {
			return err
		}
	}
	return nil
}
