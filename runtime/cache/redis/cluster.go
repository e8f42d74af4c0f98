package redis

import (
	"context"
	"errors"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/rabbet-fn/rabbet/runtime/cache/internal/server"
	"github.com/rabbet-fn/rabbet/runtime/cache/store"
)

// cluster is a topology of many servers, each with a part of the keys.
type cluster struct {
	client  *redis.ClusterClient
	options store.Options
	slots   *server.Breaker // of the question which server has a key
	nodes   sync.Map        // *node by address
}

func newCluster(client *redis.ClusterClient, o store.Options) *cluster {
	return &cluster{client: client, options: o, slots: server.NewBreaker(o.Log)}
}

func (c *cluster) get(ctx context.Context, keys []string, values [][]byte) error {
	return server.GetFromAll(ctx, keys, values, func(key string) (*server.Server, error) {
		n, err := c.node(ctx, key)
		if err != nil {
			return nil, err
		}
		return n.Server, nil
	})
}

func (c *cluster) node(ctx context.Context, key string) (*node, error) {
	if !c.slots.Allow() {
		return nil, store.ErrCircuitOpen
	}
	limited, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	client, err := c.client.MasterForKey(limited, key)
	if err == nil || ctx.Err() == nil { // a caller that gives up says nothing about the cluster
		c.slots.Record(err)
	}
	if err != nil {
		return nil, err
	}
	address := client.Options().Addr
	if known, ok := c.nodes.Load(address); ok && known.(*node).client == client {
		return known.(*node), nil
	}
	// The server is new, or it was out of the cluster meanwhile: then the client has
	// closed its connections, and has others.
	n := c.newNode(address, client)
	c.nodes.Store(address, n)
	return n, nil
}

func (c *cluster) newNode(address string, client *redis.Client) *node {
	return &node{
		Server: server.New(address, c.options.Log, c.fetch),
		client: client, timeout: c.options.Timeout, onMoved: c.client.ReloadState,
	}
}

// fetch reads keys of one server with one pipeline of GET commands, because the
// keys of an MGET must be in one slot. The client finds the keys that have moved
// to another server.
func (c *cluster) fetch(keys []string, values [][]byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.options.Timeout)
	defer cancel()
	pipeline := c.client.Pipeline()
	replies := make([]*redis.StringCmd, len(keys))
	for i, key := range keys {
		replies[i] = pipeline.Get(ctx, key)
	}
	_, _ = pipeline.Exec(ctx) // each command has its own error
	for i, reply := range replies {
		value, err := reply.Bytes()
		switch {
		case errors.Is(err, redis.Nil), redis.HasErrorPrefix(err, "WRONGTYPE"):
			values[i] = nil
		case err != nil:
			return err
		default:
			values[i] = value
		}
	}
	return nil
}
