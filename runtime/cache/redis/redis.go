// Package redis is a store of the results cache on Redis: one server, the server
// that sentinels name, or a cluster. It knows commands and connections, and nothing
// of what the values mean.
package redis

import (
	"context"
	"fmt"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/cache/internal/server"
	"github.com/rabbet-fn/rabbet/runtime/cache/store"
	"github.com/rabbet-fn/rabbet/runtime/redisurl"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

// poolSize is how many connections to a server there are, unless the URL says
// otherwise.
const poolSize = 64

// Open opens a store on the Redis at url:
//
//	redis://user:password@host:6379/0          rediss:// with TLS
//	redis+sentinel://a:26379,b,c?master_name=m
//	redis+cluster://a:6379,b,c
func Open(url string, o store.Options) (store.Store, error) {
	o = o.WithDefaults()
	options, err := clientOptions(url, o.Timeout)
	if err != nil {
		return nil, err
	}
	logging.Disable() // the client would write to stderr; the circuit breaker logs an outage once
	switch client := redis.NewUniversalClient(options).(type) {
	case *redis.ClusterClient:
		return &redisStore{client, newCluster(client, o)}, nil
	case *redis.Client:
		return &redisStore{client, newSingle(client, o)}, nil
	default:
		return nil, fmt.Errorf("redis client of type %T", client)
	}
}

// clientOptions makes the client end every operation by its timeouts, and send
// no write twice: see store.Store.Add.
func clientOptions(url string, timeout time.Duration) (*redis.UniversalOptions, error) {
	o, err := redisurl.Parse(url)
	if err != nil {
		return nil, err
	}
	if o.PoolSize == 0 {
		o.PoolSize = poolSize
	}
	o.Protocol = 2 // without push messages, which the client would look for before each command
	o.ReadTimeout, o.WriteTimeout, o.PoolTimeout, o.DialTimeout = timeout, timeout, timeout, 2*timeout
	o.MaxRetries, o.DialerRetries = -1, 1
	o.MaxRedirects = 2 // in a cluster, of reads: a write is sent to the server that has the key
	return o, nil
}

// redisStore is a store.Store on Redis servers of any topology.
type redisStore struct {
	client   redis.UniversalClient
	topology topology
}

// A topology knows which server has a key.
type topology interface {
	// get reads keys from the servers that have them.
	get(ctx context.Context, keys []string, values [][]byte) error
	// node returns the server that has key.
	node(ctx context.Context, key string) (*node, error)
}

func (s *redisStore) Get(ctx context.Context, keys []string, values [][]byte) error {
	return s.topology.get(ctx, keys, values)
}

func (s *redisStore) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	n, err := s.topology.node(ctx, key)
	if err != nil {
		return err
	}
	return n.do(ctx, func(ctx context.Context) error {
		return server.Retry(func() error { return n.client.Set(ctx, key, value, ttl).Err() })
	})
}

func (s *redisStore) Add(ctx context.Context, key string, value []byte, ttl time.Duration) (stored []byte, err error) {
	n, err := s.topology.node(ctx, key)
	if err != nil {
		return nil, err
	}
	err = n.do(ctx, func(ctx context.Context) error {
		stored, err = n.add(ctx, key, value, ttl)
		return err
	})
	return stored, err
}

func (s *redisStore) Delete(ctx context.Context, key string) error {
	n, err := s.topology.node(ctx, key)
	if err != nil {
		return err
	}
	return n.do(ctx, func(ctx context.Context) error { return n.client.Del(ctx, key).Err() })
}

func (s *redisStore) Invalidate(ctx context.Context, key string) error {
	n, err := s.topology.node(ctx, key)
	if err != nil {
		return err
	}
	return n.doAlways(ctx, func(ctx context.Context) error { return n.deleteOnReplicas(ctx, key) })
}

func (s *redisStore) Shared() bool { return true }

func (s *redisStore) Close() error { return s.client.Close() }
