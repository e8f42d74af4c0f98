package services

import (
	"cmp"
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/logs"
	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/memory/remote"
	"github.com/rabbet-fn/rabbet/runtime/rabbit"
)

// A Broker is what the commands use of a broker.
type Broker interface {
	contract.Broker
	contract.DeadLetters
	Serve(ctx context.Context, fns []contract.Function) error
	Directory() *contract.Directory
	Tail(ctx context.Context, pattern string, fn func(contract.Event)) error
	Broadcast(ctx context.Context, topic string, body []byte) error
	Listen(topic string, fn func(body []byte)) (stop func())
	Ready(ctx context.Context) error
	Health() error
	Close() error
}

// brokers are the brokers that there are.
var brokers = table[func(*config.Config, *zap.Logger) (Broker, error)]{
	{dialDev, []string{"memory"}},
	{openRabbit, []string{"amqp", "amqps"}},
}

// OpenBroker opens the broker that c names. Its connections may be established
// later: see Broker.Ready.
func OpenBroker(c *config.Config, log *zap.Logger) (Broker, error) {
	if c.BrokerURLFile != "" {
		return openRabbit(c, log)
	}
	open, err := brokers.find("BROKER_URL", c.BrokerURL)
	if err != nil {
		return nil, err
	}
	return open(c, log)
}

func openRabbit(c *config.Config, log *zap.Logger) (Broker, error) {
	b, err := rabbit.Open(Rabbit(c, log))
	if err != nil {
		variable, value := c.BrokerVariable()
		return nil, config.Unusable(variable, value, "%v", err)
	}
	return b, nil
}

// Rabbit returns how this process connects to RabbitMQ.
func Rabbit(c *config.Config, log *zap.Logger) rabbit.Config {
	cfg := rabbit.Config{
		URL: c.BrokerURL, Namespace: c.Namespace, Process: c.Process, NoBatch: !c.Batch, NoDeclare: !c.Declare,
		Grace: c.Grace, Observe: logs.Invocations(log), Log: log,
	}
	if c.BrokerURLFile != "" {
		cfg.URLFrom = c.ReadBrokerURL
	}
	return cfg
}

// dialDev opens the broker inside the 'rabbet dev' that runs in this folder.
func dialDev(c *config.Config, log *zap.Logger) (Broker, error) {
	b, err := remote.Dial(c.Socket(), remote.Config{Process: c.Process, Grace: c.Grace, Observe: logs.Invocations(log)})
	if err != nil {
		return nil, config.Unusable(config.Prefix+"BROKER_URL", c.BrokerURL, "no 'rabbet dev' runs in this folder (%v): start scripts/dev, or set it to amqp://user:password@host:5672/", errors.Unwrap(err))
	}
	return b, nil
}

// connectTimeout is how long a process waits for its broker at the start.
const connectTimeout = 5 * time.Second

// Dial opens the broker for a command that a person runs, and waits until it is
// usable, for at most 5 s.
func Dial(ctx context.Context, c *config.Config) (Broker, error) {
	b, err := OpenBroker(c, zap.NewNop())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := b.Ready(ctx); err != nil {
		err = cmp.Or(b.Health(), err)
		b.Close()
		return nil, err
	}
	return b, nil
}

// AwaitBroker waits until b is usable. After 5 s it logs a warning and returns:
// the broker may come later.
func AwaitBroker(ctx context.Context, b Broker, log *zap.Logger) {
	waited, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := b.Ready(waited); err != nil && ctx.Err() == nil {
		log.Warn("the broker is not reachable yet: starting without it, and trying again", zap.Error(err))
	}
}
