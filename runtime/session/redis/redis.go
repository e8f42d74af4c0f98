// Package redis is a store of sessions on Redis 6.2 or later, for any number of
// processes.
package redis

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/rabbet-fn/rabbet/runtime/redisurl"
	"github.com/rabbet-fn/rabbet/runtime/session/store"
)

// poolSize is the number of connections to a server, unless the URL says otherwise.
const poolSize = 64

// redisStore replaces goredisstore of scs, which overwrites concurrent changes and
// does not support clusters. Each operation is one command on one key.
type redisStore struct{ client redis.UniversalClient }

// Open opens a store on the Redis at url; see redisurl.Parse. It does not connect.
func Open(url string, options store.Options) (store.Store, error) {
	options = options.WithDefaults()
	o, err := redisurl.Parse(url)
	if err != nil {
		return nil, err
	}
	logging.Disable() // the client would write to stderr; errors are returned
	if o.PoolSize == 0 {
		o.PoolSize = poolSize
	}
	o.ReadTimeout, o.WriteTimeout, o.PoolTimeout, o.DialTimeout = options.Timeout, options.Timeout, options.Timeout, options.Timeout
	o.DialerRetries = 1
	// A write that is repeated because its answer was lost would find the value changed.
	o.MaxRetries = -1
	return &redisStore{redis.NewUniversalClient(o)}, nil
}

func (r *redisStore) Find(ctx context.Context, key string, idle time.Duration) ([]byte, error) {
	b, err := r.client.GetEx(ctx, key, idle).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return b, err
}

var (
	swapScript = redis.NewScript(`
		if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
		redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
		return 1`)
	deleteScript = redis.NewScript(`
		if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
		return redis.call('DEL', KEYS[1])`)
)

func (r *redisStore) Swap(ctx context.Context, key string, old, value []byte, ttl time.Duration) (bool, error) {
	ttl = max(ttl, time.Millisecond) // Redis refuses shorter ones
	if old == nil {
		return r.client.SetNX(ctx, key, value, ttl).Result()
	}
	return swapScript.Run(ctx, r.client, []string{key}, old, value, ttl.Milliseconds()).Bool()
}

func (r *redisStore) DeleteIf(ctx context.Context, key string, old []byte) (bool, error) {
	return deleteScript.Run(ctx, r.client, []string{key}, old).Bool()
}

func (r *redisStore) Delete(ctx context.Context, key string) error {
	return r.client.Del(ctx, key).Err()
}

func (r *redisStore) Close() error { return r.client.Close() }
