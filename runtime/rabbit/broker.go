// Package rabbit carries events and calls over RabbitMQ: topology, confirmed
// publishing, consuming with settlement, delays, dead letters, calls with
// replies, and the announcements by which processes find each other.
//
// It knows the functions it hosts as faas.Function values only: nothing of
// what they do, of HTTP or of caches.
package rabbit

import (
	"context"
	"fmt"
	"sync"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/faas"
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

	directory faas.Directory

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
		cfg: cfg, names: names(cfg.Namespace), log: cfg.Log,
		publish: newLink(cfg, "publish"), consume: newLink(cfg, "consume"),
	}
	plugged, unplug := context.WithCancel(context.Background())
	b.unplug = unplug
	b.links.Go(func() { b.publish.run(plugged) })
	b.links.Go(func() { b.consume.run(plugged) })

	running, stop := context.WithCancel(plugged)
	b.stop = stop
	_ = running
	return b, nil
}

// Close ends what still runs, then the connections. Serve is to have returned
// before: see its ctx.
func (b *Broker) Close() error {
	b.closing.Do(func() {
		b.stop()
		b.parts.Wait()
		b.unplug()
		b.links.Wait()
	})
	return nil
}

// Directory returns the functions that live on the namespace, as announced.
func (b *Broker) Directory() *faas.Directory { return &b.directory }

// Ready waits until the broker can be used. When ctx ends first, the error
// says what is in the way.
func (b *Broker) Ready(ctx context.Context) error {
	for _, l := range []*link{b.publish, b.consume} {
		if err := l.ready(ctx); err != nil {
			return fmt.Errorf("broker not ready: %w", err)
		}
	}
	return nil
}

// Health returns nil, or what is wrong now in one sentence.
func (b *Broker) Health() error {
	if err := b.publish.health(); err != nil {
		return err
	}
	return b.consume.health()
}
