package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rabbet-fn/rabbet/runtime/cache/internal/server"
	"github.com/rabbet-fn/rabbet/runtime/cache/store"
)

// node is one server, with the operations that are more than one command.
type node struct {
	*server.Server
	client  *redis.Client
	timeout time.Duration
	onMoved func(ctx context.Context) // is called when a key is on another server now
}

// do runs operation with a ctx that ends after the timeout, unless the circuit
// breaker is open.
func (n *node) do(ctx context.Context, operation func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, n.timeout)
	defer cancel()
	return n.Do(ctx, func() error { return n.check(ctx, operation(limited)) })
}

// doAlways is do even if the circuit breaker is open.
func (n *node) doAlways(ctx context.Context, operation func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, n.timeout)
	defer cancel()
	return n.DoAlways(ctx, func() error { return n.check(ctx, operation(limited)) })
}

func (n *node) check(ctx context.Context, err error) error {
	if _, moved := redis.IsMovedError(err); moved {
		n.onMoved(ctx)
	}
	if redis.IsOOMError(err) {
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	}
	return err
}

// add stores value if nothing is stored, and returns what is stored then. It is
// two commands, because SET with both NX and GET requires Redis 7.
func (n *node) add(ctx context.Context, key string, value []byte, ttl time.Duration) ([]byte, error) {
	pipeline := n.client.Pipeline()
	pipeline.SetNX(ctx, key, value, ttl)
	stored := pipeline.Get(ctx, key)
	_, err := pipeline.Exec(ctx)
	switch {
	case errors.Is(err, redis.Nil), redis.HasErrorPrefix(err, "WRONGTYPE"):
		return nil, fmt.Errorf("%w: %w", store.ErrConflict, err)
	case err != nil:
		return nil, err
	}
	return stored.Bytes()
}

// deleteOnReplicas deletes key, also on a server that is full, and waits for the
// replicas that follow the server. A replica that takes over must not bring the
// value back.
func (n *node) deleteOnReplicas(ctx context.Context, key string) error {
	conn := n.client.Conn() // WAIT is about the writes of its own connection
	defer conn.Close()
	pipeline := conn.Pipeline()
	deleted := pipeline.Del(ctx, key)
	role := pipeline.Do(ctx, "ROLE")
	_, _ = pipeline.Exec(ctx) // each command has its own error
	if err := deleted.Err(); err != nil {
		return err
	}
	replicas, err := countReplicas(role)
	if err != nil || replicas == 0 {
		return err
	}
	timeout := n.timeout / 2
	reached, err := conn.Wait(ctx, replicas, timeout).Result()
	if err == nil && int(reached) < replicas {
		err = fmt.Errorf("%d of %d replicas have taken it within %v", reached, replicas, timeout)
	}
	return err
}

// countReplicas counts the replicas in the answer to ROLE. A server that refuses the
// command is assumed to have none.
func countReplicas(role *redis.Cmd) (int, error) {
	answer, err := role.Slice()
	if _, refused := errors.AsType[redis.Error](err); err != nil && !refused {
		return 0, err // the connection is lost: a replica may have taken over
	}
	if len(answer) < 3 {
		return 0, nil
	}
	replicas, _ := answer[2].([]any)
	return len(replicas), nil
}
