package main

import (
	"cmp"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/cache"
	"github.com/rabbet-fn/rabbet/runtime/cache/store"
	"github.com/rabbet-fn/rabbet/runtime/faas"
	"github.com/rabbet-fn/rabbet/runtime/memory"
	"github.com/rabbet-fn/rabbet/runtime/rabbit"
	"github.com/rabbet-fn/rabbet/runtime/solo"
)

// broker is what the commands use of rabbit.Broker, memory.Broker and memory.Remote.
type broker interface {
	faas.Broker
	faas.DeadLetters
	Serve(ctx context.Context, fns []faas.Function) error
	Directory() *faas.Directory
	Tail(ctx context.Context, pattern string, fn func(faas.Event)) error
	Broadcast(ctx context.Context, topic string, body []byte) error
	Listen(topic string, fn func(body []byte)) (stop func())
	Ready(ctx context.Context) error
	Health() error
	Close() error
}

// openBroker opens the broker that c names. memory:// is the one inside the
// `rabbet dev` that runs in this folder.
func openBroker(c *config, alone *solo.Switch, log *zap.Logger) (broker, error) {
	if !c.embedded() {
		cfg := c.rabbit(log)
		cfg.Solo = alone
		b, err := rabbit.Open(cfg)
		if err != nil {
			variable, value := c.brokerVariable()
			return nil, unusable(variable, value, "%v", err)
		}
		return b, nil
	}
	b, err := memory.Dial(c.socket(), memory.Config{
		Process: c.Process, Grace: c.Grace, Observe: logInvocations(log), Log: log,
	})
	if err != nil {
		return nil, unusable("BROKER_URL", c.BrokerURL, "no 'rabbet dev' runs in this folder (%v): start scripts/dev, or set it to amqp://user:password@host:5672/", errors.Unwrap(err))
	}
	return b, nil
}

// rabbit is how this process reaches RabbitMQ.
func (c *config) rabbit(log *zap.Logger) rabbit.Config {
	cfg := rabbit.Config{
		URL: c.BrokerURL, Namespace: c.Namespace, Process: c.Process, NoBatch: !c.Batch, NoDeclare: !c.Declare,
		Grace: c.Grace, Observe: logInvocations(log), Log: log,
	}
	if c.BrokerURLFile != "" {
		cfg.URLFrom = c.readBrokerURL
	}
	return cfg
}

// brokerVariable is where the broker URL comes from.
func (c *config) brokerVariable() (variable, value string) {
	if c.BrokerURLFile != "" {
		return "BROKER_URL_FILE", c.BrokerURLFile
	}
	return "BROKER_URL", c.BrokerURL
}

// readBrokerURL reads the file that holds the broker URL as it is now.
func (c *config) readBrokerURL() (string, error) {
	content, err := os.ReadFile(c.BrokerURLFile)
	return strings.TrimSpace(string(content)), err
}

// socket is where `rabbet dev` shares its broker.
func (c *config) socket() string { return filepath.Join(c.Dir, "dev", "broker.sock") }

// connectPatience is how long a command that is used by hand waits for the broker.
const connectPatience = 5 * time.Second

// dial opens the broker for a command that is used by hand, and waits until it is usable.
func dial(ctx context.Context, c *config) (broker, error) {
	b, err := openBroker(c, nil, zap.NewNop())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	if err := b.Ready(ctx); err != nil {
		err = cmp.Or(b.Health(), err)
		b.Close()
		return nil, err
	}
	return b, nil
}

// openCache opens the results cache that c names; nil for none. fallback is
// used when c names nothing. Invalidations are told over over; nil: to nobody.
func openCache(c *config, over cache.Broadcaster, fallback string, log *zap.Logger) (*cache.Results, error) {
	url := cmp.Or(c.CacheURL, fallback)
	if url == "none" {
		return nil, nil
	}
	keys, err := c.cacheKeys()
	if err != nil {
		return nil, err
	}
	s, err := cacheStores.Open(url, store.Options{Log: log})
	if err != nil {
		return nil, unusable("CACHE_URL", url, "%v", err)
	}
	results, err := cache.New(s, cache.Config{
		Namespace: c.Namespace, Process: c.Process, Keys: keys,
		Broadcast: over, Local: int64(c.CacheLocal) << 20, Log: log,
	})
	if err != nil {
		return nil, unusable("CACHE_URL", url, "%v", err)
	}
	return results, nil
}

// devCache reports whether results are kept by `rabbet dev` itself, where that
// runs: in its memory.
func (c *config) devCache() bool {
	return c.CacheURL == "" || strings.HasPrefix(c.CacheURL, "memory://")
}

// refuseOwnCache refuses a results cache that this process alone would have:
// nobody else could invalidate it.
func (c *config) refuseOwnCache() error {
	if c.CacheURL != "" && c.devCache() {
		return unusable("CACHE_URL", c.CacheURL, "memory:// is inside 'rabbet dev' only: use redis:// or memcached://, the same for all ingresses and workers")
	}
	return nil
}

// listen opens a TCP listener at the value of variable.
func listen(variable, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, unusable(variable, addr, "%v: choose a free port or stop what listens there", errors.Unwrap(err))
	}
	return l, nil
}

// readySoon waits for b for the patience of a start, and only warns when that was in vain:
// the broker may come later.
func readySoon(ctx context.Context, b broker, log *zap.Logger) {
	waited, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	if err := b.Ready(waited); err != nil && ctx.Err() == nil {
		log.Warn("the broker is not there yet; going on without, and trying again", zap.Error(err))
	}
}
