package rabbit

import (
	"context"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/connection"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/provision"
	"github.com/rabbet-fn/rabbet/runtime/rabbit/internal/topology"
)

// Topology is all that functions need on the broker when processes may declare
// nothing themselves (Config.NoDeclare). It differs from what they declare in
// one thing: no queue is deleted after its last worker, because it could not be
// declared again. A call of a function without workers therefore waits for one,
// until its deadline.
type Topology struct{ plan provision.Plan }

// Difference is one way in which the broker differs from a Topology.
type Difference = provision.Difference

// TopologyOf returns what the functions need, and what every process needs.
func TopologyOf(namespace string, fns []contract.Descriptor) (Topology, error) {
	cfg := Config{Namespace: namespace, URL: "amqp://localhost"}.withDefaults()
	if err := cfg.validate(); err != nil {
		return Topology{}, err
	}
	return Topology{provision.New(topology.Names{Namespace: cfg.Namespace, Predeclared: true}, fns)}, nil
}

// Definitions returns the topology in the format of RabbitMQ's own tools
// (rabbitmqctl import_definitions, load_definitions, the management API), for a
// virtual host.
func (t Topology) Definitions(vhost string) ([]byte, error) { return t.plan.Definitions(vhost) }

// Apply declares what of the topology is missing, and calls report with it. It
// changes and deletes nothing: what exists with other properties is an error,
// and the rest is declared all the same.
func (t Topology) Apply(ctx context.Context, cfg Config, report func(what string)) error {
	c, closeConnection, err := connect(ctx, cfg)
	if err != nil {
		return err
	}
	defer closeConnection()
	return t.plan.Apply(ctx, c, report)
}

// Diff compares the topology with the broker. management is the URL of the
// broker's management API, whose user needs the tag monitoring. Without it,
// bindings are not compared, of what differs only the first argument is known,
// and the user of cfg needs permission to declare: unchecked then says what
// could not be compared, and why.
func (t Topology) Diff(ctx context.Context, cfg Config, management string) (differences []Difference, unchecked []string, err error) {
	if management != "" {
		vhost, err := cfg.VHost()
		if err != nil {
			return nil, nil, err
		}
		differences, err = t.plan.DiffByManagement(ctx, management, vhost)
		return differences, nil, err
	}
	c, closeConnection, err := connect(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	defer closeConnection()
	return t.plan.Diff(ctx, c)
}

// connect opens a connection with the settings of cfg.
func connect(ctx context.Context, cfg Config) (c *connection.Connection, closeConnection func(), err error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, nil, err
	}
	return connection.Open(ctx, cfg.connection())
}
